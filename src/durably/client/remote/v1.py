"""All that can be asked of a hub, over ``/api/v1`` of a host that serves it."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import Any, Final

import msgspec

from durably.client.endings import PollingWatch
from durably.client.entities import CleanResult, EntityInfo, EntityPage, page_token
from durably.client.remote import wire
from durably.client.remote.api import HostApi
from durably.client.remote.refused import cannot
from durably.client.remote.schedules import ScheduleApi
from durably.client.remote.streams import SSE, events_in, trouble_in
from durably.clock import SystemRandom
from durably.core.commit import EntityRow, InboxRow, InstanceRow
from durably.core.entities import EntityId
from durably.core.events import HistoryEvent, Payload
from durably.core.history import decode_failure
from durably.core.hosts import HostStatus
from durably.core.load import HubLoad
from durably.core.messages import CallEntity, Restart, Rewind, StartInstance
from durably.core.parked import ParkedFound, ParkedPlace, ParkedQuery, parked_place_of, token_of_parked
from durably.core.query import (
    FIRST,
    Counts,
    EntitiesFound,
    EntityQuery,
    Found,
    InstanceQuery,
    place_of,
    token_of,
)
from durably.core.shared_tasks import TaskInfo
from durably.core.status import TERMINAL, Outcome
from durably.core.timeline import HistoryEntry, instant
from durably.engine.committed import no_answer
from durably.errors import AccessDeniedError, EntityCorruptError, HubSilentError, InstanceNotFoundError
from durably.management import check_start
from durably.program.durations import micros_of

_WAIT_S: Final = 10.0
"""So long the host waits for an end before it says that there is none yet."""

_ROUND_S: Final = 2.0
"""Where more are waited for than may wait at once, each has its turn about once in so long."""

_TURN_MIN_S: Final = 0.1

_WAITING_MAX: Final = 20
"""So many requests wait at once, whatever number of instances is waited for: the others take turns."""

_ENTRIES: Final = 5_000

_JSON: Final = {"content-type": "application/json"}


class V1Api(ScheduleApi):
    """Implements `durably.client.remote.host.RemoteHost` with ``/api/v1``.

    Args:
        api: The host.
    """

    def __init__(self, api: HostApi) -> None:
        super().__init__(api)
        self._places = asyncio.Semaphore(_WAITING_MAX)
        self._waiting = 0

    @property
    def has_streams(self) -> bool:
        """See `RemoteHost.has_streams`."""
        return True

    # --- control -----------------------------------------------------------------------------------------------------

    def new_instance_id(self) -> str:
        """See `Management.new_instance_id`."""
        return SystemRandom().token()

    async def start(self, instance_id: str, start: StartInstance) -> None:
        """See `Management.start`. It is sent once: without an answer nobody knows whether it was taken."""
        check_start(instance_id, start)
        body: dict[str, Any] = {
            "name": start.name,
            "instanceId": instance_id,
            "version": start.version,
            "tags": start.tags or {},
            "onExisting": start.on_existing,
        }
        if start.input is not None:
            body["input"] = msgspec.Raw(start.input)
        if start.start_at is not None:
            body["startAt"] = instant(start.start_at)
        await self._send("POST", "instances", body=body, about={"instance_id": instance_id})

    async def raise_event(self, instance_id: str, name: str, data: Payload) -> None:
        """See `Management.raise_event`."""
        path = ("instances", instance_id, "events", name)
        content = b"" if data is None else data
        await self._api.ask("POST", *path, about={"instance_id": instance_id}, content=content, headers=_JSON)

    async def cancel(self, instance_id: str, reason: str | None) -> None:
        """See `Management.cancel`."""
        await self._order(instance_id, "cancel", reason=reason)

    async def terminate(
        self,
        instance_id: str,
        reason: str | None,
        *,
        recursive: bool = False,
        compensate: bool = True,
        output: Payload = None,
    ) -> None:
        """See `Management.terminate`."""
        if output is not None:
            cannot("An output of a terminated instance")
        await self._order(instance_id, "terminate", reason=reason, recursive=recursive, compensate=compensate)

    async def suspend(self, instance_id: str, reason: str | None) -> None:
        """See `Management.suspend`."""
        await self._order(instance_id, "suspend", reason=reason)

    async def resume(self, instance_id: str, reason: str | None) -> None:
        """See `Management.resume`."""
        await self._order(instance_id, "resume", reason=reason)

    async def rewind(self, instance_id: str, rewind: Rewind) -> None:
        """See `Management.rewind`."""
        await self._order(instance_id, "rewind", reason=rewind.reason)

    async def restart(self, instance_id: str, restart: Restart) -> None:
        """See `Management.restart`."""
        await self.restarted(instance_id, restart.reason, fresh=False)

    async def restarted(self, instance_id: str, reason: str | None, *, fresh: bool) -> str:
        """See `RemoteHost.restarted`."""
        answer = await self._order(instance_id, "restart", reason=reason, newId=fresh)
        return answer.of(wire.Started).instance_id

    async def purge(self, instance_id: str, *, recursive: bool = False) -> bool:
        """See `Management.purge`."""
        params = {"recursive": "true"} if recursive else {}
        about = {"instance_id": instance_id}
        try:
            await self._api.ask("DELETE", "instances", instance_id, about=about, params=params)
        except InstanceNotFoundError:
            return False
        return True

    async def _order(self, instance_id: str, verb: str, **body: Any) -> Any:
        about = {"instance_id": instance_id, "operation": verb}
        return await self._send("POST", "instances", instance_id, verb, body=body, about=about)

    # --- reads -------------------------------------------------------------------------------------------------------

    async def get(self, instance_id: str, *, payloads: bool = True) -> InstanceRow | None:
        """See `Management.get`."""
        return await self._look(instance_id, {} if payloads else {"payloads": "false"})

    async def _look(self, instance_id: str, params: dict[str, Any]) -> InstanceRow | None:
        about = {"instance_id": instance_id}
        try:
            answer = await self._api.ask("GET", "instances", instance_id, about=about, params=params)
        except InstanceNotFoundError:
            return None
        return answer.of(wire.Instance).row

    async def wait(self, instance_id: str, timeout_s: float | None) -> InstanceRow:
        """See `Management.wait`. The host tells when it is the case, and is asked again when that takes long."""
        over = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        self._waiting += 1
        try:
            row = await self._look(instance_id, {})
            while row is not None and row.status not in TERMINAL:
                if time.monotonic() >= over:
                    raise TimeoutError(
                        f"Instance '{instance_id}' has not ended within {timeout_s:g} s; it goes on: ask again later"
                    )
                row = await self._next_look(instance_id, over)
        finally:
            self._waiting -= 1
        if row is None:
            raise InstanceNotFoundError(instance_id)
        return row

    async def _next_look(self, instance_id: str, over: float) -> InstanceRow | None:
        """Look when it has ended, or after a while; at once when no place was free until the time was over."""
        try:
            async with asyncio.timeout(None if over == float("inf") else over - time.monotonic()):
                await self._places.acquire()
        except TimeoutError:
            return await self._look(instance_id, {})
        try:
            wait_s = max(0.0, min(over - time.monotonic(), self._turn_s))
            return await self._look(instance_id, {"waitS": f"{wait_s:.3f}"})
        finally:
            self._places.release()

    @property
    def _turn_s(self) -> float:
        if self._waiting <= _WAITING_MAX:
            return _WAIT_S
        return max(_TURN_MIN_S, _ROUND_S * _WAITING_MAX / self._waiting)

    async def outcome(self, instance_id: str, timeout_s: float | None) -> Outcome:
        """See `Management.outcome`."""
        row = await self.wait(instance_id, timeout_s)
        return Outcome(row.status, row.output, decode_failure(row.failure))

    def watch(self, instance_id: str) -> AbstractContextManager[PollingWatch]:
        """See `Management.watch`."""
        return nullcontext(PollingWatch())

    async def query(self, query: InstanceQuery) -> Found:
        """See `Management.query`."""
        if query.statuses == ():
            return Found([], None)
        params = _filters(query) | {"limit": query.page_size, "payloads": str(query.payloads).lower()}
        if query.after != FIRST:
            params["cursor"] = token_of(query.after)
        page = (await self._api.ask("GET", "instances", params=params)).of(wire.InstancePage)
        after = None if page.next_cursor is None else place_of(page.next_cursor)
        return Found([one.row for one in page.instances], after)

    async def count(self, query: InstanceQuery) -> Counts:
        """See `Management.count`."""
        if query.statuses == ():
            return {}
        found = (await self._api.ask("GET", "counts", params=_filters(query))).of(wire.Counts)
        return {(one.name, one.status): one.count for one in found.counts}

    async def history(self, instance_id: str) -> list[HistoryEvent]:
        """See `Management.history`. Always refused: what is told is for people, and no history to replay."""
        cannot("A history to replay")

    async def entries(self, instance_id: str) -> list[HistoryEntry]:
        """See `RemoteHost.entries`."""
        found: list[HistoryEntry] = []
        params: dict[str, Any] = {"limit": _ENTRIES}
        about = {"instance_id": instance_id}
        while True:
            answer = await self._api.ask(
                "GET", "instances", instance_id, "history", about=about, params=params
            )
            page = answer.of(wire.History)
            found += [one.entry for one in page.entries]
            if page.next_cursor is None:
                return found
            params["cursor"] = page.next_cursor

    async def explained(self, instance_id: str) -> str:
        """See `RemoteHost.explained`."""
        about = {"instance_id": instance_id}
        return (await self._api.ask("GET", "instances", instance_id, "why", about=about)).of(wire.Why).why

    async def is_served(self) -> bool:
        """See `Management.is_served`."""
        return (await self._api.ask("GET", "hub")).of(wire.Hub).is_served

    async def shared_tasks(self, instance_id: str) -> list[TaskInfo]:
        """See `Management.shared_tasks`. Always refused: the host tells of them in a sentence, see `explained`."""
        cannot("The activities of an instance that wait for hosts")

    async def hosts(self) -> list[HostStatus]:
        """See `Management.hosts`."""
        return [host.status for host in (await self._api.ask("GET", "hosts")).of(wire.Hosts).hosts]

    async def load(self) -> HubLoad:
        """See `Management.load`."""
        return (await self._api.ask("GET", "load")).of(wire.Load).load

    async def now(self) -> int:
        """See `Management.now`."""
        return micros_of((await self.load()).at)

    async def drain_host(self, host_id: str) -> None:
        """See `Management.drain_host`."""
        await self._api.ask("POST", "hosts", host_id, "drain", about={"host_id": host_id})

    # --- entities ----------------------------------------------------------------------------------------------------

    async def signal_entity(self, entity: str, call: CallEntity) -> None:
        """See `Management.signal_entity`."""
        body = _operation(call)
        if call.due_at is not None:
            body["at"] = instant(call.due_at)
        await self._send("POST", *_path(entity), "signal", body=body)

    async def call_entity(self, entity: str, call: CallEntity, timeout_s: float | None) -> Payload:
        """See `Management.call_entity`. It is sent once, and the host gives signs of life until there is a result."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._called(entity, call)
        except TimeoutError:
            raise TimeoutError(no_answer(entity, call.operation, timeout_s or 0)) from None

    async def _called(self, entity: str, call: CallEntity) -> Payload:
        lines = self._api.stream(
            "POST",
            *_path(entity),
            "call",
            content=msgspec.json.encode(_operation(call)),
            headers={**_JSON, "accept": SSE},
        )
        async with aclosing(lines), aclosing(events_in(lines)) as events:
            async for event in events:
                if event.kind == "called":
                    return wire.payload_in(msgspec.json.decode(event.data, type=wire.Called).result)
                if event.kind == "problem":
                    raise trouble_in(event, entity_id=entity, operation=call.operation)
        raise HubSilentError(
            f"The host at {self._api.url} stopped before operation '{call.operation}' of entity '{entity}' had a result: it "
            "may be performed nevertheless. Look, then try again"
        )

    async def entity_info(self, entity: str) -> EntityInfo | None:
        """See `RemoteHost.entity_info`."""
        found = await self._entity(entity)
        return None if found is None else found.info

    async def entity_state(self, entity: str) -> bytes | None:
        """See `RemoteHost.entity_state`."""
        found = await self._entity(entity)
        if found is None or not found.exists:
            return None
        if found.corrupt is not None:
            raise EntityCorruptError(found.corrupt)
        if isinstance(found.state, msgspec.UnsetType):
            raise AccessDeniedError(
                f"The state of entity '{entity}' is not shown: it needs the permission 'payloads'"
            )
        return bytes(found.state)

    async def _entity(self, entity: str) -> wire.Entity | None:
        answer = await self._api.ask_or_none("EntityNotFound", "GET", *_path(entity))
        return None if answer is None else answer.of(wire.Entity)

    async def entity_page(self, query: EntityQuery, *, with_state: bool) -> EntityPage:
        """See `RemoteHost.entity_page`."""
        given: dict[str, Any] = {
            "name": query.name,
            "keyPrefix": (query.prefix or "").removeprefix(f"@{query.name}@") or None,
            "updatedFrom": _moment(query.updated_from),
            "updatedTo": _moment(query.updated_to),
            "state": "true" if with_state else None,
            "transient": "true" if query.with_transient else None,
            "locked": "true" if query.locked else None,
            "limit": query.page_size,
            "cursor": page_token(query.after) if query.after else None,
        }
        page = (await self._api.ask("GET", "entities", params=_given(given))).of(wire.EntityPage)
        return EntityPage([one.info for one in page.entities], page.next_cursor)

    async def clean_entities(self) -> CleanResult:
        """See `RemoteHost.clean_entities`."""
        done = (await self._api.ask("POST", "entities", "clean")).of(wire.Cleaned)
        return CleanResult(done.removed, done.released)

    async def get_entity(self, entity: str) -> EntityRow | None:
        """See `Management.get_entity`. Always refused: rows stay in the hub."""
        cannot("The row of an entity")

    async def query_entities(self, query: EntityQuery) -> EntitiesFound:
        """See `Management.query_entities`. Always refused."""
        cannot("Rows of entities")

    async def messages_to(self, target: str) -> list[InboxRow]:
        """See `Management.messages_to`. Always refused."""
        cannot("The messages of an instance")

    async def release_orphaned(self, row: EntityRow) -> bool:
        """See `Management.release_orphaned`. Always refused: see `clean_entities`."""
        cannot("The release of one lock")

    # --- what is parked ----------------------------------------------------------------------------------------------

    async def query_parked(self, query: ParkedQuery) -> ParkedFound:
        """See `Management.query_parked`."""
        given: dict[str, Any] = {
            "kind": query.kind,
            "idPrefix": query.instance_id_prefix or None,
            "limit": query.page_size,
            "cursor": None if query.after == ParkedPlace() else token_of_parked(query.after),
        }
        page = (await self._api.ask("GET", "parked", params=_given(given))).of(wire.ParkedPage)
        after = None if page.next_cursor is None else parked_place_of(page.next_cursor)
        return ParkedFound([one.row for one in page.items], after)

    async def redrive(self, item_id: str) -> None:
        """See `Management.redrive`."""
        await self._api.ask("POST", "parked", item_id, "redrive", about={"instance_id": item_id})

    async def discard(self, item_id: str) -> None:
        """See `Management.discard`."""
        await self._api.ask("POST", "parked", item_id, "discard", about={"instance_id": item_id})


