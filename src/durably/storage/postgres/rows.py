"""Rows as they are read: their columns as SQL, and back to the tuples of `durably.core.commit`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from durably.core.commit import EntityRow, HistoryRow, InboxRow, InstanceRow, ParkedMessage, TimerRow
from durably.storage.api import StoredInstance
from durably.storage.limits import too_large

UPDATED_AT: Final = (
    "greatest(i.updated_at, (SELECT h.at FROM {s}.history h WHERE h.partition = i.partition"
    " AND h.execution = i.execution ORDER BY h.seq DESC LIMIT 1))"
)
"""When an instance of `instances i` was last updated: the instance row is not written by every batch."""

_FIRST: Final = (
    "i.instance_id, i.execution, i.ordinal, i.execution_id, i.name, i.version, i.status, i.created_at,"
)
_HEAD: Final = f"{_FIRST} {UPDATED_AT},"
_TAIL: Final = "i.custom_status, i.failure, i.blocked, i.parked, i.in_flight, i.parent_instance_id, i.tags, i.start_at, i.bases"

INSTANCE: Final = f"{_HEAD} i.input, i.output, {_TAIL}"
"""The columns of an `InstanceRow`, from `instances i`."""

INSTANCE_AS_STORED: Final = f"{_FIRST} i.updated_at, i.input, i.output, {_TAIL}"
"""The same with the time at which the row itself was written."""

INSTANCE_ALONE: Final = f"{_HEAD} NULL::bytea, NULL::bytea, {_TAIL}"
"""`INSTANCE` without input and output."""

HISTORY: Final = "h.execution, h.seq, h.at, h.data, h.checksum"
INBOX: Final = "m.message_id, m.instance_id, m.at, m.body, m.position"
PARKED: Final = "message_id, instance_id, at, body, cause, parked_at, position"
TIMER: Final = "execution, seq, kind, due_at, instance_id"
ENTITY: Final = (
    "instance_id, name, execution, created_at, updated_at, state, version, locked_by, rest, checksum"
)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def as_instance(columns: Sequence[Any]) -> InstanceRow:
    """From the columns of `INSTANCE`."""
    return InstanceRow._make(
        (
            columns[0].decode(),
            columns[1],
            columns[2],
            columns[3].decode(),
            columns[4].decode(),
            _text(columns[5]),
            columns[6].decode(),
            *columns[7:13],
            _text(columns[13]),
            _text(columns[14]),
            columns[15],
            _text(columns[16]),
            *columns[17:],
        )
    )


def as_history(columns: Sequence[Any]) -> HistoryRow:
    """From the columns of `HISTORY`."""
    return HistoryRow._make(columns)


def as_message(columns: Sequence[Any]) -> InboxRow:
    """From the columns of `INBOX`."""
    return InboxRow._make((columns[0].decode(), columns[1].decode(), *columns[2:]))


def as_parked(columns: Sequence[Any]) -> ParkedMessage:
    """From the columns of `PARKED`."""
    ids = (columns[0].decode(), columns[1].decode())
    return ParkedMessage._make((*ids, *columns[2:4], columns[4].decode(), *columns[5:]))


def as_timer(columns: Sequence[Any]) -> TimerRow:
    """From the columns of `TIMER`."""
    return TimerRow._make((*columns[:4], columns[4].decode()))


def as_entity(columns: Sequence[Any]) -> EntityRow:
    """From the columns of `ENTITY`."""
    ids = (columns[0].decode(), columns[1].decode())
    return EntityRow._make((*ids, *columns[2:7], _text(columns[7]), *columns[8:]))


def assemble(
    rows: Iterable[InstanceRow],
    history: Iterable[Sequence[Any]],
    inbox: Iterable[Sequence[Any]],
    history_max: int,
) -> list[StoredInstance]:
    """Put together what belongs together. A history that is too large is let go of."""
    stored = {row.execution: StoredInstance(row, [], []) for row in rows}
    sizes = dict.fromkeys(stored, 0)
    for columns in history:
        row = as_history(columns)
        sizes[row.execution] += len(row.data)
        stored[row.execution].history.append(row)
    for execution, size in sizes.items():
        if size > history_max:
            kept = stored[execution]
            del kept.history[1:]
            stored[execution] = kept._replace(oversize=too_large(size, history_max))
    by_id = {instance.row.instance_id: instance.inbox for instance in stored.values()}
    for columns in inbox:
        message = as_message(columns)
        if message.instance_id in by_id:  # a start that nobody has taken in yet has no instance
            by_id[message.instance_id].append(message)
    return list(stored.values())
