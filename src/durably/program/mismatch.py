"""Whether two decisions agree, and a readable account when they do not."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, SupportsIndex

from durably.core.events import (
    Action,
    ActionCanceled,
    AttemptFailed,
    AttemptStarted,
    CancelRequested,
    ChildScheduled,
    CompensationStarted,
    ContinuedAsNew,
    CustomStatusSet,
    EntityCalled,
    EntitySignaled,
    Event,
    EventAwaited,
    EventRaised,
    EventSent,
    ExecutionCanceled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStarted,
    LockReleased,
    LockRequested,
    RetryDeclined,
    SagaEnded,
    StartSent,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
    UndoAdded,
    UndoEnded,
)
from durably.program.drivers import is_library

_LINES_BEFORE = 4
_LINES_AFTER = 3

_CURE = (
    "The instance is blocked, and nothing is lost. Deploy code that takes the recorded decisions again, in the same order "
    "(put the call back; add new calls at the end; take time, chance and ids from ctx): it then goes on by itself"
)


class TracedActions(list[Action]):
    """Actions with the line of user code that asked for each. Used in a replay only: looking at frames costs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str | None] = []

    def append(self, action: Action, /) -> None:
        """Take an action, and note who asks."""
        super().append(action)
        self.lines.append(_line_of_user())

    def line(self, place: SupportsIndex) -> str | None:
        """``file:line in function`` of an action, or None when no user code asked for it."""
        return self.lines[place]


def _line_of_user() -> str | None:
    frame = sys._getframe(2)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        code = frame.f_code
        if not is_library(code.co_filename):
            return f"{code.co_filename}:{frame.f_lineno} in {code.co_name}"
        if frame.f_globals.get("__name__") == "durably.program.run":
            return None
        frame = frame.f_back
    return None


def agree(recorded: Action, produced: Action) -> bool:
    """True when a replay may go on: same kind, number, name and target. Inputs and due times may differ."""
    if type(recorded) is not type(produced):
        return False
    return identity(recorded) == identity(produced)


def identity(action: Action) -> tuple[Any, ...]:
    """What must not change about an action."""
    match action:
        case TaskScheduled():
            return action.seq, action.name
        case ChildScheduled() | StartSent():
            return action.seq, action.name, action.instance_id
        case EventAwaited():
            return action.seq, action.name.casefold()
        case EventSent():
            return action.seq, action.instance_id, action.name.casefold()
        case EntityCalled() | EntitySignaled():
            return action.seq, action.entity, action.operation
        case LockRequested():
            return action.seq, action.entities
        case TimerCreated() | ActionCanceled() | RetryDeclined() | LockReleased():
            return (action.seq,)
        case UndoAdded():
            return action.number, action.saga, action.name
        case UndoEnded():
            return (action.number,)
        case CompensationStarted() | SagaEnded():
            return (action.saga,)
        case _:
            return ()


def label(event: Event) -> str:
    """An event in a few words, for people."""
    match event:
        case TaskScheduled():
            return f"activity '{event.name}' (#{event.seq})"
        case ChildScheduled():
            return f"sub-orchestration '{event.name}' with id '{event.instance_id}' (#{event.seq})"
        case StartSent():
            return f"start of orchestration '{event.name}' with id '{event.instance_id}' (#{event.seq})"
        case TimerCreated():
            return f"timer (#{event.seq})"
        case EventAwaited():
            return f"wait for external event '{event.name}' (#{event.seq})"
        case EventSent():
            return f"event '{event.name}' sent to '{event.instance_id}' (#{event.seq})"
        case EntityCalled():
            return f"operation '{event.operation}' of entity '{event.entity}' (#{event.seq})"
        case EntitySignaled():
            return f"signal '{event.operation}' to entity '{event.entity}' (#{event.seq})"
        case LockRequested():
            return f"lock of {', '.join(event.entities)} (#{event.seq})"
        case LockReleased():
            return f"release of lock #{event.seq}"
        case ActionCanceled():
            return f"cancellation of #{event.seq}"
        case RetryDeclined():
            return f"no retry of #{event.seq}"
        case CustomStatusSet():
            return "custom status set"
        case UndoAdded():
            return f"undo '{event.name}' noted"
        case UndoEnded():
            return f"end of undo {event.number}"
        case CompensationStarted():
            return (
                f"saga {event.saga} begins to undo its steps ({event.failure.type}: {event.failure.message})"
            )
        case SagaEnded():
            return f"end of saga {event.saga}"
        case ExecutionCompleted():
            return "end: completed"
        case ExecutionFailed():
            return f"end: failed ({event.failure.type}: {event.failure.message})"
        case ExecutionCanceled():
            return "end: canceled"
        case ContinuedAsNew():
            return "end: continued as new"
        case ExecutionStarted():
            return f"orchestrator '{event.name}' started"
        case TaskCompleted():
            return f"#{event.seq} completed"
        case TaskFailed():
            return f"#{event.seq} failed ({event.failure.type})"
        case AttemptFailed():
            return f"attempt {event.attempt} of #{event.seq} failed ({event.failure.type})"
        case AttemptStarted():
            return f"attempt {event.attempt} of #{event.seq} started"
        case TimerFired():
            return f"#{event.seq} came due"
        case EventRaised():
            return f"external event '{event.name}' arrived"
        case CancelRequested():
            return "cancellation requested"
        case _:
            return type(event).__name__


def account(
    started: ExecutionStarted,
    before: Sequence[Event],
    recorded: Sequence[Action],
    produced: TracedActions,
    at: int,
) -> str:
    """The text of a `NonDeterminismError`.

    Args:
        started: Whose history it is.
        before: Events that came before the decisions in question; the last one is what they were taken on.
        recorded: The decisions in the history.
        produced: The decisions that the code takes now.
        at: The place of the first difference in both.
    """
    step = len(before) + at
    says = label(recorded[at]) if at < len(recorded) else "nothing more on this event"
    does = label(produced[at]) if at < len(produced) else "nothing more on this event"
    line = produced.line(at) if at < len(produced) else None
    lines = [
        f"Instance '{started.instance_id}' (orchestrator '{started.name}') does not replay at step {step}",
        f"  history says:  {says}",
        f"  code now does: {does}{f' at {line}' if line else ''}",
        "",
        "  step  history",
    ]
    agreed = [*before, *recorded[:at]]
    first = max(0, len(agreed) - _LINES_BEFORE)
    lines += [f"  {number:4}    {label(event)}" for number, event in enumerate(agreed[first:], first)]
    lines += [
        f"  {number:4}  - {label(event)}"
        for number, event in enumerate(recorded[at : at + _LINES_AFTER], step)
    ]
    for number, action in enumerate(produced[at : at + _LINES_AFTER], step):
        where = produced.line(number - len(before))
        lines.append(f"  {number:4}  + {label(action)}{f' at {where}' if where else ''}")
    lines += ["", _CURE]
    return "\n".join(lines)


def without_cure(diff: str) -> str:
    """The diff of a `NonDeterminismError`, where the advice for an instance that is blocked would mislead."""
    return diff.removesuffix(f"\n\n{_CURE}")