def _filters(query: InstanceQuery) -> dict[str, Any]:
    if query.parked:
        cannot("Instances that are parked")
    if any("=" in key or not key for key in query.tags or ()):
        cannot("A tag whose name is empty, or has a '=',")
    return _given(
        {
            "name": query.name,
            "status": None if query.statuses is None else list(query.statuses),
            "createdFrom": _moment(query.created_from),
            "createdTo": _moment(query.created_to),
            "updatedFrom": _moment(query.updated_from),
            "updatedTo": _moment(query.updated_to),
            "idPrefix": query.instance_id_prefix or None,
            "tag": [f"{key}={value}" for key, value in (query.tags or {}).items()] or None,
            "parent": query.parent_instance_id,
            "stuck": None if query.stuck is None else str(query.stuck).lower(),
        }
    )


def _given(params: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _moment(micros: int | None) -> str | None:
    return None if micros is None else instant(micros).isoformat()


def _operation(call: CallEntity) -> dict[str, Any]:
    body: dict[str, Any] = {"operation": call.operation}
    if call.input is not None:
        body["input"] = msgspec.Raw(call.input)
    return body


def _path(entity: str) -> tuple[str, str, str]:
    found = EntityId.parse(entity)
    if found.key == "$":
        cannot("An entity whose key is '$'")
    return "entities", found.name, found.key or "$"
