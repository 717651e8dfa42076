"""A client of a host that serves HTTP."""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from durably.client.client import Client, Functions
from durably.client.entities import CleanResult, EntityInfo, EntityPage
from durably.client.handle import Handle
from durably.client.queries import Looks
from durably.client.queues import Queue
from durably.client.remote.api import HostApi
from durably.client.remote.following import Following
from durably.client.remote.host import RemoteHost, host_behind
from durably.client.remote.refused import cannot
from durably.client.schedules import Schedules
from durably.clock import SystemClock, SystemRandom
from durably.codec.convert import Converter, JsonConverter
from durably.core.entities import EntityId
from durably.core.ids import check_text
from durably.core.query import EntityQuery
from durably.core.timeline import HistoryEntry
from durably.program.registry import Registry
from durably.schedules.description import ScheduleDescription, SchedulePage
from durably.schedules.spec import check_schedule_id
from durably.schedules.state import ScheduleState
from durably.security.keys import KeySource
from durably.storage.api import Store


class HttpClient(Client):
    """A `Client` that asks a host over HTTP: ``Client("http://127.0.0.1:7071", key=...)`` makes one.

    It asks ``/api/v1``. A host without it (of Azure Functions) is asked by the management API of Durable Functions; what
    that has no words for is refused with `UsageError`. Errors are those that the host has raised.

    Args:
        hub: Where the host is.
        app: See `Client`.
        converter: See `Client`.
        encryption_keys: Of no use here: the host has them.
        key: A key of the host; that in ``DURABLY_KEY`` by default, and none where none is asked for.
        token: A bearer token in its place; that in ``DURABLY_TOKEN`` by default.
        ca: A PEM file with the authorities that may vouch for the host; by default that in ``SSL_CERT_FILE``, or the usual
            ones.

    Raises:
        UsageError: The URL is none, or the file of authorities cannot be read.
    """

    def __init__(
        self,
        hub: str | Store,
        *,
        app: Functions | None = None,
        converter: Converter | None = None,
        encryption_keys: KeySource = None,
        key: str | None = None,
        token: str | None = None,
        ca: str | None = None,
    ) -> None:
        if key is None and token is None:
            key, token = os.environ.get("DURABLY_KEY"), os.environ.get("DURABLY_TOKEN")
        self._api = HostApi(str(hub), key, ca, token=token)
        self._host: RemoteHost = host_behind(self._api)
        if converter is None:
            converter = JsonConverter() if app is None else app.converter
        registry = Registry() if app is None else app.registry
        clock = SystemClock()
        self._attach(self._host, registry, converter, clock, SystemRandom())
        self.schedules = _HttpSchedules(self._host, registry, converter, clock)

    async def close(self) -> None:
        """Let go of connections. Idempotent."""
        await self._api.close()

    async def restart(
        self, instance_id: str, *, new_instance_id: bool = False, reason: str | None = None
    ) -> Handle[Any]:
        """See `Client.restart`."""
        check_text(reason, "reason")
        return self.handle(await self._host.restarted(instance_id, reason, fresh=new_instance_id))

    async def get_history(self, instance_id: str) -> list[HistoryEntry]:
        """See `Client.get_history`."""
        return await self._host.entries(instance_id)

    def looking(self) -> AbstractAsyncContextManager[Looks]:
        """See `Client.looking`."""
        return Following(self._api, self) if self._host.has_streams else nullcontext(self)

    async def why(self, instance_id: str) -> str:
        """See `Client.why`."""
        return await self._host.explained(instance_id)

    async def read_entity(self, entity_id: EntityId | str, type: Any = Any) -> Any:
        """See `Client.read_entity`. A state of an older version is not migrated."""
        entity = EntityId.of(entity_id)
        state = await self._host.entity_state(str(entity))
        registered = self._registry.entity(entity.name)
        if state is None:
            return None
        if registered is not None and registered.form is not None and registered.fn is type:
            return registered.form.load(state, self._converter)
        return self._converter.decode(state, type)

    async def get_entity(self, entity_id: EntityId | str) -> EntityInfo | None:
        """See `Client.get_entity`."""
        return await self._host.entity_info(str(EntityId.of(entity_id)))

    async def clean_entity_storage(self) -> CleanResult:
        """See `Client.clean_entity_storage`."""
        return await self._host.clean_entities()

    async def _entity_page(self, query: EntityQuery, *, with_state: bool) -> EntityPage:
        return await self._host.entity_page(query, with_state=with_state)

    def queue(self, name: str) -> Queue:
        """See `Client.queue`. Always refused: what is sent to a queue goes into the hub itself."""
        cannot("A queue")


class _HttpSchedules(Schedules):
    """Schedules, asked of a host, which refuses what could never work."""

    def __init__(self, host: RemoteHost, *more: Any) -> None:
        super().__init__(host, *more)
        self._host = host

    async def describe(self, schedule_id: str) -> ScheduleDescription:
        """See `Schedules.describe`."""
        return await self._host.schedule(check_schedule_id(schedule_id))

    async def list(
        self, *, prefix: str = "", page_size: int = 100, continuation_token: str | None = None
    ) -> SchedulePage:
        """See `Schedules.list`."""
        return await self._host.schedule_page(prefix, page_size, continuation_token)

    async def _find(self, schedule_id: str) -> ScheduleState | None:
        return None

    async def _order(self, schedule_id: str, operation: str, order: Any) -> bytes | None:
        return await self._host.order_schedule(check_schedule_id(schedule_id), operation, order)
