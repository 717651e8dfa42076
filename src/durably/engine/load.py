"""What the rows of a hub and the reports of its hosts say of its load."""

from __future__ import annotations

from datetime import timedelta

from durably.core.load import HubLoad
from durably.core.timeline import instant
from durably.storage.api import Store


async def hub_load(store: Store, now: int) -> HubLoad:
    """See `Management.load`. A hub that hosts share goes by its own clock, whatever machine asks."""
    survey = await store.survey()
    work = await store.workload(None if store.capabilities.shared else now)
    now = work.at
    there = [host.report for host in survey.hosts if not (host.report.draining or host.told_to_drain)]
    waits = [
        *(
            now - at
            for at in (work.oldest_message_at, work.oldest_due_at, work.oldest_task_at)
            if at is not None
        ),
        *(report.oldest_us for report in there if report.oldest_us is not None),
    ]
    return HubLoad(
        at=instant(now),
        hosts=len(there),
        partitions=len(survey.partitions),
        unowned=sum(one.host_id is None for one in survey.partitions),
        messages=work.messages,
        timers_due=work.timers_due,
        tasks=work.tasks,
        activities=sum(report.backlog for report in there),
        running=sum(report.running for report in there),
        places=sum(report.places for report in there),
        in_flight=work.in_flight,
        oldest_wait=timedelta(microseconds=max(0, *waits)) if waits else None,
        held_at=None if work.newest_held_at is None else instant(work.newest_held_at),
        next_timer=None if work.next_due_at is None else instant(work.next_due_at),
    )
