"""Which partition an instance belongs to."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Final

SLOTS: Final = 4_096
"""Ids are spread over slots, and slots over partitions: the rule of the first step never changes."""


@lru_cache(maxsize=65_536)
def partition_of(instance_id: str, partitions: int) -> int:
    """0 to partitions - 1. Half a surrogate pair belongs somewhere, too: the store refuses it later."""
    digest = blake2b(instance_id.encode("utf-8", "surrogatepass"), digest_size=2).digest()
    return int.from_bytes(digest, "big") % SLOTS % partitions
