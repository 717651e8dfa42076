"""The management protocol over the management API of Durable Functions, as far as that has words for it.

For hosts without ``/api/v1``, which are not ours.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import msgspec

from durably.client.endings import PollingWatch
from durably.client.entities import CleanResult, EntityInfo, EntityPage, page_token
from durably.client.remote.api import HostApi
from durably.client.remote.bodies import entity_of, entries_of, row_of
from durably.client.remote.refused import cannot, error_of
from durably.clock import SystemClock, SystemRandom
from durably.core.commit import EntityRow, InboxRow, InstanceRow
from durably.core.entities import EntityId
from durably.core.events import HistoryEvent, Payload
from durably.core.history import decode_failure
from durably.core.hosts import HostStatus
from durably.core.load import HubLoad
from durably.core.messages import CallEntity, Restart, Rewind, StartInstance
from durably.core.parked import ParkedFound, ParkedQuery
from durably.core.query import (
    FIRST,
    PAGE_SIZE_MAX,
    Counts,
    EntitiesFound,
    EntityQuery,
    Found,
    InstanceQuery,
    Place,
)
from durably.core.shared_tasks import TaskInfo
from durably.core.status import TERMINAL, Outcome, RuntimeStatus
from durably.core.timeline import HistoryEntry, instant
from durably.core.why import why
from durably.errors import InstanceNotFoundError, UsageError
from durably.management import check_start
from durably.schedules.description import ScheduleDescription, SchedulePage

_TOKEN = "x-ms-continuation-token"  # noqa: S105 - the name of a header

_FIRST_LOOK_S, _LOOK_MAX_S = 0.02, 1.0
"""Whoever waits looks again, each time twice as late."""

_TOKENS_KEPT = 1_000
"""Of so many pages the next one can be asked for."""

_JSON = {"content-type": "application/json"}


class DurableApi:
    """Implements `durably.client.remote.host.RemoteHost` with the API of Durable Functions.

    Args:
        api: The host.
    """

    def __init__(self, api: HostApi) -> None:
        self._api = api
        self._tokens: dict[int, str] = {}
        self._pages = 0

    @property
    def has_streams(self) -> bool:
        """See `RemoteHost.has_streams`."""
        return False

    # --- control -----------------------------------------------------------------------------------------------------

    def new_instance_id(self) -> str:
        """See `Management.new_instance_id`."""
        return SystemRandom().token()

    async def start(self, instance_id: str, start: StartInstance) -> None:
        """See `Management.start`. It is sent once: without an answer nobody knows whether it was taken."""
        check_start(instance_id, start)
        for given, what in (
            (start.start_at, "A start for later"),
            (start.tags, "Tags"),
            (start.on_existing != "replace_finished", f"on_existing='{start.on_existing}'"),
        ):
            if given:
                cannot(what)
        await self._api.manage(
            "POST",
            "orchestrators",
            start.name,
            instance_id,
            about={"instance_id": instance_id},
            content=start.input or b"",
            params={"version": start.version} if start.version else {},
            headers=_JSON,
        )

    async def raise_event(self, instance_id: str, name: str, data: Payload) -> None:
        """See `Management.raise_event`."""
        content = b"" if data is None else data
        await self._post(instance_id, "raiseEvent", name, content=content, headers=_JSON)

    async def cancel(self, instance_id: str, reason: str | None) -> None:
        """See `Management.cancel`. Always refused."""
        cannot("A cancellation")

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
        if recursive or not compensate:
            cannot("--recursive" if recursive else "--no-compensate")
        if output is not None:
            cannot("An output of a terminated instance")
        await self._order(instance_id, "terminate", reason)

    async def suspend(self, instance_id: str, reason: str | None) -> None:
        """See `Management.suspend`."""
        await self._order(instance_id, "suspend", reason)

    async def resume(self, instance_id: str, reason: str | None) -> None:
        """See `Management.resume`."""
        await self._order(instance_id, "resume", reason)

    async def rewind(self, instance_id: str, rewind: Rewind) -> None:
        """See `Management.rewind`."""
        await self._order(instance_id, "rewind", rewind.reason)

    async def restart(self, instance_id: str, restart: Restart) -> None:
        """See `Management.restart`."""
        await self.restarted(instance_id, restart.reason, fresh=False)

    async def restarted(self, instance_id: str, reason: str | None, *, fresh: bool) -> str:
        """Start an instance once more; returns the id of the new one."""
        if reason is not None:
            cannot("A restart with a reason")
        if await self.get(instance_id, payloads=False) is None:  # the API answers with a general 400
            raise InstanceNotFoundError(instance_id)
        params = {"restartWithNewInstanceId": "true" if fresh else "false"}
        answer = await self._post(instance_id, "restart", params=params)
        return str(answer["id"])

    async def purge(self, instance_id: str, *, recursive: bool = False) -> bool:
        """See `Management.purge`."""
        if recursive:
            cannot("--recursive")
        try:
            await self._api.manage("DELETE", "instances", instance_id, about={"instance_id": instance_id})
        except InstanceNotFoundError:
            return False
        return True

    async def _order(self, instance_id: str, verb: str, reason: str | None) -> None:
        await self._post(instance_id, verb, params={"reason": reason} if reason else {})

    async def _post(self, instance_id: str, *verb: str, **more: Any) -> Any:
        path = ("instances", instance_id, *verb)
        answer = await self._api.manage("POST", *path, about={"instance_id": instance_id}, **more)
        return answer.json() if answer.body else None

    # --- reads -------------------------------------------------------------------------------------------------------

    async def get(self, instance_id: str, *, payloads: bool = True) -> InstanceRow | None:
        """See `Management.get`."""
        params = {"showInput": str(payloads).lower()}
        path = ("instances", instance_id)
        try:
            answer = await self._api.manage("GET", *path, about={"instance_id": instance_id}, params=params)
        except InstanceNotFoundError:
            return None
        return row_of(answer.json())

    async def wait(self, instance_id: str, timeout_s: float | None) -> InstanceRow:
        """See `Management.wait`. The host is asked again and again, less and less often."""
        pause = _FIRST_LOOK_S
        over = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        while True:
            row = await self.get(instance_id)
            if row is None:
                raise InstanceNotFoundError(instance_id)
            if row.status in TERMINAL:
                return row
            left = over - time.monotonic()
            if left <= 0:
                raise TimeoutError(
                    f"Instance '{instance_id}' has not ended within {timeout_s:g} s; it goes on"
                )
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, _LOOK_MAX_S)

    async def outcome(self, instance_id: str, timeout_s: float | None) -> Outcome:
        """See `Management.outcome`."""
        row = await self.wait(instance_id, timeout_s)
        return Outcome(row.status, row.output, decode_failure(row.failure))

    def watch(self, instance_id: str) -> AbstractContextManager[PollingWatch]:
        """See `Management.watch`."""
        return nullcontext(PollingWatch())

    async def query(self, query: InstanceQuery) -> Found:
        """See `Management.query`. The name is looked at here, so that such a page may have fewer rows than asked for."""
        after = query.after
        while True:
            found = await self._page(query, after)
            rows = [row for row in found.rows if query.name is None or row.name == query.name]
            if rows or found.next_after is None:
                return Found(rows, found.next_after)
            after = found.next_after

    async def _page(self, query: InstanceQuery, after: Any) -> Found:
        params: dict[str, Any] = {"top": query.page_size, "showInput": str(query.payloads).lower()}
        for name, micros in (("createdTimeFrom", query.created_from), ("createdTimeTo", query.created_to)):
            if micros is not None:
                params[name] = instant(micros).isoformat()
        if query.statuses is not None:
            params["runtimeStatus"] = ",".join(query.statuses)
        if query.instance_id_prefix is not None:
            params["instanceIdPrefix"] = query.instance_id_prefix
        for given, what in (
            (query.tags, "Instances by tag"),
            (
                query.updated_from is not None or query.updated_to is not None,
                "Instances by the time of their last update",
            ),
            (query.parent_instance_id, "Instances by parent"),
            (query.stuck is not None or query.parked, "Instances that are stuck"),
        ):
            if given:
                cannot(what)
        headers = {} if after == FIRST else {_TOKEN: self._token_of(after)}
        answer = await self._api.manage("GET", "instances", params=params, headers=headers)
        token = answer.headers.get(_TOKEN)
        return Found([row_of(body) for body in answer.json()], self._place_of(token) if token else None)

    def _place_of(self, token: str) -> Place:
        """Stands for a token, which is the host's own, in this client."""
        self._pages += 1
        self._tokens[self._pages] = token
        self._tokens.pop(self._pages - _TOKENS_KEPT, None)
        return Place(0, self._pages)

    def _token_of(self, place: Place) -> str:
        token = self._tokens.get(place.position)
        if token is None:
            raise UsageError(
                "The continuation token is not known to this client: expected one of its own newest pages. Begin again"
            )
        return token

    async def count(self, query: InstanceQuery) -> Counts:
        """See `Management.count`. All pages are walked through."""
        counts: Counts = {}
        after = FIRST
        while True:
            page = msgspec.structs.replace(query, payloads=False, page_size=PAGE_SIZE_MAX, after=after)
            found = await self.query(page)
            for row in found.rows:
                counts[row.name, row.status] = counts.get((row.name, row.status), 0) + 1
            if found.next_after is None:
                return counts
            after = found.next_after

    async def history(self, instance_id: str) -> list[HistoryEvent]:
        """See `Management.history`. Always refused: what the API shows is no history to replay."""
        cannot("A history for programs")

    async def is_served(self) -> bool:
        """See `Management.is_served`. Whoever answers over HTTP serves its hub."""
        await self._api.manage("GET", "instances", params={"top": 1, "showInput": "false"})
        return True

    async def shared_tasks(self, instance_id: str) -> list[TaskInfo]:
        """See `Management.shared_tasks`. Always refused: the host tells of them in a sentence, see `explained`."""
        cannot("The activities of an instance that wait for hosts")

    async def hosts(self) -> list[HostStatus]:
        """See `Management.hosts`. Always refused: Durable Functions knows nothing of them."""
        cannot("The hosts of a hub")

    async def load(self) -> HubLoad:
        """See `Management.load`. Always refused."""
        cannot("The load of a hub")

    async def now(self) -> int:
        """See `Management.now`. Durable Functions has no call for it: the clock of this machine."""
        return SystemClock().now()

    async def drain_host(self, host_id: str) -> None:
        """See `Management.drain_host`. Always refused."""
        cannot("A drain")

    async def entries(self, instance_id: str) -> list[HistoryEntry]:
        """See `Client.get_history`. As Durable Functions shows it: what was scheduled and has completed is one entry."""
        params = {"showHistory": "true", "showHistoryOutput": "true", "showInput": "false"}
        path = ("instances", instance_id)
        answer = await self._api.manage("GET", *path, about={"instance_id": instance_id}, params=params)
        return entries_of(answer.json()["historyEvents"])

    async def explained(self, instance_id: str) -> str:
        """See `Client.why`. Of an instance that goes on it tells no more than its status."""
        row = await self.get(instance_id, payloads=False)
        if row is None:
            raise InstanceNotFoundError(instance_id)
        if row.status in TERMINAL or row.status == RuntimeStatus.Pending.value:
            return why(row, [], SystemClock().now())
        return f"Is {row.status}; what it waits for is told under the URL of the hub itself, not over HTTP."

    # --- entities ----------------------------------------------------------------------------------------------------

    async def signal_entity(self, entity: str, call: CallEntity) -> None:
        """See `Management.signal_entity`."""
        if call.due_at is not None:
            cannot("A signal for later")
        content = b"" if call.input is None else call.input
        await self._api.manage(
            "POST", *_entity(entity), params={"op": call.operation}, content=content, headers=_JSON
        )

    async def entity_state(self, entity: str) -> bytes | None:
        """See `RemoteHost.entity_state`."""
        answer = await self._api.send("GET", self._api.managed(*_entity(entity)), patient=True)
        if answer.status == 404:
            return None
        if answer.status >= 300:
            raise error_of(answer)
        return answer.body

    async def entity_page(self, query: EntityQuery, *, with_state: bool) -> EntityPage:
        """See `RemoteHost.entity_page`."""
        if query.locked or query.with_transient:
            cannot("Entities that are locked, or do not exist,")
        if query.name is not None and query.prefix not in {None, f"@{query.name}@"}:
            cannot("Entities by the beginning of their keys")
        params: dict[str, Any] = {"top": query.page_size, "fetchState": str(with_state).lower()}
        for name, micros in (
            ("lastOperationTimeFrom", query.updated_from),
            ("lastOperationTimeTo", query.updated_to),
        ):
            if micros is not None:
                params[name] = instant(micros).isoformat()
        path = ("entities",) if query.name is None else ("entities", query.name)
        headers = {_TOKEN: query.after} if query.after else {}
        answer = await self._api.manage("GET", *path, params=params, headers=headers)
        found = [entity_of(body) for body in answer.json()]
        token = answer.headers.get(_TOKEN)
        return EntityPage(found, page_token(token) if token else None)

    # --- what the API has no words for ---------------------------------------------------------------------------------

    async def call_entity(self, entity: str, call: CallEntity, timeout_s: float | None) -> Payload:
        """See `Management.call_entity`. Always refused."""
        cannot("A call of an entity")

    async def get_entity(self, entity: str) -> EntityRow | None:
        """See `Management.get_entity`. Always refused."""
        cannot("An entity")

    async def query_entities(self, query: EntityQuery) -> EntitiesFound:
        """See `Management.query_entities`. Always refused."""
        cannot("A list of entities")

    async def messages_to(self, target: str) -> list[InboxRow]:
        """See `Management.messages_to`. Always refused."""
        cannot("The messages of an instance")

    async def release_orphaned(self, row: EntityRow) -> bool:
        """See `Management.release_orphaned`. Always refused."""
        cannot("The release of a lock")

    async def query_parked(self, query: ParkedQuery) -> ParkedFound:
        """See `Management.query_parked`. Always refused."""
        cannot("What is parked")

    async def redrive(self, item_id: str) -> None:
        """See `Management.redrive`. Always refused."""
        cannot("A redrive")

    async def discard(self, item_id: str) -> None:
        """See `Management.discard`. Always refused."""
        cannot("A discard")

    async def entity_info(self, entity: str) -> EntityInfo | None:
        """See `RemoteHost.entity_info`. Always refused."""
        cannot("The lock of an entity")

    async def clean_entities(self) -> CleanResult:
        """See `RemoteHost.clean_entities`. Always refused."""
        cannot("The release of locks")

    async def order_schedule(self, schedule_id: str, operation: str, order: Any) -> bytes | None:
        """See `RemoteHost.order_schedule`. Always refused."""
        cannot("A schedule")

    async def schedule(self, schedule_id: str) -> ScheduleDescription:
        """See `RemoteHost.schedule`. Always refused."""
        cannot("A schedule")

    async def schedule_page(self, prefix: str, page_size: int, token: str | None) -> SchedulePage:
        """See `RemoteHost.schedule_page`. Always refused."""
        cannot("Schedules")


def _entity(entity: str) -> tuple[str, str, str]:
    found = EntityId.parse(entity)
    return "entities", found.name, found.key or "$"
