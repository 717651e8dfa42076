# ruff: noqa: S608 - statements are put together from constants of this file; values are bound
"""What is written: batches, arrivals, epochs, and the checkpoints between them. Runs on the writer's thread."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import apsw

from durably.core.commit import Batch, HistoryRow, InboxRow, InstanceChange
from durably.errors import InvariantError, LeaseLostError, StoreUnavailableError
from durably.storage.api import Lease, Snapshot
from durably.storage.sqlite import entities
from durably.storage.sqlite.calls import cursor_executor, pragma
from durably.storage.sqlite.connection import in_a_hurry
from durably.storage.sqlite.payloads import put_aside, write
from durably.storage.sqlite.reader import load
from durably.storage.sqlite.statements import ManyKeys, ManyRows

_CHECKPOINT_PAGES = 4_000
"""Pages written to the log (16 MB) before they are copied into the file: enough to write a hot page once, not often."""

_CHECKPOINT_BUSY_MS = 20
"""So long others are waited for; batches wait meanwhile."""

_CHECKPOINT_RETRY_PAGES = 1_000
"""A reader may pin the end of the log; then the next attempt comes after so many more pages."""

_INSTANCE_COLUMNS = (
    "instance_id, execution, ordinal, execution_id, name, version, status, created_at, updated_at, input, output,"
    " custom_status, failure, blocked, parked, in_flight, parent_instance_id, tags, start_at, bases"
)
_REPLACED = ", ".join(
    f"{name} = excluded.{name}"
    for name in _INSTANCE_COLUMNS.replace(",", "").split()
    if name != "instance_id"
)

_FENCE = (
    "UPDATE partition SET batch = ?1, batch_epoch = ?2, execution = max(execution, ?3)"
    " WHERE id = 0 AND epoch = ?2 AND batch = ?1 - 1"
)
_ADD_HISTORY = ManyRows("INSERT OR ROLLBACK INTO history VALUES ", 5)
_PUT_INSTANCES = ManyRows(
    f"INSERT OR ROLLBACK INTO instances ({_INSTANCE_COLUMNS}) VALUES ",
    20,
    f" ON CONFLICT (instance_id) DO UPDATE SET {_REPLACED}",
)
_CHANGE_INSTANCES = ManyRows(
    "WITH change (id, status, updated_at, output, custom_status, failure, blocked, parked, in_flight, start_at)"
    " AS (VALUES ",
    10,
    ") UPDATE OR ROLLBACK instances SET status = change.status, updated_at = change.updated_at,"
    " output = change.output, custom_status = change.custom_status, failure = change.failure,"
    " blocked = change.blocked, parked = change.parked, in_flight = change.in_flight, start_at = change.start_at"
    " FROM change WHERE instance_id = change.id",
)
_SET_TIMERS = ManyRows(
    "INSERT OR ROLLBACK INTO timers VALUES ",
    5,
    " ON CONFLICT (execution, seq, kind) DO UPDATE SET due_at = excluded.due_at, instance_id = excluded.instance_id",
)
_CLEAR_TIMERS = ManyRows("DELETE FROM timers WHERE (execution, seq, kind) IN (VALUES ", 3, ")")
_PUT_INBOX = ManyRows(
    "INSERT OR ROLLBACK INTO inbox (message_id, instance_id, at, body, absent)"
    " SELECT column1, column2, column3, column4,"
    " NOT EXISTS (SELECT 1 FROM instances WHERE instance_id = column2) FROM (VALUES ",
    5,
    ") WHERE NOT EXISTS (SELECT 1 FROM tombstones WHERE message_id = column1) ON CONFLICT (message_id) DO NOTHING",
)
_ANY_ABSENT = "SELECT 1 FROM inbox WHERE absent LIMIT 1"
_ABSENT_AGAIN = ManyKeys("UPDATE inbox SET absent = 1 WHERE instance_id")
_NOT_ABSENT = ManyKeys("UPDATE inbox SET absent = 0 WHERE absent AND instance_id")
_CONSUME_INBOX = ManyKeys("DELETE FROM inbox WHERE message_id")
_PUT_TOMBSTONES = ManyRows(
    "INSERT OR ROLLBACK INTO tombstones (message_id, at, verdict) VALUES ",
    3,
    " ON CONFLICT (message_id) DO UPDATE SET at = excluded.at, verdict = excluded.verdict",
)
_REMOVE_INSTANCES = ManyKeys("DELETE FROM instances WHERE instance_id")
_PARK = ManyRows(
    "INSERT OR REPLACE INTO parked_messages (message_id, instance_id, at, body, cause, parked_at)"
    " SELECT column1, column2, column3, column4, column5, column6 FROM (VALUES ",
    7,
    ")",
)
_UNPARK = (
    "INSERT INTO inbox (message_id, instance_id, at, body, absent)"
    " SELECT message_id, instance_id, at, body,"
    " NOT EXISTS (SELECT 1 FROM instances i WHERE i.instance_id = p.instance_id)"
    " FROM parked_messages p WHERE message_id = ?"
    " ON CONFLICT (message_id) DO NOTHING"
)
_DROP_PARKED = "DELETE FROM parked_messages WHERE message_id = ?"
_DROP_HISTORY = ManyKeys("DELETE FROM history WHERE execution")
_DROP_TIMERS = ManyKeys("DELETE FROM timers WHERE execution")

_first = itemgetter(0)
_second = itemgetter(1)


class Writer:
    """The one connection that writes."""

    def __init__(self, connection: apsw.Connection, inline_max: int) -> None:
        """Write with a connection; payloads of more than `inline_max` bytes lie outside of the rows of instances."""
        self.connection = connection
        self._inline_max = inline_max
        self._execute = cursor_executor(connection)
        self._log_pages = 0
        self._checkpoint_at = _CHECKPOINT_PAGES
        connection.set_wal_hook(self._committed)

    # --- batches -----------------------------------------------------------------------------------------------------

    def commit(self, lease: Lease, batch: Batch) -> None:
        """See `Store.commit`."""
        execute = self._execute
        execute("BEGIN IMMEDIATE")
        try:
            highest = max(
                max(map(_first, batch.history), default=0), max(map(_second, batch.instances), default=0)
            )
            if batch.entities:
                highest = max(highest, *(row.execution for row in batch.entities))
            execute(_FENCE, (batch.number, lease.epoch, highest))
            if self.connection.changes() != 1:
                self._settle_refused(lease, batch)
                return
            self._apply(batch)
            execute("COMMIT")
        except apsw.ConstraintError as error:
            self._roll_back()
            raise self._explain(error, batch) from None
        finally:
            self._roll_back()

    def _apply(self, batch: Batch) -> None:
        execute = self._execute
        if batch.removed:
            self._remove(batch)
        if batch.history:
            _ADD_HISTORY.run(execute, batch.history)
        if batch.executions_dropped:
            _DROP_HISTORY.run(execute, batch.executions_dropped)
            _DROP_TIMERS.run(execute, batch.executions_dropped)
        if batch.instances or batch.changes:
            self._write_instances(batch)
        if batch.entities or batch.entities_removed:
            entities.write(execute, batch)
        if batch.timers_set:
            _SET_TIMERS.run(execute, batch.timers_set)
        if batch.timers_cleared:
            _CLEAR_TIMERS.run(execute, batch.timers_cleared)
        if batch.inbox_put:
            _PUT_INBOX.run(execute, batch.inbox_put)
        if batch.inbox_consumed:
            _CONSUME_INBOX.run(execute, batch.inbox_consumed)
        if batch.tombstones:
            _PUT_TOMBSTONES.run(execute, batch.tombstones)
        if batch.tombstones_before:
            execute("DELETE FROM tombstones WHERE at < ?", (batch.tombstones_before,))
        if batch.parked:
            _PARK.run(execute, batch.parked)
        for message_id in batch.unparked:
            execute(_UNPARK, (message_id,))
            execute(_DROP_PARKED, (message_id,))
        for message_id in batch.parked_dropped:
            execute(_DROP_PARKED, (message_id,))

    def _remove(self, batch: Batch) -> None:
        ids = [removal.instance_id for removal in batch.removed]
        executions = [removal.execution for removal in batch.removed]
        _REMOVE_INSTANCES.run(self._execute, ids)
        _ABSENT_AGAIN.run(
            self._execute, ids
        )  # what was posted to it meanwhile may be the start of the next one
        _DROP_HISTORY.run(self._execute, executions)
        _DROP_TIMERS.run(self._execute, executions)

    def _write_instances(self, batch: Batch) -> None:
        instances, changes, aside = put_aside(batch, self._inline_max)
        if instances:
            _PUT_INSTANCES.run(self._execute, instances)
            if self._execute(_ANY_ABSENT).fetchall():
                _NOT_ABSENT.run(self._execute, [row.instance_id for row in instances])
        if changes:
            self._change(changes)
        if aside:
            write(self._execute, aside)

    def _change(self, given: Sequence[InstanceChange]) -> None:
        # Of several changes of an instance the last one counts; `UPDATE ... FROM` would take any of them.
        changes = dict(zip(map(_first, given), given, strict=True))
        # What triggers do is not among these.
        changed = _CHANGE_INSTANCES.run(self._execute, list(changes.values()), self.connection.changes)
        if changed != len(changes):
            missing = next(key for key in changes if not self._exists("instances WHERE instance_id = ?", key))
            raise InvariantError("I2", missing, "it was changed, but there is no such instance")

    def _settle_refused(self, lease: Lease, batch: Batch) -> None:
        """The fence did not match: either the batch was applied already, or it must not be."""
        epoch, newest, newest_epoch = self._execute(
            "SELECT epoch, batch, batch_epoch FROM partition"
        ).fetchall()[0]
        if lease.epoch != epoch:
            raise LeaseLostError(
                f"Batch {batch.number} of epoch {lease.epoch} refused: partition {lease.partition} is in epoch {epoch}"
            )
        if batch.number != newest or newest_epoch != epoch:
            raise InvariantError("I2", "", f"batch {batch.number} was sent, expected {newest + 1}")

    def _explain(self, error: apsw.ConstraintError, batch: Batch) -> Exception:
        """A history row that exists already is an invariant of ours; any other constraint is a matter of the data."""
        if "history.execution, history.seq" not in str(error):
            return error
        seen: set[tuple[int, int]] = set()
        for row in batch.history:
            key = (row.execution, row.seq)
            if key in seen or self._exists("history WHERE execution = ? AND seq = ?", *key):
                return self._duplicate(row, batch)
            seen.add(key)
        return error

    def _duplicate(self, row: HistoryRow, batch: Batch) -> InvariantError:
        stored = self._execute(
            "SELECT instance_id FROM instances WHERE execution = ?", (row.execution,)
        ).fetchall()
        ids = [instance.instance_id for instance in batch.instances if instance.execution == row.execution]
        ids += [instance_id for (instance_id,) in stored]
        return InvariantError(
            "I1",
            ids[0] if ids else "",
            f"history row {row.seq} of execution {row.execution} was sent, but it exists",
        )

    def _exists(self, where: str, *values: Any) -> bool:
        return bool(self._execute(f"SELECT 1 FROM {where}", values).fetchall())

    def _roll_back(self) -> None:
        # After a full disk and after OR ROLLBACK, SQLite has rolled back by itself.
        if self.connection.in_transaction:
            self._execute("ROLLBACK")

    def load(self, timers_until: int, history_max: int) -> Snapshot:
        """See `Store.load`."""
        return load(self.connection, timers_until, history_max)

    # --- arrivals ----------------------------------------------------------------------------------------------------

    def post(self, messages: Sequence[InboxRow]) -> str | None:
        """See `Store.post`; returns the path of the socket on which the owner listens."""
        if messages:
            self._execute("BEGIN IMMEDIATE")
            try:
                _PUT_INBOX.run(self._execute, messages)
                self._execute("COMMIT")
            finally:
                self._roll_back()
        return self._execute("SELECT wake_path FROM partition").fetchall()[0][0]

    def add_key(self, key_id: str, proof: bytes) -> None:
        """See `Store.add_key`."""
        self._execute("INSERT OR IGNORE INTO encryption_keys VALUES (?, ?)", (key_id, proof))

    def data_version(self) -> int:
        """A number that changes when another connection has written."""
        return pragma(self.connection, "data_version")

    # --- epochs ------------------------------------------------------------------------------------------------------

    def next_epoch(self, wake_path: str | None) -> tuple[int, bool]:
        """Fence whoever was the owner before; returns the new epoch, and whether the hub had not been released."""
        self._execute("BEGIN IMMEDIATE")
        try:
            ((epoch, held),) = self._execute("SELECT epoch + 1, held FROM partition").fetchall()
            self._execute("UPDATE partition SET epoch = ?, wake_path = ?, held = 1", (epoch, wake_path))
            self._execute("COMMIT")
        finally:
            self._roll_back()
        return epoch, bool(held)

    def release(self) -> None:
        """Nobody owns the hub, and nothing was left undone."""
        self._execute("UPDATE partition SET held = 0")

    def epoch(self) -> int:
        """The epoch of the newest owner."""
        return self._execute("SELECT epoch FROM partition").fetchall()[0][0]

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def checkpoint_all(self) -> None:
        """Move the whole log into the file, durably, and empty it.

        Before serving: what an earlier process wrote, but could not sync, may be readable and yet not on disk.

        Raises:
            StoreUnavailableError: Another process kept reading.
        """
        try:
            self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except (apsw.BusyError, apsw.LockedError):
            raise StoreUnavailableError(
                f"The log of hub file '{self.connection.filename}' cannot be emptied: another process keeps reading it; "
                "end that process, or try again"
            ) from None
        self._log_pages, self._checkpoint_at = 0, _CHECKPOINT_PAGES

    def checkpoint_if_due(self) -> None:
        """Copy the log into the file when it has grown long, so that the next write begins it anew.

        Without truncating: the next batches overwrite it from its start, which spares the file system the growing.
        Writers in other processes are held up meanwhile: one that came in between would append, and so would all the
        next ones, without end.
        """
        if self._log_pages < self._checkpoint_at:
            return
        delay = _CHECKPOINT_RETRY_PAGES
        # Busy: somebody reads an old state of the file, or does the same right now. What could be copied was.
        with contextlib.suppress(apsw.BusyError), in_a_hurry(self.connection, _CHECKPOINT_BUSY_MS):
            self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
            delay = _CHECKPOINT_PAGES
        self._checkpoint_at = self._log_pages + delay

    def _committed(self, connection: apsw.Connection, database: str, pages: int) -> int:
        """How long the log is after a commit of ours. Clients in other processes write into it too."""
        if pages < self._log_pages:  # it begins anew
            self._checkpoint_at = _CHECKPOINT_PAGES
        self._log_pages = pages
        return apsw.SQLITE_OK
