"""The part of a client that works with entities."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime, timedelta
from typing import Any, TypeVar, overload

import msgspec

from durably.clock import Clock
from durably.codec.convert import Converter
from durably.core.commit import EntityRow
from durably.core.entities import EntityId, EntityState, check_operation
from durably.core.events import Payload
from durably.core.history import lock_asked_in
from durably.core.messages import CallEntity
from durably.core.query import EntityQuery
from durably.core.timeline import instant
from durably.errors import EntityCorruptError, UsageError
from durably.management import Management
from durably.program.durations import micros_of, microseconds
from durably.program.registry import Registry

T = TypeVar("T")

_PAGE = 500

_decode_plain = msgspec.json.Decoder().decode


class EntityInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An entity, as of its last committed operation.

    Attributes:
        entity_id: Who it is.
        state: As plain JSON data; None where it was not asked for, or the entity does not exist.
        exists: False for one that is only locked, or has a signal that is due later.
        last_modified: When its state changed last (aware, UTC).
        locked_by: The orchestration that has it locked, or None.
        locked_since: Since when (aware, UTC), or None.
        waiting: How many messages wait for it, those that wait for the lock included; only `get_entity` counts them.
        scheduled: How many signals are due later.
        lock_waiters: The orchestrations that wait to lock it, in their order; only `get_entity` looks for them.
        corrupt: Why its row cannot be read, or None; then its state is None.
    """

    entity_id: EntityId
    state: Any
    exists: bool
    last_modified: datetime
    locked_by: str | None = None
    locked_since: datetime | None = None
    waiting: int = 0
    scheduled: int = 0
    lock_waiters: list[str] = []
    corrupt: str | None = None


class EntityPage(msgspec.Struct, frozen=True):
    """One page of entities.

    Attributes:
        entities: In the order of their ids.
        continuation_token: Pass it to the same call for the next page; None when this is the last one.
    """

    entities: list[EntityInfo]
    continuation_token: str | None = None


class CleanResult(msgspec.Struct, frozen=True):
    """What `clean_entity_storage` did.

    Attributes:
        removed: Rows of entities that do not exist, and that nobody waits for any more.
        released: Locks of orchestrations that have ended, or are gone.
    """

    removed: int
    released: int


