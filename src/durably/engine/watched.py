"""An executor whose user code is noted while it runs: see `durably.engine.suspicion`."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from durably.core.entities import EntityId
from durably.core.events import Action, Arrival, ExecutionStarted, HistoryEvent, Payload
from durably.core.messages import ActivityDone, WorkerAnswered
from durably.core.operations import Operation, OperationOutcome, Watched
from durably.engine.executor import ActivityCall, EntityCode, Executor, FunctionKind, Run
from durably.engine.suspicion import Suspicion

R = TypeVar("R")


class WatchedExecutor:
    """An `Executor` whose user code is noted while it runs.

    Args:
        executor: Does the work.
        suspicion_of: Takes the notes on an instance or entity.
    """

    def __init__(self, executor: Executor, suspicion_of: Callable[[str], Suspicion]) -> None:
        self._executor = executor
        self._suspicion_of = suspicion_of

    def serves(self, kind: FunctionKind, name: str) -> bool:
        """See `Executor.serves`."""
        return self._executor.serves(kind, name)

    def names(self, kind: FunctionKind) -> Sequence[str]:
        """See `Executor.names`."""
        return self._executor.names(kind)

    def runs(self, name: str, version: str | None) -> bool:
        """See `Executor.runs`."""
        return self._executor.runs(name, version)

    def elsewhere(self, kind: FunctionKind, name: str) -> bool:
        """See `Executor.elsewhere`."""
        return self._executor.elsewhere(kind, name)

    def version_of_new(self, name: str) -> str | None:
        """See `Executor.version_of_new`."""
        return self._executor.version_of_new(name)

    def versions(self, name: str) -> str:
        """See `Executor.versions`."""
        return self._executor.versions(name)

    def begin(self, started: ExecutionStarted) -> Run:
        """See `Executor.begin`."""
        instance_id = started.instance_id
        return _WatchedRun(self._executor.begin(started), instance_id, self._suspicion_of(instance_id))

    def replay(self, history: Sequence[HistoryEvent]) -> Run:
        """See `Executor.replay`."""
        instance_id = _instance_of(history)
        suspicion = self._suspicion_of(instance_id)
        place = suspicion.turn_begins(instance_id)
        try:
            run = self._executor.replay(history)
        finally:
            suspicion.over(place)
        return _WatchedRun(run, instance_id, suspicion)

    def entity(self, entity_id: EntityId) -> EntityCode:
        """See `Executor.entity`."""
        if self._executor.elsewhere("entity", entity_id.name):
            return self._executor.entity(entity_id)
        entity = str(entity_id)
        return _WatchedCode(self._executor.entity(entity_id), entity, self._suspicion_of(entity))

    def concurrency(self, name: str) -> int | None:
        """See `Executor.concurrency`."""
        return self._executor.concurrency(name)

    def on_loop(self, name: str) -> bool:
        """See `Executor.on_loop`."""
        return self._executor.on_loop(name)

    async def perform(self, call: ActivityCall) -> ActivityDone:
        """See `Executor.perform`. What runs elsewhere cannot end this process."""
        if self._executor.elsewhere("activity", call.name):
            return await self._executor.perform(call)
        suspicion = self._suspicion_of(call.instance_id)
        on_loop = self._executor.on_loop(call.name)
        place = suspicion.attempt_begins(call, waits=on_loop)
        try:
            work = self._executor.perform(call)
            if not on_loop:
                return await work
            step = partial(suspicion.attempt_begins, call, waits=False, in_step=True)
            return await _stepwise(work, step, suspicion)
        finally:
            suspicion.over(place)

    async def close(self) -> None:
        """See `Executor.close`."""
        await self._executor.close()


class _WatchedRun:
    __slots__ = ("_instance_id", "_run", "_suspicion")

    def __init__(self, run: Run, instance_id: str, suspicion: Suspicion) -> None:
        self._run = run
        self._instance_id = instance_id
        self._suspicion = suspicion

    def advance(self, event: Arrival, now: int) -> Sequence[Action]:
        place = self._suspicion.turn_begins(self._instance_id)
        try:
            return self._run.advance(event, now)
        finally:
            self._suspicion.over(place)

    def answered(self, body: WorkerAnswered) -> WorkerAnswered | None:
        """See `Run.answered`."""
        return self._run.answered(body)

    def close(self) -> None:
        place = self._suspicion.turn_begins(self._instance_id)
        try:
            self._run.close()
        finally:
            self._suspicion.over(place)


class _WatchedCode:
    """An `EntityCode` whose operations are noted while they run."""

    __slots__ = ("_code", "_entity", "_suspicion")

    def __init__(self, code: EntityCode, entity: str, suspicion: Suspicion) -> None:
        self._code = code
        self._entity = entity
        self._suspicion = suspicion

    @property
    def idle_ttl_us(self) -> int | None:
        return self._code.idle_ttl_us

    def reads_only(self, operation: str) -> bool:
        return self._code.reads_only(operation)

    def operate(
        self, state: Payload, version: int, operation: Operation
    ) -> OperationOutcome | Coroutine[Any, Any, OperationOutcome]:
        watched, suspicion = operation.watched, self._suspicion
        if watched is None:
            return self._code.operate(state, version, operation)
        step = partial(suspicion.operation_begins, self._entity, watched, waits=False, in_step=True)
        place = step()
        try:
            outcome = self._code.operate(state, version, operation)
        finally:
            suspicion.over(place)
        return outcome if isinstance(outcome, OperationOutcome) else self._finish(outcome, watched, step)

    async def _finish(
        self, work: Coroutine[Any, Any, OperationOutcome], watched: Watched, step: Callable[[], int]
    ) -> OperationOutcome:
        place = self._suspicion.operation_begins(self._entity, watched, waits=True)
        try:
            return await _stepwise(work, step, self._suspicion)
        finally:
            self._suspicion.over(place)


@types.coroutine
def _stepwise(
    work: Coroutine[Any, Any, R], begin: Callable[[], int], suspicion: Suspicion
) -> Generator[Any, Any, R]:
    """Await a coroutine, and note each of its steps. What it puts into tasks of its own has no steps here.

    Args:
        work: The coroutine.
        begin: Notes that a step begins; returns the place of the note.
        suspicion: Takes the notes.
    """
    step: Callable[[Any], Any] = work.send
    given: Any = None
    while True:
        place = begin()
        try:
            awaited = step(given)
        except StopIteration as end:
            return end.value
        finally:
            suspicion.over(place)
        try:
            given = yield awaited
            step = work.send
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:  # noqa: BLE001 - a cancellation, for example: it belongs to the coroutine
            step, given = work.throw, error


def _instance_of(history: Iterable[HistoryEvent]) -> str:
    return next((event.instance_id for event in history if isinstance(event, ExecutionStarted)), "")
