"""What an operation of an entity sees: who it is, its state, and what it may send."""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar, overload

from durably.codec.convert import Converter
from durably.core.entities import EntityId, check_operation
from durably.core.events import Payload
from durably.core.ids import check_instance_id, check_tags, check_text
from durably.core.messages import CallEntity, MessageBody, StartInstance
from durably.core.timeline import instant
from durably.errors import UsageError
from durably.program.durations import micros_of, microseconds

T = TypeVar("T")

_log = logging.getLogger("durably.entity")


class EntityContext:
    """The durable side of one operation. Given to an entity function, and to methods that annotate a parameter with it.

    What it changes and sends becomes durable with the operation, or not at all: an operation that raises leaves no trace.
    All methods are synchronous. There is no other way to talk to others: an entity awaits no orchestration and no entity.

    Attributes:
        entity_id: The entity.
        operation_name: The operation.
        caller_instance_id: The orchestration or entity that asks, or None for a client.
        current_utc_datetime: When the operation began (aware, UTC).
    """

    __slots__ = (
        "_chance",
        "_converter",
        "_has_set_result",
        "_input",
        "_now",
        "_orchestrator_name",
        "_sent",
        "_token",
        "_touched",
        "caller_instance_id",
        "entity_id",
        "operation_name",
        "result",
        "state",
    )

    def __init__(
        self,
        entity_id: EntityId,
        operation: str,
        input: Payload,
        *,
        state: Payload,
        caller: str | None,
        now: int,
        token: str,
        orchestrator_name: Callable[[Callable[..., Any] | str], str],
        converter: Converter,
    ) -> None:
        self.entity_id = entity_id
        self.operation_name = operation
        self.caller_instance_id = caller
        self.state: Payload = state
        self.result: Any = None
        self._input = input
        self._now = now
        self._token = token
        self._chance: random.Random | None = (
            None  # seeded when it is asked, which costs as much as a small operation
        )
        self._orchestrator_name = orchestrator_name
        self._converter = converter
        self._sent: list[tuple[str, MessageBody]] = []
        self._touched = False
        self._has_set_result = False

    @property
    def entity_name(self) -> str:
        """The name of the entity."""
        return self.entity_id.name

    @property
    def entity_key(self) -> str:
        """The key of the entity."""
        return self.entity_id.key

    @property
    def current_utc_datetime(self) -> datetime:
        """When the operation began (aware, UTC)."""
        return instant(self._now)

    @property
    def logger(self) -> logging.Logger:
        """The logger of all entities, ``durably.entity``."""
        return _log

    # --- state -------------------------------------------------------------------------------------------------------

    @property
    def has_state(self) -> bool:
        """True when the entity exists."""
        return self.state is not None

    @overload
    def get_state(self, type: type[T], default: T | Callable[[], T] | None = None) -> T: ...

    @overload
    def get_state(self, type: Any = Any, default: Any = None) -> Any: ...

    def get_state(self, type: Any = Any, default: Any = None) -> Any:
        """The state: a copy, so that a change of it counts only after `set_state`.

        Args:
            type: The type of the state; by default plain JSON data.
            default: What an entity without state has: a value, or a function that makes one.

        Raises:
            PayloadError: The state does not fit the type.
        """
        if self.state is None:
            return default() if callable(default) else default
        return self._converter.decode(self.state, type)

    def set_state(self, value: Any) -> None:
        """Replace the state; falsy values, None included, are states like any other.

        Raises:
            PayloadError: The value cannot become JSON.
        """
        self.state = self._converter.encode(value)
        self._touched = True

    def delete_state(self) -> None:
        """Delete the state: the entity does not exist any more, until an operation sets it again."""
        self.state = None
        self._touched = True

    # --- input and result --------------------------------------------------------------------------------------------

    @overload
    def get_input(self, type: type[T]) -> T: ...

    @overload
    def get_input(self, type: Any = Any) -> Any: ...

    def get_input(self, type: Any = Any) -> Any:
        """The input of the operation, or None without one. Raises `PayloadError` when it does not fit the type."""
        return None if self._input is None else self._converter.decode(self._input, type)

    def set_result(self, value: Any) -> None:
        """Set what the caller gets; wins over what the function returns."""
        self.result = value
        self._has_set_result = True

    # --- what leaves with the operation ------------------------------------------------------------------------------

    def signal_entity(
        self,
        entity_id: EntityId | str,
        operation: str,
        input: Any = None,
        *,
        at: datetime | timedelta | float | None = None,
    ) -> None:
        """Ask for an operation of an entity, this one included; exactly once, in order, once this operation is durable.

        Args:
            entity_id: The entity, or its id as text.
            operation: The operation.
            input: Its input.
            at: Not before this instant (naive means UTC), or this long from now.

        Raises:
            InvalidIdError: The id is not usable.
            PayloadError: The input cannot become JSON.
        """
        entity = str(EntityId.of(entity_id))
        check_operation(operation)
        payload = None if input is None else self._converter.encode(input)
        call = CallEntity(operation, payload, sender=str(self.entity_id), due_at=self._instant(at, "at"))
        self._sent.append((entity, call))

    def start_orchestration(
        self,
        fn: Callable[..., Any] | str,
        input: Any = None,
        *,
        instance_id: str | None = None,
        version: str | None = None,
        tags: dict[str, str] | None = None,
        start_at: datetime | timedelta | float | None = None,
    ) -> str:
        """Start an orchestration once this operation is durable. An id that is running already is left alone.

        Args:
            fn: The orchestrator, or its name.
            input: Its input.
            instance_id: Its id; random by default.
            version: Its version.
            tags: Set on it.
            start_at: Not before this instant (naive means UTC), or this long from now.

        Returns:
            Its id.

        Raises:
            InvalidIdError: The id is not usable.
            PayloadError: The input cannot become JSON.
        """
        check_text(version, "version")
        target = self.new_uuid().hex if instance_id is None else check_instance_id(instance_id)
        start = StartInstance(
            name=self._orchestrator_name(fn),
            input=None if input is None else self._converter.encode(input),
            execution_id=self.new_uuid().hex,
            version=version,
            tags=check_tags(tags),
            start_at=self._instant(start_at, "start_at"),
            fresh=instance_id is None,
        )
        self._sent.append((target, start))
        return target

    def new_uuid(self) -> uuid.UUID:
        """A random id."""
        if self._chance is None:
            self._chance = random.Random(self._token)  # noqa: S311 - not for secrets
        return uuid.UUID(int=self._chance.getrandbits(128), version=4)

    def _instant(self, value: datetime | timedelta | float | None, what: str) -> int | None:
        if value is None:
            return None
        if isinstance(value, datetime):
            return micros_of(value)
        return self._now + microseconds(value, what, least=-(10**15))

    # --- for the one who runs it -------------------------------------------------------------------------------------

    @property
    def sent(self) -> list[tuple[str, MessageBody]]:
        """What leaves when the operation succeeds."""
        return self._sent

    @property
    def has_touched(self) -> bool:
        """True when the code has set or deleted the state."""
        return self._touched

    @property
    def ignored(self) -> bool:
        """True when the code has neither touched the state nor set a result."""
        return not (self._touched or self._has_set_result)

    def outcome(self, returned: Any) -> Any:
        """What the caller gets: the result that was set, else what was returned."""
        return self.result if self._has_set_result else returned

    def check_read_only(self, state: Payload) -> None:
        """Refuse that an operation which only reads has changed anything.

        Raises:
            UsageError: It has.
        """
        if self.state != state or self._sent:
            raise UsageError(
                f"Operation '{self.operation_name}' of entity '{self.entity_id}' is registered as read-only and changed or sent "
                "something: expected neither; take it out of read_only=[…]"
            )
