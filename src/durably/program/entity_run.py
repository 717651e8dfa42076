"""The live code of one entity: an operation and its state go in; the new state, the result and what is sent come out."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from types import FrameType
from typing import Any

from durably.codec.convert import Converter
from durably.core.entities import EntityId
from durably.core.events import Payload
from durably.core.operations import Operation, OperationOutcome
from durably.program.entities import DELETE, ClassForm, EntityFunction
from durably.program.entity_context import EntityContext
from durably.program.failures import describe
from durably.program.registry import Registry


class EntityRun:
    """Implements `durably.engine.executor.EntityCode`.

    The object of a class entity stays alive between operations, so that a hot one is not read again and again.
    """

    __slots__ = ("_converter", "_entity_id", "_function", "_registry", "_seen", "_target")

    def __init__(
        self, function: EntityFunction, entity_id: EntityId, registry: Registry, converter: Converter
    ) -> None:
        self._function = function
        self._entity_id = entity_id
        self._registry = registry
        self._converter = converter
        self._target: Any = None  # the object whose state is `_seen`; None while an operation has it
        self._seen: Payload = None

    @property
    def idle_ttl_us(self) -> int | None:
        """See `EntityCode.idle_ttl_us`."""
        return self._function.idle_ttl_us

    def reads_only(self, operation: str) -> bool:
        """See `EntityCode.reads_only`."""
        return operation in self._function.read_only

    def operate(
        self, state: Payload, version: int, operation: Operation
    ) -> OperationOutcome | Coroutine[Any, Any, OperationOutcome]:
        """See `EntityCode.operate`."""
        context = EntityContext(
            self._entity_id,
            operation.name,
            operation.input,
            state=state,
            caller=operation.caller,
            now=operation.now,
            token=operation.token,
            orchestrator_name=self._registry.orchestrator_name,
            converter=self._converter,
        )
        form = self._function.form
        try:
            context.state = self._function.current(state, version, self._converter)
            if form is None:
                return self._of_function(context)
            return self._of_class(form, context, operation)
        except BaseException as error:  # noqa: BLE001 - user code; also SystemExit, which must not end the host
            return self._failed(state, version, error)

    # --- classes -----------------------------------------------------------------------------------------------------

    def _of_class(
        self, form: ClassForm, context: EntityContext, operation: Operation
    ) -> OperationOutcome | Coroutine[Any, Any, OperationOutcome]:
        method = form.operation(operation.name)
        before = context.state
        if method is None:
            context.delete_state()
            self._target = None
            return self._done(context, before, None)
        target, self._target = self._target, None
        if target is None or self._seen != before:
            target = form.load(before, self._converter)
        returned = method.call(target, operation.input, context, self._converter)
        if inspect.iscoroutine(returned):
            return self._finish_class_later(form, context, before, target, returned)
        return self._finish_class(form, context, before, target, returned)

    async def _finish_class_later(
        self,
        form: ClassForm,
        context: EntityContext,
        before: Payload,
        target: Any,
        running: Coroutine[Any, Any, Any],
    ) -> OperationOutcome:
        try:
            return self._finish_class(form, context, before, target, await running)
        except Exception as error:  # noqa: BLE001 - user code
            return self._failed(before, self._function.state_version, error)

    def _finish_class(
        self, form: ClassForm, context: EntityContext, before: Payload, target: Any, returned: Any
    ) -> OperationOutcome:
        if context.has_touched:
            return self._done(context, before, returned)
        after = form.dump(target, self._converter)
        if self.reads_only(context.operation_name) and before is None:
            after = None  # to look at one that does not exist does not make it
        context.state = before if after == before else after
        outcome = self._done(context, before, returned)
        if outcome.failure is None:
            self._target, self._seen = target, context.state
        return outcome

    # --- functions ---------------------------------------------------------------------------------------------------

    def _of_function(
        self, context: EntityContext
    ) -> OperationOutcome | Coroutine[Any, Any, OperationOutcome]:
        before = context.state
        returned = self._function.call(context, self._converter)
        if inspect.iscoroutine(returned):
            return self._finish_function_later(context, before, returned)
        return self._finish_function(context, before, returned)

    async def _finish_function_later(
        self, context: EntityContext, before: Payload, running: Coroutine[Any, Any, Any]
    ) -> OperationOutcome:
        try:
            return self._finish_function(context, before, await running)
        except Exception as error:  # noqa: BLE001 - user code
            return self._failed(before, self._function.state_version, error)

    def _finish_function(self, context: EntityContext, before: Payload, returned: Any) -> OperationOutcome:
        if context.operation_name == DELETE and context.ignored and returned is None:
            context.delete_state()  # the function does not know this operation: every entity has it
        return self._done(context, before, returned)

    # --- both --------------------------------------------------------------------------------------------------------

    def _done(self, context: EntityContext, before: Payload, returned: Any) -> OperationOutcome:
        if self.reads_only(context.operation_name):
            context.check_read_only(before)
        value = context.outcome(returned)
        result = None if value is None else self._converter.encode(value)
        return OperationOutcome(context.state, self._function.state_version, result, None, context.sent)

    def _failed(self, state: Payload, version: int, error: BaseException) -> OperationOutcome:
        self._target = None
        return OperationOutcome(state, version, None, describe(error), [])


OPERATING = frozenset(
    method.__code__
    for method in (
        EntityRun.operate,
        EntityRun._finish_class_later,  # pyright: ignore[reportPrivateUsage]
        EntityRun._finish_function_later,  # pyright: ignore[reportPrivateUsage]
    )
)
"""Whose frames say that an operation runs."""


def operation_in(frame: FrameType) -> tuple[str, str]:
    """The operation that a frame of `OPERATING` performs, and the entity."""
    found = frame.f_locals
    operation = found["operation"].name if "operation" in found else found["context"].operation_name
    return operation, str(found["self"]._entity_id)
