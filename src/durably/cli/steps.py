"""The steps of an instance as a tree: history entries in, a model out. Knows no terminal, reads no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Literal, TypeAlias

from durably.core.events import EventRaised
from durably.core.external_events import EventMatcher
from durably.core.ids import attempt_id
from durably.core.status import InstanceStatus
from durably.core.timeline import HistoryEntry

Kind: TypeAlias = Literal["activity", "child", "timer", "event", "sent", "started"]
State: TypeAlias = Literal["running", "waiting", "retrying", "done", "failed", "canceled"]

OPEN: frozenset[State] = frozenset(("running", "waiting", "retrying"))

GROUP_ABOVE = 10
"""More calls of one function than this are one line with a bar."""

_ENDS: dict[str, State] = {
    "ExecutionCompleted": "done",
    "ExecutionFailed": "failed",
    "ExecutionCanceled": "canceled",
    "ExecutionTerminated": "canceled",
}
_WORDS = {"timer": "timer", "event": "event {}", "sent": "send {}", "started": "start {}"}


@dataclass(slots=True)
class Step:
    """One thing that an orchestrator asked for.

    Attributes:
        seq: Its number in the execution.
        kind: What it is.
        name: Of the function or event; "" for a timer.
        started: When it was asked for.
        state: Where it is.
        ended: When it ended, or None.
        attempt: The newest attempt; the first is 1. While retrying it is the one that is due.
        due: When the timer fires, the patience of the wait ends, or the next attempt starts; or None.
        timed_out: The wait ended without an event.
        failure: Type and message of the newest failure, or None.
        child_id: The instance that runs it, or None.
        child: The tree of that instance, if it has been read.
    """

    seq: int
    kind: Kind
    name: str
    started: datetime
    state: State = "running"
    ended: datetime | None = None
    attempt: int = 1
    due: datetime | None = None
    timed_out: bool = False
    failure: str | None = None
    child_id: str | None = None
    child: Tree | None = None

    @property
    def label(self) -> str:
        """What to call it."""
        return _WORDS.get(self.kind, "{}").format(self.name)


class Group:
    """Many calls of one function, as one line.

    Attributes:
        kind: What they are.
        name: Of the function or event.
        label: What to call it.
        total: How many.
        tally: How many are in each state.
        state: Open while one of them is; then failed if one failed.
        started: When the first was asked for.
        ended: When the last one ended, or None.
        failure: The first failure, or None.
        concurrent: True when calls overlap: their number says how much there is to do. A loop makes them one by one.
    """

    def __init__(self, steps: list[Step]) -> None:
        first = steps[0]
        self.kind = first.kind
        self.name = first.name
        self.label = first.label
        self.total = len(steps)
        self.tally = Counter(step.state for step in steps)
        self.state: State = "failed" if self.tally["failed"] else "done"
        self.started = first.started
        self.ended: datetime | None = None
        if self.open:
            self.state = "waiting" if self.tally["waiting"] else "running"
        else:
            self.ended = max(step.ended or step.started for step in steps)
        self.failure = next((step.failure for step in steps if step.state == "failed"), None)
        self.concurrent = any(
            one.ended is None or next_.started < one.ended for one, next_ in pairwise(steps)
        )

    @property
    def open(self) -> int:
        """How many have not ended."""
        return sum(self.tally[state] for state in OPEN)


@dataclass(slots=True)
class Tree:
    """One execution of an instance.

    Attributes:
        instance_id: The instance.
        name: Its orchestrator.
        state: Where it is.
        status: The word for that: a runtime status, or ``"Blocked"``.
        ordinal: Which execution of the instance it is; the first is 0.
        started: When the execution began, or None when it has not.
        ended: When it ended, or None.
        custom_status: As JSON text, or None.
        failure: Type and message, or None.
        blocked: Why it cannot go on, or None.
        steps: In the order in which they were asked for.
    """

    instance_id: str
    name: str
    state: State = "running"
    status: str = "Running"
    ordinal: int = 0
    started: datetime | None = None
    ended: datetime | None = None
    custom_status: str | None = None
    failure: str | None = None
    blocked: str | None = None
    steps: list[Step] = field(default_factory=list[Step])

    def shown(self) -> list[Step | Group]:
        """The steps, with many calls of one function folded into one line at the place of the first of them.

        Cancelled timers are left out: they are the end of a time-out that was not needed.
        """
        steps = [step for step in self.steps if step.kind != "timer" or step.state != "canceled"]
        alike: dict[tuple[Kind, str], list[Step]] = {}
        for step in steps:
            alike.setdefault((step.kind, step.name), []).append(step)
        result: list[Step | Group] = []
        for step in steps:
            calls = alike[step.kind, step.name]
            if len(calls) <= GROUP_ABOVE:
                result.append(step)
            elif calls[0] is step:
                result.append(Group(calls))
        return result

    def children(self) -> list[Step]:
        """The sub-orchestrations that have a line of their own."""
        return [step for step in self.shown() if isinstance(step, Step) and step.kind == "child"]

    def walk(self) -> Iterator[Tree]:
        """This tree and those of its sub-orchestrations."""
        yield self
        for step in self.steps:
            if step.child is not None:
                yield from step.child.walk()


def tree_of(entries: Iterable[HistoryEntry], status: InstanceStatus) -> Tree:
    """The tree of one execution, without its sub-orchestrations.

    Args:
        entries: Its history.
        status: Of the instance; says what no event says: suspended, blocked, not begun.
    """
    folder = _Folder(Tree(status.instance_id, status.name))
    for entry in entries:
        folder.take(entry)
    tree = folder.tree
    if tree.state == "running":
        tree.status = status.runtime_status.value
        if status.runtime_status.is_terminal:  # newer than the history that was read
            tree.status = "Running"
        elif tree.status != "Running":
            tree.state = "waiting"
        if status.blocked is not None:
            tree.state, tree.status, tree.blocked = "waiting", "Blocked", status.blocked
    return tree


class _Folder:
    """Applies history entries to a tree, one after the other."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._by_seq: dict[int, Step] = {}
        self._first_ids: dict[int, str] = {}
        self._events = EventMatcher()

    def take(self, entry: HistoryEntry) -> None:
        seq = entry.task_id
        if seq is None:
            self._take_of_instance(entry)
            return
        scheduled = _SCHEDULED.get(entry.event_type)
        if scheduled is not None:
            self._schedule(entry, seq, scheduled)
            return
        step = self._by_seq.get(seq)
        change = _CHANGES.get(entry.event_type)
        if step is not None and change is not None:
            if step.kind == "event":
                self._events.abandoned(seq)
            change(step, entry)
            first = self._first_ids.get(seq)
            step.child_id = None if first is None else attempt_id(first, step.attempt)

    def _take_of_instance(self, entry: HistoryEntry) -> None:
        tree = self.tree
        match entry.event_type:
            case "ExecutionStarted":
                tree.started = entry.timestamp
                tree.name = entry.name or tree.name
                tree.ordinal = int(entry.details.get("ordinal", 0))
                tree.custom_status = entry.details.get("custom_status")
            case "CustomStatusSet":
                tree.custom_status = entry.result
            case "ExecutionRewound":
                self._rewound(entry)
            case "EventRaised":
                seq = self._events.raised(EventRaised(entry.name or "", None))
                if seq is not None:
                    _end(self._by_seq[seq], entry, "done")
            case "ExecutionCompleted" | "ExecutionFailed" | "ExecutionCanceled" | "ExecutionTerminated":
                tree.state = _ENDS[entry.event_type]
                tree.status = entry.event_type.removeprefix("Execution")
                tree.ended = entry.timestamp
                tree.failure = _failure(entry)
            case _:
                pass

    def _rewound(self, entry: HistoryEntry) -> None:
        """Nobody's time ran while it had failed."""
        self.tree.custom_status = entry.details.get("custom_status")
        shift = timedelta(microseconds=entry.details.get("shift_us", 0))
        for step in self._by_seq.values():
            if step.due is not None and step.seq not in entry.details.get("late", ()):
                step.due += shift

    def _schedule(self, entry: HistoryEntry, seq: int, kind: Kind) -> None:
        step = Step(seq, kind, entry.name or "", entry.timestamp)
        step.due = _moment(entry, "fire_at")
        if kind in ("timer", "event"):
            step.state = "waiting"
        elif kind in ("sent", "started"):
            step.state = "done"
        if kind == "child":
            step.child_id = self._first_ids[seq] = str(entry.details["instance_id"])
        if kind == "event" and self._events.awaited(seq, step.name) is not None:
            _end(step, entry, "done")
        self._by_seq[seq] = step
        self.tree.steps.append(step)


