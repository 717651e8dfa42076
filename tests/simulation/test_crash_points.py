"""Every crash point, enumerated: the host dies at each commit, before it is applied and after, and at each recovery."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest

from durably.app import App, AppHost
from durably.codec.keys import EncryptionKeys
from durably.core.commit import InboxRow
from durably.core.history import encode_body
from durably.core.messages import RaiseEvent
from durably.core.status import TERMINAL
from durably.errors import InstanceStateError, OrchestrationFailedError
from durably.testing.sim_loop import SimLoop
from durably.testing.sim_programs import build_app, expected
from tests.simulation.crashing import KEYS, Scenario, play
from tests.support.shares import once_but

SCENARIOS = [("chain", 3), ("fan", 4), ("retried", 2), ("race", 1), ("ring", 4), ("parent", 2), ("ping", 2)]
BROKEN = [("mended", 4), ("line", 2)]
"""Programs that fail, are mended, and are rewound."""

ATTEMPTS = {"retried": 3, "mended": 2, "line": 3}
"""How often a call may run without any crash; 1 for the others."""


class Program(Scenario):
    """One program of the simulation."""

    def __init__(
        self, loop: SimLoop, program: str, size: int, point: str, k: int, *, keys: EncryptionKeys | None
    ) -> None:
        self.program, self.size = program, size
        self.runs: Counter[str] = Counter()
        self.broken = (program, size) in BROKEN
        super().__init__(loop, point, k, keys=keys)

    def build(self) -> App:
        return build_app(self._runs, lambda _: self.broken)

    async def _runs(self, key: str) -> None:
        self.runs[key] += 1
        await asyncio.sleep(0.01)

    async def drive(self, host: AppHost) -> Any:
        given: Any = {"n": self.size, "got": []} if self.program == "ring" else self.size
        handle = await host.client.start(self.program, given, instance_id="x", on_existing="attach")
        if self.program == "ring":
            status = await handle.status()
            assert status is not None
            if not status.runtime_status.is_terminal:
                for n in range(self.size):
                    await host.engine.store.post([event_row(n)])
        while True:
            try:
                return await handle.result()
            except OrchestrationFailedError:
                self.broken = False
            with suppress(
                InstanceStateError
            ):  # it was rewound already, and that host died before it could say so
                await handle.rewind()


def event_row(n: int) -> InboxRow:
    return InboxRow(f"e{n}", "x", 0, encode_body(RaiseEvent("item", str(n).encode())))


@pytest.mark.parametrize(
    "point",
    once_but(["before commit", "after commit", "before recovery", "after recovery"], {"after commit"}),
)
@pytest.mark.parametrize(("program", "size"), [*SCENARIOS, *BROKEN])
def test_the_result_is_the_same_wherever_the_host_dies(program: str, size: int, point: str) -> None:
    die_everywhere(program, size, point)


@pytest.mark.parametrize(
    "point", once_but(["before commit", "after commit", "after recovery"], {"after commit"})
)
@pytest.mark.parametrize(("program", "size"), [("retried", 2), ("ring", 4), ("parent", 2), ("mended", 4)])
def test_an_encrypted_hub_is_no_other_hub(program: str, size: int, point: str) -> None:
    die_everywhere(program, size, point, KEYS)


def die_everywhere(program: str, size: int, point: str, keys: EncryptionKeys | None = None) -> None:
    k = 1
    while True:
        result, scenario = play(lambda loop, k=k: Program(loop, program, size, point, k, keys=keys))
        assert result == expected(program, size), f"{point} #{k}"
        assert all(row.status in TERMINAL for _, row in scenario.hub.instances.values()), f"{point} #{k}"
        assert not scenario.hub.inbox, f"{point} #{k}"
        assert not scenario.hub.timers, f"{point} #{k}"
        again = ATTEMPTS.get(program, 1)
        assert all(runs <= again + scenario.fired for runs in scenario.runs.values()), f"{point} #{k}"
        if not scenario.fired:
            break
        k += 1
    assert k > 1, "no crash point was reached"
