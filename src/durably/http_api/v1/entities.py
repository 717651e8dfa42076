"""Entities: find, look, signal, call."""

from __future__ import annotations

from typing import Final

from msgspec import UNSET

from durably.core.entities import EntityId, check_operation
from durably.core.messages import CallEntity
from durably.http_api.durable.entities import EMPTY_KEY, of_users
from durably.http_api.refusals import Refusal
from durably.http_api.served import Served
from durably.http_api.v1 import bodies, requests, shown
from durably.http_api.v1.operation import Answer, Call, Operation
from durably.http_api.v1.orders import payload_of
from durably.program.durations import micros_of

_ONE: Final = "/entities/{name}/{key}"


class Entities:
    """Operations on entities. The key ``$`` in a path stands for the empty one."""

    def __init__(self, served: Served) -> None:
        self._client = served.client
        self._management = served.management

    @property
    def operations(self) -> list[Operation]:
        """Their rows."""
        return [
            Operation(
                id="getEntity",
                method="GET",
                path=_ONE,
                needs="read",
                summary="One entity: its state, who has it locked, how many messages wait for it",
                act=self._get,
                answers={200: bodies.Entity},
            ),
            Operation(
                id="listEntities",
                method="GET",
                path="/entities",
                needs="read",
                summary="Entities that match, in the order of their ids, page by page",
                act=self._list,
                query=requests.EntityQuery,
                answers={200: bodies.EntityPage},
            ),
            Operation(
                id="signalEntity",
                method="POST",
                path=f"{_ONE}/signal",
                needs="control",
                summary="Send an operation, performed exactly once",
                act=self._signal,
                body=requests.Signal,
            ),
            Operation(
                id="callEntity",
                method="POST",
                path=f"{_ONE}/call",
                needs="control",
                summary="Perform an operation and answer with its result; 202 when there is none in time",
                act=self._call,
                body=requests.CallOperation,
                answers={200: bodies.Called, 202: bodies.Called},
            ),
        ]

    async def _get(self, call: Call) -> bodies.Entity:
        entity = _entity(call)
        info = await self._client.get_entity(entity)
        if info is None:
            raise Refusal(
                404,
                f"There is no entity '{entity}': expected one that has a state, or is locked",
                "EntityNotFound",
            )
        return shown.entity_of(info, state=call.sees_payloads, waiting=True)

    async def _list(self, call: Call) -> bodies.EntityPage:
        query: requests.EntityQuery = call.query
        with_state = query.state and call.sees_payloads
        page = await self._client.query_entities(
            name=query.name,
            key_prefix=query.key_prefix or "",
            last_modified_from=query.updated_from,
            last_modified_to=query.updated_to,
            include_state=with_state,
            include_transient=query.transient,
            page_size=query.limit,
            continuation_token=query.cursor,
        )
        return bodies.EntityPage(
            entities=[shown.entity_of(info, state=with_state) for info in page.entities],
            next_cursor=page.continuation_token,
        )

    async def _signal(self, call: Call) -> None:
        asked: requests.Signal = call.body
        due_at = None if asked.at is None else micros_of(asked.at)
        operation = CallEntity(check_operation(asked.operation), payload_of(asked.input), due_at=due_at)
        await self._management.signal_entity(str(of_users(_entity(call))), operation)

    async def _call(self, call: Call) -> Answer:
        asked: requests.CallOperation = call.body
        operation = CallEntity(check_operation(asked.operation), payload_of(asked.input), wanted=True)
        try:
            result = await self._management.call_entity(str(of_users(_entity(call))), operation, asked.wait_s)
        except TimeoutError:
            return Answer(202, bodies.Called(done=False))
        told = shown.raw(result) if call.sees_payloads else UNSET
        return Answer(200, bodies.Called(done=True, result=told))


def _entity(call: Call) -> EntityId:
    key = call.path["key"]
    return EntityId(call.path["name"], "" if key == EMPTY_KEY else key)
