"""The store in memory keeps the provider contract."""

from __future__ import annotations

from durably.storage.api import Store
from durably.storage.memory import MemoryStore
from durably.testing.store_conformance import StoreConformance


class TestMemoryStore(StoreConformance):
    async def make(self) -> MemoryStore:
        return MemoryStore()

    async def reopen(self, store: Store) -> MemoryStore:
        assert isinstance(store, MemoryStore)
        return MemoryStore(store.hub)

    async def crash(self, store: Store) -> None:
        assert isinstance(store, MemoryStore)
        store.abandon()
