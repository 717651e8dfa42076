"""The pace of bulk work: so many at once, which share commits, and rests between them, in which the hub serves others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from durably.errors import UsageError

T = TypeVar("T")

IN_FLIGHT: Final = 100
"""So many at once become durable together, which is what makes many of them cheap."""

SHARE: Final = 0.2
"""Of the time, when nobody says: what the hub does besides hardly slows down."""


class Pace:
    """How fast bulk work may go. One object for a piece of work: it knows how long the work took so far.

    Args:
        max_in_flight: How many at once.
        share: Of the time, so much at most; the rest is left to the other work of the hub. 1 for as fast as it can.
    """

    def __init__(self, max_in_flight: int = IN_FLIGHT, share: float = SHARE) -> None:
        if max_in_flight < 1:
            raise UsageError(f"max_in_flight is {max_in_flight}: expected 1 or more")
        if not 0 < share <= 1:
            raise UsageError(f"share is {share}: expected more than 0, and 1 at most")
        self.max_in_flight = max_in_flight
        self._share = share
        self._rest_s = 0.0

    async def work(self, items: Sequence[T], act: Callable[[T], Awaitable[object]]) -> None:
        """Act on all items, `max_in_flight` at a time. What `act` raises ends the work; what runs beside it is cancelled.

        It rests before it works, and not after: nobody waits behind the last items of all.
        """
        for start in range(0, len(items), self.max_in_flight):
            await asyncio.sleep(self._rest_s)
            began = time.perf_counter()
            await _together(items[start : start + self.max_in_flight], act)
            self._rest_s = (time.perf_counter() - began) * (1 / self._share - 1)


async def _together(items: Sequence[T], act: Callable[[T], Awaitable[object]]) -> None:
    tasks = [asyncio.ensure_future(act(item)) for item in items]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
