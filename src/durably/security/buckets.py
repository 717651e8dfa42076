"""Counts what somebody does against a rate, within a fixed memory: so much at once, and so much a second after that."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

PLACES_MAX: Final = 4_096
"""Of more, the one that was quiet for longest is forgotten."""


class Buckets:
    """A bucket of tokens for everybody.

    Attributes:
        most: In a full one; one at least.

    Args:
        most: In a full one.
        per_s: They come back at this rate.
        elapsed: Seconds of a clock that nobody sets.
    """

    def __init__(self, most: float, per_s: float, elapsed: Callable[[], float] = time.monotonic) -> None:
        self.most = max(1.0, most)
        self._per_s = per_s
        self._elapsed = elapsed
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._left)

    def take(self, place: str, count: int = 1) -> float:
        """Take one, or some; `most` at most.

        Returns:
            0.0 when there were so many, else the seconds until there will be: nothing is taken then.
        """
        now = self._elapsed()
        left, since = self._left.pop(place, (self.most, now))
        left = min(self.most, left + (now - since) * self._per_s)
        enough = left >= count
        self._left[place] = (left - count if enough else left, now)
        if len(self._left) > PLACES_MAX:
            self._left.popitem(last=False)
        return 0.0 if enough else (count - left) / self._per_s
