# ruff: noqa: S608 - statements are put together from constants and the quoted schema; values are bound
"""A hub made of a dump, in one transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from durably.core.dump import DumpChunk, DumpHead, DumpRows, Executions
from durably.errors import HubNotEmptyError
from durably.storage.postgres import columns
from durably.storage.postgres.calls import Connection
from durably.storage.postgres.commit_function import ABSENT, KINDS
from durably.storage.postgres.dump import PLACED
from durably.storage.slots import partition_of

Row = tuple[Any, ...]

_USED: Final = (
    "SELECT EXISTS (SELECT 1 FROM {s}.partitions WHERE batch > 0) OR EXISTS (SELECT 1 FROM {s}.inbox)"
    " OR EXISTS (SELECT 1 FROM {s}.tombstones) OR EXISTS (SELECT 1 FROM {s}.encryption_keys)"
)
_INBOX: Final = (
    "INSERT INTO {s}.inbox (message_id, partition, instance_id, at, body, position, absent) OVERRIDING SYSTEM VALUE"
    f" SELECT r.*, {ABSENT} FROM unnest($1::bytea[], $2::int[], $3::bytea[], $4::bigint[], $5::bytea[], $6::bigint[])"
    " AS r (message_id, partition, instance_id, at, body, position)"
)


async def lock_unused(connection: Connection, schema: str, url: str) -> None:
    """Keep everybody from a hub until the transaction ends, if nobody has used it.

    Raises:
        HubNotEmptyError: Somebody has.
    """
    for table in ("partitions", "inbox", "encryption_keys"):
        await connection.script(f"LOCK TABLE {schema}.{table} IN EXCLUSIVE MODE")
    if await connection.value(_USED.replace("{s}", schema)):
        raise HubNotEmptyError(
            f"Hub {url} has been used already: a hub is imported where there is none. Name another one (?hub=…), or delete "
            f"this one (DROP SCHEMA {schema} CASCADE)"
        )


async def fill(
    connection: Connection, schema: str, partitions: int, chunks: AsyncIterator[DumpChunk]
) -> None:
    """Put a dump into an empty hub.

    Args:
        connection: Within a transaction.
        schema: Quoted.
        partitions: Of the hub.
        chunks: Of the dump.
    """
    filling = _Filling(connection, schema, partitions)
    async for chunk in chunks:
        if isinstance(chunk, DumpHead):
            await filling.begin(chunk)
        else:
            await filling.add(chunk)
    await filling.finish()


class _Filling:
    def __init__(self, connection: Connection, schema: str, partitions: int) -> None:
        self._connection = connection
        self._schema = schema
        self._partitions = partitions
        self._executions = Executions(partitions, ())

    def _sql(self, text: str) -> str:
        return text.replace("{s}", self._schema)

    async def begin(self, head: DumpHead) -> None:
        """Take what is not a row. The counters of batches come now, those of executions at the end."""
        ask = self._connection.rows
        self._executions = Executions(self._partitions, head.executions)
        await ask(self._sql("UPDATE {s}.hub SET hub_id = $1"), head.hub_id)
        await ask(
            self._sql("UPDATE {s}.partitions SET epoch = greatest(epoch, $1), batch = $2"),
            head.epoch,
            head.batch,
        )
        for key_id, proof in head.keys.items():
            await ask(self._sql("INSERT INTO {s}.encryption_keys VALUES ($1, $2)"), key_id.encode(), proof)
        for table, newest in zip(PLACED, head.positions, strict=True):
            if newest:
                text = "SELECT setval(pg_get_serial_sequence($1, 'position')::regclass, $2::bigint)"
                await ask(text, f"{self._schema}.{table}", newest)

    async def add(self, chunk: DumpRows) -> None:
        """Take some rows."""
        self._executions.note_rows(chunk)
        if chunk.kind == "inbox":
            await self._add_messages(chunk.rows)
            return
        table, names, made = _COPIED[chunk.kind]
        await self._copy(table, names, (made(row, self._partitions) for row in chunk.rows))
        if chunk.kind == "instances":
            tags = [row for placed in chunk.rows if placed.row.tags is not None for row in _tags(placed.row)]
            await self._copy("instance_tags", ("instance_id", "key", "value"), tags)

    async def _copy(self, table: str, names: Sequence[str], found: Iterable[Row]) -> None:
        await self._connection.copy(self._schema, table, names, found)

    async def _add_messages(self, messages: Sequence[Any]) -> None:
        made = [(*columns.message_row(row, self._partitions), row.position) for row in messages]
        await self._connection.rows(self._sql(_INBOX), *zip(*made, strict=True))

    async def finish(self) -> None:
        """Say from where on the partitions number their executions."""
        newest = list(self._executions.newest)
        text = "UPDATE {s}.partitions p SET execution = r.newest FROM unnest($1::int[], $2::bigint[]) AS r (id, newest)"
        await self._connection.rows(self._sql(f"{text} WHERE p.id = r.id"), list(range(len(newest))), newest)


def _names(kind: str, *more: str) -> tuple[str, ...]:
    return (*KINDS[kind], *more)


def _tags(row: Any) -> list[Row]:
    tags = msgspec.json.decode(row.tags, type=dict[str, str])
    return [(row.instance_id.encode(), key.encode(), value.encode()) for key, value in tags.items()]


_COPIED: Final[dict[str, tuple[str, Sequence[str], Callable[[Any, int], Row]]]] = {
    "instances": (
        "instances",
        _names("instances", "position"),
        lambda placed, partitions: (
            *columns.instance_row(partition_of(placed.row.instance_id, partitions), placed.row),
            placed.position,
        ),
    ),
    "history": (
        "history",
        _names("history"),
        lambda owned, partitions: (partition_of(owned.instance_id, partitions), *owned.row),
    ),
    "timers": (
        "timers",
        _names("timers"),
        lambda row, partitions: columns.timer_row(partition_of(row.instance_id, partitions), row),
    ),
    "entities": (
        "entities",
        _names("entities"),
        lambda row, partitions: columns.entity_row(partition_of(row.instance_id, partitions), row),
    ),
    "parked": (
        "parked_messages",
        _names("parked", "position"),
        lambda row, partitions: (*columns.parked_row(row, partitions), row.position),
    ),
    # Whom a message was for is not known any more. A tombstone is found by the message, and forgotten by any owner.
    "tombstones": (
        "tombstones",
        _names("tombstones"),
        lambda row, partitions: columns.tombstone_row(partition_of(row.message_id, partitions), row),
    ),
}
"""By kind: table, columns, and how a row becomes values."""
