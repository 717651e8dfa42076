"""The hub and its host, as far as whoever looks after them wants to know."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

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
        host = bodies.Host(
            process_id=os.getpid(),
            machine=platform.node(),
            python_version=platform.python_version(),
            durably_version=version("durably"),
        )
        return bodies.Hosts(hosts=[host])
