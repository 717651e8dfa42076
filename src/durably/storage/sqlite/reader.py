# ruff: noqa: S608 - statements are put together from constants of this file; values are bound
"""What is read, by the owner and by anybody. Each answer is of one moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import apsw

from durably.core.commit import HistoryRow, InboxRow, InstanceRow, ParkedMessage, TimerRow
from durably.storage.api import HubIdentity, Snapshot, StoredInstance
from durably.storage.limits import too_large
from durably.storage.sqlite.calls import Execute, executor, one_moment
from durably.storage.sqlite.payloads import column
from durably.storage.sqlite.statements import ManyKeys

UPDATED_AT = (
    "max(i.updated_at, ifnull((SELECT h.at FROM history h WHERE h.execution = i.execution"
    " ORDER BY h.seq DESC LIMIT 1), i.updated_at))"
)
"""When an instance of `instances i` was last updated: the instance row is not written by every batch."""

_HEAD = (
    "i.instance_id, i.execution, i.ordinal, i.execution_id, i.name, i.version, i.status, i.created_at,"
    f" {UPDATED_AT},"
)
_TAIL = (
    f"{column('custom_status')}, {column('failure')},"
    " i.blocked, i.parked, i.in_flight, i.parent_instance_id, i.tags, i.start_at, i.bases"
)
INSTANCE = f"{_HEAD} {column('input')}, {column('output')}, {_TAIL}"
"""The columns of an `InstanceRow` as it is read, from `instances i`."""

INSTANCE_ALONE = f"{_HEAD} NULL, NULL, {_TAIL}"
"""The same without input and output."""

_IN_FLIGHT = 15
"""Place of the only column that is not stored as it is: SQLite has no booleans."""

_HISTORY = "h.execution, h.seq, h.at, h.data, h.checksum"
_INBOX = "message_id, instance_id, at, body, position"
_PARKED = "message_id, instance_id, at, body, cause, parked_at, position"
_TIMER = "execution, seq, kind, due_at, instance_id"

_IDS = ManyKeys("SELECT instance_id FROM instances WHERE instance_id")
_INSTANCES_BY_ID = ManyKeys(f"SELECT {INSTANCE} FROM instances i WHERE i.instance_id")
_INSTANCES_ALONE_BY_ID = ManyKeys(f"SELECT {INSTANCE_ALONE} FROM instances i WHERE i.instance_id")
_HISTORY_BY_ID = ManyKeys(
    f"SELECT {_HISTORY} FROM instances i JOIN history h ON h.execution = i.execution WHERE i.instance_id",
    " ORDER BY i.instance_id, h.seq",  # unique and in the order of the index: nothing has to be sorted
)
_VERDICTS = ManyKeys("SELECT message_id, verdict FROM tombstones WHERE message_id")
_PARKED_BY_ID = ManyKeys(f"SELECT {_PARKED} FROM parked_messages WHERE message_id")
_INBOX_BY_ID = ManyKeys(f"SELECT {_INBOX} FROM inbox WHERE instance_id", " ORDER BY position")


def as_instance(columns: tuple[Any, ...]) -> InstanceRow:
    """An `InstanceRow` from the columns of `INSTANCE`."""
    return InstanceRow._make((*columns[:_IN_FLIGHT], columns[_IN_FLIGHT] == 1, *columns[_IN_FLIGHT + 1 :]))


class Reader:
    """A connection that only reads.

    Args:
        connection: To the file.
        history_max: Bytes of the largest history that the owner brings into memory.
    """

    def __init__(self, connection: apsw.Connection, history_max: int) -> None:
        self.connection = connection
        self._history_max = history_max
        self.execute = executor(connection)

    def read_instances(self, instance_ids: Sequence[str]) -> list[StoredInstance | None]:
        """See `Store.read_instances`."""
        ids = list(dict.fromkeys(instance_ids))
        # Mostly it is asked for ids of new instances, which are not there: one statement, and no transaction, says so.
        ids = [row[0] for row in _IDS.run(self.execute, ids)]
        if not ids:
            return [None] * len(instance_ids)
        with one_moment(self.connection):
            instances = _INSTANCES_BY_ID.run(self.execute, ids)
            stored = _assemble(
                map(as_instance, instances),
                _HISTORY_BY_ID.each(self.execute, ids),
                _INBOX_BY_ID.run(self.execute, ids),
                self._history_max,
            )
        found = {instance.row.instance_id: instance for instance in stored}
        return [found.get(instance_id) for instance_id in instance_ids]

    def lease(self) -> tuple[int, bool]:
        """The epoch of the newest owner, and whether it has not released the hub."""
        ((epoch, held),) = self.execute("SELECT epoch, held FROM partition").fetchall()
        return epoch, bool(held)

    def identity(self) -> HubIdentity:
        """See `Store.identity`."""
        with one_moment(self.connection):
            hub_id, batch, used = self.execute(
                "SELECT hub_id, batch, (SELECT max(seq) FROM sqlite_sequence) FROM partition"
            ).fetchall()[0]
            keys = dict(self.execute("SELECT key_id, proof FROM encryption_keys").fetchall())
        return HubIdentity(hub_id, not batch and not used, keys)

    def read_timers(self, after: int, until: int) -> list[TimerRow]:
        """See `Store.read_timers`."""
        return _timers(self.execute, "due_at > ? AND due_at <= ?", after, until)

    def read_inbox(self, after: int) -> list[InboxRow]:
        """See `Store.read_inbox`."""
        return _inbox(self.execute, after)

    def get_instances(self, instance_ids: Sequence[str]) -> list[InstanceRow | None]:
        """See `Store.get_instances`."""
        return self._instances(_INSTANCES_BY_ID, instance_ids)

    def get_instances_alone(self, instance_ids: Sequence[str]) -> list[InstanceRow | None]:
        """The same without input and output."""
        return self._instances(_INSTANCES_ALONE_BY_ID, instance_ids)

    def _instances(self, statement: ManyKeys, instance_ids: Sequence[str]) -> list[InstanceRow | None]:
        ids = dict.fromkeys(instance_ids)
        found = {row.instance_id: row for row in map(as_instance, self._ask(statement, *ids))}
        return [found.get(instance_id) for instance_id in instance_ids]

    def verdicts(self, message_ids: Sequence[str]) -> list[bytes | None]:
        """See `Store.verdicts`."""
        found = dict(self._ask(_VERDICTS, *message_ids))
        return [found.get(message_id) for message_id in message_ids]

    def read_parked(self, after: int, limit: int, message_id: str | None) -> list[ParkedMessage]:
        """See `Store.read_parked`."""
        if message_id is not None:
            return list(map(ParkedMessage._make, self._ask(_PARKED_BY_ID, message_id)))
        text = f"SELECT {_PARKED} FROM parked_messages WHERE position > ? ORDER BY position LIMIT ?"
        return list(map(ParkedMessage._make, self.execute(text, (after, limit))))

    def read_messages(self, instance_id: str) -> list[InboxRow]:
        """See `Store.read_messages`."""
        return list(map(InboxRow._make, self._ask(_INBOX_BY_ID, instance_id)))

    def read_history(self, instance_id: str) -> list[HistoryRow]:
        """See `Store.read_history`."""
        return list(map(HistoryRow._make, self._ask(_HISTORY_BY_ID, instance_id)))

    def _ask(self, statement: ManyKeys, *keys: str) -> list[tuple[Any, ...]]:
        try:
            return statement.run(self.execute, keys)
        except UnicodeEncodeError:  # nothing that is stored has such a key
            return [] if len(keys) == 1 else [row for key in keys for row in self._ask(statement, key)]


def load(connection: apsw.Connection, timers_until: int, history_max: int) -> Snapshot:
    """See `Store.load`. Runs on the writer's connection, behind what is being written."""
    execute = executor(connection)
    with one_moment(connection):
        batch, execution = execute("SELECT batch, execution FROM partition").fetchall()[0]
        instances = execute(
            f"SELECT {INSTANCE} FROM instances i WHERE i.in_flight ORDER BY i.execution"
        ).fetchall()
        history = execute(
            f"SELECT {_HISTORY} FROM instances i JOIN history h ON h.execution = i.execution"
            " WHERE i.in_flight ORDER BY i.execution, i.position, h.seq"  # as the indexes have it: no sorting
        )
        return Snapshot(
            batch=batch,
            execution=execution,
            in_flight=_assemble(map(as_instance, instances), history, [], history_max),
            timers=_timers(execute, "due_at <= ?", timers_until),
            inbox=_inbox(execute, 0),
        )


