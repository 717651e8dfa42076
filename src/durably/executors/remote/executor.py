"""Runs functions in workers of other processes, which may be in any language."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from durably.clock import Random
from durably.core.entities import EntityId
from durably.core.events import ExecutionFailed, ExecutionStarted, HistoryEvent, Payload
from durably.core.ids import check_instance_id
from durably.core.messages import ActivityDone, CallEntity, MessageBody, StartInstance, WorkerAnswered
from durably.core.operations import Operation, OperationOutcome
from durably.engine.executor import ActivityCall, FunctionKind
from durably.errors import DurablyError, FailureDetails, HistoryCorruptError, PayloadError, UsageError
from durably.executors.remote.answers import OF_INSTANCE
from durably.executors.remote.broker import ITEM_BYTES_MAX, Broker, Kind, Work
from durably.executors.remote.run import Asked, RemoteRun
from durably.executors.remote.wire import (
    failure_of,
    field_header,
    has,
    instant_of,
    payload_of,
    payload_value,
    pb,
    text_of,
    timestamp,
    trace_of,
)

_ORCHESTRATOR: Final = field_header(pb.WorkItem, "orchestratorRequest")

Submit = Callable[[str, MessageBody], Awaitable[Payload]]


class _Turn:
    """Work: the code of an orchestrator, on what has arrived."""

    kind: Kind = "orchestrator"

    def __init__(self, run: RemoteRun, refused: Callable[[_Turn, str], None]) -> None:
        started = run.started
        self.run = run
        self._refused = refused
        self.name = started.name
        self.version = started.version or ""
        self.instance_id = started.instance_id
        self.key: tuple[str, int] = (started.instance_id, 0)
        self.asked: Asked | None = None
        self.parts: dict[int, pb.OrchestratorResponse] = {}

    def refuse(self, why: str) -> None:
        """See `Work.refuse`."""
        self._refused(self, why)

    @property
    def is_over(self) -> bool:
        """True when the answer is in the history."""
        return self.asked is not None and self.run.answers >= self.asked.number

    def request(self, token: str) -> bytes:
        """See `Work.request`."""
        self.parts.clear()
        self.asked, request = self.run.request()
        return _ORCHESTRATOR.of(request) + pb.WorkItem(completionToken=token).SerializeToString()


class _Attempt:
    """Work: an attempt of an activity."""

    kind: Kind = "activity"

    def __init__(self, call: ActivityCall) -> None:
        self.call = call
        self.done: asyncio.Future[pb.ActivityResponse] = asyncio.get_running_loop().create_future()
        self.name = call.name
        self._beyond = pb.ScheduleTaskAction.FromString(call.detail or b"")
        of_instance = self._beyond.tags.get(OF_INSTANCE, "")
        self.version = text_of(self._beyond, "version") or of_instance
        self.instance_id = call.instance_id
        self.key: tuple[str, int] = (call.instance_id, call.seq)

    def request(self, token: str) -> bytes:
        """See `Work.request`."""
        call = self.call
        if call.begun is not None:
            call.begun()
        item = pb.WorkItem(completionToken=token)
        item.activityRequest.CopyFrom(
            pb.ActivityRequest(name=call.name, input=payload_value(call.input), taskId=call.seq)
        )
        request = item.activityRequest
        request.orchestrationInstance.instanceId = call.instance_id
        request.orchestrationInstance.executionId.value = call.execution_id
        request.tags.update(call.tags or {})
        if has(self._beyond, "version"):
            request.version.CopyFrom(self._beyond.version)
        if has(self._beyond, "parentTraceContext"):
            request.parentTraceContext.CopyFrom(self._beyond.parentTraceContext)
        return item.SerializeToString()

    def refuse(self, why: str) -> None:
        """See `Work.refuse`."""
        if not self.done.done():
            self.done.set_result(pb.ActivityResponse(failureDetails=_refusal(why)))


class _Operation:
    """Work: an operation of an entity."""

    kind: Kind = "entity"
    version = ""

    def __init__(self, entity_id: EntityId, state: Payload, operation: Operation) -> None:
        self.done: asyncio.Future[pb.EntityBatchResult] = asyncio.get_running_loop().create_future()
        self.name = entity_id.name
        self.instance_id = str(entity_id)
        self.key: tuple[str, int] = (self.instance_id, 0)
        self._state = state
        self._operation = operation

    def request(self, token: str) -> bytes:
        """See `Work.request`."""
        if self._operation.begun is not None:
            self._operation.begun()
        item = pb.WorkItem(completionToken=token)
        request = item.entityRequestV2
        request.instanceId = self.instance_id
        if self._state is not None:
            request.entityState.value = self._state.decode()
        operation = self._operation
        event = request.operationRequests.add(eventId=-1, timestamp=timestamp(operation.now))
        event.entityOperationSignaled.CopyFrom(
            pb.EntityOperationSignaledEvent(
                requestId=str(uuid.UUID(operation.token[:32].rjust(32, "0"))),
                operation=operation.name,
                input=payload_value(operation.input),
            )
        )
        return item.SerializeToString()

    def refuse(self, why: str) -> None:
        """See `Work.refuse`."""
        if not self.done.done():
            batch = pb.EntityBatchResult(entityState=payload_value(self._state))
            batch.results.add().failure.failureDetails.CopyFrom(_refusal(why))
            self.done.set_result(batch)


class RemoteExecutor:
    """Implements `durably.engine.executor.Executor` for functions that workers have.

    Whatever is asked of it, some worker may know it, now or later: work waits until one does.

    Args:
        random: Source of tokens.
        item_bytes_max: See `durably.executors.remote.broker.ITEM_BYTES_MAX`.

    Attributes:
        broker: To which workers are connected.
    """

    def __init__(self, random: Random, item_bytes_max: int = ITEM_BYTES_MAX) -> None:
        self.broker = Broker(random, item_bytes_max)
        self._answering: set[asyncio.Task[None]] = set()
        self._random = random
        self._turns: dict[RemoteRun, _Turn] = {}
        self._submit: Submit | None = None

    def connect(self, submit: Submit) -> None:
        """Send what workers decide to instances this way; see `durably.engine.host.Host.submit`."""
        self._submit = submit

    # --- orchestrators -----------------------------------------------------------------------------------------------

    def serves(self, kind: FunctionKind, name: str) -> bool:
        """See `Executor.serves`."""
        del kind, name
        return True

    def names(self, kind: FunctionKind) -> Sequence[str]:
        """See `Executor.names`: workers may have others."""
        del kind
        return ()

    def runs(self, name: str, version: str | None) -> bool:
        """See `Executor.runs`."""
        del name, version
        return True

    def elsewhere(self, kind: FunctionKind, name: str) -> bool:
        """See `Executor.elsewhere`: always."""
        del kind, name
        return True

    def version_of_new(self, name: str) -> str | None:
        """See `Executor.version_of_new`."""
        del name
        return None

    def versions(self, name: str) -> str:
        """See `Executor.versions`."""
        del name
        return "those that workers have"

    def begin(self, started: ExecutionStarted) -> RemoteRun:
        """See `Executor.begin`."""
        return RemoteRun(started, self._wants_work, self._ends)

    def replay(self, history: Sequence[HistoryEvent]) -> RemoteRun:
        """See `Executor.replay`.

        Raises:
            HistoryCorruptError: It does not say what was started.
        """
        started = next((event for event in history if isinstance(event, ExecutionStarted)), None)
        if started is None:
            raise HistoryCorruptError("History has no event of its start: expected one; restore a backup")
        run = self.begin(started)
        run.follow(history)
        return run

    def _wants_work(self, run: RemoteRun) -> None:
        turn = self._turns.get(run)
        if turn is not None and not turn.is_over and (turn.asked is not None or run.has_work):
            return  # what it has been asked is dealt with first
        if turn is not None:
            del self._turns[run]
            self.broker.withdraw(turn)  # it may have been answered by another delivery than the newest
        if run.has_work:
            turn = self._turns[run] = _Turn(run, self._fail)
            self.broker.offer(turn)

    def _ends(self, run: RemoteRun) -> None:
        turn = self._turns.pop(run, None)
        if turn is not None:
            self.broker.withdraw(turn)
        self.broker.forget(run.started.instance_id)

    def is_unstarted(self, instance_id: str) -> bool:
        """True while no worker has run any code of an instance: its first turn waits for one."""
        work = self.broker.waiting("orchestrator", (instance_id, 0))
        return isinstance(work, _Turn) and work.run.answers == 0

    def orchestrated(self, response: pb.OrchestratorResponse) -> asyncio.Task[None] | None:
        """A worker has answered.

        Returns:
            Done when that is durable; None: nobody wants it, or another part has to come. No worker has to wait for it: what
            never becomes durable is asked for again.
        """
        key = (response.instanceId, 0)
        work = self.broker.work_of("orchestrator", response.completionToken, key)
        if not isinstance(work, _Turn) or work.asked is None:
            return None
        place = response.chunkIndex.value if has(response, "chunkIndex") else len(work.parts)
        work.parts[place] = response
        if response.isPartial:
            return None
        if sorted(work.parts) != list(range(len(work.parts))):
            self.broker.give_back("orchestrator", response.completionToken)  # a part was lost on its way
            return None
        self.broker.withdraw(work)
        return self._have_taken(work, _decided(work, work.asked, _joined(work, response)))

    def _have_taken(self, turn: _Turn, body: WorkerAnswered) -> asyncio.Task[None]:
        answering = asyncio.get_running_loop().create_task(self._hand_in(turn, body))
        self._answering.add(answering)
        answering.add_done_callback(self._answering.discard)
        return answering

    async def _hand_in(self, turn: _Turn, body: WorkerAnswered) -> None:
        """Have the instance take an answer; one that cannot be taken now is asked for again."""
        if self._submit is None:
            return
        try:
            await self._submit(turn.instance_id, body)
        except DurablyError:  # another host has it now, or this one stops, or the store is busy
            if self._turns.get(turn.run) is turn and not turn.is_over:
                del self._turns[turn.run]
                self._wants_work(turn.run)

    def _fail(self, turn: _Turn, why: str) -> None:
        """No worker can take a turn: its instance fails."""
        if turn.asked is None:
            return
        failure = ExecutionFailed(FailureDetails.of(PayloadError(why)))
        self._have_taken(turn, turn.run.answer(turn.asked, b"", (failure,)))

    # --- activities --------------------------------------------------------------------------------------------------

    def concurrency(self, name: str) -> int | None:
        """See `Executor.concurrency`."""
        del name
        return None

    def on_loop(self, name: str) -> bool:
        """See `Executor.on_loop`."""
        del name
        return False

    async def perform(self, call: ActivityCall) -> ActivityDone:
        """See `Executor.perform`."""
        attempt = _Attempt(call)
        response = await self._done(attempt, attempt.done)
        failure = failure_of(response.failureDetails) if response.HasField("failureDetails") else None
        result = payload_of(response, "result") if failure is None else None
        return ActivityDone(call.execution_id, call.seq, call.attempt, result, failure)

    def performed(self, response: pb.ActivityResponse) -> None:
        """A worker has run an activity."""
        key = (response.instanceId, response.taskId)
        work = self.broker.answered("activity", response.completionToken, key)
        if isinstance(work, _Attempt) and not work.done.done():
            work.done.set_result(response)

    async def _done(self, work: Work, done: asyncio.Future[Any]) -> Any:
        self.broker.offer(work)
        try:
            return await done
        finally:
            self.broker.withdraw(work)

    # --- entities ----------------------------------------------------------------------------------------------------

    def entity(self, entity_id: EntityId) -> RemoteEntity:
        """See `Executor.entity`."""
        return RemoteEntity(entity_id, self._operate, self._random)

    async def _operate(
        self, entity_id: EntityId, state: Payload, operation: Operation
    ) -> pb.EntityBatchResult:
        while True:
            work = _Operation(entity_id, state, operation)
            result: pb.EntityBatchResult = await self._done(work, work.done)
            if not result.HasField("failureDetails") and result.results:
                return result
            await asyncio.sleep(1.0)  # the worker itself failed: another one may not, or this one later

    def operated(self, result: pb.EntityBatchResult) -> None:
        """A worker has run an operation."""
        work = self.broker.answered("entity", result.completionToken, ("", 0))
        if isinstance(work, _Operation) and not work.done.done():
            work.done.set_result(result)

    async def close(self) -> None:
        """See `Executor.close`."""
        self.broker.close()


class RemoteEntity:
    """Implements `durably.engine.executor.EntityCode`."""

    def __init__(
        self,
        entity_id: EntityId,
        operate: Callable[[EntityId, Payload, Operation], Awaitable[pb.EntityBatchResult]],
        random: Random,
    ) -> None:
        self._entity_id = entity_id
        self._operate = operate
        self._random = random

    @property
    def idle_ttl_us(self) -> int | None:
        """See `EntityCode.idle_ttl_us`."""
        return None

    def reads_only(self, operation: str) -> bool:
        """See `EntityCode.reads_only`."""
        del operation
        return False

    def operate(
        self, state: Payload, version: int, operation: Operation
    ) -> Coroutine[Any, Any, OperationOutcome]:
        """See `EntityCode.operate`."""
        return self._outcome(state, version, operation)

    async def _outcome(self, state: Payload, version: int, operation: Operation) -> OperationOutcome:
        batch = await self._operate(self._entity_id, state, operation)
        result = batch.results[0]
        after = payload_of(batch, "entityState")
        try:
            sent = [self._message(action) for action in batch.actions]
        except UsageError as error:
            return OperationOutcome(state, version, None, FailureDetails.of(error), [])
        if result.HasField("failure"):
            failure = failure_of(result.failure.failureDetails)
            return OperationOutcome(after, version, None, failure, sent)
        return OperationOutcome(after, version, payload_of(result.success, "result"), None, sent)

    def _message(self, action: pb.OperationAction) -> tuple[str, MessageBody]:
        if action.HasField("sendSignal"):
            signal = action.sendSignal
            call = CallEntity(
                signal.name,
                payload_of(signal, "input"),
                sender=str(self._entity_id),
                due_at=instant_of(signal, "scheduledTime"),
            )
            return str(EntityId.parse(signal.instanceId)), call
        start = action.startNewOrchestration
        body = StartInstance(
            name=start.name,
            input=payload_of(start, "input"),
            execution_id=self._random.token(),
            version=text_of(start, "version"),
            start_at=instant_of(start, "scheduledTime"),
            fresh=not start.instanceId,
            trace=trace_of(start, "parentTraceContext"),
        )
        return check_instance_id(start.instanceId or self._random.token()), body


def _refusal(why: str) -> pb.TaskFailureDetails:
    return pb.TaskFailureDetails(errorType=PayloadError.__name__, errorMessage=why, isNonRetriable=True)


def _joined(turn: _Turn, last: pb.OrchestratorResponse) -> pb.OrchestratorResponse:
    """The whole answer of a worker that sent it in parts."""
    if len(turn.parts) < 2:
        return last
    whole = pb.OrchestratorResponse()
    whole.CopyFrom(turn.parts[0])  # has what is said once
    if has(last, "customStatus"):
        whole.customStatus.CopyFrom(last.customStatus)
    for place in range(1, len(turn.parts)):
        whole.actions.extend(turn.parts[place].actions)
    return whole


def _decided(turn: _Turn, asked: Asked, response: pb.OrchestratorResponse) -> WorkerAnswered:
    try:
        return turn.run.read(asked, response)
    except Exception as error:  # noqa: BLE001 - whatever it is: a turn without an answer would never end
        return turn.run.answer(asked, b"", (ExecutionFailed(FailureDetails.of(error)),))
