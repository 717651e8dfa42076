"""The only place that reads the time, draws random ids, or sets a wake-up: two ports and their real form."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Protocol

_NAP_MAX_S = 1.0
"""A timer notices at the latest after so long that the wall clock was set ahead."""


class Wakeup(Protocol):
    """A wake-up that has been set and may be cancelled."""

    def cancel(self) -> None:
        """Take the wake-up back; harmless when it already rang."""
        ...


class Clock(Protocol):
    """What the engine knows of time. All instants are microseconds since 1970-01-01 UTC."""

    def now(self) -> int:
        """The wall clock, in microseconds. It may jump, also backwards; callers keep their own maximum."""
        ...

    def call_at(self, when: int, callback: Callable[[], None]) -> Wakeup:
        """Call back on the host loop once `now() >= when`, never before; a past `when` rings on the next turn."""
        ...

    def call_later(self, delay: int, callback: Callable[[], None]) -> Wakeup:
        """Call back on the host loop after so many microseconds, whatever the wall clock does meanwhile.

        For patience, polls and retries: a clock that is set back by an hour must not make them wait for it.
        """
        ...


class Random(Protocol):
    """Where fresh ids come from."""

    def token(self) -> str:
        """A new id of 32 hex digits, unique for all practical purposes."""
        ...


class SystemClock:
    """The machine's clock; wake-ups ring on the running asyncio loop."""

    def now(self) -> int:
        """See `Clock.now`."""
        return time.time_ns() // 1000

    def call_at(self, when: int, callback: Callable[[], None]) -> Wakeup:
        """See `Clock.call_at`.

        The loop sleeps by the monotonic clock, which may run a little ahead of the wall clock, so the instant is
        checked again when the loop wakes up. A sleep is never longer than a second: the wall clock may have jumped.
        """
        return _LoopWakeup(self, when, callback)

    def call_later(self, delay: int, callback: Callable[[], None]) -> Wakeup:
        """See `Clock.call_later`."""
        return asyncio.get_running_loop().call_later(delay / 1_000_000, callback)


class _LoopWakeup:
    __slots__ = ("_callback", "_clock", "_handle", "_when")

    def __init__(self, clock: SystemClock, when: int, callback: Callable[[], None]) -> None:
        self._clock, self._when, self._callback = clock, when, callback
        self._handle = asyncio.get_running_loop().call_later(self._sleep_s(), self._ring)

    def _sleep_s(self) -> float:
        return min(max(0, self._when - self._clock.now()) / 1_000_000, _NAP_MAX_S)

    def _ring(self) -> None:
        if self._clock.now() >= self._when:
            self._callback()
        else:
            self._handle = asyncio.get_running_loop().call_later(max(self._sleep_s(), 0.0005), self._ring)

    def cancel(self) -> None:
        self._handle.cancel()


class SystemRandom:
    """The operating system's randomness, asked for a page at a time: a system call for each id would show."""

    def __init__(self) -> None:
        self._pool = ""
        self._at = 0

    def token(self) -> str:
        """See `Random.token`."""
        start = self._at
        if start >= len(self._pool):
            self._pool = os.urandom(4096).hex()
            start = 0
        self._at = start + 32
        return self._pool[start : start + 32]
