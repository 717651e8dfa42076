"""What a worker decided, in our terms; and the events by which its protocol confirms that, when the history is told again.

The decisions go into the history as everybody's do. What the protocol says beyond them (its ids, trace contexts, versions of
activities) is kept beside them: the response without what the decisions say already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from durably.core.entities import EntityId, check_operation
from durably.core.events import (
    Action,
    ChildScheduled,
    ContinuedAsNew,
    CustomStatusSet,
    EntityCalled,
    EntitySignaled,
    EventRaised,
    EventSent,
    ExecutionCanceled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStarted,
    LockReleased,
    LockRequested,
    Payload,
    TaskScheduled,
    TimerCreated,
)
from durably.core.ids import check_instance_id
from durably.core.notices import checked_tags
from durably.errors import UsageError
from durably.executors.remote.wire import (
    Message,
    failure_of,
    has,
    instant_of,
    payload_of,
    payload_value,
    pb,
    text_of,
    text_value,
    timestamp,
    trace_of,
)

_LAST_INSTANT: Final = 253_402_300_799_999_999
"""The end of the year 9999: what is later fits neither the messages nor a row."""

_CONFIRMED = (
    TaskScheduled,
    ChildScheduled,
    TimerCreated,
    EventSent,
    EntityCalled,
    EntitySignaled,
    LockRequested,
)


class Numbers:
    """The numbers of actions: those that the worker gives, as long as they are new; a retry of Python repeats one."""

    def __init__(self) -> None:
        self._given: set[int] = set()
        self._most = 0
        self._known: AbstractSet[int] = frozenset()

    def draft(self) -> Numbers:
        """The same for an answer that may come to nothing: what it takes is not taken here."""
        draft = Numbers()
        draft._known, draft._most = self._given, self._most
        return draft

    def take(self, seq: int) -> None:
        """This one is used, as a history says."""
        self._given.add(seq)
        self._most = max(self._most, seq)

    def next(self, wanted: int) -> int:
        """For one more action."""
        is_taken = wanted < 0 or wanted in self._given or wanted in self._known
        seq = self._most + 1 if is_taken else wanted
        self.take(seq)
        return seq


OF_INSTANCE: Final = "version"
"""The tag, in what is kept of an activity, with the version of the instance: for filters, when the activity has none."""


class Translation:
    """Reads one response.

    Args:
        started: The first event of its execution.
        numbers: Of its execution.
        custom_status: As it is.
        section: Number of the lock that the code has or waits for, and what the worker calls it; None: none.
    """

    def __init__(
        self,
        started: ExecutionStarted,
        numbers: Numbers,
        custom_status: Payload,
        section: tuple[int, str] | None,
    ) -> None:
        self._instance_id = started.instance_id
        self._version = started.version
        self._numbers = numbers
        self._custom_status = custom_status
        self._section = section

    def read(self, response: pb.OrchestratorResponse) -> tuple[bytes, tuple[Action, ...]]:
        """What to keep beside the decisions, and these, an outcome last.

        Raises:
            UsageError: The response holds what nobody can carry out.
        """
        made: list[Action] = []
        outcome: Action | None = None
        if has(response, "customStatus"):
            status = payload_of(response, "customStatus")
            if status != self._custom_status:
                made.append(CustomStatusSet(status))
        kept = pb.OrchestratorResponse()
        if response.HasField("orchestrationTraceContext"):
            kept.orchestrationTraceContext.CopyFrom(response.orchestrationTraceContext)
        for action in response.actions:
            kind = action.WhichOneof("orchestratorActionType")
            if kind == "completeOrchestration":
                outcome = self._outcome(action.completeOrchestration)
                continue
            decision = self._decision(kind, action)
            if decision is not None:
                made.append(decision)
            kept.actions.append(_slim(kind, action))
        if outcome is not None:
            made.append(outcome)
        return kept.SerializeToString(), tuple(made)

    def _decision(self, kind: str | None, action: pb.OrchestratorAction) -> Action | None:
        match kind:
            case "scheduleTask":
                return self._task(action.id, action.scheduleTask)
            case "createTimer":
                fire_at = _instant(action.createTimer, "fireAt") or 0
                return TimerCreated(self._numbers.next(action.id), fire_at)
            case "createSubOrchestration":
                return self._child(action.id, action.createSubOrchestration)
            case "sendEvent":
                sent = action.sendEvent
                target, data = check_instance_id(sent.instance.instanceId), payload_of(sent, "data")
                return EventSent(self._numbers.next(action.id), target, sent.name, data)
            case "sendEntityMessage":
                return self._to_entity(action.id, action.sendEntityMessage)
            case _:
                raise UsageError(
                    f"The worker of instance '{self._instance_id}' asked for {kind or 'something unknown'}: expected an action "
                    "that this host knows; use a host that is as new as the SDK"
                )

    def _task(self, number: int, task: pb.ScheduleTaskAction) -> Action:
        beyond = pb.ScheduleTaskAction()
        if has(task, "version"):
            beyond.version.CopyFrom(task.version)
        elif self._version:
            beyond.tags[OF_INSTANCE] = self._version
        if has(task, "parentTraceContext"):
            beyond.parentTraceContext.CopyFrom(task.parentTraceContext)
        return TaskScheduled(
            self._numbers.next(number),
            task.name,
            payload_of(task, "input"),
            tags=checked_tags(dict(task.tags)),
            detail=beyond.SerializeToString() or None,
        )

    def _child(self, number: int, child: pb.CreateSubOrchestrationAction) -> Action:
        target = child.instanceId or f"{self._instance_id}:{number:04x}"
        check_instance_id(target)
        seq, tags = self._numbers.next(number), checked_tags(dict(child.tags))
        return ChildScheduled(
            seq,
            child.name,
            target,
            payload_of(child, "input"),
            text_of(child, "version"),
            None,
            tags,
            trace_of(child, "parentTraceContext"),
        )

    def _to_entity(self, number: int, message: pb.SendEntityMessageAction) -> Action | None:
        match message.WhichOneof("EntityMessageType"):
            case "entityOperationCalled":
                call = message.entityOperationCalled
                target, data = _entity(text_of(call, "targetInstanceId")), payload_of(call, "input")
                return EntityCalled(self._numbers.next(number), target, check_operation(call.operation), data)
            case "entityOperationSignaled":
                signal = message.entityOperationSignaled
                target, operation = (
                    _entity(text_of(signal, "targetInstanceId")),
                    check_operation(signal.operation),
                )
                due_at, data = _instant(signal, "scheduledTime"), payload_of(signal, "input")
                return EntitySignaled(self._numbers.next(number), target, operation, data, due_at)
            case "entityLockRequested":
                return self._lock(number, message.entityLockRequested)
            case "entityUnlockSent":
                return self._unlock(message.entityUnlockSent.criticalSectionId)
            case _:
                raise UsageError(
                    f"The worker of instance '{self._instance_id}' sent an entity something unknown: expected a call, a "
                    "signal, a lock or its release; use a host that is as new as the SDK"
                )

    def _lock(self, number: int, lock: pb.EntityLockRequestedEvent) -> Action:
        entities = sorted({EntityId.parse(entity) for entity in lock.lockSet})
        if self._section is not None or not entities:
            raise UsageError(
                f"The worker of instance '{self._instance_id}' asked for locks of {len(entities)} entities: expected one or "
                "more, and none while it has others"
            )
        seq = self._numbers.next(number)
        self._section = (seq, lock.criticalSectionId)
        return LockRequested(seq, tuple(map(str, entities)))

    def _unlock(self, name: str) -> Action | None:
        """The end of the block. There is one message for each entity, and the first one counts."""
        section = self._section
        if section is None or section[1] != name:
            return None
        self._section = None
        return LockReleased(section[0])

    def _outcome(self, end: pb.CompleteOrchestrationAction) -> Action:
        result = payload_of(end, "result")
        match end.orchestrationStatus:
            case pb.ORCHESTRATION_STATUS_FAILED:
                return ExecutionFailed(failure_of(end.failureDetails))
            case pb.ORCHESTRATION_STATUS_CANCELED:
                return ExecutionCanceled(None)
            case pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW:
                carried = [
                    EventRaised(event.eventRaised.name, payload_of(event.eventRaised, "input"))
                    for event in end.carryoverEvents
                    if event.HasField("eventRaised")
                ]
                version = text_of(end, "newVersion")
                return ContinuedAsNew(result, version=version, carried=tuple(carried))
            case _:
                return ExecutionCompleted(result)


def _entity(text: str | None) -> str:
    return str(EntityId.parse(text or ""))


def _instant(message: Message, field: str) -> int | None:
    instant = instant_of(message, field)
    return None if instant is None else min(max(instant, 0), _LAST_INSTANT)


def _slim(kind: str | None, action: pb.OrchestratorAction) -> pb.OrchestratorAction:
    """The action without what our event of it says."""
    slim = pb.OrchestratorAction()
    slim.CopyFrom(action)
    match kind:
        case "scheduleTask":
            for field in ("name", "input", "tags"):
                slim.scheduleTask.ClearField(field)
        case "createSubOrchestration":
            for field in ("name", "instanceId", "input", "tags", "version"):
                slim.createSubOrchestration.ClearField(field)
        case "createTimer":
            slim.createTimer.ClearField("fireAt")
        case "sendEvent":
            slim.sendEvent.ClearField("data")
        case "sendEntityMessage":
            message = slim.sendEntityMessage
            if message.HasField("entityOperationCalled"):
                message.entityOperationCalled.ClearField("input")
            elif message.HasField("entityOperationSignaled"):
                message.entityOperationSignaled.ClearField("input")
        case _:
            pass
    return slim


def confirmations(
    kept: bytes, actions: Sequence[Action], at: int
) -> Iterator[tuple[pb.HistoryEvent, Action | None]]:
    """The events by which a history confirms what a worker decided, each with our event of the same, if there is one.

    Args:
        kept: See `Translation.read`.
        actions: The same.
        at: When, microseconds since 1970 UTC.
    """
    response = pb.OrchestratorResponse.FromString(kept)
    decisions = iter(action for action in actions if isinstance(action, _CONFIRMED))
    for slim in response.actions:
        event = pb.HistoryEvent(eventId=slim.id, timestamp=timestamp(at))
        if slim.WhichOneof("orchestratorActionType") == "sendEntityMessage":
            unlock = slim.sendEntityMessage.HasField("entityUnlockSent")
            decision = None if unlock else next(decisions)
            _confirm_entity(event, slim.sendEntityMessage, decision)
        else:
            decision = next(decisions)
            _confirm(event, slim, decision)
        yield event, decision


def _confirm(event: pb.HistoryEvent, slim: pb.OrchestratorAction, decision: Action) -> None:
    match decision:
        case TaskScheduled():
            task = slim.scheduleTask
            event.taskScheduled.name = decision.name
            event.taskScheduled.tags.update(decision.tags or {})
            if decision.input is not None:
                event.taskScheduled.input.value = decision.input.decode()
            if has(task, "version"):
                event.taskScheduled.version.CopyFrom(task.version)
            if has(task, "parentTraceContext"):
                event.taskScheduled.parentTraceContext.CopyFrom(task.parentTraceContext)
        case ChildScheduled():
            event.subOrchestrationInstanceCreated.CopyFrom(
                pb.SubOrchestrationInstanceCreatedEvent(
                    instanceId=decision.instance_id,
                    name=decision.name,
                    version=text_value(decision.version),
                    input=payload_value(decision.input),
                    parentTraceContext=slim.createSubOrchestration.parentTraceContext
                    if has(slim.createSubOrchestration, "parentTraceContext")
                    else None,
                )
            )
        case TimerCreated():
            event.timerCreated.fireAt.CopyFrom(timestamp(decision.fire_at) or event.timestamp)
        case EventSent():
            event.eventSent.instanceId = decision.instance_id
            event.eventSent.name = decision.name
            if decision.input is not None:
                event.eventSent.input.value = decision.input.decode()
        case _:
            raise UsageError(
                f"A {type(decision).__name__} stands where the answer of a worker has another action"
            )


def _confirm_entity(
    event: pb.HistoryEvent, message: pb.SendEntityMessageAction, decision: Action | None
) -> None:
    match message.WhichOneof("EntityMessageType"):
        case "entityOperationCalled":
            event.entityOperationCalled.CopyFrom(message.entityOperationCalled)
            if isinstance(decision, EntityCalled) and decision.input is not None:
                event.entityOperationCalled.input.value = decision.input.decode()
        case "entityOperationSignaled":
            event.entityOperationSignaled.CopyFrom(message.entityOperationSignaled)
            if isinstance(decision, EntitySignaled) and decision.input is not None:
                event.entityOperationSignaled.input.value = decision.input.decode()
        case "entityLockRequested":
            event.entityLockRequested.CopyFrom(message.entityLockRequested)
        case _:
            event.entityUnlockSent.CopyFrom(message.entityUnlockSent)
