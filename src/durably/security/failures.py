"""Counts failed credentials by address."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from typing import Final

from durably.security.buckets import Buckets

_MINUTE_S: Final = 60.0


class Failures:
    """Says who fails too often: so many at once, and as many a minute.

    Args:
        per_minute: For each address; of IPv6, for each network of 64 bits, which is what one customer has.
        elapsed: Seconds of a clock that nobody sets.
    """

    def __init__(self, per_minute: int, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._buckets = Buckets(per_minute, per_minute / _MINUTE_S, elapsed)

    def __len__(self) -> int:
        return len(self._buckets)

    def count(self, address: str) -> float:
        """Count a failure.

        Returns:
            0.0 while these are few, else the seconds until the next one counts as one of few.
        """
        return self._buckets.take(_network_of(address))


def _network_of(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if parsed.version == 4:
        return str(parsed)
    return str(parsed.ipv4_mapped or (int(parsed) >> 64))
