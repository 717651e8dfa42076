"""Who moves the virtual clock: nobody, as long as there is something to do or nobody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

from durably.errors import DurablyError
from durably.testing.clock import VirtualClock

FAR_US = 15_000 * 365 * 86_400 * 1_000_000
"""Alarms further away than this belong to the housekeeping of the engine: waiting for them is waiting for nothing."""

_ROUNDS = 8
"""Rounds of the event loop that the hub must be idle: a result takes up to three from one room of the engine to the next."""

_EAGER_LOOKS = 100
_NAP_S = 0.0005
"""What keeps the hub busy for so many rounds runs elsewhere, in a thread or a file, and is looked at less often."""


class StuckError(DurablyError, AssertionError):
    """Somebody waits for something that nothing will bring about: no timer is due, and no activity runs."""


class Pace:
    """Moves the clock to the next alarm whenever somebody waits and the hub is idle.

    An event loop cannot say that it has nothing to do, so the hub is looked at round by round, while somebody waits. That
    works on every asyncio loop, whoever runs it.

    Args:
        clock: The clock.
        is_idle: True when nothing runs, is queued or is on its way to the store.
        stuck: Called when somebody waits without end and no alarm is set.
        stuck_after_s: Real seconds without any sign of life before `stuck` is called: something outside may still come.
    """

    def __init__(
        self,
        clock: VirtualClock,
        is_idle: Callable[[], bool],
        stuck: Callable[[], Awaitable[None]],
        stuck_after_s: float,
    ) -> None:
        self._clock = clock
        self._is_idle = is_idle
        self._stuck = stuck
        self._stuck_after_s = stuck_after_s
        self._begin = clock.now()
        self._waiting: dict[object, int | None] = {}
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def waiting(self, until: int | None = None) -> Generator[None]:
        """While in here, idle time is skipped, up to an instant or without end."""
        me = object()
        self._waiting[me] = until
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._move())
        try:
            yield
        finally:
            del self._waiting[me]

    async def becomes_idle(self) -> bool:
        """Return when the hub has nothing to do before the clock moves; True when it had anything to do."""
        seen = looks = 0
        while seen < _ROUNDS:
            seen = seen + 1 if self._is_idle() else 0
            looks += 1
            await asyncio.sleep(0 if seen or looks < _EAGER_LOOKS else _NAP_S)
        return looks > _ROUNDS

    def close(self) -> None:
        """The clock stands still from now on."""
        if self._task is not None:
            self._task.cancel()

    async def _move(self) -> None:
        loop = asyncio.get_running_loop()
        last_sign = loop.time()
        try:
            while self._waiting:
                was_busy = await self.becomes_idle()
                due = self._next()
                if due is not None:
                    self._clock.jump(due)
                    last_sign = loop.time()
                elif was_busy or None not in self._waiting.values():
                    last_sign = loop.time()
                    await asyncio.sleep(0)
                elif loop.time() - last_sign >= self._stuck_after_s:
                    await self._stuck()
                    last_sign = loop.time()
                else:
                    await asyncio.sleep(_NAP_S)
        finally:
            self._task = None

    def _next(self) -> int | None:
        """The alarm to jump to, if there is one that somebody waits for."""
        due = self._clock.next_due()
        if not self._waiting or due is None or due - self._begin > FAR_US:
            return None
        ends = list(self._waiting.values())
        limit = None if None in ends else max(end for end in ends if end is not None)
        return due if limit is None or due <= limit else None
