"""Canned operations in the place of entities, and a record of the operations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from durably.codec.convert import Converter
from durably.core.entities import EntityId
from durably.core.events import Payload
from durably.core.operations import Operation, OperationOutcome
from durably.errors import UsageError
from durably.program.entity_context import EntityContext
from durably.program.failures import describe
from durably.program.registry import Registry
from durably.program.signatures import Signature, activity_plan
from durably.testing.stubs import NOTHING, decoded

Entity = Callable[..., Any] | str
"""A registered class or function, or its name."""

EVERY = "*"
"""Stands for each operation of an entity."""


class RecordedOperation(msgspec.Struct, frozen=True):
    """An operation of an entity that a test can look at.

    Attributes:
        entity_id: The entity.
        operation: Which one.
        input: Its input, as plain JSON data.
        caller_instance_id: The orchestration or entity that asked, or None for a client.
    """

    entity_id: EntityId
    operation: str
    input: Any
    caller_instance_id: str | None

    @classmethod
    def of(cls, entity_id: EntityId, operation: Operation, converter: Converter) -> RecordedOperation:
        """The record of an operation."""
        plain = decoded(operation.input, Any, converter)
        return cls(entity_id, operation.name, plain, operation.caller)


class EntityMock:
    """What answers in the place of operations.

    Attributes:
        name: Of the entity.
        operation: Which one, or ``"*"`` for each.
        calls: Those that it answered, in order.
        times: How many it answers, or None for all.
    """

    def __init__(
        self,
        name: str,
        operation: str | None,
        registry: Registry,
        converter: Converter,
        *,
        returns: Any = NOTHING,
        raises: BaseException | type[BaseException] | None = None,
        runs: Callable[..., Any] | None = None,
        times: int | None = None,
    ) -> None:
        self.name = name
        self.operation = EVERY if operation is None else operation
        what = f"entity '{name}'"
        if sum([returns is not NOTHING, raises is not None, runs is not None]) > 1:
            raise UsageError(f"The mock of {what} has several answers: expected one of returns, raises, runs")
        if times is not None and times < 1:
            raise UsageError(f"times of the mock of {what} is {times!r}: expected 1 or more, or None for all")
        self.calls: list[RecordedOperation] = []
        self.times = times
        self._registry = registry
        self._converter = converter
        self._returns: Payload = None if returns is NOTHING or returns is None else converter.encode(returns)
        self._raises = raises
        self._runs = None if runs is None else _Runs(runs, what)
        self._taken = 0

    def __repr__(self) -> str:
        return f"<mock of @{self.name}.{self.operation}: {len(self.calls)} calls>"

    def answers(self, name: str, operation: str) -> bool:
        """True when it is its turn for an operation."""
        left = self.times is None or self._taken < self.times
        return left and name == self.name and self.operation in {operation, EVERY}

    def perform(
        self, entity_id: EntityId, state: Payload, version: int, operation: Operation
    ) -> OperationOutcome | Coroutine[Any, Any, OperationOutcome]:
        """Answer an operation; see `EntityCode.operate`. The state changes only where `runs` changes it by its context."""
        self._taken += 1
        self.calls.append(RecordedOperation.of(entity_id, operation, self._converter))
        context = EntityContext(
            entity_id,
            operation.name,
            operation.input,
            state=state,
            caller=operation.caller,
            now=operation.now,
            token=operation.token,
            orchestrator_name=self._registry.orchestrator_name,
            converter=self._converter,
        )
        try:
            if self._raises is not None:
                raise self._raises
            if self._runs is None:
                return OperationOutcome(state, version, self._returns, None, [])
            returned = self._runs.call(context)
        except BaseException as error:  # noqa: BLE001 - what the operation would have raised
            return OperationOutcome(state, version, None, describe(error), [])
        if inspect.isawaitable(returned):
            return self._later(context, state, version, returned)
        return self._done(context, version, returned)

    async def _later(
        self, context: EntityContext, state: Payload, version: int, returned: Any
    ) -> OperationOutcome:
        try:
            return self._done(context, version, await returned)
        except Exception as error:  # noqa: BLE001 - what the operation would have raised
            return OperationOutcome(state, version, None, describe(error), [])

    def _done(self, context: EntityContext, version: int, returned: Any) -> OperationOutcome:
        value = context.outcome(returned)
        result = None if value is None else self._converter.encode(value)
        return OperationOutcome(context.state, version, result, None, context.sent)


class _Runs:
    """A function in the place of an operation: it takes the input, an `EntityContext` where it annotates one, or nothing."""

    def __init__(self, fn: Callable[..., Any], what: str) -> None:
        self._fn = fn
        self._signature = Signature(fn, what)
        self._input, self._context, self._context_first, _ = activity_plan(
            self._signature, what, EntityContext
        )

    def call(self, context: EntityContext) -> Any:
        arguments: list[Any] = []
        if self._input is not None:
            arguments.append(context.get_input(self._signature.type_of(self._input)))
        if self._context is None:
            return self._fn(*arguments)
        if self._input is not None and self._context_first:
            return self._fn(context, *arguments)
        return self._fn(*arguments, **{self._context: context})


class EntityMocks:
    """All mocks of operations. The first that is not used up answers, those of one operation before those of each."""

    def __init__(self) -> None:
        self._mocks: list[EntityMock] = []

    def __contains__(self, name: str) -> bool:
        return any(one.name == name for one in self._mocks)

    def add(self, mock: EntityMock) -> EntityMock:
        """Put it behind those of the same operation; one that would answer for ever makes room."""
        same = [one for one in self._mocks if (one.name, one.operation) == (mock.name, mock.operation)]
        if same and same[-1].times is None:
            self._mocks.remove(same[-1])
        self._mocks.append(mock)
        return mock

    def names(self) -> list[str]:
        """Of the entities that have one."""
        return sorted({one.name for one in self._mocks})

    def find(self, name: str, operation: str) -> EntityMock | None:
        """The one that answers an operation, or None."""
        found = [one for one in self._mocks if one.answers(name, operation)]
        return next((one for one in found if one.operation != EVERY), found[0] if found else None)


def entity_name_in(registry: Registry, entity: Entity) -> str:
    """The name of an entity, in lower case.

    Raises:
        InvalidIdError: It cannot be one.
    """
    if not isinstance(entity, str):
        for name in registry.names("entity"):
            known = registry.entity(name)
            if known is not None and known.fn is entity:
                return name
        entity = entity.__name__
    return EntityId(entity, "").name
