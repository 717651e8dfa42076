"""A broker that is away: one warning when it goes, one line when it is back, and longer and longer pauses in between."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from durably.clock import Clock

log = logging.getLogger("durably.queue")

_PAUSE_S: Final = 0.5
_PAUSE_MAX_S: Final = 30.0


class Outage:
    """Whether a queue can be reached.

    Args:
        what: The queue, as people call it.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._lasts = False
        self._failures = 0

    def began(self, error: Exception, *, unexpected: bool = False) -> None:
        """It cannot be reached, for the first time or still."""
        if not self._lasts:
            log.warning(
                "%s cannot be taken from now, its messages wait there: %s",
                self._what,
                error,
                exc_info=error if unexpected else None,
            )
        self._lasts = True

    def ended(self) -> None:
        """It can be reached."""
        if self._lasts:
            log.info("%s is taken from again", self._what)
        self._lasts = False

    def forgotten(self) -> None:
        """It has worked: the next outage begins with the shortest pause."""
        self._failures = 0

    def next_s(self) -> float:
        """How long to wait before the next try."""
        self._failures += 1
        return min(_PAUSE_MAX_S, _PAUSE_S * 2 ** min(self._failures - 1, 16))


async def pause(clock: Clock, seconds: float) -> None:
    """Sleep by the clock of the host."""
    over = asyncio.Event()
    wakeup = clock.call_later(int(seconds * 1_000_000), over.set)
    try:
        await over.wait()
    finally:
        wakeup.cancel()
