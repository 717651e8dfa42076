"""What a hub in memory holds, and what a batch does to it: obvious code on dictionaries."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from durably.clock import Clock, SystemClock
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
from durably.core.dump import base_of
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
from durably.storage.api import HostInfo, HubIdentity, Lease, PartitionInfo, Snapshot, StoredInstance, Survey
from durably.storage.memory_parts import MemoryHost, MemoryPartition, MemoryTask
from durably.storage.news import News, news_of
from durably.storage.slots import partition_of

LEASE_US: Final = 15_000_000


class Execution(NamedTuple):
    """Executions are numbered by partition."""

    partition: int
    execution: int


class MemoryHub:
    """What a disk would hold. Several `MemoryStore` objects on one hub are several hosts or clients of it.

    Args:
        exclusive: True: a partition that an open store holds is locked, as in a SQLite file, and its lease never ends.
            False: leases as in a shared database. They last `lease_us` by the `clock`, which is that of the hub, and each
            store renews its own; without a clock whoever acquires a partition takes it over at once.
        partitions: How many it has.
        clock: See `exclusive`.
        lease_us: See `exclusive`.
    """

    def __init__(
        self,
        *,
        exclusive: bool = True,
        partitions: int = 1,
        clock: Clock | None = None,
        lease_us: int = LEASE_US,
    ) -> None:
        self.exclusive = exclusive
        self.clock = clock or SystemClock()
        self.lease_us = lease_us if clock is not None and not exclusive else None
        self.arrivals: list[Callable[[], None]] = []
        self.written: list[Callable[[Lease, set[int]], None]] = []
        self.news: list[Callable[[News], None]] = []
        self.tasks_changed: list[Callable[[bool, bool], None]] = []
        self._count = partitions
        self._objects = 0
        self.clear()

    def clear(self) -> None:
        """Become a hub that does not exist."""
        self.exists = False
        self.hub_id = os.urandom(16)
        self.keys: dict[str, bytes] = {}  # by id: proof of the key
        self.partitions = [
            MemoryPartition(number, execution=base_of(number)) for number in range(self._count)
        ]
        self.hosts: dict[str, MemoryHost] = {}  # by host id
        self.newest_position: int = 0
        self.instances: dict[str, tuple[int, InstanceRow]] = {}  # by id: place in the order of creation, row
        self.history: dict[Execution, list[HistoryRow]] = {}
        self.timers: dict[tuple[int, TimerKey], TimerRow] = {}  # by partition and key
        self.inbox: dict[str, InboxRow] = {}  # by message id; in order of position
        self.tombstones: dict[str, tuple[int, Tombstone]] = {}  # by message id: partition, tombstone
        self.entities: dict[str, EntityRow] = {}  # by id
        self.parked: dict[str, ParkedMessage] = {}  # by message id; in order of position
        self.tasks: dict[str, MemoryTask] = {}  # by task id; in the order in which they were offered

    def next_host_id(self) -> str:
        """For one more store object."""
        self._objects += 1
        return f"{self._objects:016x}"

    def partition_of(self, instance_id: str) -> int:
        """See `Store.partition_of`."""
        return partition_of(instance_id, self._count)

    # --- leases and hosts --------------------------------------------------------------------------------------------

    def ends(self) -> int | None:
        """When a lease of this moment runs out; None: never."""
        return None if self.lease_us is None else self.clock.now() + self.lease_us

    def is_live(self, partition: MemoryPartition) -> bool:
        """True when somebody has a lease that has not run out."""
        until = partition.lease_until
        return partition.lease is not None and (until is None or self.clock.now() <= until)

    def expire(self, number: int) -> None:
        """The lease of a partition runs out now. For tests."""
        self.partitions[number].lease_until = self.clock.now() - 1

    def survey(self, asked_by: str) -> Survey:
        """See `Store.survey`; `asked_by` is the id of the store object that asks."""
        now = self.clock.now()
        for host_id in [
            one for one, host in self.hosts.items() if host.until is not None and host.until < now
        ]:
            del self.hosts[host_id]
        partitions = [
            PartitionInfo(
                partition.number,
                partition.owner,
                partition.host_id if self.is_live(partition) else None,
                partition.epoch,
                partition.held and not self.is_live(partition),
            )
            for partition in self.partitions
        ]
        held = Counter(partition.host_id for partition in partitions)
        hosts = [
            HostInfo(
                host_id,
                host.report,
                host.since,
                host.seen_at,
                held[host_id],
                host_id == asked_by,
                host.told_to_drain,
            )
            for host_id, host in self.hosts.items()
        ]
        return Survey(partitions, sorted(hosts, key=lambda host: (host.since, host.host_id)))

    def tell(self) -> None:
        """Tell everybody that something has changed."""
        for wake in list(self.arrivals):
            wake()

    def tell_tasks(self, *, offered: bool, withdrawn: bool) -> None:
        """Tell everybody that the queue of shared activities has changed."""
        for changed in list(self.tasks_changed):
            changed(offered, withdrawn)

    # --- writing -----------------------------------------------------------------------------------------------------

    def commit(self, lease: Lease, batch: Batch) -> None:
        """See `Store.commit`. Everything that can fail is checked first: nothing below raises half way."""
        mine = self.partitions[lease.partition]
        if lease.epoch != mine.epoch:
            raise LeaseLostError(
                f"Batch {batch.number} of epoch {lease.epoch} refused: partition {lease.partition} is in epoch {mine.epoch}"
            )
        if batch.number == mine.batch and lease.epoch == mine.batch_epoch:
            return
        if batch.number != mine.batch + 1:
            raise InvariantError("I2", "", f"batch {batch.number} was sent, expected {mine.batch + 1}")
        _refuse_unstorable(batch)
        self._check_places(mine.number, batch)
        self._check_history(mine.number, batch)
        self._check_changes(batch)
        self._apply(mine, batch)
        mine.batch, mine.batch_epoch = batch.number, lease.epoch
        places = {mine.number, *(self.partition_of(row.instance_id) for row in batch.inbox_put)}
        for written in list(self.written):
            written(lease, places)
        if self.news:
            news = news_of([batch])
            for heard in list(self.news):
                heard(news)
        if batch.tasks_offered or batch.tasks_withdrawn:
            self.tell_tasks(offered=bool(batch.tasks_offered), withdrawn=bool(batch.tasks_withdrawn))

    def _check_places(self, mine: int, batch: Batch) -> None:
        """Only the owner writes the rows of a partition; to others it sends messages."""
        rows = (*batch.instances, *batch.changes, *batch.entities, *batch.timers_set, *batch.removed)
        for row in (*rows, *batch.entities_removed, *batch.tasks_offered):
            place = self.partition_of(row.instance_id)
            if place != mine:
                raise InvariantError(
                    "I2", row.instance_id, f"it belongs to partition {place}; partition {mine} wrote it"
                )

    def _check_history(self, mine: int, batch: Batch) -> None:
        removed = {removal.execution for removal in batch.removed}
        expected: dict[int, int] = {}
        for row in batch.history:
            stored = (
                0 if row.execution in removed else len(self.history.get(Execution(mine, row.execution), []))
            )
            seq = expected.get(row.execution, stored)
            if row.seq != seq:
                raise InvariantError(
                    "I1",
                    self._instance_of(mine, row.execution, batch),
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

    def _apply(self, partition: MemoryPartition, batch: Batch) -> None:
        mine = partition.number
        for removal in batch.removed:
            self.instances.pop(removal.instance_id, None)
            self._drop_execution(mine, removal.execution)
        for row in batch.history:
            self.history.setdefault(Execution(mine, row.execution), []).append(row)
        for execution in batch.executions_dropped:
            self._drop_execution(mine, execution)
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
            self._drop_execution(mine, removal.execution)
        for timer in batch.timers_set:
            self.timers[mine, TimerKey(timer.execution, timer.seq, timer.kind)] = timer
        for key in batch.timers_cleared:
            self.timers.pop((mine, key), None)
        self._put(batch.inbox_put)
        for message_id in batch.inbox_consumed:
            self.inbox.pop(message_id, None)
        for tombstone in batch.tombstones:
            self.tombstones[tombstone.message_id] = (mine, tombstone)
        for place, tombstone in list(self.tombstones.values()):
            if place == mine and tombstone.at < batch.tombstones_before:
                del self.tombstones[tombstone.message_id]
        self._park(batch)
        for task_id in batch.tasks_withdrawn:
            self.tasks.pop(task_id, None)
        for task in batch.tasks_offered:
            self.tasks[task.task_id] = MemoryTask(task)
        rows = (*batch.history, *batch.instances, *batch.entities)
        partition.execution = max([partition.execution, *(row.execution for row in rows)])

    def _drop_execution(self, mine: int, execution: int) -> None:
        self.history.pop(Execution(mine, execution), None)
        for key in [key for key in self.timers if (key[0], key[1].execution) == (mine, execution)]:
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
        self.tell()
        places = {self.partition_of(row.instance_id) for row in messages}
        owned = [
            self._shut_out_lapsed(partition) for partition in self.partitions if partition.number in places
        ]
        return all(owned) if places else any(map(self.is_live, self.partitions))

    def _shut_out_lapsed(self, partition: MemoryPartition) -> bool:
        """False when nobody owns it. Who was its owner until the lease ran out commits nothing behind this."""
        if self.is_live(partition):
            return True
        if partition.lease is not None:
            partition.epoch += 1
            partition.let_go()
        return False

    def identity(self) -> HubIdentity:
        """See `Store.identity`."""
        used = self.newest_position or any(partition.batch for partition in self.partitions)
        return HubIdentity(self.hub_id, not used, dict(self.keys))

    # --- reading -----------------------------------------------------------------------------------------------------

    def load(self, number: int, timers_until: int) -> Snapshot:
        """See `Store.load`."""
        rows = [
            row
            for _, row in self.instances.values()
            if row.in_flight and self.partition_of(row.instance_id) == number
        ]
        partition = self.partitions[number]
        return Snapshot(
            batch=partition.batch,
            execution=partition.execution,
            in_flight=[
                StoredInstance(self._as_read(row), self.history_of(row), [])
                for row in sorted(rows, key=lambda row: row.execution)
            ],
            timers=self.due(number, None, timers_until),
            inbox=self.read_inbox(number, -1),
            tasks=frozenset(
                one for one, task in self.tasks.items() if self.partition_of(task.row.instance_id) == number
            ),
        )

    def read_instances(self, instance_ids: Sequence[str]) -> list[StoredInstance | None]:
        """See `Store.read_instances`."""
        return [self._read_instance(instance_id) for instance_id in instance_ids]

    def _read_instance(self, instance_id: str) -> StoredInstance | None:
        if instance_id not in self.instances:
            return None
        row = self.instances[instance_id][1]
        return StoredInstance(self._as_read(row), self.history_of(row), self.read_messages(instance_id))

    def read_entities(self, instance_ids: Sequence[str]) -> list[EntityRow | None]:
        """See `Store.read_entities`."""
        return [self.entities.get(instance_id) for instance_id in instance_ids]

    def query_entities(self, query: EntityQuery) -> EntitiesFound:
        """See `Store.query_entities`."""
        ids = sorted(one for one, row in self.entities.items() if one > query.after and query.matches(row))
        page = [self.entities[one] for one in ids[: query.page_size]]
        return EntitiesFound(page, page[-1].instance_id if len(ids) > len(page) else None)

    def due(self, number: int, after: int | None, until: int) -> list[TimerRow]:
        """Timers of a partition with after < due_at <= until, in their order; None: however old."""
        rows = [
            row
            for (place, _), row in self.timers.items()
            if place == number and (after is None or row.due_at > after) and row.due_at <= until
        ]
        return sorted(rows, key=lambda row: (row.due_at, row.execution, row.seq, row.kind))

    def read_inbox(self, number: int, after: int) -> list[InboxRow]:
        """See `Store.read_inbox`."""
        rows = [row for row in self.inbox.values() if row.position > after]
        return [row for row in rows if self.partition_of(row.instance_id) == number]

    def get_instance(self, instance_id: str) -> InstanceRow | None:
        """See `Store.get_instance`."""
        return self._as_read(self.instances[instance_id][1]) if instance_id in self.instances else None

    def get_instances(self, instance_ids: Sequence[str]) -> list[InstanceRow | None]:
        """See `Store.get_instances`."""
        return [self.get_instance(instance_id) for instance_id in instance_ids]

    def verdicts(self, message_ids: Sequence[str]) -> list[bytes | None]:
        """See `Store.verdicts`."""
        found = [self.tombstones.get(message_id) for message_id in message_ids]
        return [None if stone is None else stone[1].verdict for stone in found]

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
        return self.history_of(self.instances[instance_id][1]) if instance_id in self.instances else []

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

    def history_of(self, row: InstanceRow) -> list[HistoryRow]:
        """The history of the current execution of an instance, in order."""
        return list(self.history.get(self.execution_of(row.instance_id, row.execution), []))

    def execution_of(self, instance_id: str, execution: int) -> Execution:
        """The key of an execution of an instance in `history`."""
        return Execution(self.partition_of(instance_id), execution)

    def _as_read(self, row: InstanceRow) -> InstanceRow:
        newest = [history.at for history in self.history_of(row)[-1:]]
        return row._replace(updated_at=max([row.updated_at, *newest]))

    def _instance_of(self, mine: int, execution: int, batch: Batch) -> str:
        rows = [*batch.instances, *(row for _, row in self.instances.values())]
        ids = (row.instance_id for row in rows if row.execution == execution)
        return next((one for one in ids if self.partition_of(one) == mine), "")


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
        [*batch.tasks_offered, batch.tasks_withdrawn],
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
