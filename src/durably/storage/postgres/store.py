"""The PostgreSQL provider: a schema is a hub, and any number of hosts and clients share it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from itertools import chain
from typing import Final, TypeVar

from durably.core.commit import Batch, EntityRow, HistoryRow, InboxRow, InstanceRow, ParkedMessage, TimerRow
from durably.core.dump import DumpChunk
from durably.core.query import Counts, EntitiesFound, EntityQuery, Found, FoundWithWaiting, InstanceQuery
from durably.errors import DurablyError, HubClosedError, UsageError
from durably.storage import limits
from durably.storage.api import (
    Capabilities,
    HostReport,
    HubIdentity,
    Lease,
    Snapshot,
    StoredInstance,
    Survey,
    Workload,
)
from durably.storage.news import News
from durably.storage.postgres import dump, hub, search, tasks
from durably.storage.postgres.address import Address
from durably.storage.postgres.arrivals import Arrivals
from durably.storage.postgres.calls import Connection
from durably.storage.postgres.columns import Columns
from durably.storage.postgres.gathering import Gathering, divided
from durably.storage.postgres.hosts import Hosts
from durably.storage.postgres.keeper import HEARTBEAT_S, Keeper
from durably.storage.postgres.lane import Lane
from durably.storage.postgres.leases import Leases
from durably.storage.postgres.news import PostgresNews
from durably.storage.postgres.pool import Pool
from durably.storage.postgres.posting import Posting
from durably.storage.postgres.reader import Reader
from durably.storage.postgres.schema import quoted
from durably.storage.postgres.servers import Servers
from durably.storage.postgres.tasks import PostgresTasks
from durably.storage.postgres.workload import workload
from durably.storage.slots import partition_of
from durably.storage.work_log import FileWorkLog

T = TypeVar("T")

LEASE_S: Final = 15.0
_READERS: Final = 4
"""Connections for what anybody asks."""

_AT_ONCE: Final = 2
"""Statements of one kind that are on their way for anybody: what is asked meanwhile goes into the next one."""

_OWNERS: Final = 2
"""Connections for what an owner reads: while one partition is loaded, the others go on."""

_COMMIT_LEASES: Final = 2
_READ_LEASES: Final = 8
"""A statement that has no answer after so many lease times has failed: the server may be there, and never say anything."""

_SERVED: Final = "SELECT EXISTS (SELECT 1 FROM {s}.partitions WHERE lease_until >= clock_timestamp())"
_ADD_KEY: Final = "INSERT INTO {s}.encryption_keys VALUES ($1, $2) ON CONFLICT (key_id) DO NOTHING"


class PostgresStore:
    """A `Store` in a schema of a PostgreSQL database. An object is opened once; after `close` another one is made.

    Connections: one for commits, two for what the owner reads, up to four for what anybody reads and posts, one that
    listens, another one that listens once it has been waited for what other hosts do, and one of the thread that renews
    leases. Each is made when it is first needed, and made again when it was lost.
    """

    def __init__(
        self,
        url: str,
        *,
        partitions: int | None = None,
        lease_s: float = LEASE_S,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        """Name the hub; nothing is connected before `open`.

        Args:
            url: See `Address.of`.
            partitions: Of a hub that is new; of one that is there it must be the same, or None.
            lease_s: A host that is silent for so long has lost its partitions.
            heartbeat_s: So long the loop of a host may be blocked before its leases are not renewed any more.
        """
        self._address = Address.of(url)
        self._schema = quoted(self._address.schema)
        self._wanted = partitions
        self._partitions = partitions or hub.PARTITIONS
        self._state = "new"
        self._reader = Reader(self._schema, limits.history_max())
        self._servers = Servers(self._address)
        self._commits = self._pool("durably commits", 1, _COMMIT_LEASES * lease_s)
        self._owner = self._pool("durably owner", _OWNERS, _READ_LEASES * lease_s)
        self._anybody = self._pool("durably reads", _READERS, _READ_LEASES * lease_s)
        self._asking = asyncio.Semaphore(limits.READS_MAX)
        self._holder = holder = os.urandom(8)
        channel = f"durably_{self._address.schema}"
        self._leases = Leases(self._schema, self.url, channel, holder, lease_s)
        self._hosts = Hosts(self._schema, channel, holder, lease_s)
        self._keeper = Keeper(
            self._servers,
            self._leases,
            self._lose,
            renew_claims=lambda connection: tasks.keep(connection, self._schema, holder, lease_s),
            heartbeat_s=heartbeat_s,
        )
        self._held: dict[int, Lease] = {}
        self._lost: list[Callable[[Lease], None]] = []
        self._said = False  # that this host is there
        self._logs: dict[int, FileWorkLog] = {}
        self._arrivals = Arrivals(self._anybody, self._servers, channel, holder.hex())
        self._news = PostgresNews(self._anybody, self._servers, self._arrivals)
        self._read_inbox = Gathering(self._read_inbox_of, name="durably-postgres-inbox")
        self._read_timers = Gathering(self._read_timers_of, name="durably-postgres-timers")
        self._read_instances = Gathering(
            self._read_instances_of, name="durably-postgres-instances", at_once=_OWNERS
        )
        self._read_entities = Gathering(
            self._read_entities_of, name="durably-postgres-entities", at_once=_OWNERS
        )
        self._tasks: PostgresTasks | None = None
        self._posting = Posting(
            self._schema,
            self._arrivals,
            connection=self._ask,
            partitions=lambda: self._partitions,
            posted=self._posted,
        )
        self._read_verdicts = Gathering(
            self._read_verdicts_of, name="durably-postgres-verdicts", at_once=_AT_ONCE
        )
        self._look_up = Gathering(self._look_up_all, name="durably-postgres-instance", at_once=_AT_ONCE)
        self._look_up_alone = Gathering(
            self._look_up_all_alone, name="durably-postgres-instance", at_once=_AT_ONCE
        )
        self._lane: Lane | None = None
        self._hub_id = b""

    def _pool(self, name: str, size: int, answer_s: float | None) -> Pool:
        return Pool(self._servers, self._address.url, name=name, size=size, answer_s=answer_s)

    @property
    def url(self) -> str:
        """See `Store.url`."""
        return self._address.url

    @property
    def capabilities(self) -> Capabilities:
        """See `Store.capabilities`."""
        return Capabilities(partitions=self._partitions, durable=True, shared=True, wakeups=True)

    @property
    def listening(self) -> bool:
        """See `Store.listening`."""
        return self._arrivals.listening

    @property
    def tasks(self) -> PostgresTasks | None:
        """See `Store.tasks`."""
        return self._tasks

    def partition_of(self, instance_id: str) -> int:
        """See `Store.partition_of`."""
        return partition_of(instance_id, self._partitions)

    def _sql(self, text: str) -> str:
        return text.replace("{s}", self._schema)

    # --- hub ---------------------------------------------------------------------------------------------------------

    async def open(self, *, create: bool = True) -> None:
        """See `Store.open`.

        Raises:
            StoreUnavailableError: The server cannot be reached.
            UsageError: The hub has another number of partitions, or the database does not hold any text.
        """
        if self._state == "open":
            return
        if self._state == "closed":
            raise self._refusal()
        pool = self._pool("durably opening", 2, None)  # a hub is made, or waited for
        try:
            found = await hub.open_hub(pool, self._address, self._wanted, create=create)
        finally:
            await pool.close()
        self._hub_id, self._partitions = found.hub_id, found.partitions
        self._servers.remember(hub.state_folder() / f"{self._hub_id.hex()}.line")
        self._lane = Lane(
            self._commits,
            self._schema,
            self.url,
            partitions=self._partitions,
            holder=self._holder,
            landed=self._landed,
            fenced=self._keeper.lose,
        )
        self._tasks = PostgresTasks(
            self._schema,
            self._holder,
            self._partitions,
            self._leases.lease_s,
            use=self._ask,
            claimed=self._keeper.keep_claims,
            told=self._arrivals.tell_tasks,
            watch=self._arrivals.watch_tasks,
        )
        self._state = "open"

    async def close(self) -> None:
        """See `Store.close`."""
        if self._state != "open":
            self._state = "closed"
            return
        self._state = "closed"
        await self._news.stop()
        await self._arrivals.stop()
        if self._lane is not None:
            await self._lane.idle()
        self._keeper.stop()
        if self._held or self._said:
            with suppress(DurablyError):  # they run out
                async with self._owner.use() as connection:
                    await self._leases.let_go(connection)
                    await tasks.let_go(connection, self._schema, self._holder)
        for log in self._logs.values():
            log.close()
        await asyncio.gather(self._commits.close(), self._owner.close(), self._anybody.close())

    async def delete(self) -> None:
        """See `Store.delete`."""
        await self.close()
        pool = self._pool("durably delete", 1, None)
        try:
            async with pool.use() as connection:
                await hub.delete(connection, self._address, self._leases)
        finally:
            await pool.close()
        self._servers.forget()
        for log in self._logs.values():
            log.delete()

    async def identity(self) -> HubIdentity:
        """See `Store.identity`."""
        async with self._ask() as connection:
            return await self._reader.identity(connection)

    async def add_key(self, key_id: str, proof: bytes) -> None:
        """See `Store.add_key`."""
        async with self._ask() as connection:
            await connection.rows(self._sql(_ADD_KEY), key_id.encode(), proof)

    async def dump(self) -> AsyncGenerator[DumpChunk]:
        """See `Store.dump`. As long as it reads, the server cannot clean up what was deleted meanwhile."""
        self._open_lane()
        pool = self._pool("durably dump", 1, None)
        try:
            async with pool.use() as connection, aclosing(dump.dump(connection, self._schema)) as chunks:
                async for chunk in chunks:
                    yield chunk
                    self._open_lane()
        finally:
            await pool.close()

    async def restore(self, chunks: AsyncIterator[DumpChunk]) -> None:
        """See `Store.restore`. In one transaction; an existing hub that nobody has used is taken."""
        if self._state != "new":
            raise UsageError(f"Hub {self.url} is open, or was: restore() comes before open()")
        pool = self._pool("durably import", 1, None)
        try:
            async with pool.use() as connection:
                await hub.restore_hub(
                    connection,
                    self._address,
                    chunks,
                    partitions=self._wanted,
                    leases=self._leases,
                )
        finally:
            await pool.close()

    # --- leases ------------------------------------------------------------------------------------------------------

    async def acquire(self, partition: int, owner: str) -> Lease:
        """See `Store.acquire`."""
        lane = self._open_lane()
        if not 0 <= partition < self._partitions:
            raise UsageError(f"Partition {partition} is not in this hub: it has 0 to {self._partitions - 1}")
        await lane.settled(partition)
        async with self._owner.use() as connection:
            asked_at = time.monotonic()
            lease = await self._leases.acquire(connection, partition, owner)
        self._open_lane()
        self._held[partition] = lease
        self._keeper.keep(lease, asked_at)
        if not lease.orphaned:
            self._log_of(partition).delete()
        return lease

    async def renew(self, lease: Lease) -> None:
        """See `Store.renew`."""
        self._open_lane()
        async with self._owner.use() as connection:
            asked_at = time.monotonic()
            await self._leases.renew(connection, lease)
        self._keeper.renewed(lease, asked_at)

    async def release(self, lease: Lease) -> None:
        """See `Store.release`."""
        lane = self._open_lane()
        await lane.settled(lease.partition)
        async with self._owner.use() as connection:
            is_mine = await self._leases.release(connection, lease)
        self._keeper.drop(lease)
        if is_mine:
            self._held.pop(lease.partition, None)
            self._log_of(lease.partition).delete()

    def on_lease_lost(self, callback: Callable[[Lease], None]) -> None:
        """See `Store.on_lease_lost`."""
        self._open_lane()
        self._lost.append(callback)

    def _lose(self, lease: Lease) -> None:
        held = self._held.get(lease.partition)
        if self._state == "open" and held is not None and held.epoch == lease.epoch:
            del self._held[lease.partition]
            loop = asyncio.get_running_loop()
            for callback in self._lost:
                loop.call_soon(callback, lease)

    async def work_log(self, lease: Lease) -> FileWorkLog:
        """See `Store.work_log`. Kept on this machine: a host on another one finds nothing of it."""
        self._open_lane()
        log = self._log_of(lease.partition)
        log.open(lease.epoch)
        return log

    def _log_of(self, partition: int) -> FileWorkLog:
        log = self._logs.get(partition)
        if log is None:
            log = self._logs[partition] = FileWorkLog(hub.log_path(self._hub_id, self._address, partition))
        return log

    # --- hosts -------------------------------------------------------------------------------------------------------

    async def survey(self, report: HostReport | None = None) -> Survey:
        """See `Store.survey`."""
        async with self._ask() as connection:
            self._said = self._said or report is not None
            return await self._hosts.survey(connection, report)

    async def withdraw(self) -> None:
        """See `Store.withdraw`."""
        async with self._ask() as connection:
            await self._hosts.withdraw(connection)

    async def ask_to_drain(self, host_id: str) -> bool:
        """See `Store.ask_to_drain`."""
        async with self._ask() as connection:
            return await self._hosts.ask_to_drain(connection, host_id)

    # --- partition ---------------------------------------------------------------------------------------------------

    async def load(self, lease: Lease, timers_until: int) -> Snapshot:
        """See `Store.load`."""
        await self._open_lane().settled(lease.partition)
        async with self._owner.use() as connection:
            return await self._reader.load(connection, lease.partition, timers_until)

    def commit(self, lease: Lease, batch: Batch) -> asyncio.Future[None]:
        """See `Store.commit`."""
        try:
            return self._open_lane().commit(lease, batch)
        except DurablyError as error:
            refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            refused.set_exception(error)
            return refused

    async def read_instances(self, lease: Lease, instance_ids: Sequence[str]) -> list[StoredInstance | None]:
        """See `Store.read_instances`."""
        self._open_lane()
        return await self._read_instances(instance_ids)

    async def _read_instances_of(self, asked: Sequence[Sequence[str]]) -> list[list[StoredInstance | None]]:
        async with self._own() as connection:
            return divided(asked, await self._reader.read_instances(connection, [*chain(*asked)]))

    async def read_entities(self, lease: Lease, instance_ids: Sequence[str]) -> list[EntityRow | None]:
        """See `Store.read_entities`."""
        self._open_lane()
        return await self._read_entities(instance_ids)

    async def _read_entities_of(self, asked: Sequence[Sequence[str]]) -> list[list[EntityRow | None]]:
        async with self._own() as connection:
            return divided(asked, await self._reader.read_entities(connection, [*chain(*asked)]))

    async def read_timers(self, lease: Lease, after: int, until: int) -> list[TimerRow]:
        """See `Store.read_timers`."""
        self._open_lane()
        return await self._read_timers((lease.partition, after, until))

    async def _read_timers_of(self, asked: Sequence[tuple[int, int, int]]) -> list[list[TimerRow]]:
        async with self._own() as connection:
            return await self._reader.read_timers_of(connection, asked)

    async def read_inbox(self, lease: Lease, after: int = 0) -> list[InboxRow]:
        """See `Store.read_inbox`."""
        self._open_lane()
        return await self._read_inbox((lease.partition, after))

    async def _read_inbox_of(self, asked: Sequence[tuple[int, int]]) -> list[list[InboxRow]]:
        async with self._own() as connection:
            return await self._reader.read_inbox_of(connection, asked)

    # --- anybody -----------------------------------------------------------------------------------------------------

    async def post(self, messages: Sequence[InboxRow]) -> bool:
        """See `Store.post`."""
        if messages:
            self._open_lane()
            return await self._posting.post(messages)
        async with self._ask() as connection:
            return await connection.value(self._sql(_SERVED))

    def _posted(self) -> None:
        if self._held:
            self._arrivals.announce()

    def _landed(self, columns: Columns, batches: Sequence[Batch]) -> None:
        self._news.landed(batches)
        offered, withdrawn = columns.has("offered"), columns.has("withdrawn")
        if offered or withdrawn:
            self._arrivals.tell_tasks(offered=offered, withdrawn=withdrawn)
        self._arrivals.tell()
        if not columns.elsewhere.isdisjoint(self._held):
            self._arrivals.announce()

    def on_arrival(self, callback: Callable[[], None]) -> None:
        """See `Store.on_arrival`."""
        self._open_lane()
        self._arrivals.watch(callback)

    def heed(self, callback: Callable[[News], None]) -> bool:
        """See `Store.heed`."""
        self._open_lane()
        return self._news.heed(callback)

    async def verdicts(self, message_ids: Sequence[str]) -> list[bytes | None]:
        """See `Store.verdicts`."""
        self._open_lane()
        return await self._read_verdicts(message_ids)

    async def _read_verdicts_of(self, asked: Sequence[Sequence[str]]) -> list[list[bytes | None]]:
        async with self._ask() as connection:
            return divided(asked, await self._reader.verdicts(connection, [*chain(*asked)]))

    async def read_messages(self, instance_id: str) -> list[InboxRow]:
        """See `Store.read_messages`."""
        async with self._ask() as connection:
            return await self._reader.read_messages(connection, instance_id)

    async def read_parked(
        self, after: int = 0, limit: int = 100, *, message_id: str | None = None
    ) -> list[ParkedMessage]:
        """See `Store.read_parked`."""
        async with self._ask() as connection:
            return await self._reader.read_parked(connection, after, limit, message_id)

    async def get_instance(self, instance_id: str, *, payloads: bool = True) -> InstanceRow | None:
        """See `Store.get_instance`."""
        self._open_lane()
        return await (self._look_up if payloads else self._look_up_alone)(instance_id)

    async def _look_up_all(self, asked: Sequence[str]) -> list[InstanceRow | None]:
        async with self._ask() as connection:
            return await self._reader.get_instances(connection, asked)

    async def _look_up_all_alone(self, asked: Sequence[str]) -> list[InstanceRow | None]:
        async with self._ask() as connection:
            return await self._reader.get_instances(connection, asked, payloads=False)

    async def get_instances(self, instance_ids: Sequence[str]) -> list[InstanceRow | None]:
        """See `Store.get_instances`."""
        async with self._ask() as connection:
            return await self._reader.get_instances(connection, instance_ids)

    async def read_history(self, instance_id: str) -> list[HistoryRow]:
        """See `Store.read_history`."""
        async with self._ask() as connection:
            return await self._reader.read_history(connection, instance_id)

    async def get_entity(self, instance_id: str) -> EntityRow | None:
        """See `Store.get_entity`."""
        async with self._ask() as connection:
            return (await self._reader.read_entities(connection, [instance_id]))[0]

    async def query_entities(self, query: EntityQuery) -> EntitiesFound:
        """See `Store.query_entities`."""
        async with self._ask() as connection:
            return await search.find_entities(connection, self._schema, query)

    async def query(self, query: InstanceQuery) -> Found:
        """See `Store.query`."""
        async with self._ask() as connection:
            return await search.find(connection, self._schema, query)

    async def query_with_waiting(self, query: InstanceQuery) -> FoundWithWaiting:
        """See `Store.query_with_waiting`."""
        async with self._ask() as connection:
            return await search.find_with_waiting(connection, self._schema, query)

    async def workload(self, now: int | None = None) -> Workload:
        """See `Store.workload`."""
        async with self._ask() as connection:
            return await workload(connection, self._schema, now)

    async def count(self, query: InstanceQuery) -> Counts:
        """See `Store.count`."""
        async with self._ask() as connection:
            return await search.count(connection, self._schema, query)

    # --- states ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _ask(self) -> AsyncGenerator[Connection]:
        self._open_lane()
        async with self._asking, self._anybody.use() as connection:
            yield connection

    @asynccontextmanager
    async def _own(self) -> AsyncGenerator[Connection]:
        self._open_lane()
        async with self._owner.use() as connection:
            yield connection

    def _open_lane(self) -> Lane:
        if self._state != "open" or self._lane is None:
            raise self._refusal()
        return self._lane

    def _refusal(self) -> DurablyError:
        if self._state == "new":
            return UsageError(f"Hub {self.url} is not open: call open() first")
        return HubClosedError(f"Hub {self.url} is closed; make a new store object and open that")
