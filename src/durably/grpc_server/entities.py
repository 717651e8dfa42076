"""Entities: signal, look, list, clean."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import msgspec

from durably.client.entities import page_start, page_token
from durably.core.commit import EntityRow
from durably.core.entities import EntityId, EntityState, check_operation
from durably.core.events import Payload
from durably.core.messages import CallEntity
from durably.core.query import PAGE_SIZE_MAX, EntitiesFound, EntityQuery
from durably.errors import EntityCorruptError
from durably.executors.remote.wire import (
    has,
    instant_of,
    payload_of,
    payload_value,
    pb,
    text_of,
    text_value,
    timestamp,
)
from durably.grpc_server.refusals import Code, Refusal
from durably.grpc_server.served import PAGE_BYTES_MAX, Call, Rpc, Rpcs, Served, check_length
from durably.grpc_server.shown import first_instant, last_before

_INTERNAL: Final = "durably."
_PAGE: Final = 100


class Entities:
    """The calls of entities."""

    def __init__(self, served: Served) -> None:
        self._client = served.client
        self._management = served.management

    @property
    def rpcs(self) -> Rpcs:
        """Their rows."""
        return {
            "SignalEntity": Rpc(pb.SignalEntityRequest, "control", self._signal),
            "GetEntity": Rpc(pb.GetEntityRequest, "read", self._get),
            "QueryEntities": Rpc(pb.QueryEntitiesRequest, "read", self._query),
            "CleanEntityStorage": Rpc(pb.CleanEntityStorageRequest, "control", self._clean),
        }

    async def _signal(self, request: pb.SignalEntityRequest, call: Call) -> pb.SignalEntityResponse:
        check_length(request.instanceId)
        entity = EntityId.parse(request.instanceId)
        if entity.name.startswith(_INTERNAL):
            # An order to a schedule could start anything, which takes more than control.
            text = f"Entity '{entity}' is of the runtime: expected one of the app"
            raise Refusal(Code.PERMISSION_DENIED, text)
        at = instant_of(request, "scheduledTime")
        due_at = at if at is not None and at > await self._management.now() else None
        operation = CallEntity(
            check_operation(request.name), payload_of(request, "input") or None, due_at=due_at
        )
        await self._management.signal_entity(str(entity), operation)
        return pb.SignalEntityResponse()

    async def _get(self, request: pb.GetEntityRequest, call: Call) -> pb.GetEntityResponse:
        check_length(request.instanceId)
        entity = str(EntityId.parse(request.instanceId))
        row = await self._management.get_entity(entity)
        if row is None or row.state is None:  # locked, or with a signal that is due later: it does not exist
            return pb.GetEntityResponse(exists=False)
        with_state = request.includeState and call.sees_payloads
        shown = _shown(row, with_state=with_state)
        shown.backlogQueueSize = len(await self._management.messages_to(entity))
        return pb.GetEntityResponse(exists=True, entity=shown)

    async def _query(self, request: pb.QueryEntitiesRequest, call: Call) -> pb.QueryEntitiesResponse:
        """In the order of their ids."""
        asked = request.query
        size = asked.pageSize.value if has(asked, "pageSize") else 0
        query = EntityQuery(
            prefix=_prefix_of(text_of(asked, "instanceIdStartsWith")),
            updated_from=first_instant(asked, "lastModifiedFrom"),
            updated_to=last_before(asked, "lastModifiedTo"),
            with_transient=asked.includeTransient,
            page_size=min(size, PAGE_SIZE_MAX) if size > 0 else _PAGE,
            after=page_start(text_of(asked, "continuationToken") or None),
        )
        with_state = asked.includeState and call.sees_payloads
        found = await self._page(query, with_state=with_state)
        after = found.next_after
        return pb.QueryEntitiesResponse(
            entities=[_shown(row, with_state=with_state) for row in found.rows],
            continuationToken=None if after is None else text_value(page_token(after)),
        )

    async def _clean(
        self, request: pb.CleanEntityStorageRequest, call: Call
    ) -> pb.CleanEntityStorageResponse:
        """In a healthy hub both counts are 0: an entity without state has no row, and locks go with their holder."""
        if not (request.removeEmptyEntities or request.releaseOrphanedLocks):
            return pb.CleanEntityStorageResponse()
        result = await self._client.clean_entity_storage()
        return pb.CleanEntityStorageResponse(
            emptyEntitiesRemoved=result.removed, orphanedLocksReleased=result.released
        )

    async def _page(self, query: EntityQuery, *, with_state: bool) -> EntitiesFound:
        """A page that fits into a message: half of it, as often as it takes."""
        while True:
            found = await self._management.query_entities(query)
            held = sum(len(row.state or b"") for row in found.rows) if with_state else 0
            if held <= PAGE_BYTES_MAX or len(found.rows) == 1:
                return found
            query = msgspec.structs.replace(query, page_size=len(found.rows) // 2)


def _shown(row: EntityRow, *, with_state: bool) -> pb.EntityMetadata:
    """An entity, but for how many messages wait for it: that takes a read of its own."""
    state: Payload = None
    if with_state:
        with suppress(EntityCorruptError):  # the others of its page are shown all the same
            state = EntityState.of(row).state
    return pb.EntityMetadata(
        instanceId=row.instance_id,
        lastModifiedTime=timestamp(row.updated_at),
        lockedBy=text_value(row.locked_by),
        serializedState=payload_value(state),
    )


def _prefix_of(asked: str | None) -> str | None:
    """How the ids begin that are looked for: with the name in lower case, and the sign before it that may be left out."""
    if not asked:
        return None
    name, at, key = asked.removeprefix("@").partition("@")
    return f"@{name.lower()}{at}{key}"
