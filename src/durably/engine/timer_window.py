"""The timers that are due soon, in memory; the later ones are read from the store when their time comes nearer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from durably.clock import Clock
from durably.core.commit import TimerRow
from durably.engine.timers import Timers


class TimerWindow:
    """The timers of one partition up to a horizon, which moves on when half of it has passed.

    Args:
        clock: Tells the time and rings.
        horizon_us: How far it sees.
        read: Reads timers with after < due_at <= until.
        fire: Takes timers that came due.
        spawn: Runs the read; its owner deals with what it raises.
    """

    def __init__(
        self,
        clock: Clock,
        horizon_us: int,
        read: Callable[[int, int], Awaitable[list[TimerRow]]],
        fire: Callable[[list[TimerRow]], None],
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
    ) -> None:
        self.until = clock.now() + horizon_us
        """Timers due later than this instant are not in memory."""
        self._read_until = self.until
        self._clock = clock
        self._horizon_us = horizon_us
        self._read = read
        self._spawn = spawn
        self._timers = Timers(clock, fire)
        self._closed = False

    def start(self, rows: Iterable[TimerRow]) -> None:
        """Begin with the timers that the store has up to `until`."""
        for row in rows:
            self._timers.arm(row)
        self._refill_later()

    def arm(self, row: TimerRow) -> None:
        """Arm a timer, if it is due soon."""
        if row.due_at <= self.until:
            self._timers.arm(row)

    def disarm(self, execution: int, seq: int, kind: int) -> None:
        """Disarm a timer; ignored when it is not armed."""
        self._timers.disarm(execution, seq, kind)

    def close(self) -> None:
        """Ring no more."""
        self._closed = True
        self._timers.close()

    def _refill_later(self) -> None:
        self._clock.call_at(self.until - self._horizon_us // 2, self._refill)

    def _refill(self) -> None:
        if not self._closed:
            self._spawn(self._move_on)

    async def _move_on(self) -> None:
        # The window opens before the read: a timer that is committed meanwhile is armed by its own commit.
        self.until = max(self.until, self._clock.now() + self._horizon_us)
        until = self.until
        rows = await self._read(self._read_until, until)
        if not self._closed:
            self._read_until = until
            for row in rows:
                self._timers.arm(row)
            self._refill_later()
