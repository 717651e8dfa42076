"""What a hub in memory holds, and what a batch does to it: obvious code on dictionaries."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from durably.core.commit import (
    Batch,
    EntityRow,
    HistoryRow,
    InboxRow,
    InstanceRow,
    ParkedMessage,
    TimerKey,
    TimerRow,
    Tombstone,
)
from durably.core.query import (
    Counts,
    EntitiesFound,
    EntityQuery,
    Found,
    FoundWithWaiting,
    InstanceQuery,
    Place,
    place_of_waiting,
)
from durably.errors import InvariantError, LeaseLostError, StoreRefusedError
from durably.storage.api import HubIdentity, Lease, Snapshot, StoredInstance


class MemoryHub:
    """What a disk would hold. Several `MemoryStore` objects on one hub are several hosts or clients of it.

    Attributes:
        exclusive: True: a partition that an open store holds is locked, as in a SQLite file. False: whoever acquires
            it takes it over and fences the holder, as with leases in a shared database.
    """

    def __init__(self, *, exclusive: bool = True) -> None:
        self.exclusive = exclusive
        self.arrivals: list[Callable[[], None]] = []
        self.written: list[Callable[[Lease], None]] = []
        self.clear()

    def clear(self) -> None:
        """Become a hub that does not exist."""
        self.exists = False
        self.hub_id = os.urandom(16)
        self.keys: dict[str, bytes] = {}  # by id: proof of the key
        self.lease: Lease | None = None
        self.holder: object = None  # the store object that has the lease
        self.held: bool = False  # acquired and not released since; stays when the holder dies
        self.running: dict[int, tuple[int, bytes]] = {}  # by place: epoch and entry, see `MemoryWorkLog`
        self.epoch: int = 0
        self.batch: int = 0
        self.batch_epoch: int = 0  # the epoch in which that batch was applied
        self.execution: int = 0
        self.newest_position: int = 0
        self.instances: dict[str, tuple[int, InstanceRow]] = {}  # by id: place in the order of creation, row
        self.history: dict[int, list[HistoryRow]] = {}  # by execution
        self.timers: dict[TimerKey, TimerRow] = {}
        self.inbox: dict[str, InboxRow] = {}  # by message id; in order of position
        self.tombstones: dict[str, Tombstone] = {}  # by message id
        self.entities: dict[str, EntityRow] = {}  # by id
        self.parked: dict[str, ParkedMessage] = {}  # by message id; in order of position

    # --- writing -----------------------------------------------------------------------------------------------------

    def commit(self, lease: Lease, batch: Batch) -> None:
        """See `Store.commit`. Everything that can fail is checked first: nothing below raises half way."""
        if lease.epoch != self.epoch:
            raise LeaseLostError(
                f"Batch {batch.number} of epoch {lease.epoch} refused: partition {lease.partition} is in epoch {self.epoch}"
            )
        if batch.number == self.batch and lease.epoch == self.batch_epoch:
            return
        if batch.number != self.batch + 1:
            raise InvariantError("I2", "", f"batch {batch.number} was sent, expected {self.batch + 1}")
        _refuse_unstorable(batch)
        self._check_history(batch)
        self._check_changes(batch)
        self._apply(batch)
        self.batch, self.batch_epoch = batch.number, lease.epoch
        for written in self.written:
            written(lease)

    def _check_history(self, batch: Batch) -> None:
        removed = {removal.execution for removal in batch.removed}
        expected: dict[int, int] = {}
        for row in batch.history:
            stored = 0 if row.execution in removed else len(self.history.get(row.execution, []))
            seq = expected.get(row.execution, stored)
            if row.seq != seq:
                raise InvariantError(
                    "I1",
                    self._instance_of(row.execution, batch),
                    f"history row {row.seq} of execution {row.execution} was sent, expected row {seq}",
                )
            expected[row.execution] = seq + 1

    def _check_changes(self, batch: Batch) -> None:
        removed = {removal.instance_id for removal in batch.removed}
        written = {row.instance_id for row in batch.instances}
        for change in batch.changes:
            stored = change.instance_id in self.instances and change.instance_id not in removed
            if not stored and change.instance_id not in written:
                raise InvariantError(
                    "I2", change.instance_id, "it was changed, but there is no such instance"
                )

    def _apply(self, batch: Batch) -> None:
        for removal in batch.removed:
            self.instances.pop(removal.instance_id, None)
            self._drop_execution(removal.execution)
        for row in batch.history:
            self.history.setdefault(row.execution, []).append(row)
        for execution in batch.executions_dropped:
            self._drop_execution(execution)
        for row in batch.instances:
            place = (
                self.instances[row.instance_id][0]
                if row.instance_id in self.instances
                else self._next_position()
            )
            self.instances[row.instance_id] = (place, row)
        for change in batch.changes:
            place, row = self.instances[change.instance_id]
            self.instances[change.instance_id] = (place, row._replace(**change._asdict()))
        for entity in batch.entities:
            self.entities[entity.instance_id] = entity
        for removal in batch.entities_removed:
            self.entities.pop(removal.instance_id, None)
            self._drop_execution(removal.execution)
        for timer in batch.timers_set:
            self.timers[TimerKey(timer.execution, timer.seq, timer.kind)] = timer
        for key in batch.timers_cleared:
            self.timers.pop(key, None)
        self._put(batch.inbox_put)
        for message_id in batch.inbox_consumed:
            self.inbox.pop(message_id, None)
        for tombstone in batch.tombstones:
            self.tombstones[tombstone.message_id] = tombstone
        for tombstone in [one for one in self.tombstones.values() if one.at < batch.tombstones_before]:
            del self.tombstones[tombstone.message_id]
        self._park(batch)
        rows = (*batch.history, *batch.instances, *batch.entities)
        self.execution = max([self.execution, *(row.execution for row in rows)])

    def _drop_execution(self, execution: int) -> None:
        self.history.pop(execution, None)
        for key in [key for key in self.timers if key.execution == execution]:
            del self.timers[key]

    def _put(self, messages: Iterable[InboxRow]) -> None:
        for message in messages:
            if message.message_id not in self.inbox and message.message_id not in self.tombstones:
                self.inbox[message.message_id] = message._replace(position=self._next_position())

    def _park(self, batch: Batch) -> None:
        for message in batch.parked:
            self.parked.pop(message.message_id, None)
            self.parked[message.message_id] = message._replace(position=self._next_position())
        for message_id in batch.unparked:
            back = self.parked.pop(message_id, None)
            if back is not None and message_id not in self.inbox:
                row = InboxRow(message_id, back.instance_id, back.at, back.body, self._next_position())
                self.inbox[message_id] = row
        for message_id in batch.parked_dropped:
            self.parked.pop(message_id, None)

    def _next_position(self) -> int:
        self.newest_position += 1
        return self.newest_position

    def post(self, messages: Sequence[InboxRow]) -> bool:
        """See `Store.post`."""
        _refuse_unstorable_rows(messages)
        self._put(messages)
        for wake in self.arrivals:
            wake()
        return self.lease is not None

    def identity(self) -> HubIdentity:
        """See `Store.identity`."""
        return HubIdentity(self.hub_id, not self.batch and not self.newest_position, dict(self.keys))

    # --- reading -----------------------------------------------------------------------------------------------------

    def load(self, timers_until: int) -> Snapshot:
        """See `Store.load`."""
        rows = [row for _, row in self.instances.values() if row.in_flight]
        return Snapshot(
            batch=self.batch,
            execution=self.execution,
            in_flight=[
                StoredInstance(self._as_read(row), self._history_of(row), [])
                for row in sorted(rows, key=lambda row: row.execution)
            ],
            timers=self.due(None, timers_until),
            inbox=list(self.inbox.values()),
        )

    def read_instances(self, instance_ids: Sequence[str]) -> list[StoredInstance | None]:
        """See `Store.read_instances`."""
        return [self._read_instance(instance_id) for instance_id in instance_ids]

    def _read_instance(self, instance_id: str) -> StoredInstance | None:
        if instance_id not in self.instances:
            return None
        row = self.instances[instance_id][1]
        return StoredInstance(self._as_read(row), self._history_of(row), self.read_messages(instance_id))

    def read_entities(self, instance_ids: Sequence[str]) -> list[EntityRow | None]:
        """See `Store.read_entities`."""
        return [self.entities.get(instance_id) for instance_id in instance_ids]

    def query_entities(self, query: EntityQuery) -> EntitiesFound:
        """See `Store.query_entities`."""
        ids = sorted(one for one, row in self.entities.items() if one > query.after and query.matches(row))
        page = [self.entities[one] for one in ids[: query.page_size]]
        return EntitiesFound(page, page[-1].instance_id if len(ids) > len(page) else None)

    def due(self, after: int | None, until: int) -> list[TimerRow]:
        """Timers with after < due_at <= until, in their order; None: however old."""
        rows = [
            row
            for row in self.timers.values()
            if (after is None or row.due_at > after) and row.due_at <= until
        ]
        return sorted(rows, key=lambda row: (row.due_at, row.execution, row.seq, row.kind))

    def read_inbox(self, after: int) -> list[InboxRow]:
        """See `Store.read_inbox`."""
        return [row for row in self.inbox.values() if row.position > after]

    def get_instance(self, instance_id: str) -> InstanceRow | None:
        """See `Store.get_instance`."""
        return self._as_read(self.instances[instance_id][1]) if instance_id in self.instances else None

    def get_instances(self, instance_ids: Sequence[str]) -> list[InstanceRow | None]:
        """See `Store.get_instances`."""
        return [self.get_instance(instance_id) for instance_id in instance_ids]

    def verdicts(self, message_ids: Sequence[str]) -> list[bytes | None]:
        """See `Store.verdicts`."""
        found = [self.tombstones.get(message_id) for message_id in message_ids]
        return [None if tombstone is None else tombstone.verdict for tombstone in found]

    def read_parked(self, after: int, limit: int, message_id: str | None) -> list[ParkedMessage]:
        """See `Store.read_parked`."""
        if message_id is not None:
            return [row for row in self.parked.values() if row.message_id == message_id]
        return [row for row in self.parked.values() if row.position > after][:limit]

    def read_messages(self, instance_id: str) -> list[InboxRow]:
        """See `Store.read_messages`."""
        return [row for row in self.inbox.values() if row.instance_id == instance_id]

    def read_history(self, instance_id: str) -> list[HistoryRow]:
        """See `Store.read_history`."""
        return self._history_of(self.instances[instance_id][1]) if instance_id in self.instances else []

    def query(self, query: InstanceQuery) -> Found:
        """See `Store.query`."""
        return self.query_with_waiting(query).found

    def query_with_waiting(self, query: InstanceQuery) -> FoundWithWaiting:
        """See `Store.query_with_waiting`."""
        everything = [
            (Place(row.created_at, position), self._as_read(row)) for position, row in self.instances.values()
        ]
        found = sorted(
            (place, row) for place, row in everything if place > query.after and query.matches(row)
        )
        page = found[: query.page_size]
        last = page[-1][0] if len(found) > len(page) else None
        rows = [row if query.payloads else row._replace(input=None, output=None) for _, row in page]
        found = Found(rows, last)
        return FoundWithWaiting(found, [place for place, _ in page], self._waiting(query, last))

    def _waiting(self, query: InstanceQuery, last: Place | None) -> list[InboxRow]:
        first: dict[str, InboxRow] = {}
        for message in self.inbox.values():
            if message.instance_id not in self.instances:
                first.setdefault(message.instance_id, message)
        matching = [
            message
            for message in first.values()
            if place_of_waiting(message) > query.after
            and (last is None or message.at < last.created_at)
            and (query.created_from is None or message.at >= query.created_from)
            and (query.created_to is None or message.at <= query.created_to)
            and message.instance_id.startswith(query.instance_id_prefix or "")
        ]
        return sorted(matching, key=place_of_waiting)[: query.page_size + 1]

    def count(self, query: InstanceQuery) -> Counts:
        """See `Store.count`."""
        rows = [self._as_read(row) for _, row in self.instances.values()]
        return dict(Counter((row.name, row.status) for row in rows if query.matches(row)))

    def _history_of(self, row: InstanceRow) -> list[HistoryRow]:
        return list(self.history.get(row.execution, []))

    def _as_read(self, row: InstanceRow) -> InstanceRow:
        newest = [history.at for history in self.history.get(row.execution, [])[-1:]]
        return row._replace(updated_at=max([row.updated_at, *newest]))

    def _instance_of(self, execution: int, batch: Batch) -> str:
        rows = [*batch.instances, *(row for _, row in self.instances.values())]
        return next((row.instance_id for row in rows if row.execution == execution), "")


class MemoryWorkLog:
    """A `WorkLog` on the dictionary of a hub."""

    def __init__(self, running: dict[int, tuple[int, bytes]], epoch: int) -> None:
        self._running = running
        self._epoch = epoch
        self._next = max(running, default=-1) + 1
        self._closed = False

    @property
    def left(self) -> list[bytes]:
        """See `WorkLog.left`."""
        return [entry for epoch, entry in self._running.values() if epoch != self._epoch]

    def put(self, entry: bytes) -> int:
        """See `WorkLog.put`."""
        if self._closed:
            return -1
        place, self._next = self._next, self._next + 1
        self._running[place] = (self._epoch, entry)
        return place

    def drop(self, place: int) -> None:
        """See `WorkLog.drop`."""
        if not self._closed:
            self._running.pop(place, None)

    def settle(self) -> None:
        """See `WorkLog.settle`."""
        if not self._closed:
            for place in [place for place, (epoch, _) in self._running.items() if epoch != self._epoch]:
                del self._running[place]

    def close(self) -> None:
        """What is running stays as it is."""
        self._closed = True


def _refuse_unstorable(batch: Batch) -> None:
    for rows in (
        batch.removed,
        batch.history,
        batch.instances,
        batch.changes,
        batch.entities,
        batch.entities_removed,
        batch.timers_set,
        batch.timers_cleared,
        batch.inbox_put,
        batch.tombstones,
        batch.parked,
        [batch.inbox_consumed, batch.executions_dropped, [batch.tombstones_before]],
        [batch.unparked, batch.parked_dropped],
    ):
        _refuse_unstorable_rows(rows)


def _refuse_unstorable_rows(rows: Iterable[Iterable[object]]) -> None:
    """What no database takes: text that is not UTF-8, and integers of more than 64 bits."""
    for row in rows:
        for value in row:
            if isinstance(value, str):
                try:
                    value.encode()
                except UnicodeEncodeError:
                    raise StoreRefusedError(
                        f"Text {value[:40]!r} has a lone surrogate: it is not UTF-8"
                    ) from None
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise StoreRefusedError(f"Integer {value} has more than 64 bits")
