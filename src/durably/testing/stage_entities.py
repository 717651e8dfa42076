"""What happens to the operations of entities on their way: mocks answer, faults strike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from durably.core.entities import EntityId
from durably.core.events import Payload
from durably.core.operations import Operation, OperationOutcome
from durably.engine.executor import EntityCode
from durably.errors import FailureDetails, UnknownFunctionError
from durably.testing.faults import ANYTHING, Faults
from durably.testing.mock_entity import EntityMocks


class StagedCode:
    """An `EntityCode` before the real one, if there is one.

    Args:
        entity_id: The entity.
        code: Of the app; None where only mocks answer.
        mocks: Answer in its place.
        faults: What will go wrong.
        began: Told of each operation that begins.
        frozen: True once the process is dying: no more user code runs in it.
    """

    def __init__(
        self,
        entity_id: EntityId,
        code: EntityCode | None,
        mocks: EntityMocks,
        faults: Faults,
        *,
        began: Callable[[EntityId, Operation], None],
        frozen: Callable[[], bool],
    ) -> None:
        self._entity_id = entity_id
        self._code = code
        self._mocks = mocks
        self._faults = faults
        self._began = began
        self._frozen = frozen

    @property
    def idle_ttl_us(self) -> int | None:
        """See `EntityCode.idle_ttl_us`."""
        return None if self._code is None else self._code.idle_ttl_us

    def reads_only(self, operation: str) -> bool:
        """See `EntityCode.reads_only`."""
        return self._code is not None and self._code.reads_only(operation)

    def operate(
        self, state: Payload, version: int, operation: Operation
    ) -> OperationOutcome | Coroutine[Any, Any, OperationOutcome]:
        """See `EntityCode.operate`."""
        if self._frozen():
            return _for_ever()
        outcome = self._perform(state, version, operation)
        if not self._faults.strikes("operation", *names_of(self._entity_id.name, operation.name)):
            return outcome
        # As after a crash: it is performed again, on the state as it was, and what it did before never happened.
        again = operation._replace(token=f"{operation.token}:again")
        if isinstance(outcome, OperationOutcome):
            return self._perform(state, version, again)
        return self._twice(outcome, state, version, again)

    def _perform(
        self, state: Payload, version: int, operation: Operation
    ) -> OperationOutcome | Coroutine[Any, Any, OperationOutcome]:
        self._began(self._entity_id, operation)
        mock = self._mocks.find(self._entity_id.name, operation.name)
        if mock is not None:
            return mock.perform(self._entity_id, state, version, operation)
        if self._code is not None:
            return self._code.operate(state, version, operation)
        unknown = UnknownFunctionError(
            f"Entity '{self._entity_id.name}' is not registered, and operation '{operation.name}' is not mocked: expected "
            f"env.mock_entity('{self._entity_id.name}', operation='{operation.name}', …)"
        )
        return OperationOutcome(state, version, None, FailureDetails.of(unknown), [])

    async def _twice(
        self, first: Coroutine[Any, Any, OperationOutcome], state: Payload, version: int, operation: Operation
    ) -> OperationOutcome:
        await first
        outcome = self._perform(state, version, operation)
        return outcome if isinstance(outcome, OperationOutcome) else await outcome


def names_of(entity: str, operation: str) -> tuple[str, str]:
    """The names by which faults strike an operation: its own, and that of all of its entity."""
    return f"@{entity}.{operation}", f"@{entity}.{ANYTHING}"


async def _for_ever() -> OperationOutcome:
    await asyncio.get_running_loop().create_future()
    raise AssertionError("a dead process has no results")
