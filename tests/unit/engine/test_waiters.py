"""Callers that wait for an end: all are told, once, and those who left are forgotten."""

from __future__ import annotations

import asyncio

import pytest

from durably import HubClosedError
from durably.core.status import Outcome
from durably.engine.waiters import Waiters

DONE = Outcome("Completed", b"1", None)


async def test_everybody_who_waits_for_an_instance_is_told_of_its_end() -> None:
    waiters = Waiters()
    first, second, other = waiters.add("i"), waiters.add("i"), waiters.add("j")
    waiters.ended("i", DONE)
    assert await asyncio.gather(first, second) == [DONE, DONE]
    assert not other.done()


async def test_who_stopped_waiting_is_left_alone() -> None:
    waiters = Waiters()
    first, second = waiters.add("i"), waiters.add("i")
    waiters.discard("i", first)
    waiters.discard("i", first)
    waiters.ended("i", DONE)
    assert not first.done()
    assert await second == DONE


async def test_an_end_that_nobody_waits_for_is_nothing() -> None:
    waiters = Waiters()
    waiters.ended("i", DONE)
    waiter = waiters.add("i")
    waiters.discard("i", waiter)
    waiters.ended("i", DONE)
    waiters.discard("nobody", waiter)


async def test_a_caller_that_was_cancelled_does_not_stop_the_others() -> None:
    waiters = Waiters()
    first, second = waiters.add("i"), waiters.add("i")
    first.cancel()
    waiters.ended("i", DONE)
    assert await second == DONE


async def test_all_are_told_when_the_host_goes_away() -> None:
    waiters = Waiters()
    waiting = [waiters.add("i"), waiters.add("j")]
    waiters.fail(HubClosedError("the host stops"))
    for waiter in waiting:
        with pytest.raises(HubClosedError):
            await waiter
