"""Where to cut the history of a failed execution, and what becomes of everything on both sides of the cut.

Pure: a history goes in, a plan comes out. Kept is what stands before the failure that ended the execution. Successes that
came behind it count, too: they are delivered once more, to code that has not seen them. The failure itself is void, and
so is what the code did about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from durably.core.events import (
    ACTIONS,
    NUMBERED,
    AttemptFailed,
    AttemptInterrupted,
    AttemptStarted,
    ChildScheduled,
    Dropped,
    EntityAnswered,
    EntityCalled,
    EventRaised,
    ExecutionFailed,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    HistoryEvent,
    LockGranted,
    PatchApplied,
    RetryDeclined,
    Rewound,
    TaskCompleted,
    TaskFailed,
    TimerFired,
    TurnInterrupted,
    TurnStarted,
)
from durably.core.instance import InstanceState
from durably.errors import HistoryCorruptError

Late: TypeAlias = TaskCompleted | TimerFired | EventRaised
"""What may be delivered once more."""

_OF_ATTEMPTS = (AttemptFailed, AttemptStarted, RetryDeclined)
_INTERRUPTIONS = (AttemptInterrupted, TurnInterrupted)
_UNSEEN = (
    TurnStarted,
    Rewound,
    AttemptStarted,
    ExecutionSuspended,
    ExecutionResumed,
    LockGranted,
    EntityAnswered,
    PatchApplied,
    *_INTERRUPTIONS,
)


class Plan(msgspec.Struct, frozen=True):
    """What a rewind does.

    Attributes:
        started: The first event of the execution that failed.
        kept: Events of the new history, the first event included; empty when the code begins anew.
        failed: Calls whose failure is void, in the order of their numbers.
        dropped: What was asked for behind the cut, in the order of the numbers.
        orphans: Children called behind the cut that may still run: the call and its attempt.
        late: To be delivered after what is kept, in order.
        failed_at: Orchestration time of the cut.
        ended_at: Orchestration time of the end.
        next_seq: The number of the first action behind the cut.
        lineage: See `Rewound.lineage`; without the execution that failed now.
        former: All executions before the one that failed, by id.
        in_flight: See `Rewound.in_flight`.
    """

    started: ExecutionStarted
    kept: list[HistoryEvent]
    failed: tuple[int, ...]
    dropped: tuple[Dropped, ...]
    orphans: list[tuple[ChildScheduled, int]]
    late: list[Late]
    failed_at: int
    ended_at: int
    next_seq: int
    lineage: dict[str, int]
    former: tuple[str, ...]
    in_flight: tuple[int, ...]

    @property
    def late_seqs(self) -> tuple[int, ...]:
        """The actions that `late` completes by number; events find their waits by name."""
        return tuple(event.seq for event in self.late if not isinstance(event, EventRaised))


def plan_rewind(instance_id: str, history: Sequence[HistoryEvent]) -> Plan:
    """See `Plan`.

    Raises:
        HistoryCorruptError: The history does not say how the instance failed.
    """
    end = next((at for at, event in enumerate(history) if isinstance(event, ExecutionFailed)), None)
    started = next((event for event in history if isinstance(event, ExecutionStarted)), None)
    if end is None or started is None:
        raise HistoryCorruptError(
            f"The history of instance '{instance_id}' cannot be rewound: it does not say how the instance failed; "
            "restore a backup, or restart the instance"
        )
    failures = _failures(history[:end])
    cut = _cut(history, end, failures)
    numbered = {seq for event in history[:cut] if (seq := _numbered(event)) is not None}
    void = {seq for seq, at in failures.items() if at >= cut and seq in numbered}
    turns = [event.at for event in history if isinstance(event, TurnStarted)]
    next_seq = 1 + max(numbered, default=-1)
    former: dict[str, int] = {}
    for event in history:
        if isinstance(event, Rewound):
            former = event.lineage
    return Plan(
        started=started,
        kept=_kept(history[:cut], void),
        failed=tuple(sorted(void)),
        dropped=_dropped(history, cut),
        orphans=_orphans(history, cut),
        late=_late(history[cut:], numbered),
        failed_at=max((event.at for event in history[:cut] if isinstance(event, TurnStarted)), default=0),
        ended_at=max(turns, default=0),
        next_seq=next_seq,
        lineage={execution_id: min(until, next_seq) for execution_id, until in former.items()},
        former=tuple(former),
        in_flight=_in_flight(instance_id, history, cut, end),
    )


def _failures(history: Sequence[HistoryEvent]) -> dict[int, int]:
    """The place at which each call failed for good: of its last event that the code saw."""
    failures: dict[int, int] = {}
    attempts: dict[int, int] = {}
    for at, event in enumerate(history):
        if isinstance(event, AttemptFailed):
            attempts[event.seq] = at
        elif isinstance(event, TaskFailed):
            failures[event.seq] = at
        elif isinstance(event, RetryDeclined):
            failures[event.seq] = attempts[event.seq]
    return failures


def _cut(history: Sequence[HistoryEvent], end: int, failures: dict[int, int]) -> int:
    """The earliest failure of those that ended the execution; else the earliest of all; else what came last.

    Code that fails for another reason fails on the last thing that it saw. That is delivered once more: code that was
    mended goes on, code that was not fails again.
    """
    outcome = history[end]
    causes = outcome.tasks if isinstance(outcome, ExecutionFailed) else ()
    places = [failures[seq] for seq in causes if seq in failures] or list(failures.values())
    if places:
        return min(places)
    at = end
    while type(history[at]) in ACTIONS or isinstance(history[at], _UNSEEN):
        at -= 1
    return at


def _kept(before: Sequence[HistoryEvent], void: set[int]) -> list[HistoryEvent]:
    if not any(isinstance(event, ExecutionStarted) for event in before):
        return []
    return [
        event
        for event in before
        if not (isinstance(event, _OF_ATTEMPTS) and event.seq in void)
        and not isinstance(event, _INTERRUPTIONS)  # what is rewound is counted anew
    ]


def _late(behind: Sequence[HistoryEvent], numbered: set[int]) -> list[Late]:
    """Successes of what was asked for before the cut, and events: they belong to the instance.

    An operation that failed left no trace, so its call is as void as any other that failed.
    """
    late: list[Late] = []
    for event in behind:
        if isinstance(event, EntityAnswered):
            if event.failure is None and event.seq in numbered:
                late.append(TaskCompleted(event.seq, event.result))
        elif isinstance(event, EventRaised) or (
            isinstance(event, TaskCompleted | TimerFired) and event.seq in numbered
        ):
            late.append(event)
    return late


def _in_flight(instance_id: str, history: Sequence[HistoryEvent], cut: int, end: int) -> tuple[int, ...]:
    """Calls of entities that were sent and not answered: what an entity was told to do, it does once."""
    answered = {
        event.seq for event in history if isinstance(event, TaskCompleted | TaskFailed | EntityAnswered)
    }
    unsent = InstanceState.fold(instance_id, history[:end]).held_back
    calls = [event.seq for event in history[:cut] if isinstance(event, EntityCalled)]
    return tuple(seq for seq in calls if seq not in answered and seq not in unsent)


def _numbered(event: HistoryEvent) -> int | None:
    return getattr(event, "seq", None) if type(event) in NUMBERED else None


def _dropped(history: Sequence[HistoryEvent], cut: int) -> tuple[Dropped, ...]:
    """What was asked for behind the cut; also by an execution before this one, when its rewind lies behind the cut."""
    dropped: list[Dropped] = []
    attempts = _attempts(history)
    for event in history[cut:]:
        if isinstance(event, Rewound):
            dropped.extend(event.dropped)
        elif type(event) in NUMBERED:
            child = event.instance_id if isinstance(event, ChildScheduled) else None
            seq: int = getattr(event, "seq", 0)
            name = getattr(event, "name", None)
            dropped.append(Dropped(seq, type(event).__name__, name, child, attempts.get(seq, 1)))
    return tuple(sorted(dropped, key=lambda action: action.seq))


def _attempts(history: Sequence[HistoryEvent]) -> dict[int, int]:
    """The number of the last attempt, by call, of those that had more than one."""
    return {event.seq: event.attempt for event in history if isinstance(event, AttemptStarted)}


def _orphans(history: Sequence[HistoryEvent], cut: int) -> list[tuple[ChildScheduled, int]]:
    """Children called behind the cut, without those whose end is recorded."""
    attempts = _attempts(history)
    over = {event.seq for event in history[cut:] if isinstance(event, TaskCompleted | TaskFailed)}
    return [
        (event, attempts.get(event.seq, 1))
        for event in history[cut:]
        if isinstance(event, ChildScheduled) and event.seq not in over
    ]


def children_of(history: Sequence[HistoryEvent]) -> list[tuple[str, int, int]]:
    """The children that a history knows of, also dropped ones: the id of the first attempt, the call, the attempts."""
    found: dict[tuple[str, int], int] = {}
    attempts = _attempts(history)
    for event in history:
        if isinstance(event, ChildScheduled):
            found[event.instance_id, event.seq] = attempts.get(event.seq, 1)
        elif isinstance(event, Rewound):
            for action in event.dropped:
                if action.child is not None:
                    key = (action.child, action.seq)
                    found[key] = max(action.attempts, found.get(key, 1))
    return [(instance_id, seq, attempts) for (instance_id, seq), attempts in found.items()]
