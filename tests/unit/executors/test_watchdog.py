"""The report of a turn that holds up its event loop."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Callable

import pytest

from durably.executors.watchdog import Watchdog, _Patrol
from durably.program.context import OrchestrationContext
from durably.program.run import ProgramOptions
from tests.support.waiting import eventually
from tests.unit.program.harness import Play


@pytest.fixture(autouse=True)
def watching(monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """A patrol of our own, since other tests may have left watchdogs; tells whether its thread is there."""
    patrol = _Patrol()
    monkeypatch.setattr("durably.executors.watchdog._patrol", patrol)
    return lambda: patrol._thread is not None


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true() and time.monotonic() < end:
        threading.Event().wait(0.005)
    assert true()


def test_a_slow_turn_is_reported_once_with_its_stack(
    caplog: pytest.LogCaptureFixture, watching: Callable[[], bool]
) -> None:
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
    assert not watching()


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


def test_watchdogs_share_a_thread_and_a_dropped_one_leaves_none(watching: Callable[[], bool]) -> None:
    threads = threading.active_count()
    first, second = Watchdog(ProgramOptions(), 0.02), Watchdog(ProgramOptions(), 0.02)
    first.start()
    second.start()
    assert watching()
    assert threading.active_count() <= threads + 1
    first.close()
    assert watching()
    del second
    gc.collect()
    wait_until(lambda: not watching())
    third = Watchdog(ProgramOptions(), 0.02)
    third.start()
    assert watching()
    third.close()
    assert not watching()


def test_a_loop_that_turns_is_not_reported_and_a_closed_watchdog_leaves_no_timer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def turn() -> None:
        dog = Watchdog(ProgramOptions(), 0.4)
        dog.start()
        heart = dog.heart
        assert heart is not None
        await eventually(lambda: heart.beats > 5, "the heart to beat")
        dog.close()
        last = heart.beats
        await asyncio.sleep(0.15)
        assert heart.beats == last

    asyncio.run(turn())
    assert caplog.records == []


def test_a_loop_that_is_held_up_is_reported_once_with_its_function(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "durably.watchdog")
    dog = Watchdog(ProgramOptions(), 0.02)

    async def rude() -> None:
        dog.start()
        wait_until(lambda: bool(caplog.records))
        threading.Event().wait(0.1)
        dog.close()

    asyncio.run(rude())
    (record,) = caplog.records
    assert "event loop has been held up for more than 0.02 s" in record.getMessage()
    assert "in rude" in record.getMessage()
