"""Entities: find, look, signal, call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Any, Final

from msgspec import UNSET

from durably.core.entities import EntityId, check_operation
from durably.core.messages import CallEntity
from durably.errors import DurablyError, EntityOperationFailedError
from durably.http_api.durable.entities import EMPTY_KEY, of_users
from durably.http_api.payloads import raw
from durably.http_api.refusals import Refusal
from durably.http_api.served import Served
from durably.http_api.v1 import bodies, requests, shown
from durably.http_api.v1.operation import SSE, Answer, Call, Operation
from durably.http_api.v1.orders import payload_of
from durably.http_api.v1.streams import Streams, event, trouble
from durably.program.durations import micros_of

_ONE: Final = "/entities/{name}/{key}"


class Entities:
    """Operations on entities. The key ``$`` in a path stands for the empty one."""

    def __init__(self, served: Served, streams: Streams) -> None:
        self._streams = streams
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
                summary="Perform an operation and answer with its result; 202 when there is none in time; with "
                f"`Accept: {SSE}` as a stream that ends with it",
                act=self._call,
                body=requests.CallOperation,
                answers={200: bodies.Called, 202: bodies.Called},
                events={"called": bodies.Called, "problem": bodies.Trouble},
            ),
            Operation(
                id="cleanEntities",
                method="POST",
                path="/entities/clean",
                needs="control",
                summary="Release locks whose instance has ended or is gone; in a healthy hub there are none",
                act=self._clean,
                answers={200: bodies.Cleaned},
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
            locked=query.locked,
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

    async def _call(self, call: Call) -> Any:
        asked: requests.CallOperation = call.body
        entity = str(of_users(_entity(call)))
        operation = CallEntity(check_operation(asked.operation), payload_of(asked.input), wanted=True)
        if SSE in call.request.headers.get("accept", ""):
            return self._streams.answer(
                call.request,
                self._waiting(partial(self._performed, call, entity, operation, None)),
            )
        try:
            return Answer(200, await self._performed(call, entity, operation, asked.wait_s))
        except TimeoutError:
            return Answer(202, bodies.Called(done=False))

    async def _performed(
        self, call: Call, entity: str, operation: CallEntity, timeout_s: float | None
    ) -> bodies.Called:
        try:
            result = await self._management.call_entity(entity, operation, timeout_s)
        except EntityOperationFailedError as error:
            failure = error.details if call.sees_payloads else None
            raise Refusal(422, str(error), type(error).__name__, failure=failure) from None
        return bodies.Called(done=True, result=raw(result) if call.sees_payloads else UNSET)

    async def _waiting(self, perform: Callable[[], Awaitable[bodies.Called]]) -> AsyncGenerator[bytes]:
        """Signs of life, then the result: a lock may be held for days. What was sent is performed, also without a reader."""
        work = asyncio.ensure_future(perform())
        try:
            while not await self._streams.done(work):
                if self._streams.is_closing:
                    return
                yield b": at work\n\n"
            yield event("called", work.result())
        except DurablyError as error:
            yield trouble(error)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _clean(self, call: Call) -> bodies.Cleaned:
        done = await self._client.clean_entity_storage()
        return bodies.Cleaned(released=done.released, removed=done.removed)


def _entity(call: Call) -> EntityId:
    key = call.path["key"]
    return EntityId(call.path["name"], "" if key == EMPTY_KEY else key)
