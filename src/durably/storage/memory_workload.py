"""How much waits in a hub in memory: the reference."""

from __future__ import annotations

from durably.storage.api import WORKLOAD_MAX, Workload
from durably.storage.memory_hub import MemoryHub


def workload(hub: MemoryHub, now: int | None) -> Workload:
    """See `Store.workload`."""
    now = hub.clock.now() if now is None else now
    held = {
        row.instance_id
        for _, row in hub.instances.values()
        if row.status == "Suspended" or row.blocked or row.parked or (row.start_at or 0) > now
    }
    free = [row.at for row in hub.inbox.values() if row.instance_id not in held]
    kept = [row.at for row in hub.inbox.values() if row.instance_id in held]
    due = [row.due_at for row in hub.timers.values() if row.due_at <= now and row.instance_id not in held]
    working = [row for _, row in hub.instances.values() if row.in_flight and row.instance_id not in held]
    unclaimed = [task.row.at for task in hub.tasks.values() if not task.claimer]
    return Workload(
        at=now,
        messages=min(len(free), WORKLOAD_MAX),
        oldest_message_at=min(free, default=None),
        newest_held_at=max(kept, default=None),
        timers_due=min(len(due), WORKLOAD_MAX),
        oldest_due_at=min(due, default=None),
        next_due_at=min((row.due_at for row in hub.timers.values() if row.due_at > now), default=None),
        in_flight=min(len(working), WORKLOAD_MAX),
        tasks=min(len(unclaimed), WORKLOAD_MAX),
        oldest_task_at=min(unclaimed, default=None),
    )
