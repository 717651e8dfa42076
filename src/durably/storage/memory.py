"""A hub in memory: the executable specification of the provider contract, and the store of tests and simulations.

Where a question about `durably.storage.api` is open, this file and `memory_hub` answer it. Every call does its work in a
later callback of the host loop, as a store with a disk does, so that nothing can lean on an answer that comes at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from durably.core.commit import Batch, EntityRow, HistoryRow, InboxRow, InstanceRow, ParkedMessage, TimerRow
from durably.core.query import (
    Counts,
    EntitiesFound,
    EntityQuery,
    Found,
    FoundWithWaiting,
    InstanceQuery,
)
from durably.errors import HubClosedError, HubLockedError, HubNotFoundError, LeaseLostError, UsageError
from durably.storage.api import Capabilities, HubIdentity, Lease, Snapshot, StoredInstance
from durably.storage.memory_hub import MemoryHub, MemoryWorkLog

__all__ = ["MemoryHub", "MemoryStore"]

T = TypeVar("T")

_CAPABILITIES = Capabilities(partitions=1, durable=False, shared=False, wakeups=True, inbox_in_order=True)


class MemoryStore:
    """A `Store` on a `MemoryHub`. Without one it has its own, which ends with it."""

    def __init__(self, hub: MemoryHub | None = None) -> None:
        self.hub = hub if hub is not None else MemoryHub()
        self._state = "new"
        self._arrivals: list[tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = []
        self._log: MemoryWorkLog | None = None

    @property
    def url(self) -> str:
        """See `Store.url`."""
        return "memory://"

    @property
    def capabilities(self) -> Capabilities:
        """See `Store.capabilities`."""
        return _CAPABILITIES._replace(shared=not self.hub.exclusive)

    # --- hub ---------------------------------------------------------------------------------------------------------

    async def open(self, *, create: bool = True) -> None:
        """See `Store.open`."""
        if self._state not in {"new", "open"}:
            raise _closed()
        if not self.hub.exists and not create:
            raise HubNotFoundError(
                "Hub memory:// does not exist; expected one that was opened with create=True before"
            )
        if self._state == "new":
            self.hub.exists = True
            self.hub.arrivals.append(self._wake)
            self.hub.written.append(self._written)
            self._state = "open"

    async def close(self) -> None:
        """See `Store.close`."""
        if self._state == "open":
            await self._later(self._let_go)  # behind whatever was called before
        if self._state != "abandoned":
            self._state = "closed"

    async def delete(self) -> None:
        """See `Store.delete`.

        Raises:
            HubLockedError: Another open store holds the partition.
        """
        self._refuse_if_locked()
        await self.close()
        self.hub.clear()

    async def identity(self) -> HubIdentity:
        """See `Store.identity`."""
        return await self._later(self.hub.identity)

    async def add_key(self, key_id: str, proof: bytes) -> None:
        """See `Store.add_key`."""
        await self._later(self.hub.keys.setdefault, key_id, proof)

    def abandon(self) -> None:
        """Crash: the object dies as it stands. Only memory has this; other stores are killed with their process.

        What was called but not yet applied is lost and never answered; the lease is free, as when a process dies.
        """
        self._let_go()
        self._state = "abandoned"

    def _let_go(self) -> None:
        if self._wake in self.hub.arrivals:
            self.hub.arrivals.remove(self._wake)
            self.hub.written.remove(self._written)
        if self.hub.holder is self:
            self.hub.holder = self.hub.lease = None
        self._arrivals.clear()
        self._close_log()

    def _close_log(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    # --- leases ------------------------------------------------------------------------------------------------------

    async def acquire(self, partition: int, owner: str) -> Lease:
        """See `Store.acquire`."""
        if partition != 0:
            raise UsageError(f"Partition {partition} is not in this hub; it has partition 0 only")
        return await self._later(self._acquire, owner)

    def _acquire(self, owner: str) -> Lease:
        hub = self.hub
        if hub.exclusive:
            self._refuse_if_locked()
        hub.epoch += 1
        hub.holder = self
        hub.lease = Lease(0, owner, hub.epoch, orphaned=hub.held)
        if not hub.held:
            hub.running.clear()
        hub.held = True
        return hub.lease

    def _refuse_if_locked(self) -> None:
        hub = self.hub
        if hub.lease is not None and hub.holder is not self:
            raise HubLockedError(
                f"Hub memory:// is served by '{hub.lease.owner}', another store object of this process; "
                "close that one first"
            )

    async def renew(self, lease: Lease) -> None:
        """See `Store.renew`."""
        await self._later(self._renew, lease)

    def _renew(self, lease: Lease) -> None:
        if self.hub.lease is None or self.hub.lease.epoch != lease.epoch:
            raise LeaseLostError(
                f"The lease of epoch {lease.epoch} is over: the partition is in epoch {self.hub.epoch}"
            )

    async def release(self, lease: Lease) -> None:
        """See `Store.release`."""
        await self._later(self._release, lease)

    def _release(self, lease: Lease) -> None:
        if self.hub.lease is not None and self.hub.lease.epoch == lease.epoch:
            self.hub.holder = self.hub.lease = None
            self.hub.held = False
            self._close_log()
            self.hub.running.clear()

    async def work_log(self, lease: Lease) -> MemoryWorkLog:
        """See `Store.work_log`."""
        return await self._later(self._open_log, lease)

    def _open_log(self, lease: Lease) -> MemoryWorkLog:
        self._close_log()
        self._log = MemoryWorkLog(self.hub.running, lease.epoch)
        return self._log

    # --- partition ---------------------------------------------------------------------------------------------------

    async def load(self, lease: Lease, timers_until: int) -> Snapshot:
        """See `Store.load`."""
        return await self._later(self.hub.load, timers_until)

    def commit(self, lease: Lease, batch: Batch) -> asyncio.Future[None]:
        """See `Store.commit`."""
        return self._later(self.hub.commit, lease, batch)

    def read_instances(
        self, lease: Lease, instance_ids: Sequence[str]
    ) -> asyncio.Future[list[StoredInstance | None]]:
        """See `Store.read_instances`."""
        return self._later(self.hub.read_instances, instance_ids)

    def read_entities(
        self, lease: Lease, instance_ids: Sequence[str]
    ) -> asyncio.Future[list[EntityRow | None]]:
        """See `Store.read_entities`."""
        return self._later(self.hub.read_entities, instance_ids)

    def read_timers(self, lease: Lease, after: int, until: int) -> asyncio.Future[list[TimerRow]]:
        """See `Store.read_timers`."""
        return self._later(self.hub.due, after, until)

    def read_inbox(self, lease: Lease, after: int = 0) -> asyncio.Future[list[InboxRow]]:
        """See `Store.read_inbox`."""
        return self._later(self.hub.read_inbox, after)

    # --- anybody -----------------------------------------------------------------------------------------------------

    async def post(self, messages: Sequence[InboxRow]) -> bool:
        """See `Store.post`."""
        return await self._later(self.hub.post, messages)

    def on_arrival(self, callback: Callable[[], None]) -> None:
        """See `Store.on_arrival`. Also called for what this object itself posts."""
        self._refuse_unless_open()
        self._arrivals.append((asyncio.get_running_loop(), callback))

    async def get_instance(self, instance_id: str, *, payloads: bool = True) -> InstanceRow | None:
        """See `Store.get_instance`."""
        row = await self._later(self.hub.get_instance, instance_id)
        return row if payloads or row is None else row._replace(input=None, output=None)

    async def get_instances(self, instance_ids: Sequence[str]) -> list[InstanceRow | None]:
        """See `Store.get_instances`."""
        return await self._later(self.hub.get_instances, instance_ids)

    async def verdicts(self, message_ids: Sequence[str]) -> list[bytes | None]:
        """See `Store.verdicts`."""
        return await self._later(self.hub.verdicts, message_ids)

    async def read_parked(
        self, after: int = 0, limit: int = 100, *, message_id: str | None = None
    ) -> list[ParkedMessage]:
        """See `Store.read_parked`."""
        return await self._later(self.hub.read_parked, after, limit, message_id)

    async def read_messages(self, instance_id: str) -> list[InboxRow]:
        """See `Store.read_messages`."""
        return await self._later(self.hub.read_messages, instance_id)

    async def read_history(self, instance_id: str) -> list[HistoryRow]:
        """See `Store.read_history`."""
        return await self._later(self.hub.read_history, instance_id)

    async def get_entity(self, instance_id: str) -> EntityRow | None:
        """See `Store.get_entity`."""
        return await self._later(self.hub.entities.get, instance_id)

    async def query_entities(self, query: EntityQuery) -> EntitiesFound:
        """See `Store.query_entities`."""
        return await self._later(self.hub.query_entities, query)

    async def query(self, query: InstanceQuery) -> Found:
        """See `Store.query`."""
        return await self._later(self.hub.query, query)

    async def query_with_waiting(self, query: InstanceQuery) -> FoundWithWaiting:
        """See `Store.query_with_waiting`."""
        return await self._later(self.hub.query_with_waiting, query)

    async def count(self, query: InstanceQuery) -> Counts:
        """See `Store.count`."""
        return await self._later(self.hub.count, query)

    def _written(self, lease: Lease) -> None:
        if self.hub.holder is not self:
            self._wake()

    def _wake(self) -> None:
        for loop, callback in self._arrivals:
            loop.call_soon_threadsafe(callback)

    def _refuse_unless_open(self) -> None:
        if self._state == "new":
            raise UsageError("Hub memory:// is not open yet; await open() first")
        if self._state != "open":
            raise _closed()

    def _later(self, work: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if self._state == "abandoned":
            raise _closed()

        def do() -> None:
            if future.done() or self._state == "abandoned":
                return
            try:
                self._refuse_unless_open()
                future.set_result(work(*arguments))
            except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the caller
                future.set_exception(error)

        loop.call_soon(do)
        return future


def _closed() -> HubClosedError:
    return HubClosedError("Hub memory:// is closed; make a new store object and open that")
