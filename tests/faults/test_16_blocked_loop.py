"""Scenario 16: user code holds up the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import time
from pathlib import Path

import pytest

from durably import App, EngineOptions, OrchestrationContext
from durably.errors import HubLockedError
from durably.storage.sqlite.store import SqliteStore
from tests.faults.checker import check_file
from tests.faults.evidence import Evidence


class Blocking:
    """An app whose async activity sleeps as if it were a thread, while another one runs in a thread."""

    def __init__(self, seconds: float) -> None:
        self.app = App()
        self.ticks = 0
        self.over = threading.Event()

        @self.app.activity
        async def rude() -> str:
            time.sleep(seconds)  # noqa: ASYNC251 - that is the fault
            self.over.set()
            return "slept"

        @self.app.activity
        def polite() -> int:
            while not self.over.wait(0.05):
                self.ticks += 1
            return self.ticks

        @self.app.orchestrator
        async def both(ctx: OrchestrationContext) -> list[object]:
            thread = ctx.call_activity(polite)
            await ctx.create_timer(0.05)
            return list(await asyncio.gather(ctx.call_activity(rude), thread))


async def _live(evidence: Evidence, seconds: float) -> tuple[list[object], list[str]]:
    blocking = Blocking(seconds)
    refused: list[str] = []

    def second_host() -> None:
        async def try_it() -> None:
            store = SqliteStore(str(evidence.hub))
            await store.open()
            with contextlib.suppress(HubLockedError):
                await store.acquire(0, "second")
                refused.append("taken over")
            await store.close()
            refused.append("refused")

        while not blocking.ticks:
            time.sleep(0.01)
        asyncio.run(try_it())

    rival = threading.Thread(target=second_host)
    async with blocking.app.host(evidence.url, options=EngineOptions(slow_turn_s=0.5)) as host:
        rival.start()
        handle = await host.client.start("both", instance_id="b")
        result = await handle.result(timeout=seconds + 20)
    rival.join()
    return result, refused


def blocked(evidence: Evidence, seconds: float, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "durably"):
        result, refused = asyncio.run(_live(evidence, seconds))
    slept, ticks = result
    assert slept == "slept"
    assert isinstance(ticks, int)
    assert ticks >= seconds / 0.05 / 3  # what runs in threads went on
    assert refused == ["refused"]
    said = [record.getMessage() for record in caplog.records if "event loop" in record.getMessage()]
    assert len(said) == 1
    for words in ("in rude", "test_16_blocked_loop.py", "time.sleep(seconds)", "plain def"):
        assert words in said[0], said[0]
    check_file(evidence)
    sys.stdout.write(f"held up for {seconds:g} s; {ticks} ticks of the thread meanwhile\n")


@pytest.mark.slow_once
def test_a_loop_that_is_held_up_is_reported_and_keeps_its_hub(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked(Evidence.in_folder(tmp_path), 3, caplog)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_loop_that_is_held_up_for_half_a_minute(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked(Evidence.in_folder(tmp_path), 30, caplog)
