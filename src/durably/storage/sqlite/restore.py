"""A hub file made of a dump: built beside its place, without a log, and put there when it is whole and on the disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from durably.core.commit import Batch
from durably.core.dump import DumpChunk, DumpHead, DumpRows, Executions
from durably.errors import HubNotEmptyError
from durably.storage.sqlite import connection as opening
from durably.storage.sqlite import schema
from durably.storage.sqlite.calls import cursor_executor, pragma
from durably.storage.sqlite.lane import Health, Lane, answer
from durably.storage.sqlite.lock import HostLock
from durably.storage.sqlite.payloads import put_aside, write
from durably.storage.sqlite.statements import ManyRows

SUFFIX: Final = ".import"
"""Of the file that is being built. One that was left behind is in nobody's way, and goes with the next import."""

_CACHE_KIB: Final = 131_072
"""Indexes of ids, which come in no order: pages that fall out of the cache are read and written again and again."""

_PUT_INSTANCES = ManyRows(
    "INSERT INTO instances (position, instance_id, execution, ordinal, execution_id, name, version, status, created_at,"
    " updated_at, input, output, custom_status, failure, blocked, parked, in_flight, parent_instance_id, tags, start_at,"
    " bases) VALUES ",
    21,
)
_PUT: dict[str, ManyRows] = {
    "history": ManyRows("INSERT INTO history VALUES ", 5),
    "timers": ManyRows("INSERT INTO timers VALUES ", 5),
    "entities": ManyRows(
        "INSERT INTO entities (instance_id, name, execution, created_at, updated_at, state, version, locked_by, rest,"
        " checksum) VALUES ",
        10,
    ),
    "inbox": ManyRows(
        "INSERT INTO inbox (message_id, instance_id, at, body, position, absent) SELECT column1, column2, column3, column4,"
        " column5, NOT EXISTS (SELECT 1 FROM instances WHERE instance_id = column2) FROM (VALUES ",
        5,
        ")",
    ),
    "parked": ManyRows(
        "INSERT INTO parked_messages (message_id, instance_id, at, body, cause, parked_at, position) VALUES ",
        7,
    ),
    "tombstones": ManyRows("INSERT INTO tombstones (message_id, at, verdict) VALUES ", 3),
}


class Place(NamedTuple):
    """Where the hub will be.

    Attributes:
        path: The file.
        url: Of the hub.
        lock: Of its hosts: it keeps them and other imports away.
        since: The time, for people.
    """

    path: Path
    url: str
    lock: HostLock
    since: str


async def restore(
    place: Place, chunks: AsyncIterator[DumpChunk], *, inline_max: int, vfs: str | None
) -> None:
    """See `Store.restore`.

    Args:
        place: See there.
        chunks: Of the dump.
        inline_max: See `SqliteStore`.
        vfs: See `SqliteStore`.
    """
    path, lock = place.path, place.lock
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    new_lock = not lock.path.exists()

    def begin() -> Builder:
        opening.check_place(path)
        lock.take(place.url, "import", place.since)
        return Builder(path, inline_max, vfs)

    def end() -> None:
        if new_lock and lock.held and not path.exists():
            lock.path.unlink(missing_ok=True)
        lock.drop()
        answer(ended)

    lane = Lane("durably-sqlite-import", Health(str(path)), begin)
    try:
        await lane.submit(Builder.ready)  # before anything is read: it may be long in coming
        async for chunk in chunks:
            if isinstance(chunk, DumpHead):
                await lane.submit(Builder.begin, chunk)
            else:
                await lane.submit(Builder.add, chunk)
        lock.write(await lane.submit(Builder.finish))
    finally:
        lane.end(Builder.discard, end)
        await asyncio.shield(ended)


class Builder:
    """A connection to the file that is being built.

    Args:
        path: Where the hub will be.
        inline_max: See `SqliteStore`.
        vfs: See `SqliteStore`.
    """

    def __init__(self, path: Path, inline_max: int, vfs: str | None) -> None:
        opening.check_folder(path)
        refuse_existing(path)
        self._path = path
        self._built = Path(f"{path}{SUFFIX}")
        self.discard()
        os.close(os.open(self._built, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        self._inline_max = inline_max
        self._executions = Executions(1, ())
        self._head: DumpHead | None = None
        self.connection = opening.connect(self._built, cache_kib=_CACHE_KIB, vfs=vfs)
        self._execute = cursor_executor(self.connection)
        try:
            self._make_empty()
        except BaseException:
            self.connection.close()
            self.discard()
            raise

    def _make_empty(self) -> None:
        # Whatever happens before the end, nobody will read this file.
        pragma(self.connection, "journal_mode", "off")
        pragma(self.connection, "synchronous", "off")
        schema.migrate(self.connection, str(self._built))
        self._execute("BEGIN IMMEDIATE")

    def ready(self) -> None:
        """Nothing is in the way."""

    def begin(self, head: DumpHead) -> None:
        """Take the head of the dump."""
        self._head = head
        self._executions = Executions(1, head.executions)

    def add(self, chunk: DumpRows) -> None:
        """Take some rows."""
        self._executions.note_rows(chunk)
        if chunk.kind == "instances":
            self._add_instances(chunk.rows)
            return
        rows = [owned.row for owned in chunk.rows] if chunk.kind == "history" else chunk.rows
        _PUT[chunk.kind].run(self._execute, rows)

    def _add_instances(self, placed: Sequence[Any]) -> None:
        batch = Batch(number=0, instances=[one.row for one in placed])
        rows, _, aside = put_aside(batch, self._inline_max)
        _PUT_INSTANCES.run(
            self._execute, [(one.position, *row) for one, row in zip(placed, rows, strict=True)]
        )
        if aside:
            write(self._execute, aside)

    def finish(self) -> int:
        """Make it durable, and put it in its place; returns the epoch that it is in.

        Raises:
            HubNotEmptyError: Somebody has made a hub there meanwhile.
        """
        head = self._head
        if head is None:
            raise AssertionError("a dump begins with its head")
        self._execute(
            "UPDATE partition SET hub_id = ?, epoch = ?, batch = ?, execution = ?",
            (head.hub_id, head.epoch, head.batch, self._executions.newest[0]),
        )
        for key in head.keys.items():
            self._execute("INSERT INTO encryption_keys VALUES (?, ?)", key)
        self._execute("DELETE FROM sqlite_sequence")
        for table, newest in zip(("instances", "inbox", "parked_messages"), head.positions, strict=True):
            if newest:
                self._execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, newest))
        self._execute("COMMIT")
        pragma(self.connection, "journal_mode", "wal")
        self.connection.close()
        _sync(self._built)
        try:
            os.link(self._built, self._path)  # unlike a rename, it replaces nothing
        except FileExistsError:
            refuse_existing(self._path)
            raise
        self.discard()
        _sync(self._path.parent)
        return head.epoch

    def discard(self) -> None:
        """Leave nothing of the file that was being built. Idempotent."""
        for suffix in ("", "-wal", "-shm", "-journal"):
            with suppress(FileNotFoundError):
                os.unlink(f"{self._built}{suffix}")  # noqa: PTH108 - the path is text here


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def refuse_existing(path: Path) -> None:
    """Raise `HubNotEmptyError` when a file is there, or what is left of one."""
    for suffix, what in (("", "Hub file"), ("-wal", "The log of a hub,")):
        if os.path.lexists(f"{path}{suffix}"):
            raise HubNotEmptyError(
                f"{what} '{path}{suffix}' is there already: a hub is imported into a new file. Name another one, or move "
                "this one away, with the files beside it that begin with its name"
            )
