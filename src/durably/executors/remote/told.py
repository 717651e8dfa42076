"""The history of an instance as the Durable Task protocol tells it, whoever has run its code."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from durably.core.events import (
    ACTIONS,
    Action,
    Answered,
    ChildScheduled,
    EntityCalled,
    EntitySignaled,
    EventRaised,
    EventSent,
    ExecutionCanceled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    HistoryEvent,
    LockRequested,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
    TurnStarted,
)
from durably.executors.remote.past import CallAction, Opened, arrival_message, started_message
from durably.executors.remote.run import RemoteRun
from durably.executors.remote.wire import (
    failure_message,
    payload_value,
    pb,
    text_value,
    timestamp,
)

_CALLS = (TaskScheduled, ChildScheduled, TimerCreated, EntityCalled, LockRequested)


def told(history: Sequence[HistoryEvent]) -> list[pb.HistoryEvent]:
    """The events of an execution, from its start to its end if it has ended."""
    started = next((event for event in history if isinstance(event, ExecutionStarted)), None)
    if started is not None and started.remote:
        return _of_worker(started, history)
    return _of_host(history)


def _of_worker(started: ExecutionStarted, history: Sequence[HistoryEvent]) -> list[pb.HistoryEvent]:
    """What its worker has seen and decided, and what waits to be seen."""
    run = RemoteRun(started, _nobody, _nobody)
    run.follow(history)
    return [*run.events(), *_end(history)]


def _nobody(run: RemoteRun) -> None:
    del run  # it is looked at, and nobody is asked to go on with it


def past_of(history: Sequence[HistoryEvent]) -> list[pb.HistoryEvent]:
    """Of an execution in a worker: what its worker is told as past when it is asked next."""
    started = next((event for event in history if isinstance(event, ExecutionStarted)), None)
    if started is None or not started.remote:
        return []
    run = RemoteRun(started, _nobody, _nobody)
    run.follow(history)
    return run.past_events()


def _of_host(history: Sequence[HistoryEvent]) -> list[pb.HistoryEvent]:
    """Our own events, as far as the protocol has such; numbers of actions begin at 0."""
    now = 0
    opened: dict[int, Opened] = {}
    found: list[pb.HistoryEvent] = []
    for event in history:
        if isinstance(event, TurnStarted):
            now = event.at
            turn = pb.HistoryEvent(eventId=-1, timestamp=timestamp(now))
            turn.orchestratorStarted.SetInParent()
            found.append(turn)
        elif isinstance(event, ExecutionStarted):
            found.append(started_message(event, now))
        elif isinstance(event, EventRaised):
            found.append(arrival_message(event, None, now))
        elif isinstance(event, TaskCompleted | TaskFailed | TimerFired):
            if event.seq in opened:  # else it was a wait for an event, of which the protocol knows nothing
                found.append(arrival_message(event, opened.pop(event.seq), now))
        elif isinstance(event, ExecutionSuspended | ExecutionResumed):
            found.append(_pause(event, now))
        elif type(event) in ACTIONS:
            found += _action(event, now, opened)  # pyright: ignore[reportArgumentType] - one of these
    return [*found, *_end(history)]


def _action(event: Action, now: int, opened: dict[int, Opened]) -> list[pb.HistoryEvent]:
    if isinstance(event, _CALLS):
        opened[event.seq] = Opened(event, event.seq, _key(event))
        return [_call(event, now)]
    message = pb.HistoryEvent(timestamp=timestamp(now))
    if isinstance(event, EventSent):
        message.eventId = event.seq
        sent = pb.EventSentEvent(
            instanceId=event.instance_id, name=event.name, input=payload_value(event.input)
        )
        message.eventSent.CopyFrom(sent)
    elif isinstance(event, EntitySignaled):
        message.eventId = event.seq
        signal = pb.EntityOperationSignaledEvent(
            requestId=_key(event),
            operation=event.operation,
            input=payload_value(event.input),
            scheduledTime=timestamp(event.due_at),
            targetInstanceId=text_value(event.entity),
        )
        message.entityOperationSignaled.CopyFrom(signal)
    else:
        return []
    return [message]


def _key(event: CallAction | EntitySignaled) -> str:
    """A name of the request; ours have none."""
    return str(event.seq)


def _call(event: CallAction, now: int) -> pb.HistoryEvent:
    message = pb.HistoryEvent(eventId=event.seq, timestamp=timestamp(now))
    match event:
        case TaskScheduled():
            task = pb.TaskScheduledEvent(
                name=event.name, input=payload_value(event.input), tags=event.tags or {}
            )
            message.taskScheduled.CopyFrom(task)
        case ChildScheduled():
            child = pb.SubOrchestrationInstanceCreatedEvent(
                instanceId=event.instance_id,
                name=event.name,
                version=text_value(event.version),
                input=payload_value(event.input),
            )
            message.subOrchestrationInstanceCreated.CopyFrom(child)
        case TimerCreated():
            message.timerCreated.fireAt.CopyFrom(timestamp(event.fire_at) or message.timestamp)
        case EntityCalled():
            call = pb.EntityOperationCalledEvent(
                requestId=_key(event),
                operation=event.operation,
                input=payload_value(event.input),
                targetInstanceId=text_value(event.entity),
            )
            message.entityOperationCalled.CopyFrom(call)
        case LockRequested():
            lock = pb.EntityLockRequestedEvent(criticalSectionId=_key(event), lockSet=event.entities)
            message.entityLockRequested.CopyFrom(lock)
    return message


def _pause(event: ExecutionSuspended | ExecutionResumed, now: int) -> pb.HistoryEvent:
    message = pb.HistoryEvent(eventId=-1, timestamp=timestamp(now))
    reason = text_value(event.reason)
    if isinstance(event, ExecutionSuspended):
        message.executionSuspended.CopyFrom(pb.ExecutionSuspendedEvent(input=reason))
    else:
        message.executionResumed.CopyFrom(pb.ExecutionResumedEvent(input=reason))
    return message


def _end(history: Sequence[HistoryEvent]) -> list[pb.HistoryEvent]:
    """The last event of an execution that has ended for good."""
    now = max((event.at for event in history if isinstance(event, TurnStarted | Answered)), default=0)
    message = pb.HistoryEvent(eventId=-1, timestamp=timestamp(now))
    for event in reversed(history):
        match event:
            case ExecutionCompleted():
                end = pb.ExecutionCompletedEvent(
                    orchestrationStatus=pb.ORCHESTRATION_STATUS_COMPLETED, result=payload_value(event.result)
                )
            case ExecutionFailed():
                end = pb.ExecutionCompletedEvent(
                    orchestrationStatus=pb.ORCHESTRATION_STATUS_FAILED,
                    failureDetails=failure_message(event.failure),
                )
            case ExecutionCanceled():
                end = pb.ExecutionCompletedEvent(orchestrationStatus=pb.ORCHESTRATION_STATUS_CANCELED)
            case ExecutionTerminated():
                output = event.output
                if output is None and event.reason is not None:
                    output = msgspec.json.encode(event.reason)
                message.executionTerminated.CopyFrom(pb.ExecutionTerminatedEvent(input=payload_value(output)))
                return [message]
            case _:
                continue
        message.executionCompleted.CopyFrom(end)
        return [message]
    return []