def _assemble(
    rows: Iterable[InstanceRow],
    history: Iterable[tuple[Any, ...]],
    inbox: Iterable[tuple[Any, ...]],
    history_max: int,
) -> list[StoredInstance]:
    """Put together what belongs together. A history that is too large is let go of as it is read."""
    stored = {row.execution: StoredInstance(row, [], []) for row in rows}
    last, size = -1, 0
    for columns in history:
        execution, data = columns[0], columns[3]
        size = len(data) + (size if execution == last else 0)
        last = execution
        kept = stored[execution].history
        if size <= history_max or not kept:
            kept.append(HistoryRow._make(columns))
        elif len(kept) > 1:
            del kept[1:]
        if size > history_max:
            stored[execution] = stored[execution]._replace(oversize=too_large(size, history_max))
    by_id = {instance.row.instance_id: instance.inbox for instance in stored.values()}
    for columns in inbox:
        if columns[1] in by_id:  # a start that nobody has taken in yet has no instance
            by_id[columns[1]].append(InboxRow._make(columns))
    return list(stored.values())


def _timers(execute: Execute, where: str, *instants: int) -> list[TimerRow]:
    text = f"SELECT {_TIMER} FROM timers WHERE {where} ORDER BY due_at, execution, seq, kind"
    return list(map(TimerRow._make, execute(text, instants)))


def _inbox(execute: Execute, after: int) -> list[InboxRow]:
    text = f"SELECT {_INBOX} FROM inbox WHERE position > ? ORDER BY position"
    return list(map(InboxRow._make, execute(text, (after,))))
