"""The invariants of DESIGN with their names, as pure checks over what is stored of one instance.

Run by the simulation after every commit, and by tests over whole hubs. I1 (chained history) is checked by
`durably.core.history.decode_rows`, I4 and I9 by the store conformance suite, I10 by replaying, I11 by the host.
"""

from __future__ import annotations

from collections.abc import Sequence

from durably.core.commit import HistoryRow, InboxRow, InstanceRow, TimerRow
from durably.core.events import (
    NUMBERED,
    EventAwaited,
    ExecutionStarted,
    HistoryEvent,
    Rewound,
    TimerCreated,
    TimerFired,
    TurnInterrupted,
    TurnStarted,
)
from durably.core.history import decode_body, decode_rows
from durably.core.instance import InstanceState
from durably.core.messages import TIMER_START, Continue, StartInstance
from durably.core.status import TERMINAL, RuntimeStatus
from durably.errors import InvariantError


def check_instance(
    row: InstanceRow, history: Sequence[HistoryRow], timers: Sequence[TimerRow], inbox: Sequence[InboxRow]
) -> list[HistoryEvent]:
    """Check everything that must hold for one instance after any commit.

    Args:
        row: Its read model.
        history: The rows of its current execution.
        timers: Its armed timers.
        inbox: Its messages.

    Returns:
        The decoded events, for checks that need code.

    Raises:
        InvariantError: A rule is broken; the error names it.
    """
    instance_id = row.instance_id
    events, _ = decode_rows(instance_id, row.execution_id, history)  # I1
    if row.status == RuntimeStatus.Pending.value:
        _check_pending(row, events, timers, inbox)
        return events
    if row.parked is not None:
        return events
    _check_order(instance_id, events)
    state = InstanceState.fold(instance_id, events)  # I6: a second completion does not fold
    _check_row(row, state)
    _check_timers(row, state, timers)
    _check_cause(row, state, timers, inbox)
    return events


def _broken(rule: str, instance_id: str, what: str) -> InvariantError:
    return InvariantError(rule, instance_id, what)


def _check_pending(
    row: InstanceRow, events: Sequence[HistoryEvent], timers: Sequence[TimerRow], inbox: Sequence[InboxRow]
) -> None:
    if any(not isinstance(event, TurnStarted | TurnInterrupted) for event in events):
        raise _broken("I2", row.instance_id, "it is Pending and has a history")
    bodies = [decode_body(message.body) for message in inbox]
    if not any(isinstance(body, StartInstance) and body.execution_id == row.execution_id for body in bodies):
        raise _broken("I8", row.instance_id, "it is Pending without the message that starts it")
    interrupted = bool(
        events
    )  # its start was due, and its first turn did not end: it needs no timer any more
    if [timer.kind for timer in timers] != [TIMER_START] and not (interrupted and not timers):
        raise _broken(
            "I8", row.instance_id, f"it is Pending with timers {timers}; expected the one that starts it"
        )


def _check_order(instance_id: str, events: Sequence[HistoryEvent]) -> None:
    """Turns follow each other in time, actions are numbered in call order, no timer fires early (I7)."""
    now = -1
    due: dict[int, int] = {}
    seqs = -1
    first = [event for event in events if not isinstance(event, TurnStarted | TurnInterrupted)][:1]
    if not first or not isinstance(first[0], ExecutionStarted) or not isinstance(events[0], TurnStarted):
        raise _broken("I1", instance_id, "its history does not begin with a turn that starts it")
    for event in events:
        if isinstance(event, TurnStarted):
            if event.at < now:
                raise _broken("I7", instance_id, f"time ran backwards from {now} to {event.at}")
            now = event.at
        elif isinstance(event, TimerCreated | EventAwaited):
            if event.fire_at is not None:
                due[event.seq] = event.fire_at
        elif isinstance(event, Rewound):
            due = {seq: at if seq in event.late else at + event.shift_us for seq, at in due.items()}
        elif isinstance(event, TimerFired) and now < due.get(event.seq, 0):
            raise _broken("I7", instance_id, f"timer #{event.seq}, due at {due[event.seq]}, fired at {now}")
        seq = _scheduled_seq(event)
        if seq is not None:
            if seq <= seqs:
                raise _broken("I6", instance_id, f"action #{seq} was scheduled after #{seqs}")
            seqs = seq


def _scheduled_seq(event: HistoryEvent) -> int | None:
    return getattr(event, "seq", None) if type(event) in NUMBERED else None


def _check_row(row: InstanceRow, state: InstanceState) -> None:
    """I2: the read model and the history were written by the same commits."""
    seen = (row.status, row.custom_status, row.output if state.ended else None)
    told = (state.status, state.custom_status, state.output if state.ended else None)
    if seen != told:
        raise _broken("I2", row.instance_id, f"its row says {seen}, its history {told}")
    needs_load = not state.ended and (state.is_working or row.blocked is not None)
    if needs_load and not row.in_flight:
        raise _broken("I8", row.instance_id, "it has activities open and a recovery would not load it")


def _check_timers(row: InstanceRow, state: InstanceState, timers: Sequence[TimerRow]) -> None:
    """I2, I7: exactly the timers that follow from the history are armed."""
    armed = {(timer.seq, timer.kind, timer.due_at) for timer in timers if timer.execution == row.execution}
    expected = set(state.timers())
    if armed != expected:
        raise _broken("I7", row.instance_id, f"timers {sorted(armed)} are armed; expected {sorted(expected)}")
    if len(armed) != len(timers):
        raise _broken("I7", row.instance_id, "timers of an execution that is gone are armed")


def _check_cause(
    row: InstanceRow, state: InstanceState, timers: Sequence[TimerRow], inbox: Sequence[InboxRow]
) -> None:
    """I8: a live instance owns a live cause."""
    if row.status in TERMINAL:
        return
    if state.continuing and any(isinstance(decode_body(message.body), Continue) for message in inbox):
        return
    if state.open or state.untaken or inbox or timers or row.blocked is not None:
        return
    if state.answers:
        return  # its code waits for an event: which one, its worker alone knows
    raise _broken("I8", row.instance_id, "it lives, and nothing will ever move it")