_SCHEDULED: dict[str, Kind] = {
    "TaskScheduled": "activity",
    "SubOrchestrationInstanceCreated": "child",
    "TimerCreated": "timer",
    "EventAwaited": "event",
    "EventSent": "sent",
    "OrchestrationStarted": "started",
}


def _end(step: Step, entry: HistoryEntry, state: State) -> None:
    step.state, step.ended, step.due = state, entry.timestamp, None


def _completed(step: Step, entry: HistoryEntry) -> None:
    _end(step, entry, "done")
    step.failure = None


def _failed(step: Step, entry: HistoryEntry) -> None:
    _end(step, entry, "failed")
    step.failure = _failure(entry) or step.failure


def _canceled(step: Step, entry: HistoryEntry) -> None:
    _end(step, entry, "canceled")


def _fired(step: Step, entry: HistoryEntry) -> None:
    _end(step, entry, "done")
    step.timed_out = step.kind == "event"


def _attempt_failed(step: Step, entry: HistoryEntry) -> None:
    step.state = "retrying"
    step.attempt = int(entry.details["attempt"]) + 1
    step.due = _moment(entry, "retry_at")
    step.failure = _failure(entry)


def _declined(step: Step, entry: HistoryEntry) -> None:
    _end(step, entry, "failed")
    step.attempt -= 1  # the next one will not be


def _attempt_started(step: Step, entry: HistoryEntry) -> None:
    step.state, step.due = "running", None
    step.attempt = int(entry.details["attempt"])


_CHANGES: dict[str, Callable[[Step, HistoryEntry], None]] = {
    "TaskCompleted": _completed,
    "SubOrchestrationInstanceCompleted": _completed,
    "TaskFailed": _failed,
    "SubOrchestrationInstanceFailed": _failed,
    "RetryDeclined": _declined,
    "TaskCanceled": _canceled,
    "TimerCanceled": _canceled,
    "TimerFired": _fired,
    "TaskAttemptFailed": _attempt_failed,
    "TaskAttemptStarted": _attempt_started,
}


def _moment(entry: HistoryEntry, key: str) -> datetime | None:
    text: str | None = entry.details.get(key)
    return None if text is None else datetime.fromisoformat(text)


def _failure(entry: HistoryEntry) -> str | None:
    failure: Mapping[str, Any] | None = entry.details.get(
        "failure"
    )  # the fields of `FailureDetails` that say something
    if not failure:
        return None
    message = failure.get("message")
    return f"{failure['type']}: {message}" if message else str(failure["type"])
