"""What arrives for the code of a worker, as events of its protocol."""

from __future__ import annotations

from typing import NamedTuple

from durably.core.events import (
    ChildScheduled,
    EntityCalled,
    EventRaised,
    ExecutionStarted,
    LockRequested,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
)
from durably.errors import FailureDetails, UsageError
from durably.executors.remote.wire import failure_message, payload_value, pb, timestamp, trace_message

CallAction = TaskScheduled | ChildScheduled | TimerCreated | EntityCalled | LockRequested


class Opened(NamedTuple):
    """An action that something completes.

    Attributes:
        action: Our event of it.
        event_id: Its number as the worker gave it.
        key: What the worker calls the request to an entity, or its critical section; else empty.
    """

    action: CallAction
    event_id: int
    key: str = ""


def started_message(started: ExecutionStarted, now: int) -> pb.HistoryEvent:
    """The first event of an execution."""
    event = pb.HistoryEvent(eventId=-1, timestamp=timestamp(now))
    message = event.executionStarted
    message.name = started.name
    message.orchestrationInstance.instanceId = started.instance_id
    message.orchestrationInstance.executionId.value = started.execution_id
    message.tags.update(started.tags or {})
    if started.version is not None:
        message.version.value = started.version
    if started.input is not None:
        message.input.value = started.input.decode()
    if started.trace is not None:
        message.parentTraceContext.CopyFrom(trace_message(started.trace))
    parent = started.parent
    if parent is not None and parent.seq >= 0 and not parent.instance_id.startswith("@"):
        message.parentInstance.taskScheduledId = parent.seq
        if parent.name is not None:
            message.parentInstance.name.value = parent.name
        message.parentInstance.orchestrationInstance.instanceId = parent.instance_id
        message.parentInstance.orchestrationInstance.executionId.value = parent.execution_id
    return event


def arrival_message(
    event: TaskCompleted | TaskFailed | TimerFired | EventRaised, opened: Opened | None, now: int
) -> pb.HistoryEvent:
    """Something that arrived later.

    Args:
        event: What.
        opened: What it completes; None for an external event.
        now: The orchestration time.
    """
    message = pb.HistoryEvent(eventId=-1, timestamp=timestamp(now))
    if isinstance(event, EventRaised):
        message.eventRaised.name = event.name
        if event.input is not None:
            message.eventRaised.input.value = event.input.decode()
    elif opened is None:
        raise UsageError(f"Action #{event.seq} was completed, but no worker has asked for it")
    elif isinstance(event, TimerFired):
        message.timerFired.timerId = opened.event_id
        if isinstance(opened.action, TimerCreated):
            message.timerFired.fireAt.CopyFrom(timestamp(opened.action.fire_at) or message.timestamp)
    elif isinstance(event, TaskCompleted):
        _completed(message, event, opened)
    else:
        _failed(message, event.failure, opened)
    return message


def _completed(message: pb.HistoryEvent, event: TaskCompleted, opened: Opened) -> None:
    result = payload_value(event.result)
    match opened.action:
        case ChildScheduled():
            done = pb.SubOrchestrationInstanceCompletedEvent(taskScheduledId=opened.event_id, result=result)
            message.subOrchestrationInstanceCompleted.CopyFrom(done)
        case EntityCalled():
            answer = pb.EntityOperationCompletedEvent(requestId=opened.key, output=result)
            message.entityOperationCompleted.CopyFrom(answer)
        case LockRequested():
            message.entityLockGranted.criticalSectionId = opened.key
        case _:
            task = pb.TaskCompletedEvent(taskScheduledId=opened.event_id, result=result)
            message.taskCompleted.CopyFrom(task)


def _failed(message: pb.HistoryEvent, failure: FailureDetails, opened: Opened) -> None:
    details = failure_message(failure)
    match opened.action:
        case ChildScheduled():
            done = pb.SubOrchestrationInstanceFailedEvent(
                taskScheduledId=opened.event_id, failureDetails=details
            )
            message.subOrchestrationInstanceFailed.CopyFrom(done)
        case EntityCalled():
            answer = pb.EntityOperationFailedEvent(requestId=opened.key, failureDetails=details)
            message.entityOperationFailed.CopyFrom(answer)
        case _:
            task = pb.TaskFailedEvent(taskScheduledId=opened.event_id, failureDetails=details)
            message.taskFailed.CopyFrom(task)
