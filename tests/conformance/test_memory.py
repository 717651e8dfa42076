"""The store in memory keeps the provider contract."""

from __future__ import annotations

from durably.clock import SystemClock
from durably.storage.api import Store
from durably.storage.memory import MemoryHub, MemoryStore
from durably.testing.store_conformance import PartitionConformance, StoreConformance, TasksConformance


class TestMemoryStore(StoreConformance, PartitionConformance):
    async def make(self) -> MemoryStore:
        return MemoryStore()

    async def reopen(self, store: Store) -> MemoryStore:
        assert isinstance(store, MemoryStore)
        return MemoryStore(store.hub)

    async def crash(self, store: Store) -> None:
        assert isinstance(store, MemoryStore)
        store.abandon()

    async def make_of(self, partitions: int) -> MemoryStore:
        return MemoryStore(MemoryHub(partitions=partitions))


class TestSharedMemoryStore(TestMemoryStore, TasksConformance):
    async def make(self) -> MemoryStore:
        return await self.make_of(1)

    async def make_of(self, partitions: int) -> MemoryStore:
        hub = MemoryHub(exclusive=False, partitions=partitions, clock=SystemClock(), lease_us=3_000_000)
        return MemoryStore(hub)

    async def crash(self, store: Store) -> None:
        await super().crash(store)
        await self.expire(store)
        assert isinstance(store, MemoryStore)
        store.hub.hosts.clear()
        for task in store.hub.tasks.values():
            if task.claimer == store._host_id:
                task.until = 0

    async def expire(self, store: Store) -> None:
        assert isinstance(store, MemoryStore)
        for partition in store.hub.partitions:
            store.hub.expire(partition.number)
