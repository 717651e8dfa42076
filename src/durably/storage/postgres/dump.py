# ruff: noqa: S608 - statements are put together from constants; values are bound
"""All rows of a hub, of one moment, through cursors: hosts go on writing meanwhile."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final

from durably.core.commit import Tombstone
from durably.core.dump import (
    CHUNK_BYTES,
    CHUNK_ROWS,
    KINDS,
    DumpChunk,
    DumpHead,
    DumpRows,
    OwnedHistory,
    PlacedInstance,
    Positions,
    size_of,
)
from durably.storage.postgres import rows
from durably.storage.postgres.calls import Connection

_ROWS_MIN: Final = 8
"""Asked for at first: nobody knows how large they are."""

# Which executions are an instance's, without history that belongs to nobody any more.
_OWNED: Final = (
    "(SELECT partition, execution, instance_id FROM {s}.instances UNION ALL"
    " SELECT i.partition, base.value::bigint, i.instance_id FROM {s}.instances i,"
    " jsonb_array_elements_text(convert_from(i.bases, 'UTF8')::jsonb) AS base WHERE i.bases IS NOT NULL)"
)
_SELECT: Final = {
    "instances": f"SELECT i.position, {rows.INSTANCE_AS_STORED} FROM {{s}}.instances i ORDER BY i.position",
    "history": f"SELECT o.instance_id, {rows.HISTORY} FROM {{s}}.history h JOIN {_OWNED} o"
    " ON o.partition = h.partition AND o.execution = h.execution ORDER BY h.partition, h.execution, h.seq",
    "timers": f"SELECT {rows.TIMER} FROM {{s}}.timers ORDER BY partition, execution, seq, kind",
    "entities": f"SELECT {rows.ENTITY} FROM {{s}}.entities ORDER BY instance_id",
    "inbox": f"SELECT {rows.INBOX} FROM {{s}}.inbox m ORDER BY m.position",
    "parked": f"SELECT {rows.PARKED} FROM {{s}}.parked_messages ORDER BY position",
    "tombstones": "SELECT message_id, at, verdict FROM {s}.tombstones ORDER BY message_id",
}
_MAKE: Final[dict[str, Callable[[Sequence[Any]], Any]]] = {
    "instances": lambda columns: PlacedInstance(columns[0], rows.as_instance(columns[1:])),
    "history": lambda columns: OwnedHistory(columns[0].decode(), rows.as_history(columns[1:])),
    "timers": rows.as_timer,
    "entities": rows.as_entity,
    "inbox": rows.as_message,
    "parked": rows.as_parked,
    "tombstones": lambda columns: Tombstone(columns[0].decode(), columns[1], columns[2]),
}
PLACED: Final = ("instances", "inbox", "parked_messages")
"""Tables whose rows have places, in the order of `Positions`."""


async def dump(connection: Connection, schema: str) -> AsyncGenerator[DumpChunk]:
    """See `Store.dump`.

    Args:
        connection: Of nobody else, until it is done.
        schema: Quoted.
    """
    async with connection.moment():
        yield await _head(connection, schema)
        for kind in KINDS:
            answer = await connection.cursor(_SELECT[kind].replace("{s}", schema))
            wanted = _ROWS_MIN
            while found := await answer(wanted):
                size = sum(map(size_of, found))
                yield DumpRows(kind, [_MAKE[kind](tuple(columns)) for columns in found])
                wanted = max(1, min(CHUNK_ROWS, 4 * wanted, CHUNK_BYTES * len(found) // max(1, size)))


async def _head(connection: Connection, schema: str) -> DumpHead:
    hub_id = await connection.value(f"SELECT hub_id FROM {schema}.hub")
    keys = await connection.rows(f"SELECT key_id, proof FROM {schema}.encryption_keys")
    counters = await connection.rows(f"SELECT epoch, batch, execution FROM {schema}.partitions ORDER BY id")
    newest = [await newest_position(connection, schema, table) for table in PLACED]
    return DumpHead(
        hub_id,
        {row[0].decode(): row[1] for row in keys},
        max(row[0] for row in counters),
        max(row[1] for row in counters),
        [row[2] for row in counters],
        Positions(*newest),
    )


async def newest_position(connection: Connection, schema: str, table: str) -> int:
    """The highest place ever given in a table, 0 when none was."""
    sequence = await connection.value("SELECT pg_get_serial_sequence($1, 'position')", f"{schema}.{table}")
    return await connection.value(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}")
