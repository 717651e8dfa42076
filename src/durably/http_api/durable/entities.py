"""Entities: states, lists, signals."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from durably.core.entities import EntityId, EntityState, check_operation
from durably.core.events import Payload
from durably.core.messages import CallEntity
from durably.core.query import PAGE_SIZE_MAX
from durably.http_api.access import sees_payloads
from durably.http_api.durable.bodies import seconds
from durably.http_api.durable.instances import TOKEN
from durably.http_api.durable.starts import JSON
from durably.http_api.incoming import Incoming
from durably.http_api.reading import Parameters, is_json, json_payload, read_body
from durably.http_api.refusals import Refusal
from durably.http_api.served import Served

EMPTY_KEY = "$"
"""Stands for the key "" in a path."""


_INTERNAL = "durably."


def of_users(entity: EntityId) -> EntityId:
    """An entity that users may send operations to.

    Raises:
        Refusal: 403, it is of the runtime: an order to a schedule could start anything, which takes more than control.
    """
    if entity.name.startswith(_INTERNAL):
        raise Refusal(
            403,
            f"Entity '{entity}' is of the runtime: expected one of the app, or /api/v1/schedules",
            "Forbidden",
        )
    return entity


class Entities:
    """The routes of entities."""

    def __init__(self, served: Served) -> None:
        self._served = served

    async def find(self, request: Incoming) -> Response:
        """``GET entities[/{name}]``: one page."""
        parameters = Parameters(request)
        fetch_state = parameters.flag("fetchState", default=False) and sees_payloads(request)
        page = await self._served.client.query_entities(
            name=request.path_params.get("name"),
            last_modified_from=parameters.moment("lastOperationTimeFrom"),
            last_modified_to=parameters.moment("lastOperationTimeTo"),
            include_state=fetch_state,
            page_size=parameters.number("top", 100, 1, PAGE_SIZE_MAX),
            continuation_token=request.headers.get(TOKEN) or None,
        )
        body = [
            {
                "entityId": {"name": one.entity_id.name, "key": one.entity_id.key},
                "lastOperationTime": seconds(one.last_modified),
                **({"state": one.state} if fetch_state else {}),
            }
            for one in page.entities
        ]
        headers = {} if page.continuation_token is None else {TOKEN: page.continuation_token}
        return Response(msgspec.json.encode(body), 200, headers, media_type=JSON)

    async def state(self, request: Incoming) -> Response:
        """``GET entities/{name}/{key}``."""
        entity = _entity(request)
        row = await self._served.management.get_entity(str(entity))
        state = None if row is None else EntityState.of(row).state
        if state is None:
            raise Refusal(
                404, f"Entity '{entity}' has no state: nobody has set it, or it was deleted", "EntityNotFound"
            )
        return Response(state, 200, media_type=JSON)

    async def signal(self, request: Incoming) -> Response:
        """``POST entities/{name}/{key}?op=``: JSON as it is, anything else as text."""
        body = await read_body(request, self._served.body_bytes_max)
        payload: Payload
        if is_json(request):
            payload = json_payload(body, twice=self._served.json_twice)
        else:
            try:
                payload = msgspec.json.encode(body.decode()) if body else None
            except UnicodeDecodeError as error:
                raise Refusal(
                    400, f"The body is no text ({error}): expected UTF-8, or JSON as application/json"
                ) from None
        return await self._send(request, Parameters(request).text("op") or "", payload)

    async def delete(self, request: Incoming) -> Response:
        """``DELETE entities/{name}/{key}``: sends the operation ``delete``."""
        return await self._send(request, "delete", None)

    async def _send(self, request: Incoming, operation: str, payload: Payload) -> Response:
        entity = str(of_users(_entity(request)))
        await self._served.management.signal_entity(entity, CallEntity(check_operation(operation), payload))
        return Response(b"", 202)


def _entity(request: Incoming) -> EntityId:
    key: str = request.path_params["key"]
    return EntityId(request.path_params["name"], "" if key == EMPTY_KEY else key)
