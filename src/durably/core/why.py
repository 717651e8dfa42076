"""What an instance waits for, in one sentence, for people.

Everything comes in as parameters, so any face can ask: the row and the history of the instance, its open children, the
time, and whether a host serves the hub.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from durably.core.commit import InstanceRow
from durably.core.events import (
    AttemptFailed,
    AttemptStarted,
    ChildScheduled,
    EntityCalled,
    EventAwaited,
    ExecutionSuspended,
    HistoryEvent,
    LockRequested,
    TaskScheduled,
    TimerCreated,
    TurnStarted,
)
from durably.core.history import decode_failure
from durably.core.hosts import HostStatus
from durably.core.ids import attempt_id
from durably.core.instance import InstanceState, OpenAction
from durably.core.shared_tasks import TaskInfo
from durably.core.spans import span
from durably.core.status import TERMINAL, RuntimeStatus
from durably.core.timeline import instant
from durably.errors import FailureDetails

_NAMED_MAX = 3
"""So many things are named; of more, the first two, and how many others there are."""

_DIFF_LINES = 3
"""The head of a diff says what disagrees: the instance, what the history says, what the code does."""

_NO_HOST = "no host serves the hub"


def needs_history(row: InstanceRow) -> bool:
    """Whether the answer depends on the history; where it does not, a damaged one does no harm."""
    return (
        row.execution > 0
        and row.status not in TERMINAL
        and row.status != RuntimeStatus.Pending.value
        and row.parked is None
        and row.blocked is None
    )


def open_children(row: InstanceRow, events: Sequence[HistoryEvent]) -> list[str]:
    """The ids of the children whose results the instance waits for, the earliest call first."""
    state = InstanceState.fold(row.instance_id, events)
    calls = [action for action in state.open.values() if isinstance(action, ChildScheduled)]
    return [attempt_id(call.instance_id, state.attempt_number(call.seq)) for call in calls]


def open_calls(row: InstanceRow, events: Sequence[HistoryEvent]) -> list[str]:
    """The entities whose results the instance waits for, the earliest call first."""
    state = InstanceState.fold(row.instance_id, events)
    return [action.entity for action in state.open.values() if isinstance(action, EntityCalled)]


def doing(task: TaskInfo, hosts: Sequence[HostStatus]) -> str:
    """What becomes of an activity in the queue that all hosts share, in a few words."""
    if task.host_id is not None:
        host = next((host for host in hosts if host.host_id == task.host_id), None)
        return "claimed by a host that is gone" if host is None else f"claimed by '{host.name}'"
    known = any(f"activity:{task.name}" in host.functions for host in hosts)
    return "waiting for a place on any host" if known else "waiting for a host that has it"


def why(
    row: InstanceRow,
    events: Sequence[HistoryEvent],
    now: int,
    *,
    children: Mapping[str, InstanceRow] | None = None,
    parked_calls: Collection[int] = (),
    shared: Mapping[int, str] | None = None,
    served: bool = True,
) -> str:
    """One sentence about what the instance waits for, or how it ended.

    Args:
        row: Its committed row.
        events: The history of its current execution; may be empty when `needs_history` says so.
        now: In microseconds since 1970 UTC.
        children: Rows of its open children by id, as far as they have been read.
        parked_calls: Those of its open calls of entities whose messages are parked, by number.
        shared: What its activities do that are in the queue that all hosts share, by number; see `doing`.
        served: A live host serves the hub.
    """
    if row.status in TERMINAL:
        return f"{_ended(row, now)}."
    if row.parked is not None:
        return f"Is parked, set aside with its messages: {_gist(row.parked)}."
    if row.blocked is not None:
        return f"Is blocked, its code and its history disagree: {_gist(row.blocked)}."
    if row.status == RuntimeStatus.Pending.value:
        return f"{_pending(row, now, served=served)}."
    story = _Story(events)
    state = InstanceState.fold(row.instance_id, events)
    if state.ended:  # the history was read after the row
        return f"Ended as {state.status} a moment ago."
    if state.suspended:
        return f"{_suspended(story, now)}{'' if served else f'; {_NO_HOST}'}."
    if state.continuing:
        what = "for its next execution to begin"
    elif not state.open:
        what = "for its next turn, which has what it needs"
    else:
        due = {seq: due_at for seq, _, due_at in state.timers()}
        scene = _Scene(state, story, due, now, children or {}, parked_calls, shared or {}, served)
        what = f"for {_listed(_things(scene))}"
    for failure in list(state.compensating.values())[-1:]:
        what = f"{what}, to undo the steps of a saga that failed: {_failure(failure)}"
    return f"Waits {what}{'' if served else f'; {_NO_HOST}'}."


# --- the instance as a whole -----------------------------------------------------------------------------------------


def _ended(row: InstanceRow, now: int) -> str:
    failure = decode_failure(row.failure)
    cause = "" if failure is None else f": {_failure(failure)}"
    return f"Ended as {row.status} at {_moment(row.updated_at)} ({_ago(row.updated_at, now)}){cause}"


def _pending(row: InstanceRow, now: int, *, served: bool) -> str:
    unserved = "" if served else f"; {_NO_HOST}"
    if row.start_at is not None and row.start_at > now:
        return f"Waits for its scheduled start at {_moment(row.start_at)} (in {_span(row.start_at - now)}){unserved}"
    what = "Waits to be started" if served else f"Waits to be started, but {_NO_HOST}"
    return f"{what}; it was accepted at {_moment(row.created_at)} ({_ago(row.created_at, now)})"


def _suspended(story: _Story, now: int) -> str:
    since = story.suspended_at
    when = "" if since is None else f" since {_moment(since)} ({_span(now - since)})"
    reason = "no reason was given" if story.reason is None else f"'{_one_line(story.reason)}'"
    return f"Is suspended{when}: {reason}; it goes on when it is resumed"


class _Story:
    """What the state does not keep: when each thing began, and what failed last."""

    def __init__(self, events: Iterable[HistoryEvent]) -> None:
        self.since: dict[int, int] = {}
        self.failures: dict[int, FailureDetails] = {}
        self.suspended_at: int | None = None
        self.reason: str | None = None
        now = 0
        for event in events:
            match event:
                case TurnStarted():
                    now = event.at
                case TaskScheduled() | ChildScheduled() | TimerCreated() | EventAwaited() | AttemptStarted():
                    self.since[event.seq] = now
                case EntityCalled() | LockRequested():
                    self.since[event.seq] = now
                case AttemptFailed():
                    self.failures[event.seq] = event.failure
                case ExecutionSuspended():
                    self.suspended_at, self.reason = now, event.reason
                case _:
                    pass


# --- what is open ----------------------------------------------------------------------------------------------------


class _Thing(NamedTuple):
    """One thing that is waited for. The lowest rank and time are named first: they decide.

    Calls that failed come first, then what somebody outside has to do, what runs, and timers last: often they are only
    the end of the patience for something else.
    """

    rank: int
    at: int
    text: str


class _Scene(NamedTuple):
    """What is known of an instance whose open things are described."""

    state: InstanceState
    story: _Story
    due: dict[int, int]
    now: int
    children: Mapping[str, InstanceRow]
    parked_calls: Collection[int]
    shared: Mapping[int, str]
    served: bool


def _things(scene: _Scene) -> list[_Thing]:
    return sorted(_thing(action, scene) for action in scene.state.open.values())


def _thing(action: OpenAction, scene: _Scene) -> _Thing:
    now, due_at = scene.now, scene.due.get(action.seq)
    began = scene.story.since.get(action.seq, scene.state.now)
    since = f"since {_moment(began)} ({_span(now - began)})"
    match action:
        case TimerCreated():
            due_at = action.fire_at if due_at is None else due_at
            return _Thing(5, due_at, f"the timer due at {_moment(due_at)} ({_until(due_at, now)})")
        case EventAwaited():
            patience = _patience("giving up", due_at, now)
            return _Thing(1, began, f"event '{_one_line(action.name)}' {since}{patience}")
        case EntityCalled():
            called = f"operation '{_one_line(action.operation)}' of entity '{_one_line(action.entity)}' #{action.seq}"
            if action.seq in scene.parked_calls:
                return _Thing(2, began, f"{called} (parked) {since}")
            return _Thing(3, began, f"{called} {since}")
        case LockRequested():
            return _Thing(3, began, f"{_lock(scene.state)} {since}")
        case TaskScheduled() | ChildScheduled():
            attempt = scene.state.attempts.get(action.seq)
            if attempt is not None and attempt.retry_at is not None:
                failed = scene.story.failures.get(action.seq)
                cause = "" if failed is None else f" (the last one failed: {_failure(failed)})"
                label = f"{_attempt(action, attempt.number + 1)}{_called(action)}"
                return _Thing(0, attempt.retry_at, f"{label} {_until(attempt.retry_at, now)}{cause}")
            number = 1 if attempt is None else attempt.number
            label = f"{_attempt(action, number) if number > 1 else ''}{_called(action)}"
    if isinstance(action, TaskScheduled):
        state = scene.shared.get(action.seq) or ("running" if scene.served else "open")
        patience = _patience("timing out", due_at, now)
        return _Thing(3, began, f"{label} {state} {since}{patience}")
    child_id = attempt_id(action.instance_id, number)
    word, troubled = _state_of(scene.children.get(child_id))
    return _Thing(2 if troubled else 4, began, f"{label} with id '{child_id}'{word} {since}")


def _lock(state: InstanceState) -> str:
    """The entity that is asked for now; those before it in the order are locked already."""
    section = state.section
    if section is None or section.complete:
        return "the lock of an entity"
    held = f", with {section.granted} of {len(section.entities)} locked" if section.granted else ""
    return f"the lock of entity '{_one_line(section.entities[section.granted])}'{held}"


def _called(action: TaskScheduled | ChildScheduled) -> str:
    kind = "activity" if isinstance(action, TaskScheduled) else "child"
    return f"{kind} '{_one_line(action.name)}' #{action.seq}"


def _attempt(action: TaskScheduled | ChildScheduled, number: int) -> str:
    most = number if action.retry is None else action.retry.max_attempts
    return f"attempt {number} of {most} of "


def _state_of(child: InstanceRow | None) -> tuple[str, bool]:
    """A child in a word, and whether somebody should look at it."""
    if child is None:
        return "", False
    if child.parked is not None:
        return " (parked)", True
    if child.blocked is not None:
        return " (blocked)", True
    return f" ({child.status})", child.status == RuntimeStatus.Suspended.value


def _listed(things: Sequence[_Thing]) -> str:
    texts = [thing.text for thing in things]
    if len(texts) > _NAMED_MAX:
        more = len(texts) - _NAMED_MAX + 1
        texts = [*texts[: _NAMED_MAX - 1], f"{more:,} more"]
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else texts[0]


# --- words -----------------------------------------------------------------------------------------------------------


def _moment(micros: int) -> str:
    return f"{instant(micros):%Y-%m-%dT%H:%M:%SZ}"


def _span(micros: int) -> str:
    return span(max(0, micros) / 1_000_000)


def _ago(then: int, now: int) -> str:
    return f"{_span(now - then)} ago"


def _until(due_at: int, now: int) -> str:
    return f"in {_span(due_at - now)}" if due_at > now else f"overdue by {_span(now - due_at)}"


def _patience(what: str, due_at: int | None, now: int) -> str:
    if due_at is None:
        return ""
    return f", {what} {_until(due_at, now) if due_at > now else 'now'}"


def _failure(failure: FailureDetails) -> str:
    text = f"{failure.type}: {failure.message}" if failure.message else failure.type
    return _one_line(text).rstrip(".")


def _gist(text: str) -> str:
    lines = [_one_line(line) for line in text.strip().splitlines()[:_DIFF_LINES]]
    return "; ".join(line for line in lines if line).rstrip(".")


def _one_line(text: str) -> str:
    return " ".join(text.split())
