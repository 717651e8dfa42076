"""The hub and its hosts, as far as whoever looks after them wants to know."""

from __future__ import annotations

from importlib.metadata import version

import msgspec

from durably.core.hosts import HostStatus
from durably.core.timeline import instant
from durably.http_api.served import Served
from durably.http_api.v1 import bodies
from durably.http_api.v1.operation import Call, Operation


class HubInfo:
    """Operations on the hub."""

    def __init__(self, served: Served) -> None:
        self._served = served

    @property
    def operations(self) -> list[Operation]:
        """Their rows."""
        return [
            Operation(
                id="getHub",
                method="GET",
                path="/hub",
                needs="read",
                summary="The hub, and the functions that its host has",
                act=self._hub,
                answers={200: bodies.Hub},
            ),
            Operation(
                id="listHosts",
                method="GET",
                path="/hosts",
                needs="read",
                summary="The hosts that serve the hub",
                act=self._hosts,
                answers={200: bodies.Hosts},
            ),
            Operation(
                id="getLoad",
                method="GET",
                path="/load",
                needs="read",
                summary="How much there is to do, and how many hosts it takes",
                act=self._load,
                answers={200: bodies.Load},
            ),
            Operation(
                id="drainHost",
                method="POST",
                path="/hosts/{hostId}/drain",
                needs="admin",
                summary="Ask a host to give its partitions to the others",
                act=self._drain,
            ),
        ]

    async def _hub(self, call: Call) -> bodies.Hub:
        served = self._served
        return bodies.Hub(
            name=served.hub,
            is_served=await served.management.is_served(),
            now=instant(served.clock.now()),
            durably_version=version("durably"),
            orchestrators=served.registry.names("orchestrator"),
            activities=served.registry.names("activity"),
            entities=served.registry.names("entity"),
        )

    async def _hosts(self, call: Call) -> bodies.Hosts:
        return bodies.Hosts(hosts=[_shown(host) for host in await self._served.client.hosts()])

    async def _load(self, call: Call) -> bodies.Load:
        load = await self._served.client.hub_load()
        said = msgspec.structs.asdict(load)
        oldest = said.pop("oldest_wait")
        return bodies.Load(
            **said,
            backlog=load.backlog,
            oldest_wait_s=None if oldest is None else oldest.total_seconds(),
            recommended_hosts=load.recommended_hosts,
        )

    async def _drain(self, call: Call) -> None:
        await self._served.client.drain_host(call.path["hostId"])


def _shown(host: HostStatus) -> bodies.Host:
    return bodies.Host(
        id=host.host_id,
        name=host.name,
        durably_version=host.version,
        since=host.since,
        seen_at=host.seen_at,
        partitions=host.partitions,
        is_draining=host.draining,
        backlog=host.backlog,
        oldest_wait_s=None if host.oldest_wait is None else host.oldest_wait.total_seconds(),
        functions=list(host.functions),
    )
