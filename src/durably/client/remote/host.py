"""A host behind HTTP: the management protocol, and what a client of it asks in other words than rows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, cast

from durably.client.endings import PollingWatch
from durably.client.entities import CleanResult, EntityInfo, EntityPage
from durably.client.remote.api import V1, HostApi
from durably.client.remote.durable import DurableApi
from durably.client.remote.refused import PROBLEM, error_of
from durably.client.remote.v1 import V1Api
from durably.clock import SystemRandom
from durably.core.query import EntityQuery
from durably.core.timeline import HistoryEntry
from durably.management import Management
from durably.schedules.description import ScheduleDescription, SchedulePage


class RemoteHost(Management, Protocol):
    """What an API over HTTP does, or refuses with `UsageError`."""

    @property
    def has_streams(self) -> bool:
        """Whether it is known that it tells what is new by itself."""
        ...

    async def restarted(self, instance_id: str, reason: str | None, *, fresh: bool) -> str:
        """Start an instance once more; the id of the new one. See `Client.restart`."""
        ...

    async def entries(self, instance_id: str) -> list[HistoryEntry]:
        """See `Client.get_history`."""
        ...

    async def explained(self, instance_id: str) -> str:
        """See `Client.why`."""
        ...

    async def entity_info(self, entity: str) -> EntityInfo | None:
        """See `Client.get_entity`."""
        ...

    async def entity_state(self, entity: str) -> bytes | None:
        """The state of an entity as a payload."""
        ...

    async def entity_page(self, query: EntityQuery, *, with_state: bool) -> EntityPage:
        """See `Client.query_entities`."""
        ...

    async def clean_entities(self) -> CleanResult:
        """See `Client.clean_entity_storage`."""
        ...

    async def order_schedule(self, schedule_id: str, operation: str, order: Any) -> bytes | None:
        """An order to a schedule, see `durably.schedules.orders`; returns its result as a payload."""
        ...

    async def schedule(self, schedule_id: str) -> ScheduleDescription:
        """See `Schedules.describe`."""
        ...

    async def schedule_page(self, prefix: str, page_size: int, token: str | None) -> SchedulePage:
        """See `Schedules.list`."""
        ...


def host_behind(api: HostApi) -> RemoteHost:
    """The host, by the best API that it has; which one that is, is found out with the first request."""
    return cast("RemoteHost", _Either(api))


class _Either:
    """Each coroutine of `RemoteHost`, of ``/api/v1`` where there is one: else it is a host of Durable Functions."""

    def __init__(self, api: HostApi) -> None:
        self._api = api
        self._choosing = asyncio.Lock()
        self._chosen: RemoteHost | None = None

    @property
    def has_streams(self) -> bool:
        """See `RemoteHost.has_streams`."""
        return self._chosen is not None and self._chosen.has_streams

    def new_instance_id(self) -> str:
        """See `Management.new_instance_id`."""
        return SystemRandom().token()

    def watch(self, instance_id: str) -> AbstractContextManager[PollingWatch]:
        """See `Management.watch`."""
        return nullcontext(PollingWatch())

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        if name.startswith("_"):
            raise AttributeError(name)

        async def ask(*args: Any, **more: Any) -> Any:
            return await getattr(self._chosen or await self._choose(), name)(*args, **more)

        return ask

    async def _choose(self) -> RemoteHost:
        async with self._choosing:
            if self._chosen is None:
                answer = await self._api.send("GET", f"{self._api.url}{V1}/hub", patient=True)
                is_ours = answer.status < 300 or PROBLEM.encode() in answer.body
                if is_ours:
                    self._chosen = V1Api(self._api)
                elif answer.status in {404, 405}:
                    self._chosen = DurableApi(self._api)
                else:
                    raise error_of(answer)
            return self._chosen
