"""The time of a hub that hosts share: that of its database, wherever a host runs and whatever is set there.

Two hosts whose machines disagree would fire the timers of a partition early or late when it changes hands (I7), and a wall
clock that jumps would take all timers along. So time goes on by the clock that nobody sets, from the last moment that the
database told.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from durably.clock import SystemClock

_log = logging.getLogger("durably.engine")

_TOLERANCE_US: Final = 10_000
"""What the database said may be so far outside of the time in which it was asked: clocks drift by less in between."""

_WORTH_SAYING_US: Final = 1_000_000
"""So far off, the clock of a machine is worth a warning."""


def _steady() -> int:
    return time.monotonic_ns() // 1_000


class HubClock(SystemClock):
    """The machine's clock until `heard`, the hub's from then on. Wake-ups follow it, at the latest a second later."""

    def __init__(self) -> None:
        self._ahead = super().now() - _steady()
        self._said = 0

    def now(self) -> int:
        """See `Clock.now`."""
        return _steady() + self._ahead

    def heard(self, told: int, asked: int, answered: int) -> None:
        """Follow the hub.

        Args:
            told: Its time, in microseconds, at some moment between the other two.
            asked: By this clock, when it was asked.
            answered: By this clock, when it had answered.
        """
        if asked - _TOLERANCE_US <= told <= answered + _TOLERANCE_US:
            return
        self._ahead += told - (asked + answered) // 2
        off = super().now() - self.now()
        if abs(off - self._said) >= _WORTH_SAYING_US:
            self._said = off
            where = "ahead of" if off > 0 else "behind"
            _log.warning(
                "the clock of this machine is %.1f s %s that of the hub's database, which is the one that counts",
                abs(off) / 1e6,
                where,
            )
