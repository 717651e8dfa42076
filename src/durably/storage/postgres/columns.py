"""Batches as the arrays that `commit` takes: one array for each column of each kind of rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from durably.core.commit import (
    Batch,
    EntityRow,
    InboxRow,
    InstanceChange,
    InstanceRow,
    ParkedMessage,
    Removal,
    TaskRow,
    TimerRow,
    Tombstone,
)
from durably.storage.api import Lease
from durably.storage.postgres.commit_function import KINDS, Shape
from durably.storage.slots import partition_of

_ORDER: Final = {kind: place for place, kind in enumerate(KINDS)}

Row = tuple[Any, ...]


def text(value: str | None) -> bytes | None:
    """Text as it is stored."""
    return None if value is None else value.encode()


class Columns:
    """The rows of the batches of several partitions.

    Args:
        partitions: How many the hub has.
        holder: The store object that sends them.
    """

    def __init__(self, partitions: int, holder: bytes) -> None:
        self._partitions = partitions
        self._holder = holder
        self._rows: dict[str, list[Row]] = {}
        self.elsewhere: set[int] = set()
        """Partitions with messages from others."""

    def has(self, kind: str) -> bool:
        """True when there are such rows."""
        return kind in self._rows

    def call(self) -> tuple[Shape, list[Any]]:
        """Which statement, and its parameters."""
        kinds = tuple(sorted(self._rows, key=_ORDER.__getitem__))
        single = True
        for rows in self._rows.values():
            if len(rows) > 1:
                single = False
                break
        values: list[Any] = []
        for kind in kinds:
            rows = self._rows[kind]
            values += rows[0] if single else zip(*rows, strict=True)
        return Shape(kinds, single), values

    def add(self, lease: Lease, batch: Batch) -> None:
        """Take a batch in.

        Raises:
            UnicodeEncodeError: A text is none.
        """
        mine, of = lease.partition, self._partitions
        executions = [
            row.execution for rows in (batch.history, batch.instances, batch.entities) for row in rows
        ]
        self._put("fence", [(mine, lease.epoch, self._holder, batch.number, max(executions, default=0))])
        # Most batches of a busy hub have few kinds of rows, and there are many such batches.
        if batch.removed:
            self._remove("removed", "dropped", mine, batch.removed)
        if batch.history:
            self._put("history", [(mine, *row) for row in batch.history])
        if batch.executions_dropped:
            self._put("ended", [(mine, execution) for execution in batch.executions_dropped])
        if batch.instances:
            self._instances(mine, batch)
        if batch.changes:
            self._put("changes", [_change(row) for row in _newest(batch.changes, 0)])
        if batch.entities:
            self._put("entities", [entity_row(mine, row) for row in _newest(batch.entities, 0)])
        if batch.entities_removed:
            self._remove("entities_removed", "entities_ended", mine, batch.entities_removed)
        if batch.timers_set:
            self._put("timers", [timer_row(mine, row) for row in _newest(batch.timers_set, 0, 1, 2)])
        if batch.timers_cleared:
            self._put("cleared", [(mine, *key) for key in batch.timers_cleared])
        if batch.inbox_put:
            put = [message_row(row, of) for row in batch.inbox_put]
            self.elsewhere.update(row[1] for row in put if row[1] != mine)
            self._put("put", put)
        if batch.inbox_consumed:
            self._put("consumed", [(message_id.encode(),) for message_id in batch.inbox_consumed])
        if batch.tombstones:
            self._put("tombstones", [tombstone_row(mine, row) for row in _newest(batch.tombstones, 0)])
        if batch.tombstones_before:
            self._put("forgotten", [(mine, batch.tombstones_before)])
        if batch.parked:
            self._put("parked", [parked_row(row, of) for row in _newest(batch.parked, 0)])
        if batch.unparked:
            unparked = dict.fromkeys(batch.unparked)
            self._put("unparked", [(message_id.encode(),) for message_id in unparked])
        if batch.parked_dropped:
            self._put("parked_dropped", [(message_id.encode(),) for message_id in batch.parked_dropped])
        if batch.tasks_withdrawn:
            self._put("withdrawn", [(mine, task_id.encode()) for task_id in batch.tasks_withdrawn])
        if batch.tasks_offered:
            self._put("offered", [_task_row(mine, row) for row in _newest(batch.tasks_offered, 0)])

    def _put(self, kind: str, rows: list[Row]) -> None:
        held = self._rows.get(kind)
        if held is None:
            self._rows[kind] = rows
        else:
            held += rows

    def _remove(self, kind: str, executions: str, mine: int, removals: Iterable[Removal]) -> None:
        self._put(kind, [(removal.instance_id.encode(),) for removal in removals])
        self._put(executions, [(mine, removal.execution) for removal in removals])

    def _instances(self, mine: int, batch: Batch) -> None:
        instances = _newest(batch.instances, 0)
        self._put("instances", [instance_row(mine, row) for row in instances])
        for row in instances:
            if row.tags is not None:
                tags = msgspec.json.decode(row.tags, type=dict[str, str])
                if tags:
                    mine_id = row.instance_id.encode()
                    self._put(
                        "tags", [(mine_id, key.encode(), value.encode()) for key, value in tags.items()]
                    )


def _newest(rows: Sequence[Any], *key: int) -> Sequence[Any]:
    """Of several rows for one place the last one, where it stands first: a statement takes each place once."""
    if len(rows) < 2:
        return rows
    if len(key) == 1:
        place = key[0]
        found = {row[place]: row for row in rows}
    else:
        found = {tuple(row[place] for place in key): row for row in rows}
    return rows if len(found) == len(rows) else list(found.values())


def instance_row(mine: int, row: InstanceRow) -> Row:
    """An instance of a partition."""
    return (
        row.instance_id.encode(),
        mine,
        row.execution,
        row.ordinal,
        row.execution_id.encode(),
        row.name.encode(),
        text(row.version),
        row.status.encode(),
        *row[7:13],
        text(row.blocked),
        text(row.parked),
        row.in_flight,
        text(row.parent_instance_id),
        *row[17:],
    )


def _change(row: InstanceChange) -> Row:
    return (
        row.instance_id.encode(),
        row.status.encode(),
        *row[2:6],
        text(row.blocked),
        text(row.parked),
        *row[8:],
    )


def entity_row(mine: int, row: EntityRow) -> Row:
    """An entity of a partition."""
    return (row.instance_id.encode(), mine, row.name.encode(), *row[2:7], text(row.locked_by), *row[8:])


def _task_row(mine: int, row: TaskRow) -> Row:
    return (mine, row.task_id.encode(), row.instance_id.encode(), row.name.encode(), row.at, row.body)


def message_row(row: InboxRow, partitions: int) -> Row:
    """A message as it is put into the inbox of the partition of its instance."""
    place = partition_of(row.instance_id, partitions)
    return (row.message_id.encode(), place, row.instance_id.encode(), row.at, row.body)


def timer_row(mine: int, row: TimerRow) -> Row:
    """A timer of a partition."""
    return (mine, *row[:4], row.instance_id.encode())


def tombstone_row(mine: int, row: Tombstone) -> Row:
    """A tombstone that a partition keeps."""
    return (row.message_id.encode(), mine, row.at, row.verdict)


def parked_row(row: ParkedMessage, partitions: int) -> Row:
    """A message that was set aside, as the partition of its instance keeps it."""
    place = partition_of(row.instance_id, partitions)
    ids = (row.message_id.encode(), place, row.instance_id.encode())
    return (*ids, row.at, row.body, row.cause.encode(), row.parked_at)


def key(value: str) -> bytes:
    """Text that is looked for. Half a surrogate pair is found nowhere, and no reason to fail."""
    return value.encode("utf-8", "surrogatepass")


def keys(values: Iterable[str]) -> list[bytes]:
    """Several."""
    return [key(value) for value in values]
