"""What must be in the tables of a hub: a model that grows with each batch that was acknowledged, and the comparison."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any, NamedTuple, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from durably.core.commit import Batch, InboxRow, TimerKey, TimerRow, Tombstone
from durably.storage.slots import partition_of
from durably.testing.store_scene import history_row, instance_change, instance_row

_TABLES = {
    "history": "SELECT partition, execution, seq, data FROM {s}.history",
    "inbox": "SELECT message_id, partition FROM {s}.inbox",
    "tombstones": "SELECT message_id, partition FROM {s}.tombstones",
    "timers": "SELECT partition, execution, seq, due_at FROM {s}.timers",
    "instances": "SELECT instance_id, partition, execution, updated_at FROM {s}.instances",
}
"""What is compared, by table; all rows of each are keys."""

Row = tuple[Any, ...]


class Verdict(NamedTuple):
    """How the tables differ from the model; all zero when they agree."""

    lost: int
    doubled: int
    details: str

    @property
    def is_right(self) -> bool:
        return not self.details


class Ledger:
    """The hub as it must be.

    Args:
        partitions: How many it has.
        seed: Of the batches.
    """

    def __init__(self, partitions: int, seed: int) -> None:
        self.partitions = partitions
        self.batches = [0] * partitions
        self.random = Random(seed)
        self._rows: dict[str, set[Row]] = {table: set() for table in _TABLES}
        self._ids = [
            [
                name
                for number in range(64 * partitions)
                if partition_of(name := f"i{number}", partitions) == mine
            ][:8]
            for mine in range(partitions)
        ]
        self._seqs: list[dict[int, int]] = [{} for _ in range(partitions)]
        self._waiting: list[set[str]] = [set() for _ in range(partitions)]
        self._timers: list[dict[TimerKey, TimerRow]] = [{} for _ in range(partitions)]
        self._messages = 0
        self._epochs = [0] * partitions
        self._doubtful: dict[tuple[int, int], Batch] = {}

    def sent(self, mine: int, epoch: int, batch: Batch) -> None:
        """A batch is on its way: whoever owns the partition next finds out what became of it."""
        self._doubtful[mine, epoch] = batch

    def acknowledged(self, mine: int, epoch: int) -> None:
        """The batch that an owner sent last is in the tables, it was told."""
        batch = self._doubtful.pop((mine, epoch), None)
        if batch is not None:  # else the next owner has found it already
            self.applied(mine, batch)

    def loaded(self, mine: int, epoch: int, newest: int) -> None:
        """A new owner has found this newest batch: all of the owner before it is settled."""
        batch = self._doubtful.pop((mine, self._epochs[mine]), None)
        self._epochs[mine] = epoch
        if batch is not None and batch.number == newest:
            self.applied(mine, batch)
        assert self.batches[mine] == newest, (
            f"partition {mine} is at batch {newest}, not {self.batches[mine]}"
        )

    def batch(self, mine: int) -> Batch:
        """The next batch of a partition: random rows of every kind that moves."""
        random, seqs = self.random, self._seqs[mine]
        number = self.batches[mine] + 1
        batch = Batch(number=number, history=[], instances=[], changes=[], inbox_put=[])
        for place in random.sample(range(len(self._ids[mine])), random.randint(1, 3)):
            instance_id, execution = self._ids[mine][place], place + 1
            seq = seqs.get(execution, 0)
            batch.history.append(
                history_row(execution, seq, at=number, data=b"%d of batch %d" % (seq, number))
            )
            if not seq:
                batch.instances.append(instance_row(instance_id, execution, updated_at=number))
            else:
                batch.changes.append(instance_change(instance_id, updated_at=number))
            if random.random() < 0.3:
                batch.timers_set.append(TimerRow(execution, seq, 0, 10**6 + number, instance_id))
        for _ in range(random.randint(0, 2)):
            self._messages += 1
            target = random.choice(random.choice(self._ids))
            batch.inbox_put.append(InboxRow(f"m{self._messages}", target, number, b"to %s" % target.encode()))
        waiting = sorted(self._waiting[mine])
        batch.inbox_consumed = random.sample(waiting, min(len(waiting), random.randint(0, 3)))
        batch.tombstones = [Tombstone(message_id, number) for message_id in batch.inbox_consumed]
        timers = sorted(self._timers[mine])
        batch.timers_cleared = random.sample(timers, min(len(timers), random.randint(0, 1)))
        return batch

    def applied(self, mine: int, batch: Batch) -> None:
        """A batch is in the tables for good."""
        assert batch.number == self.batches[mine] + 1, (mine, batch.number, self.batches[mine])
        self.batches[mine] = batch.number
        for row in batch.history:
            self._seqs[mine][row.execution] = row.seq + 1
            self._rows["history"].add((mine, row.execution, row.seq, row.data))
        for row in batch.timers_set:
            self._timers[mine][TimerKey(*row[:3])] = row
            self._rows["timers"].add((mine, row.execution, row.seq, row.due_at))
        for key in batch.timers_cleared:
            row = self._timers[mine].pop(key)
            self._rows["timers"].discard((mine, row.execution, row.seq, row.due_at))
        for row in batch.instances:
            self._rows["instances"].add((row.instance_id.encode(), mine, row.execution, row.updated_at))
        for change in batch.changes:
            old = {row for row in self._rows["instances"] if row[0] == change.instance_id.encode()}
            self._rows["instances"] -= old
            self._rows["instances"] |= {(*row[:3], change.updated_at) for row in old}
        for message in batch.inbox_put:
            target = partition_of(message.instance_id, self.partitions)
            self._waiting[target].add(message.message_id)
            self._rows["inbox"].add((message.message_id.encode(), target))
        for message_id in batch.inbox_consumed:
            self._waiting[mine].discard(message_id)
            self._rows["inbox"].discard((message_id.encode(), mine))
            self._rows["tombstones"].add((message_id.encode(), mine))

    async def compare(self, dsn: str, schema: str) -> Verdict:
        """Read all tables and tell how they differ."""
        connection = await cast("Any", asyncpg).connect(dsn)
        lost, doubled, details = 0, 0, list[str]()
        try:
            numbers = await connection.fetch(f"SELECT id, batch FROM {schema}.partitions ORDER BY id")
            for (mine, found), expected in zip(numbers, self.batches, strict=True):
                lost += max(expected - found, 0)
                doubled += max(found - expected, 0)
                if expected != found:
                    details.append(f"partition {mine} is at batch {found}, expected {expected}")
            for table, text in _TABLES.items():
                found = Counter(map(tuple, await connection.fetch(text.replace("{s}", schema))))
                expected = Counter(self._rows[table])
                gone, more = expected - found, found - expected
                lost += gone.total()
                doubled += more.total()
                details += [
                    f"{table}: {word} {list(rows)[:3]}"
                    for word, rows in (("lost", gone), ("too many", more))
                    if rows
                ]
        finally:
            await connection.close()
        return Verdict(lost, doubled, "; ".join(details))
