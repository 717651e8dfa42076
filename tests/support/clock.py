"""A clock that moves when the test says so."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


class ManualClock:
    """Implements `durably.clock.Clock`: stands still until `advance` or `set`, and then jumps."""

    def __init__(self, start: datetime = START) -> None:
        self._now = micros(start)
        self._alarms: list[tuple[int, int, _Alarm]] = []
        self._count = 0

    @property
    def moment(self) -> datetime:
        return EPOCH + timedelta(microseconds=self._now)

    def now(self) -> int:
        return self._now

    def call_at(self, when: int, callback: Callable[[], None]) -> _Alarm:
        alarm = _Alarm(asyncio.get_running_loop(), callback)
        if when <= self._now:
            alarm.ring()
        else:
            self._count += 1
            heapq.heappush(self._alarms, (when, self._count, alarm))
        return alarm

    def call_later(self, delay: int, callback: Callable[[], None]) -> _Alarm:
        return self.call_at(self._now + delay, callback)

    def advance(self, delta: timedelta | float) -> None:
        """Jump ahead (timedelta or seconds) and ring whatever is due, in order, on the loop that asked for it."""
        step = delta if isinstance(delta, timedelta) else timedelta(seconds=delta)
        self.set(self.moment + step)

    def set(self, moment: datetime) -> None:
        """Jump to an instant, also backwards."""
        self._now = micros(moment)
        while self._alarms and self._alarms[0][0] <= self._now:
            heapq.heappop(self._alarms)[2].ring()


class _Alarm:
    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback: Callable[[], None] | None = callback

    def ring(self) -> None:
        if self._callback is not None and not self._loop.is_closed():
            self._loop.call_soon(self._call)

    def cancel(self) -> None:
        self._callback = None

    def _call(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()
