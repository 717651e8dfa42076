"""URL -> provider."""

from __future__ import annotations

from durably.storage.api import Store
from durably.storage.memory import MemoryStore


def open_store(url: str) -> Store:
    """The store that a hub URL names; it is not open yet."""
    return MemoryStore()
