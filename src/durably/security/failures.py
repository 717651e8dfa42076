"""Counts failed credentials by address, within a fixed memory."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

ADDRESSES_MAX: Final = 4_096
"""Of more, the one that was quiet for longest is forgotten."""

_MINUTE_S: Final = 60.0


class Failures:
    """Says who fails too often: so many at once, and as many a minute.

    Args:
        per_minute: For each address; of IPv6, for each network of 64 bits, which is what one customer has.
        elapsed: Seconds of a clock that nobody sets.
    """

    def __init__(self, per_minute: int, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._most = float(per_minute)
        self._elapsed = elapsed
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._left)

    def count(self, address: str) -> float:
        """Count a failure.

        Returns:
            0.0 while these are few, else the seconds until the next one counts as one of few.
        """
        now, place = self._elapsed(), _network_of(address)
        left, since = self._left.pop(place, (self._most, now))
        left = min(self._most, left + (now - since) * self._most / _MINUTE_S)
        few = left >= 1
        self._left[place] = (left - 1 if few else left, now)
        if len(self._left) > ADDRESSES_MAX:
            self._left.popitem(last=False)
        return 0.0 if few else (1 - left) * _MINUTE_S / self._most


def _network_of(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if parsed.version == 4:
        return str(parsed)
    return str(parsed.ipv4_mapped or (int(parsed) >> 64))
