"""A hub in memory as a dump, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from durably.core.commit import HistoryRow, TimerKey
from durably.core.dump import (
    CHUNK_ROWS,
    KINDS,
    DumpChunk,
    DumpHead,
    DumpRows,
    Executions,
    OwnedHistory,
    PlacedInstance,
    Positions,
    bases_of,
)
from durably.storage.memory_hub import MemoryHub


def dump(hub: MemoryHub) -> list[DumpChunk]:
    """All that is in a hub at this moment."""
    instances = [PlacedInstance(*placed) for placed in sorted(hub.instances.values(), key=lambda one: one[0])]
    rows: dict[str, Sequence[Any]] = {
        "instances": instances,
        "history": list(_histories(hub, instances)),
        "timers": list(hub.timers.values()),
        "entities": list(hub.entities.values()),
        "inbox": list(hub.inbox.values()),
        "parked": list(hub.parked.values()),
        "tombstones": [stone for _, stone in hub.tombstones.values()],
    }
    newest = hub.newest_position
    head = DumpHead(
        hub.hub_id,
        dict(hub.keys),
        max(partition.epoch for partition in hub.partitions),
        max(partition.batch for partition in hub.partitions),
        [partition.execution for partition in hub.partitions],
        Positions(newest, newest, newest),
    )
    return [head, *(chunk for kind in KINDS for chunk in _chunks(kind, rows[kind]))]


def _histories(hub: MemoryHub, instances: Sequence[PlacedInstance]) -> Iterator[OwnedHistory]:
    for placed in instances:
        row = placed.row
        for execution in (row.execution, *bases_of(row)):
            histories: Sequence[HistoryRow] = hub.history.get(
                hub.execution_of(row.instance_id, execution), ()
            )
            for history in histories:
                yield OwnedHistory(row.instance_id, history)


def _chunks(kind: str, rows: Sequence[Any]) -> Iterator[DumpRows]:
    for start in range(0, len(rows), CHUNK_ROWS):
        yield DumpRows(kind, rows[start : start + CHUNK_ROWS])


def restore(hub: MemoryHub, chunks: Sequence[DumpChunk]) -> None:
    """Become the hub of a dump."""
    count = len(hub.partitions)
    executions = Executions(count, ())
    for chunk in chunks:
        if isinstance(chunk, DumpHead):
            hub.hub_id, hub.keys = chunk.hub_id, dict(chunk.keys)
            hub.newest_position = max(chunk.positions)
            for partition in hub.partitions:
                partition.epoch, partition.batch = chunk.epoch, chunk.batch
            executions = Executions(count, chunk.executions)
        else:
            executions.note_rows(chunk)
            _add(hub, chunk)
    for partition, newest in zip(hub.partitions, executions.newest, strict=True):
        partition.execution = newest
    hub.exists = True


def _add(hub: MemoryHub, chunk: DumpRows) -> None:
    for row in chunk.rows:
        match chunk.kind:
            case "instances":
                hub.instances[row.row.instance_id] = (row.position, row.row)
            case "history":
                hub.history.setdefault(hub.execution_of(row.instance_id, row.row.execution), []).append(
                    row.row
                )
            case "timers":
                key = TimerKey(row.execution, row.seq, row.kind)
                hub.timers[hub.partition_of(row.instance_id), key] = row
            case "entities":
                hub.entities[row.instance_id] = row
            case "inbox":
                hub.inbox[row.message_id] = row
            case "parked":
                hub.parked[row.message_id] = row
            case _:
                # Whom it was for is not known any more: any partition may forget it.
                hub.tombstones[row.message_id] = (hub.partition_of(row.message_id), row)
