# ruff: noqa: S608 - statements are put together from constants of this file
"""All rows of a hub file, of one moment, on a connection of its own: others go on writing meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apsw

from durably.core.commit import (
    EntityRow,
    HistoryRow,
    InboxRow,
    InstanceRow,
    ParkedMessage,
    TimerRow,
    Tombstone,
)
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
    bases_of,
    size_of,
)
from durably.storage.sqlite.calls import Execute, executor
from durably.storage.sqlite.payloads import column

_INSTANCE = (
    "i.position, i.instance_id, i.execution, i.ordinal, i.execution_id, i.name, i.version, i.status, i.created_at,"
    f" i.updated_at, {column('input')}, {column('output')}, {column('custom_status')}, {column('failure')},"
    " i.blocked, i.parked, i.in_flight, i.parent_instance_id, i.tags, i.start_at, i.bases"
)
_IN_FLIGHT = 15
_HISTORY = "h.execution, h.seq, h.at, h.data, h.checksum"
_SELECT = {
    "instances": f"SELECT {_INSTANCE} FROM instances i ORDER BY i.position",
    # As the indexes have it: nothing has to be sorted.
    "history": f"SELECT i.instance_id, {_HISTORY} FROM instances i CROSS JOIN history h ON h.execution = i.execution"
    " ORDER BY i.position, h.seq",
    "timers": "SELECT execution, seq, kind, due_at, instance_id FROM timers ORDER BY execution, seq, kind",
    "entities": "SELECT instance_id, name, execution, created_at, updated_at, state, version, locked_by, rest, checksum"
    " FROM entities ORDER BY instance_id",
    "inbox": "SELECT message_id, instance_id, at, body, position FROM inbox ORDER BY position",
    "parked": "SELECT message_id, instance_id, at, body, cause, parked_at, position FROM parked_messages ORDER BY position",
    "tombstones": "SELECT message_id, at, verdict FROM tombstones ORDER BY message_id",
}
_REWOUND = f"SELECT {_INSTANCE} FROM instances i WHERE i.bases IS NOT NULL ORDER BY i.position"
_HISTORY_OF = f"SELECT {_HISTORY} FROM history h WHERE h.execution = ? ORDER BY h.seq"


def _instance(columns: tuple[Any, ...]) -> InstanceRow:
    return InstanceRow._make((*columns[:_IN_FLIGHT], columns[_IN_FLIGHT] == 1, *columns[_IN_FLIGHT + 1 :]))


_MAKE: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "instances": lambda columns: PlacedInstance(columns[0], _instance(columns[1:])),
    "history": lambda columns: OwnedHistory(columns[0], HistoryRow._make(columns[1:])),
    "timers": TimerRow._make,
    "entities": EntityRow._make,
    "inbox": InboxRow._make,
    "parked": ParkedMessage._make,
    "tombstones": Tombstone._make,
}


class Dumper:
    """A connection that reads everything once, and holds on to the moment at which it began.

    Args:
        connection: To the file, of nobody else.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self._chunks = _chunks(executor(connection))

    def next(self) -> DumpChunk | None:
        """What comes next; None behind the last chunk."""
        return next(self._chunks, None)


def _chunks(execute: Execute) -> Iterator[DumpChunk]:
    execute("BEGIN")
    yield _head(execute)
    for kind in KINDS:
        yield from _rows(kind, _MAKE[kind], execute(_SELECT[kind]))
        if kind == "history":
            yield from _rows(kind, _MAKE[kind], _rewound(execute))
    execute("COMMIT")


def _head(execute: Execute) -> DumpHead:
    ((hub_id, epoch, batch, execution),) = execute(
        "SELECT hub_id, epoch, batch, execution FROM partition"
    ).fetchall()
    keys = dict(execute("SELECT key_id, proof FROM encryption_keys").fetchall())
    newest = dict(execute("SELECT name, seq FROM sqlite_sequence").fetchall())
    positions = Positions(*(newest.get(table, 0) for table in ("instances", "inbox", "parked_messages")))
    return DumpHead(hub_id, keys, epoch, batch, [execution], positions)


def _rewound(execute: Execute) -> Iterator[tuple[Any, ...]]:
    for columns in execute(_REWOUND):
        row = _instance(columns[1:])
        for base in bases_of(row):
            for history in execute(_HISTORY_OF, (base,)):
                yield (row.instance_id, *history)


def _rows(
    kind: str, make: Callable[[tuple[Any, ...]], Any], found: Iterable[tuple[Any, ...]]
) -> Iterator[DumpRows]:
    rows: list[Any] = []
    size = 0
    for columns in found:
        rows.append(make(columns))
        size += size_of(columns)
        if len(rows) >= CHUNK_ROWS or size >= CHUNK_BYTES:
            yield DumpRows(kind, rows)
            rows, size = [], 0
    if rows:
        yield DumpRows(kind, rows)
