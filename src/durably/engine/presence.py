"""What the survey of a store says of hosts, in the words of operators."""

from __future__ import annotations

from datetime import timedelta

from durably.core.hosts import HostStatus
from durably.core.shared_tasks import TaskInfo
from durably.core.timeline import instant
from durably.errors import HostNotFoundError
from durably.storage.api import HostInfo, Store


async def live_hosts(store: Store) -> list[HostStatus]:
    """See `Management.hosts`."""
    return [_status(host) for host in (await store.survey()).hosts]


async def shared_tasks(store: Store, instance_id: str) -> list[TaskInfo]:
    """See `Management.shared_tasks`."""
    return [] if store.tasks is None else await store.tasks.of_instance(instance_id)


async def drain_host(store: Store, host_id: str) -> None:
    """See `Management.drain_host`."""
    if not await store.ask_to_drain(host_id):
        raise HostNotFoundError(host_id, shared=store.capabilities.shared)


def _status(host: HostInfo) -> HostStatus:
    report = host.report
    oldest = None if report.oldest_us is None else timedelta(microseconds=report.oldest_us)
    return HostStatus(
        host_id=host.host_id,
        name=report.name,
        version=report.version,
        since=instant(host.since),
        seen_at=instant(host.seen_at),
        partitions=host.partitions,
        draining=report.draining or host.told_to_drain,
        backlog=report.backlog,
        oldest_wait=oldest,
        functions=report.functions,
    )
