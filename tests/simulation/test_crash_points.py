"""Every crash point, enumerated: the host dies at each commit, before it is applied and after, and at each recovery."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from durably.app import AppHost
from durably.codec.keys import EncryptionKeys
from durably.codec.wrap import Box
from durably.core.commit import Batch
from durably.core.invariants import check_instance
from durably.core.status import TERMINAL
from durably.engine.options import EngineOptions
from durably.errors import InstanceStateError, OperationError, OrchestrationFailedError
from durably.storage.api import Lease, Snapshot, StoredInstance
from durably.storage.memory import MemoryHub, MemoryStore
from durably.storage.wrapped import WrappedStore
from durably.storage.wrapping import Wrapping
from durably.testing.sim_loop import SimClock, SimLoop, SimRandom
from durably.testing.sim_programs import build_app, expected

SCENARIOS = [("chain", 3), ("fan", 4), ("retried", 2), ("race", 1), ("ring", 4), ("parent", 2), ("ping", 2)]
BROKEN = [("mended", 4), ("line", 2)]
"""Programs that fail, are mended, and are rewound."""

ATTEMPTS = {"retried": 3, "mended": 2, "line": 3}
"""How often a call may run without any crash; 1 for the others."""


KEYS = EncryptionKeys({"k1": bytes(range(32))})


class CrashError(BaseException):
    """The process is gone."""


class CrashStore(MemoryStore):
    """Dies at the k-th call of one kind."""

    def __init__(self, hub: MemoryHub, reach: Callable[[str], None]) -> None:
        super().__init__(hub)
        self._reach = reach

    def commit(self, lease: Lease, batch: Batch) -> asyncio.Future[None]:
        return asyncio.ensure_future(self._commit(lease, batch))

    async def _commit(self, lease: Lease, batch: Batch) -> None:
        self._reach("before commit")
        await super().commit(lease, batch)
        check_hub(self.hub)
        self._reach("after commit")

    async def load(self, lease: Lease, timers_until: int) -> Snapshot:
        self._reach("before recovery")
        snapshot = await super().load(lease, timers_until)
        self._reach("after recovery")
        return snapshot


def check_hub(hub: MemoryHub) -> None:
    wrapping = Wrapping(1, Box(KEYS, hub.hub_id, os.urandom) if hub.keys else None)
    for _, row in hub.instances.values():
        timers = [timer for timer in hub.timers.values() if timer.instance_id == row.instance_id]
        inbox = [message for message in hub.inbox.values() if message.instance_id == row.instance_id]
        stored = StoredInstance(row, hub.history.get(row.execution, []), inbox)
        used = wrapping.stored_instance(stored)
        check_instance(used.row, used.history, timers, used.inbox)


class Scenario:
    """One program, one crash point, as many hosts as it takes."""

    def __init__(
        self, loop: SimLoop, program: str, size: int, point: str, k: int, *, keys: EncryptionKeys | None
    ) -> None:
        self.keys = keys
        self.program, self.size, self.point, self.k = program, size, point, k
        self.clock = SimClock(loop)
        self.random = SimRandom(random.Random(7))
        self.hub = MemoryHub()
        self.reached: Counter[str] = Counter()
        self.crashed = asyncio.Event()
        self.fired = 0
        self.runs: Counter[str] = Counter()
        self.broken = (program, size) in BROKEN
        self.app = build_app(self._runs, lambda _: self.broken)

    async def _runs(self, key: str) -> None:
        self.runs[key] += 1
        await asyncio.sleep(0.01)

    def reach(self, point: str) -> None:
        """Die at the k-th arrival, and once more at the second recovery after it."""
        self.reached[point] += 1
        if point == self.point and self.reached[point] == self.k:
            self.fired += 1
            self.crashed.set()
            raise CrashError

    async def run(self) -> Any:
        for _ in range(4):
            host = await self._boot()
            if host is None:
                continue
            work = asyncio.create_task(self._drive(host))
            crash = asyncio.create_task(self.crashed.wait())
            await asyncio.wait({work, crash}, return_when=asyncio.FIRST_COMPLETED)
            if work.done() and not self.crashed.is_set():
                crash.cancel()
                result = await work
                await host.stop()
                return result
            self._die(host)
            work.cancel()
            await asyncio.gather(work, crash, return_exceptions=True)
        raise AssertionError("it never came to an end")

    async def _boot(self) -> AppHost | None:
        self.crashed = asyncio.Event()
        options = EngineOptions(turns_per_batch=3, max_resident_instances=3, slow_turn_s=0)
        store = WrappedStore(CrashStore(self.hub, self.reach), self.keys, compress_above=1)
        host = AppHost(self.app, store, options, self.clock, self.random)
        try:
            await host.start()
        except (CrashError, OperationError):
            self._die(host)
            return None
        return host

    @staticmethod
    def _die(host: AppHost) -> None:
        host.engine.abandon()
        store = host.engine.store
        assert isinstance(store, WrappedStore)
        assert isinstance(store.inner, MemoryStore)
        store.inner.abandon()

    async def _drive(self, host: AppHost) -> Any:
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


def event_row(n: int) -> Any:
    from durably.core.commit import InboxRow
    from durably.core.history import encode_body
    from durably.core.messages import RaiseEvent

    return InboxRow(f"e{n}", "x", 0, encode_body(RaiseEvent("item", str(n).encode())))


def run_once(
    program: str, size: int, point: str, k: int, keys: EncryptionKeys | None = None
) -> tuple[Any, Scenario]:
    loop = SimLoop()
    loop.set_exception_handler(lambda loop, context: None)  # the crash surfaces in callbacks that die with it
    made: list[Scenario] = []

    async def main() -> Any:
        made.append(Scenario(loop, program, size, point, k, keys=keys))
        return await made[0].run()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(main())
    return result, made[0]


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    log = logging.getLogger("durably")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)  # what goes wrong is meant to
    yield
    log.setLevel(level)


@pytest.mark.parametrize("point", ["before commit", "after commit", "before recovery", "after recovery"])
@pytest.mark.parametrize(("program", "size"), [*SCENARIOS, *BROKEN])
def test_the_result_is_the_same_wherever_the_host_dies(program: str, size: int, point: str) -> None:
    die_everywhere(program, size, point)


@pytest.mark.parametrize("point", ["before commit", "after commit", "after recovery"])
@pytest.mark.parametrize(("program", "size"), [("retried", 2), ("ring", 4), ("parent", 2), ("mended", 4)])
def test_an_encrypted_hub_is_no_other_hub(program: str, size: int, point: str) -> None:
    die_everywhere(program, size, point, KEYS)


def die_everywhere(program: str, size: int, point: str, keys: EncryptionKeys | None = None) -> None:
    k = 1
    while True:
        result, scenario = run_once(program, size, point, k, keys)
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
