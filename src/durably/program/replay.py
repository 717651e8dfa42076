"""Bringing a fresh run to where a history ends, and making sure that the code still decides what it decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from durably.core.events import (
    ACTIONS,
    OUTCOMES,
    Action,
    Arrival,
    AttemptFailed,
    AttemptStarted,
    CancelRequested,
    Event,
    EventRaised,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    HistoryEvent,
    PatchApplied,
    TaskCompleted,
    TaskFailed,
    TimerFired,
    TurnStarted,
)
from durably.errors import NonDeterminismError
from durably.program.mismatch import TracedActions, account, agree
from durably.program.run import Run

_ARRIVALS: Final[frozenset[type[Event]]] = frozenset(
    (
        AttemptFailed,
        AttemptStarted,
        CancelRequested,
        EventRaised,
        ExecutionResumed,
        ExecutionStarted,
        ExecutionSuspended,
        ExecutionTerminated,
        TaskCompleted,
        TaskFailed,
        TimerFired,
        TurnStarted,
    )
)


def replay(run: Run, started: ExecutionStarted, history: Sequence[HistoryEvent]) -> None:
    """Deliver a whole history to a fresh run, comparing its decisions with the recorded ones.

    Events of a kind that this version does not know are skipped: they inform people. What the engine recorded after the
    end of an execution is not compared.

    Raises:
        NonDeterminismError: They differ. The run is closed.
    """
    known: list[HistoryEvent] = [
        event for event in history if type(event) in _ARRIVALS or type(event) in ACTIONS
    ]
    run.begin_replay(event.change_id for event in history if type(event) is PatchApplied)
    now = place = 0
    while place < len(known):
        event = known[place]
        place += 1
        if type(event) is TurnStarted:
            now = event.at
            continue
        if type(event) is ExecutionTerminated:
            break
        first = place
        while place < len(known) and type(known[place]) in ACTIONS:
            place += 1
        recorded: list[Action] = known[first:place]  # type: ignore[assignment]  # just checked
        produced = _deliver(run, event, now)  # type: ignore[arg-type]  # not an action: those were skipped
        at = _difference(recorded, produced)
        if at is not None:
            run.close()
            raise NonDeterminismError(
                started.instance_id, account(started, known[:first], recorded, produced, at)
            )
        if produced and type(produced[-1]) in OUTCOMES:
            break
    run.record_into([])
    run.end_replay()


def _deliver(run: Run, event: Arrival, now: int) -> TracedActions:
    produced = TracedActions()
    run.record_into(produced)
    run.advance(event, now)
    return produced


def _difference(recorded: list[Action], produced: list[Action]) -> int | None:
    """The place of the first difference, or None. Behind an outcome nothing counts: the engine wrote it."""
    for place, (one, other) in enumerate(zip(recorded, produced, strict=False)):
        if not agree(one, other):
            return place
        if type(one) in OUTCOMES:
            return None
    return None if len(recorded) == len(produced) else min(len(recorded), len(produced))
