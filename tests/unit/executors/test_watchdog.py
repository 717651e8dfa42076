"""The report of a turn that holds up its event loop."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable

import pytest

from durably.executors.watchdog import Watchdog
from durably.program.context import OrchestrationContext
from durably.program.run import ProgramOptions
from tests.unit.program.harness import Play


def watching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "durably-watchdog"]


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true() and time.monotonic() < end:
        threading.Event().wait(0.005)
    assert true()


def test_a_slow_turn_is_reported_once_with_its_stack(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "durably.watchdog")
    options = ProgramOptions()
    dog = Watchdog(options, 0.02)
    dog.start()
    dog.start()

    async def slow(ctx: OrchestrationContext) -> None:
        wait_until(lambda: bool(caplog.records))
        threading.Event().wait(0.1)  # time enough for a second report

    try:
        Play(slow, options=options, shadow=False)
    finally:
        dog.close()
        dog.close()
    (record,) = caplog.records
    text = record.getMessage()
    assert text.startswith("Turn of instance 'play' has run for more than 0.02 s")
    assert "in slow" in text
    assert watching() == []


def test_turns_of_others_and_many_quick_turns_are_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    options = ProgramOptions()
    dog = Watchdog(options, 0.02)
    dog.start()

    async def slow(ctx: OrchestrationContext) -> None:
        threading.Event().wait(0.1)

    async def quick(ctx: OrchestrationContext) -> None:
        while True:
            await ctx.call_activity("a")

    try:
        Play(slow, options=ProgramOptions(), shadow=False)
        play = Play(quick, options=options, shadow=False)
        end = time.monotonic() + 0.1
        seq = 0
        while time.monotonic() < end:
            play.complete(seq)
            seq += 1
    finally:
        dog.close()
    assert caplog.records == []


def test_watchdogs_share_a_thread_and_a_dropped_one_leaves_none() -> None:
    first, second = Watchdog(ProgramOptions(), 0.02), Watchdog(ProgramOptions(), 0.02)
    first.start()
    second.start()
    assert len(watching()) == 1
    first.close()
    assert len(watching()) == 1
    del second
    gc.collect()
    wait_until(lambda: watching() == [])
    third = Watchdog(ProgramOptions(), 0.02)
    third.start()
    assert len(watching()) == 1
    third.close()
    assert watching() == []
