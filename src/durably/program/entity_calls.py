"""The part of an orchestrator's context that works with entities: calls, signals, and critical sections."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from durably.core.entities import EntityId, check_operation
from durably.core.events import EntityCalled, EntitySignaled, LockReleased, LockRequested, Payload
from durably.errors import EntityOperationFailedError, FailureDetails, LockingRulesViolationError, UsageError
from durably.program.calls import Calls
from durably.program.decisions import CriticalSection, Decisions
from durably.program.futures import LoopFuture
from durably.program.tasks import CallTask, DurableTask


class EntityTask(CallTask):
    """The result of an operation of an entity.

    Attributes:
        entity: Its id as text.
        operation: The operation.
    """

    __slots__ = ("entity", "operation")

    entity: str
    operation: str

    def cancel(self, msg: Any | None = None) -> bool:
        """See `DurableTask.cancel`. The operation is performed nevertheless, before whatever is asked of its entity next."""
        if not super().cancel(msg):
            return False
        self._over()
        return True

    def settle_error(self, error: BaseException) -> None:
        self._over()
        super().settle_error(error)

    def complete(self, payload: Payload) -> None:
        self._over()
        super().complete(payload)

    def fail(self, failure: FailureDetails) -> None:
        self.settle_error(EntityOperationFailedError(failure, self.entity, self.operation, self.seq))

    def _over(self) -> None:
        section = self.decisions.section
        if section is not None and section.calls.get(self.entity) == self.seq:
            del section.calls[self.entity]


class LockTask(DurableTask):
    """A critical section that is being asked for; its result is the section.

    Use it with ``async with``, or await it and use the result with ``with``.

    Attributes:
        section: What it locks.
    """

    __slots__ = ("section",)

    section: CriticalSection

    def cancel(self, msg: Any | None = None) -> bool:
        """See `DurableTask.cancel`. What was locked is released."""
        if not super().cancel(msg):
            return False
        self.decisions.section = None
        return True

    def complete(self, payload: Payload) -> None:
        del payload
        self.section.entered = True
        self.settle(EntityLock(self.decisions, self.seq, self.section))

    async def __aenter__(self) -> EntityLock:
        try:
            return await self
        except BaseException:
            if self.done() and not self.cancelled():  # locked, and cancelled before the block could begin
                self.result().release()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.result().release()


class EntityLock:
    """A critical section that was entered: nobody else's operations are performed on its entities until it is left."""

    __slots__ = ("_decisions", "_section", "_seq")

    def __init__(self, decisions: Decisions, seq: int, section: CriticalSection) -> None:
        self._decisions = decisions
        self._seq = seq
        self._section = section

    def release(self) -> None:
        """Leave it. Idempotent; whatever ends the orchestration does it, too."""
        decisions = self._decisions
        if decisions.section is self._section and not decisions.closed:
            decisions.section = None
            decisions.made.append(LockReleased(self._seq))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class EntityCalls(Calls):
    """What an orchestrator may ask of entities. Each acts when it is made, not when its future is awaited."""

    __slots__ = ()

    def call_entity(
        self, entity_id: EntityId | str, operation: str, input: Any = None, *, returns: Any = Any
    ) -> EntityTask:
        """Perform an operation of an entity and wait for its result. Exactly once, in the order of the calls.

        Args:
            entity_id: The entity, which need not exist yet; or its id as text, ``"@name@key"``.
            operation: The operation.
            input: Its input.
            returns: The type of the result; by default plain JSON data.

        Returns:
            The future of its result. It fails with `EntityOperationFailedError`. Cancelling it does not take the
            operation back.

        Raises:
            InvalidIdError: The id is not usable.
            LockingRulesViolationError: The code is in a critical section that does not lock the entity, or another call of
                the same entity is under way in it.
            PayloadError: The input cannot become JSON.
            UsageError: The execution has asked for too much.
        """
        entity = str(EntityId.of(entity_id))
        check_operation(operation)
        payload: Payload = None if input is None else self._converter.encode(input)
        decisions = self._decisions
        section = decisions.section
        inside = section is not None and section.entered
        if inside:
            self._check_call(section, entity, operation)
        seq = decisions.number()
        task = self._open(EntityTask(loop=self._loop), seq)
        task.entity, task.operation = entity, operation
        task.name = f"{entity}.{operation}"
        task.type = returns
        task.converter = self._converter
        task.predicate = None
        if section is not None and inside:
            section.calls[entity] = seq
        decisions.made.append(EntityCalled(seq, entity, operation, payload))
        return task

    def signal_entity(
        self,
        entity_id: EntityId | str,
        operation: str,
        input: Any = None,
        *,
        at: datetime | timedelta | float | None = None,
    ) -> LoopFuture:
        """Ask for an operation of an entity, and do not wait for it. Exactly once, in the order of the calls.

        Args:
            entity_id: See `call_entity`.
            operation: The operation.
            input: Its input.
            at: Not before this instant (naive means UTC), or this long from now; such signals have no order.

        Returns:
            A future that is already done: awaiting it is optional.

        Raises:
            LockingRulesViolationError: The code is in a critical section that locks the entity.
            InvalidIdError, PayloadError, UsageError: See `call_entity`.
        """
        entity = str(EntityId.of(entity_id))
        check_operation(operation)
        payload: Payload = None if input is None else self._converter.encode(input)
        due_at = None if at is None else self._instant(at, "at")
        section = self._decisions.section
        if section is not None and section.entered and entity in section.entities:
            raise LockingRulesViolationError(
                f"Orchestration '{self.instance_id}' signalled entity '{entity}' in a critical section that locks it: "
                "expected ctx.call_entity, or a signal behind the block"
            )
        seq = self._decisions.number()
        self._decisions.made.append(EntitySignaled(seq, entity, operation, payload, due_at))
        return self._done(None)

    def lock_entities(self, *entity_ids: EntityId | str | Iterable[EntityId | str]) -> LockTask:
        """Enter a critical section: lock entities, so that only this orchestration's operations are performed on them.

        Orchestrations that lock the same entities in any order never wait for each other in a circle. The locks are
        released at the end of the block, and with whatever ends this execution; they outlive hosts.

            async with ctx.lock_entities(EntityId("account", "a"), EntityId("account", "b")):
                ...

        Args:
            entity_ids: The entities, or one iterable of them; the same one twice counts once.

        Returns:
            The future of the section, for ``async with``; or await it, and use the result with ``with``.

        Raises:
            LockingRulesViolationError: The code is in a critical section, or waits for one.
            InvalidIdError: An id is not usable.
            UsageError: There is no entity, or the execution has asked for too much.
        """
        given: list[EntityId | str] = []
        for one in entity_ids:
            given.extend([one] if isinstance(one, EntityId | str) else one)
        entities = tuple(str(entity) for entity in sorted({EntityId.of(one) for one in given}))
        if not entities:
            raise UsageError("lock_entities got no entity: expected one or more")
        decisions = self._decisions
        if decisions.section is not None:
            raise LockingRulesViolationError(
                f"Orchestration '{self.instance_id}' has or awaits a lock of {', '.join(sorted(decisions.section.entities))}: "
                "critical sections do not nest; lock all that is needed at once"
            )
        seq = decisions.number()
        task = self._open(LockTask(loop=self._loop), seq)
        task.section = decisions.section = CriticalSection(frozenset(entities))
        decisions.made.append(LockRequested(seq, entities))
        return task

    def _check_call(self, section: CriticalSection | None, entity: str, operation: str) -> None:
        if section is None:
            return
        if entity not in section.entities:
            raise LockingRulesViolationError(
                f"Orchestration '{self.instance_id}' called '{operation}' of entity '{entity}' in a critical section that does "
                f"not lock it: expected one of {', '.join(sorted(section.entities))}; lock it too, or signal it"
            )
        if entity in section.calls:
            raise LockingRulesViolationError(
                f"Orchestration '{self.instance_id}' called '{operation}' of the locked entity '{entity}' while call "
                f"#{section.calls[entity]} of it is under way: await that one first"
            )
