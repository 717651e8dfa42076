"""A clock that moves when it is told to."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from durably.core.timeline import instant
from durably.program.durations import micros_of, microseconds

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
"""Where virtual time begins unless told otherwise: the same instant on every run."""


class VirtualClock:
    """Implements `durably.clock.Clock`: stands still until it is moved, and then jumps.

    Args:
        start: Where it begins (naive means UTC).
    """

    def __init__(self, start: datetime = START) -> None:
        self._now = micros_of(start)
        self._alarms: list[tuple[int, int, _Alarm]] = []
        self._count = 0

    @property
    def moment(self) -> datetime:
        """The time, as an aware datetime (UTC)."""
        return instant(self._now)

    def now(self) -> int:
        """See `Clock.now`."""
        return self._now

    def call_at(self, when: int, callback: Callable[[], None]) -> _Alarm:
        """See `Clock.call_at`."""
        alarm = _Alarm(asyncio.get_running_loop(), callback)
        if when <= self._now:
            alarm.ring()
        else:
            self._count += 1
            heapq.heappush(self._alarms, (when, self._count, alarm))
        return alarm

    def call_later(self, delay: int, callback: Callable[[], None]) -> _Alarm:
        """See `Clock.call_later`."""
        return self.call_at(self._now + delay, callback)

    def next_due(self) -> int | None:
        """When the next alarm rings, in microseconds, or None when none is set."""
        while self._alarms and self._alarms[0][2].is_cancelled:
            heapq.heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else None

    def advance(self, delta: timedelta | float) -> None:
        """Jump ahead (timedelta or seconds) and ring whatever is due, in order, on the loop that asked for it."""
        self.jump(self._now + microseconds(delta, "delta"))

    def set(self, moment: datetime) -> None:
        """Jump to an instant, also backwards, as when somebody sets the clock of a machine."""
        self.jump(micros_of(moment))

    def jump(self, now: int) -> None:
        """The same as `set`, in microseconds since 1970 UTC."""
        self._now = now
        while self._alarms and self._alarms[0][0] <= now:
            heapq.heappop(self._alarms)[2].ring()


class _Alarm:
    __slots__ = ("_callback", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback: Callable[[], None] | None = callback

    @property
    def is_cancelled(self) -> bool:
        return self._callback is None

    def ring(self) -> None:
        if self._callback is not None and not self._loop.is_closed():
            self._loop.call_soon(self._call)

    def cancel(self) -> None:
        self._callback = None

    def _call(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()
