"""A hub in memory: the executable specification of the provider contract, and the store of tests and simulations.

Where a question about `durably.storage.api` is open, this file and `memory_hub` answer it. Every call does its work in a
later callback of the host loop, as a store with a disk does, so that nothing can lean on an answer that comes at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import TypeVar

from durably.clock import Wakeup
from durably.core.commit import Batch, EntityRow, HistoryRow, InboxRow, InstanceRow, ParkedMessage, TimerRow
from durably.core.dump import DumpChunk
from durably.core.query import (
    Counts,
    EntitiesFound,
    EntityQuery,
    Found,
    FoundWithWaiting,
    InstanceQuery,
)
from durably.errors import (
    HubClosedError,
    HubLockedError,
    HubNotEmptyError,
    HubNotFoundError,
    LeaseLostError,
    UsageError,
)
from durably.storage import memory_dump
from durably.storage.api import (
    FUNCTIONS_MAX,
    Capabilities,
    HostReport,
    HubIdentity,
    Lease,
    Snapshot,
    StoredInstance,
    Survey,
    Workload,
)
from durably.storage.memory_hub import MemoryHub
from durably.storage.memory_parts import MemoryHost, MemoryPartition, MemoryWorkLog
from durably.storage.memory_tasks import MemoryTasks
from durably.storage.memory_workload import workload
from durably.storage.news import News

__all__ = ["MemoryHub", "MemoryStore"]

T = TypeVar("T")

_CAPABILITIES = Capabilities(partitions=1, durable=False, shared=False, wakeups=True, inbox_in_order=True)


class MemoryStore:
    """A `Store` on a `MemoryHub`. Without one it has its own, which ends with it.

    Attributes:
        hub: The data.
        renews: False: its leases are not renewed any more, as when the process is paused. For tests.
    """

    def __init__(self, hub: MemoryHub | None = None) -> None:
        self.hub = hub if hub is not None else MemoryHub()
        self._state = "new"
        self._arrivals: list[tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = []
        self._heeding: list[tuple[asyncio.AbstractEventLoop, Callable[[News], None]]] = []
        self._logs: dict[int, MemoryWorkLog] = {}
        self._leases: dict[int, Lease] = {}  # that it believes to have, by partition
        self._lost: list[tuple[asyncio.AbstractEventLoop, Callable[[Lease], None]]] = []
        self._keeping: Wakeup | None = None
        self.renews = True
        self._host_id = self.hub.next_host_id()
        self._tasks = MemoryTasks(self.hub, self._host_id, self._later, self._keep_later)

    @property
    def url(self) -> str:
        """See `Store.url`."""
        return "memory://"

    @property
    def capabilities(self) -> Capabilities:
        """See `Store.capabilities`."""
        return _CAPABILITIES._replace(partitions=len(self.hub.partitions), shared=not self.hub.exclusive)

    @property
    def listening(self) -> bool:
        """See `Store.listening`."""
        return self._state == "open"

    @property
    def tasks(self) -> MemoryTasks | None:
        """See `Store.tasks`."""
        return None if self.hub.exclusive else self._tasks

    def partition_of(self, instance_id: str) -> int:
        """See `Store.partition_of`."""
        return self.hub.partition_of(instance_id)

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
            self.hub.tasks_changed.append(self._tasks_changed)
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
            HubLockedError: Another open store holds a partition.
        """
        for partition in self.hub.partitions:
            self._refuse_if_locked(partition)
        await self.close()
        self.hub.clear()

    async def identity(self) -> HubIdentity:
        """See `Store.identity`."""
        return await self._later(self.hub.identity)

    async def add_key(self, key_id: str, proof: bytes) -> None:
        """See `Store.add_key`."""
        await self._later(self.hub.keys.setdefault, key_id, proof)

    async def dump(self) -> AsyncGenerator[DumpChunk]:
        """See `Store.dump`."""
        for chunk in await self._later(memory_dump.dump, self.hub):
            yield chunk

    async def restore(self, chunks: AsyncIterator[DumpChunk]) -> None:
        """See `Store.restore`."""
        if self._state != "new":
            raise UsageError("Hub memory:// is open, or was: restore() comes before open()")
        whole = [chunk async for chunk in chunks]
        if self.hub.exists:
            raise HubNotEmptyError("Hub memory:// exists already: a hub is imported where there is none")
        memory_dump.restore(self.hub, whole)

    def abandon(self) -> None:
        """Crash: the object dies as it stands. Only memory has this; other stores are killed with their process.

        What was called but not yet applied is lost and never answered. Its leases are free, as when a process dies that
        has locked a file; those of a hub with a clock run out by and by.
        """
        self._let_go(dies=self.hub.lease_us is not None)
        self._state = "abandoned"

    def _let_go(self, *, dies: bool = False) -> None:
        if self._wake in self.hub.arrivals:
            self.hub.arrivals.remove(self._wake)
            self.hub.written.remove(self._written)
            self.hub.tasks_changed.remove(self._tasks_changed)
        if self._keeping is not None:
            self._keeping.cancel()
        if not dies:
            held = [partition for partition in self.hub.partitions if partition.holder is self]
            for partition in held:
                partition.let_go()
            if self.hub.hosts.pop(self._host_id, None) is not None or held:
                self.hub.tell()
            self._tasks.let_go()
        self._tasks.close()
        self._leases.clear()
        self._arrivals.clear()
        self._heeding.clear()
        if self._heard in self.hub.news:
            self.hub.news.remove(self._heard)
        self._lost.clear()
        for log in self._logs.values():
            log.close()
        self._logs.clear()

    # --- leases ------------------------------------------------------------------------------------------------------

    async def acquire(self, partition: int, owner: str) -> Lease:
        """See `Store.acquire`."""
        count = len(self.hub.partitions)
        if not 0 <= partition < count:
            raise UsageError(f"Partition {partition} is not in this hub; it has 0 to {count - 1}")
        return await self._later(self._acquire, partition, owner)

    def _acquire(self, number: int, owner: str) -> Lease:
        hub, partition = self.hub, self.hub.partitions[number]
        self._refuse_if_locked(partition)
        before, lost = partition.holder, partition.lease
        partition.epoch += 1
        lease = Lease(number, owner, partition.epoch, orphaned=partition.held)
        if not partition.held:
            partition.running.clear()
        partition.holder, partition.lease, partition.owner, partition.held = self, lease, owner, True
        partition.lease_until, partition.host_id = hub.ends(), self._host_id
        self._leases[number] = lease
        if (
            isinstance(before, MemoryStore)
            and before is not self
            and lost is not None
            and hub.lease_us is None
        ):
            before._lose(lost)  # without a clock it is told at once; with one, when it renews
        self._keep_later()
        return lease

    def _refuse_if_locked(self, partition: MemoryPartition) -> None:
        hub, lease = self.hub, partition.lease
        if lease is None or partition.holder is self or not hub.is_live(partition):
            return
        if hub.exclusive or hub.lease_us is not None:
            raise HubLockedError(
                f"Hub memory:// is served by '{lease.owner}', another store object of this process; "
                "close that one first"
            )

    def _keep_later(self) -> None:
        hub = self.hub
        if self._keeping is None and hub.lease_us is not None:
            self._keeping = hub.clock.call_later(hub.lease_us // 3, self._keep)

    def _keep(self) -> None:
        """What a thread of their own does for the leases of a shared database."""
        self._keeping = None
        if self._state != "open":
            return
        if self.renews:
            self._tasks.keep()
        for lease in list(self._leases.values()):
            if not self._has(lease):
                self._lose(lease)
            elif self.renews:
                self.hub.partitions[lease.partition].lease_until = self.hub.ends()
        self._keep_later()

    def _has(self, lease: Lease) -> bool:
        partition = self.hub.partitions[lease.partition]
        return partition.epoch == lease.epoch and partition.holder is self and self.hub.is_live(partition)

    def _lose(self, lease: Lease) -> None:
        held = self._leases.get(lease.partition)
        if held is not None and held.epoch == lease.epoch:
            del self._leases[lease.partition]
            for loop, callback in self._lost:
                loop.call_soon_threadsafe(callback, lease)

    async def renew(self, lease: Lease) -> None:
        """See `Store.renew`."""
        await self._later(self._renew, lease)

    def _renew(self, lease: Lease) -> None:
        partition = self.hub.partitions[lease.partition]
        if not self._has(lease):
            raise LeaseLostError(
                f"The lease of epoch {lease.epoch} is over: the partition is in epoch {partition.epoch}"
            )
        partition.lease_until = self.hub.ends()

    async def release(self, lease: Lease) -> None:
        """See `Store.release`."""
        await self._later(self._release, lease)

    def _release(self, lease: Lease) -> None:
        partition = self.hub.partitions[lease.partition]
        if partition.epoch == lease.epoch and partition.holder is self:
            partition.let_go()
            partition.held = False
            self._leases.pop(lease.partition, None)
            self._close_log(lease.partition)
            partition.running.clear()
            self.hub.tell()

    def on_lease_lost(self, callback: Callable[[Lease], None]) -> None:
        """See `Store.on_lease_lost`."""
        self._refuse_unless_open()
        self._lost.append((asyncio.get_running_loop(), callback))

    async def work_log(self, lease: Lease) -> MemoryWorkLog:
        """See `Store.work_log`."""
        return await self._later(self._open_log, lease)

    def _open_log(self, lease: Lease) -> MemoryWorkLog:
        self._close_log(lease.partition)
        log = MemoryWorkLog(self.hub.partitions[lease.partition].running, lease.epoch)
        self._logs[lease.partition] = log
        return log

    def _close_log(self, partition: int) -> None:
        log = self._logs.pop(partition, None)
        if log is not None:
            log.close()

    # --- hosts -------------------------------------------------------------------------------------------------------

    async def survey(self, report: HostReport | None = None) -> Survey:
        """See `Store.survey`."""
        return await self._later(self._survey, report)

    def _survey(self, report: HostReport | None) -> Survey:
        hub, known = self.hub, self.hub.hosts.get(self._host_id)
        if report is not None:
            report = report._replace(functions=report.functions[:FUNCTIONS_MAX])
            now = hub.clock.now()
            if known is None or (known.until is not None and known.until < now):
                hub.hosts[self._host_id] = MemoryHost(report, now, now, hub.ends())
                hub.tell()
            else:
                known.report, known.seen_at, known.until = report, now, hub.ends()
        return hub.survey(self._host_id)

    async def withdraw(self) -> None:
        """See `Store.withdraw`."""
        await self._later(self._withdraw)

    def _withdraw(self) -> None:
        if self.hub.hosts.pop(self._host_id, None) is not None:
            self.hub.tell()

    async def ask_to_drain(self, host_id: str) -> bool:
        """See `Store.ask_to_drain`."""
        return await self._later(self._ask_to_drain, host_id)

    def _ask_to_drain(self, host_id: str) -> bool:
        self.hub.survey(self._host_id)  # forgets the dead
        host = self.hub.hosts.get(host_id)
        if host is not None:
            host.told_to_drain = True
            self.hub.tell()
        return host is not None

    # --- partition ---------------------------------------------------------------------------------------------------

    async def load(self, lease: Lease, timers_until: int) -> Snapshot:
        """See `Store.load`."""
        return await self._later(self.hub.load, lease.partition, timers_until)

    def commit(self, lease: Lease, batch: Batch) -> asyncio.Future[None]:
        """See `Store.commit`."""
        return self._later(self._commit_now, lease, batch)

    def _commit_now(self, lease: Lease, batch: Batch) -> None:
        try:
            self.hub.commit(lease, batch)
        except LeaseLostError:
            self._lose(lease)
            raise

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
        return self._later(self.hub.due, lease.partition, after, until)

    def read_inbox(self, lease: Lease, after: int = 0) -> asyncio.Future[list[InboxRow]]:
        """See `Store.read_inbox`."""
        return self._later(self.hub.read_inbox, lease.partition, after)

    # --- anybody -----------------------------------------------------------------------------------------------------

    async def post(self, messages: Sequence[InboxRow]) -> bool:
        """See `Store.post`."""
        return await self._later(self.hub.post, messages)

    def on_arrival(self, callback: Callable[[], None]) -> None:
        """See `Store.on_arrival`. Also called for what this object itself posts."""
        self._refuse_unless_open()
        self._arrivals.append((asyncio.get_running_loop(), callback))

    def heed(self, callback: Callable[[News], None]) -> bool:
        """See `Store.heed`. Also called for what this object itself commits."""
        self._refuse_unless_open()
        heeding = (asyncio.get_running_loop(), callback)
        if heeding not in self._heeding:
            self._heeding.append(heeding)
        if self._heard not in self.hub.news:
            self.hub.news.append(self._heard)
        return True

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

    async def workload(self, now: int | None = None) -> Workload:
        """See `Store.workload`."""
        return await self._later(workload, self.hub, now)

    async def count(self, query: InstanceQuery) -> Counts:
        """See `Store.count`."""
        return await self._later(self.hub.count, query)

    def _written(self, lease: Lease, partitions: set[int]) -> None:
        if partitions != {lease.partition} or self.hub.partitions[lease.partition].holder is not self:
            self._wake()

    def _tasks_changed(self, offered: bool, withdrawn: bool) -> None:  # noqa: FBT001 - a callback of the hub
        self._tasks.tell(offered=offered, withdrawn=withdrawn)

    def _heard(self, news: News) -> None:
        for loop, callback in self._heeding:
            loop.call_soon_threadsafe(callback, news)

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