class EntityVerbs:
    """Operations on entities."""

    _management: Management
    _converter: Converter
    _clock: Clock
    _registry: Registry

    async def signal_entity(
        self,
        entity_id: EntityId | str,
        operation: str,
        input: Any = None,
        *,
        at: datetime | timedelta | float | None = None,
    ) -> None:
        """Ask for an operation of an entity; performed exactly once. Returns once that is durable, not once it is done.

        A failure of the operation is told to nobody: it is logged, and the state stays as it was. Signals of clients have no
        order among each other, unless one was sent after the other had returned.

        Args:
            entity_id: The entity, which need not exist yet; or its id as text, ``"@name@key"``.
            operation: The operation.
            input: Its input, any value that becomes JSON.
            at: Not before this instant (naive means UTC), or this long from now.

        Raises:
            InvalidIdError: The id is not usable.
            UnknownFunctionError: The host of the hub knows no such entity.
            PayloadError: The input cannot become JSON.
        """
        due_at = None
        if at is not None:
            due_at = micros_of(at) if isinstance(at, datetime) else self._clock.now() + microseconds(at, "at")
        call = CallEntity(check_operation(operation), self._payload(input), due_at=due_at)
        await self._management.signal_entity(str(EntityId.of(entity_id)), call)

    @overload
    async def call_entity(
        self,
        entity_id: EntityId | str,
        operation: str,
        input: Any = None,
        *,
        returns: type[T],
        timeout: timedelta | float | None = None,
    ) -> T: ...

    @overload
    async def call_entity(
        self,
        entity_id: EntityId | str,
        operation: str,
        input: Any = None,
        *,
        returns: Any = Any,
        timeout: timedelta | float | None = None,
    ) -> Any: ...

    async def call_entity(
        self,
        entity_id: EntityId | str,
        operation: str,
        input: Any = None,
        *,
        returns: Any = Any,
        timeout: timedelta | float | None = None,
    ) -> Any:
        """Perform an operation of an entity and return its result, once it is durable.

        Args:
            entity_id: See `signal_entity`.
            operation: The operation.
            input: Its input.
            returns: The type of the result; by default plain JSON data.
            timeout: Give up waiting after this long; the operation may be performed nevertheless. By default, never.

        Raises:
            EntityOperationFailedError: It failed, or there is no such operation; the state is as it was.
            TimeoutError: There was no result in time: the entity is locked, or nobody serves the hub.
            InvalidIdError, UnknownFunctionError, PayloadError: See `signal_entity`.
        """
        call = CallEntity(check_operation(operation), self._payload(input), wanted=True)
        timeout_s = None if timeout is None else microseconds(timeout, "timeout", least=0) / 1_000_000
        result = await self._management.call_entity(str(EntityId.of(entity_id)), call, timeout_s)
        return None if result is None else self._converter.decode(result, returns)

    @overload
    async def read_entity(self, entity_id: EntityId | str, type: type[T]) -> T | None: ...

    @overload
    async def read_entity(self, entity_id: EntityId | str, type: Any = Any) -> Any: ...

    async def read_entity(self, entity_id: EntityId | str, type: Any = Any) -> Any:
        """The last committed state of an entity, without waiting for anything; None when it does not exist.

        Args:
            entity_id: See `signal_entity`.
            type: The type of the state; by default plain JSON data, as it is stored. The class of an entity of the
                client's app gives an object of it. With a type, a state of an older version is migrated for the reader
                as the app says; what is stored stays as it is.

        Raises:
            PayloadError: The state does not fit the type.
            UsageError: It was written by a newer version than the app has, or the app has no migration.
            EntityCorruptError: Its row is damaged.
        """
        row = await self._management.get_entity(str(EntityId.of(entity_id)))
        if row is None:
            return None
        entity = EntityState.of(row)
        state = entity.state
        registered = self._registry.entity(EntityId.of(entity_id).name)
        if state is not None and registered is not None and type is not Any:
            state = registered.current(state, entity.version, self._converter)
            if registered.form is not None and registered.fn is type:
                return registered.form.load(state, self._converter)
        return None if state is None else self._converter.decode(state, type)

    async def get_entity(self, entity_id: EntityId | str) -> EntityInfo | None:
        """An entity with its lock and what waits for it, or None when there is nothing of it."""
        text = str(EntityId.of(entity_id))
        row = await self._management.get_entity(text)
        if row is None:
            return None
        messages = await self._management.messages_to(text)
        waiters = [found for message in messages if (found := lock_asked_in(message.body)) is not None]
        info = _info(row, with_state=True)
        return msgspec.structs.replace(info, waiting=len(messages), lock_waiters=waiters)

    async def query_entities(
        self,
        *,
        name: str | None = None,
        key_prefix: str = "",
        last_modified_from: datetime | None = None,
        last_modified_to: datetime | None = None,
        include_state: bool = True,
        include_transient: bool = False,
        locked: bool = False,
        page_size: int = 100,
        continuation_token: str | None = None,
    ) -> EntityPage:
        """Entities that match all filters, page by page, in the order of their ids.

        Args:
            name: Of the class or function.
            key_prefix: The key begins with it; needs `name`.
            last_modified_from: Changed at or after (naive means UTC).
            last_modified_to: Changed at or before.
            include_state: False leaves the states out.
            include_transient: Also those that do not exist, and are locked or have a signal that is due later.
            locked: Only those that an orchestration has locked.
            page_size: 1 to 1,000.
            continuation_token: From the page before.

        Raises:
            UsageError: A value is out of its range.
        """
        if key_prefix and name is None:
            raise UsageError("key_prefix without name: expected the name of the entities, too")
        given = None if name is None else EntityId(name, "").name
        query = EntityQuery(
            name=given,
            prefix=None if given is None else f"@{given}@{key_prefix}",
            updated_from=None if last_modified_from is None else micros_of(last_modified_from),
            updated_to=None if last_modified_to is None else micros_of(last_modified_to),
            with_transient=include_transient,
            locked=locked,
            page_size=page_size,
            after=page_start(continuation_token),
        )
        return await self._entity_page(query, with_state=include_state)

    async def _entity_page(self, query: EntityQuery, *, with_state: bool) -> EntityPage:
        found = await self._management.query_entities(query)
        entities = [_info(row, with_state=with_state) for row in found.rows]
        return EntityPage(entities, None if found.next_after is None else page_token(found.next_after))

    async def clean_entity_storage(self) -> CleanResult:
        """Release locks whose orchestration has ended or is gone, and count what does not exist any more after that.

        In a healthy hub there is nothing to do: locks are released with whatever ends their orchestration, and an entity
        without state has no row. Idempotent.
        """
        released, removed = 0, 0
        query = EntityQuery(with_transient=True, locked=True, page_size=_PAGE)
        while True:
            found = await self._management.query_entities(query)
            for row in found.rows:
                if await self._management.release_orphaned(row):
                    released += 1
                    removed += row.state is None
            if found.next_after is None:
                return CleanResult(removed, released)
            query = msgspec.structs.replace(query, after=found.next_after)

    def _payload(self, input: Any) -> Payload:
        return None if input is None else self._converter.encode(input)


def _info(row: EntityRow, *, with_state: bool) -> EntityInfo:
    corrupt: str | None = None
    try:
        state = EntityState.of(row)
    except EntityCorruptError as error:
        state, corrupt = EntityState(row.instance_id), str(error)
    shown = None if state.state is None or not with_state else _decode_plain(state.state)
    return EntityInfo(
        entity_id=EntityId.parse(row.instance_id),
        state=shown,
        exists=row.state is not None,
        last_modified=instant(row.updated_at),
        locked_by=row.locked_by,
        locked_since=None if state.holder is None else instant(state.holder.since),
        scheduled=len(state.delayed),
        corrupt=corrupt,
    )


def page_token(after: str) -> str:
    """Where a page of entities ends, as users pass it on."""
    return base64.urlsafe_b64encode(b"e1:" + after.encode()).decode()


def page_start(token: str | None) -> str:
    """The reverse of `page_token`; the beginning for None.

    Raises:
        UsageError: It is no such token.
    """
    if token is None:
        return ""
    try:
        marker, after = base64.urlsafe_b64decode(token.encode()).decode().split(":", 1)
        if marker != "e1":
            raise ValueError
    except (ValueError, AttributeError, binascii.Error):
        raise UsageError(
            f"Continuation token {str(token)[:40]!r} is not one of entities: expected the token of the page before"
        ) from None
    else:
        return after
