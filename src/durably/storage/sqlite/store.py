"""The SQLite provider: one file, one writer thread, readers beside it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from durably.clock import SystemClock
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
    DurablyError,
    HubClosedError,
    LeaseLostError,
    StoreFailedError,
    StoreUnavailableError,
    UsageError,
)
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
from durably.storage.sqlite import connection as opening
from durably.storage.sqlite import counting, entities, restore, search, wakeup
from durably.storage.sqlite.dump import Dumper
from durably.storage.sqlite.files import INDEX, Identity
from durably.storage.sqlite.lane import Health, Lane, answer
from durably.storage.sqlite.lock import HostLock, holder_of
from durably.storage.sqlite.lookups import Lookups
from durably.storage.sqlite.presence import Presence
from durably.storage.sqlite.reader import Reader
from durably.storage.sqlite.wakeup import Arrivals, Bell
from durably.storage.sqlite.workload import workload
from durably.storage.sqlite.writer import Writer
from durably.storage.work_log import FileWorkLog

T = TypeVar("T")
INLINE_MAX = 16_384
"""Four pages: a shorter payload costs less in its row than outside of it, also when the row is written again."""

_CAPABILITIES = Capabilities(partitions=1, durable=True, shared=False, wakeups=True, inbox_in_order=True)


class SqliteStore:
    """A `Store` in a SQLite file. An object is opened once; after `close` another one is made.

    Threads: one writes and checkpoints, one reads for the owner, one reads for anybody, so that a long query holds up
    nothing else. Each has its own connection and starts when it is first needed.
    """

    def __init__(self, path: str, *, vfs: str | None = None, inline_max: int = INLINE_MAX) -> None:
        """Name the hub; nothing is touched before `open`.

        Args:
            path: The file; a relative one is relative to the working directory of this moment.
            vfs: Name of the APSW VFS to use instead of the default one, for tests that inject faults.
            inline_max: Bytes of a payload of an instance; a larger one lies outside of its row.
        """
        self._name = path
        self._path = Path(path).absolute()
        self._vfs = vfs
        self._history_max = limits.history_max()
        self._inline_max = inline_max
        self._state = "new"
        self._ended: asyncio.Future[None] | None = None
        self._health = Health(str(self._path))
        self._presence = Presence(self._beside(".lock"))
        self._lock = HostLock(self._beside(".lock"), self._presence.host_id)
        self._epoch = 0  # of the lease that this object holds; 0 when it holds none
        self._log = FileWorkLog(self._beside(".running"))
        self._bell = Bell(self._beside(".sock"))
        self._files = Identity(self._path)
        self._arrivals = Arrivals(self._bell, lambda: self._writes.submit(self._look))
        self._created = False
        self._lanes: dict[str, Lane[Reader]] = {}
        self._asking = asyncio.Semaphore(limits.READS_MAX)
        self._whole = Lookups(lambda ids: self._reads("anybody").submit(Reader.get_instances, ids))
        self._alone = Lookups(lambda ids: self._reads("anybody").submit(Reader.get_instances_alone, ids))
        self._writer: Lane[Writer] | None = None

    @property
    def url(self) -> str:
        """See `Store.url`."""
        return f"sqlite:///{self._name}"

    @property
    def capabilities(self) -> Capabilities:
        """See `Store.capabilities`."""
        return _CAPABILITIES

    @property
    def listening(self) -> bool:
        """See `Store.listening`. It looks every 50 ms where nobody can tell it."""
        return self._state == "open"

    @property
    def tasks(self) -> None:
        """See `Store.tasks`: a file has one host."""
        return

    def partition_of(self, instance_id: str) -> int:
        """See `Store.partition_of`."""
        return 0

    # --- hub ---------------------------------------------------------------------------------------------------------

    async def open(self, *, create: bool = True) -> None:
        """See `Store.open`.

        Raises:
            StoreUnavailableError: This process may not use the file, or another one keeps it locked.
            UsageError: The SQLite of this process can lose data.
        """
        if self._state == "open":
            return
        if self._state == "closed":
            raise self._refusal()
        opening.check_sqlite()
        writer: Lane[Writer] = Lane(
            "durably-sqlite-writer",
            self._health,
            partial(self._connect_writer, create=create),
            between=Writer.checkpoint_if_due,
        )
        try:
            await writer.submit(_nothing)
        except BaseException:
            writer.end()
            raise
        self._writer = writer
        self._state = "open"

    def _connect_writer(self, *, create: bool) -> Writer:
        self._created = opening.prepare(self._path, create=create, vfs=self._vfs)
        connection = opening.connect(self._path, vfs=self._vfs, cache_kib=opening.WRITER_CACHE_KIB)
        return Writer(connection, self._inline_max)

    def _connect_reader(self) -> Reader:
        cache_kib = opening.READER_CACHE_KIB
        return Reader(
            opening.connect(self._path, vfs=self._vfs, cache_kib=cache_kib, read_only=True), self._history_max
        )

    async def close(self) -> None:
        """See `Store.close`."""
        if self._state == "open":
            self._arrivals.stop()
            self._ended = asyncio.get_running_loop().create_future()
            self._let_go(partial(answer, self._ended))
        self._state = "closed"
        if self._ended is not None and not self._ended.done():
            await asyncio.shield(self._ended)

    def _let_go(self, then: Callable[[], None]) -> None:
        """Everything is ended by the writer's thread, so that a caller who is cancelled leaves nothing behind."""
        readers = list(self._lanes.values())
        for lane in readers:
            lane.end()

        def before(writer: Writer) -> None:
            for lane in readers:
                lane.join()
            if self._lock.held and self._health.failure is None:
                with contextlib.suppress(Exception):  # the next owner does it before it serves
                    writer.checkpoint_all()

        def after() -> None:
            self._log.close()
            self._bell.take_down()
            self._lock.drop()
            then()

        self._writes.end(before, after)

    async def delete(self) -> None:
        """See `Store.delete`.

        Raises:
            StoreUnavailableError: This process may not delete the files.
        """
        await self.close()
        await asyncio.to_thread(self._delete)

    def _delete(self) -> None:
        if not self._path.parent.is_dir():
            return
        self._lock.take(self.url, "delete", _now())
        try:
            for suffix in ("", "-wal", "-shm", "-journal", ".running", ".sock", ".lock"):
                self._beside(suffix).unlink(missing_ok=True)
        except OSError as error:
            raise StoreUnavailableError(
                f"Hub file '{self._path}' cannot be deleted: {error.strerror}"
            ) from None
        finally:
            self._lock.drop()

    async def identity(self) -> HubIdentity:
        """See `Store.identity`."""
        return await self._reads("anybody").submit(Reader.identity)

    async def add_key(self, key_id: str, proof: bytes) -> None:
        """See `Store.add_key`."""
        await self._writes.submit(Writer.add_key, key_id, proof)

    async def dump(self) -> AsyncGenerator[DumpChunk]:
        """See `Store.dump`. As long as it reads, the log is not emptied: it grows, and no host can begin to serve."""
        self._check_open()
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lane = Lane("durably-sqlite-dump", self._health, self._connect_dumper)
        try:
            while (chunk := await lane.submit(Dumper.next)) is not None:
                yield chunk
                self._check_open()
        finally:
            lane.end(after=partial(answer, ended))
            await asyncio.shield(ended)

    def _connect_dumper(self) -> Dumper:
        cache_kib = opening.READER_CACHE_KIB
        return Dumper(opening.connect(self._path, vfs=self._vfs, cache_kib=cache_kib, read_only=True))

    async def restore(self, chunks: AsyncIterator[DumpChunk]) -> None:
        """See `Store.restore`. A file that is there is never taken, empty or not."""
        if self._state != "new":
            raise UsageError(f"Hub {self.url} is open, or was: restore() comes before open()")
        opening.check_sqlite()
        place = restore.Place(self._path, self.url, self._lock, _now())
        await restore.restore(place, chunks, inline_max=self._inline_max, vfs=self._vfs)

    # --- leases ------------------------------------------------------------------------------------------------------

    async def acquire(self, partition: int, owner: str) -> Lease:
        """See `Store.acquire`. Before the first lease of an object, the log is moved into the file.

        Raises:
            StoreUnavailableError: Another process keeps reading, so that the log cannot be moved.
        """
        if partition != 0:
            raise UsageError(f"Partition {partition} is not in this hub; a SQLite hub has partition 0 only")
        self._epoch, orphaned = await self._writes.submit(self._acquire, owner)
        self._arrivals.watch()
        return Lease(partition, owner, self._epoch, orphaned)

    def _acquire(self, writer: Writer, owner: str) -> tuple[int, bool]:
        was_held = self._lock.held
        self._lock.take(self.url, owner, _now())
        try:
            if not was_held:
                self._check_newest(writer)
                writer.checkpoint_all()
            epoch, orphaned = writer.next_epoch(self._bell.hang())
            self._lock.write(epoch)
            if not orphaned:
                self._log.delete()
            return epoch, orphaned
        except Exception:
            if not was_held:
                self._bell.take_down()
                self._lock.drop()
            raise

    def _check_newest(self, writer: Writer) -> None:
        """The file must not be behind what its last owner wrote: then its log is missing, or it is an old copy."""
        epoch, expected = writer.epoch(), self._lock.epoch_before
        if epoch < expected and not self._created:
            raise StoreFailedError(
                f"Hub file '{self._path}' is older than its last host left it (epoch {epoch}, expected {expected}): its log "
                f"'{self._beside('-wal')}' was deleted, or the file was replaced. Put the newest file and its log back; if "
                f"you restored a backup on purpose, delete '{self._beside('.lock')}' and start again"
            )

    def _look(self, writer: Writer) -> int:
        """Whether somebody else has written, and whether what we write still ends where others look for it."""
        changed = self._files.changed()
        if changed is None:
            return writer.data_version()
        if changed != INDEX:
            with contextlib.suppress(Exception):  # what the log holds is saved while we still have it open
                writer.checkpoint_all()
        raise self._files.gone(changed)

    async def renew(self, lease: Lease) -> None:
        """See `Store.renew`. The lock lasts as long as this process: there is nothing to extend."""
        if self._state != "open":
            raise self._refusal()
        if lease.epoch != self._epoch:
            raise LeaseLostError(
                f"The lease of epoch {lease.epoch} is over: it was acquired anew, or released"
            )

    async def release(self, lease: Lease) -> None:
        """See `Store.release`."""
        if self._state != "open":
            raise self._refusal()
        if lease.epoch == self._epoch:
            self._epoch = 0
            self._arrivals.unwatch()
            await self._writes.submit(self._release)

    def _release(self, writer: Writer) -> None:
        try:
            writer.release()
            self._log.delete()
        finally:
            self._bell.take_down()
            self._lock.drop()

    def on_lease_lost(self, callback: Callable[[Lease], None]) -> None:
        """See `Store.on_lease_lost`. The kernel keeps the lock for as long as this process lives: none is ever lost."""
        if self._state != "open":
            raise self._refusal()

    async def work_log(self, lease: Lease) -> FileWorkLog:
        """See `Store.work_log`."""
        return await self._writes.submit(self._open_log, lease.epoch)

    def _open_log(self, _: Writer, epoch: int) -> FileWorkLog:
        self._log.open(epoch)
        return self._log

    # --- hosts -------------------------------------------------------------------------------------------------------

    async def survey(self, report: HostReport | None = None) -> Survey:
        """See `Store.survey`."""
        if report is not None and self._state == "open" and self._presence.say(report):
            self._arrivals.announce()
        return await self._ask(self._look_around)

    def _look_around(self, reader: Reader) -> Survey:
        return self._presence.look(reader)

    async def withdraw(self) -> None:
        """See `Store.withdraw`."""
        if self._state != "open":
            raise self._refusal()
        if self._presence.go():
            self._arrivals.announce()

    async def ask_to_drain(self, host_id: str) -> bool:
        """See `Store.ask_to_drain`. A host of another process is not asked: nobody could take its partition."""
        if self._state != "open":
            raise self._refusal()
        asked = self._presence.drain(host_id)
        if asked:
            self._arrivals.announce()
        return asked

    # --- partition ---------------------------------------------------------------------------------------------------

    async def load(self, lease: Lease, timers_until: int) -> Snapshot:
        """See `Store.load`."""
        return await self._writes.submit(Writer.load, timers_until, self._history_max)

    def commit(self, lease: Lease, batch: Batch) -> asyncio.Future[None]:
        """See `Store.commit`."""
        try:
            return self._writes.submit(Writer.commit, lease, batch)
        except DurablyError as error:
            refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            refused.set_exception(error)
            return refused

    async def read_instances(self, lease: Lease, instance_ids: Sequence[str]) -> list[StoredInstance | None]:
        """See `Store.read_instances`."""
        return await self._reads("owner").submit(Reader.read_instances, instance_ids)

    async def read_entities(self, lease: Lease, instance_ids: Sequence[str]) -> list[EntityRow | None]:
        """See `Store.read_entities`."""
        return await self._reads("owner").submit(entities.read, instance_ids)

    async def read_timers(self, lease: Lease, after: int, until: int) -> list[TimerRow]:
        """See `Store.read_timers`."""
        return await self._reads("owner").submit(Reader.read_timers, after, until)

    async def read_inbox(self, lease: Lease, after: int = 0) -> list[InboxRow]:
        """See `Store.read_inbox`."""
        return await self._reads("owner").submit(Reader.read_inbox, after)

    # --- anybody -----------------------------------------------------------------------------------------------------

    async def post(self, messages: Sequence[InboxRow]) -> bool:
        """See `Store.post`."""
        wake_path = await self._writes.submit(Writer.post, messages)
        if self._epoch:
            self._arrivals.announce()
            return True
        if wake_path is not None and wakeup.send(wake_path):
            return True
        return holder_of(self._lock.path) is not None  # without a socket: it looks by itself

    def on_arrival(self, callback: Callable[[], None]) -> None:
        """See `Store.on_arrival`."""
        if self._state != "open":
            raise self._refusal()
        self._arrivals.add(callback)

    def heed(self, callback: Callable[[News], None]) -> bool:
        """See `Store.heed`. Nobody tells: a look at the file costs less than a word from another process."""
        return False

    async def get_instance(self, instance_id: str, *, payloads: bool = True) -> InstanceRow | None:
        """See `Store.get_instance`."""
        async with self._asking:
            return await (self._whole if payloads else self._alone).ask(instance_id)

    async def get_instances(self, instance_ids: Sequence[str]) -> list[InstanceRow | None]:
        """See `Store.get_instances`."""
        return await self._ask(Reader.get_instances, instance_ids)

    async def verdicts(self, message_ids: Sequence[str]) -> list[bytes | None]:
        """See `Store.verdicts`."""
        return await self._ask(Reader.verdicts, message_ids)

    async def read_parked(
        self, after: int = 0, limit: int = 100, *, message_id: str | None = None
    ) -> list[ParkedMessage]:
        """See `Store.read_parked`."""
        return await self._ask(Reader.read_parked, after, limit, message_id)

    async def read_messages(self, instance_id: str) -> list[InboxRow]:
        """See `Store.read_messages`."""
        return await self._ask(Reader.read_messages, instance_id)

    async def read_history(self, instance_id: str) -> list[HistoryRow]:
        """See `Store.read_history`."""
        return await self._ask(Reader.read_history, instance_id)

    async def get_entity(self, instance_id: str) -> EntityRow | None:
        """See `Store.get_entity`."""
        return await self._reads("anybody").submit(entities.get, instance_id)

    async def query_entities(self, query: EntityQuery) -> EntitiesFound:
        """See `Store.query_entities`."""
        return await self._reads("anybody").submit(entities.find, query)

    async def query(self, query: InstanceQuery) -> Found:
        """See `Store.query`."""
        return await self._ask(search.find, query)

    async def query_with_waiting(self, query: InstanceQuery) -> FoundWithWaiting:
        """See `Store.query_with_waiting`."""
        return await self._ask(search.find_with_waiting, query)

    async def count(self, query: InstanceQuery) -> Counts:
        """See `Store.count`."""
        return await self._ask(counting.count, query)

    async def workload(self, now: int | None = None) -> Workload:
        """See `Store.workload`."""
        return await self._ask(workload, now)

    # --- lanes -------------------------------------------------------------------------------------------------------

    @property
    def _writes(self) -> Lane[Writer]:
        if self._writer is None or self._state != "open":
            raise self._refusal()
        return self._writer

    async def _ask(self, work: Callable[..., T], *arguments: Any) -> T:
        """Read for anybody."""
        async with self._asking:
            return await self._reads("anybody").submit(work, *arguments)

    def _check_open(self) -> None:
        if self._state != "open":
            raise self._refusal()

    def _reads(self, who: str) -> Lane[Reader]:
        self._check_open()
        lane = self._lanes.get(who)
        if lane is None:
            lane = self._lanes[who] = Lane(f"durably-sqlite-{who}", self._health, self._connect_reader)
        return lane

    def _refusal(self) -> DurablyError:
        if self._state == "new":
            return UsageError(f"Hub {self.url} is not open yet; await open() first")
        return HubClosedError(f"Hub {self.url} is closed; make a new store object and open that")

    def _beside(self, suffix: str) -> Path:
        return Path(f"{self._path}{suffix}")


def _nothing(_: Writer) -> None:
    """The first job of a lane: connect."""


def _now() -> str:
    return datetime.fromtimestamp(SystemClock().now() // 1_000_000, UTC).isoformat()
