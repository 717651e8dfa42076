"""An event loop without a machine: virtual time, no sockets, no threads, the same order of callbacks on every run."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable
from typing import Any

from durably.clock import Wakeup

EPOCH_US = 1_800_000_000_000_000
"""Where virtual time begins, in microseconds since 1970: some day in 2027."""


class SimulationStuckError(AssertionError):
    """Nothing is ready and nothing is scheduled, and somebody still waits."""


class _NoSelector:
    """Stands where asyncio looks for sockets: waiting is moving the clock."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise SimulationStuckError("the simulation waits for something that nothing will bring about")
        if timeout > 0:
            self._loop.elapsed_s += timeout
        return []


class SimLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order in which they were made; when none is ready, time jumps to the next timer.

    Attributes:
        elapsed_s: Virtual seconds since the loop was made.
    """

    def __init__(self) -> None:
        super().__init__()
        self.elapsed_s = 0.0
        self._selector = _NoSelector(self)
        self._clock_resolution = 1e-7

    def time(self) -> float:
        """Virtual seconds."""
        return self.elapsed_s

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """There are no other threads."""
        return self.call_soon(callback, *args, context=context)

    def _process_events(self, event_list: list[Any]) -> None:
        del event_list

    def _write_to_self(self) -> None:
        pass


class SimClock:
    """A wall clock on virtual time that can be made to jump. Implements `durably.clock.Clock`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.jumped_us = 0

    def now(self) -> int:
        """See `Clock.now`."""
        return EPOCH_US + round(self._loop.time() * 1_000_000) + self.jumped_us

    def call_at(self, when: int, callback: Callable[[], None]) -> Wakeup:
        """See `Clock.call_at`."""
        return _SimWakeup(self._loop, self, when, callback)

    def call_later(self, delay: int, callback: Callable[[], None]) -> Wakeup:
        """See `Clock.call_later`."""
        return self._loop.call_later(delay / 1_000_000, callback)


class _SimWakeup:
    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: SimClock, when: int, callback: Callable[[], None]
    ) -> None:
        self._loop, self._clock, self._when, self._callback = loop, clock, when, callback
        self._handle = loop.call_later(self._sleep_s(), self._ring)

    def _sleep_s(self) -> float:
        return min(max(0, self._when - self._clock.now()) / 1_000_000, 10.0)

    def _ring(self) -> None:
        if self._clock.now() >= self._when:
            self._callback()
        else:
            self._handle = self._loop.call_later(max(self._sleep_s(), 1e-6), self._ring)

    def cancel(self) -> None:
        self._handle.cancel()


class SimRandom:
    """Ids that are the same on every run of a seed. Implements `durably.clock.Random`."""

    def __init__(self, source: random.Random) -> None:
        self._source = source

    def token(self) -> str:
        """See `Random.token`."""
        return f"{self._source.getrandbits(128):032x}"
