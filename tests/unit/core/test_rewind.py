"""Where a history is cut, and what becomes of both sides: histories in, plans out."""

from __future__ import annotations

from typing import Any

import pytest

from durably.core.events import (
    ActionCanceled,
    AttemptFailed,
    AttemptStarted,
    CancelRequested,
    ChildScheduled,
    CustomStatusSet,
    Dropped,
    EventAwaited,
    EventRaised,
    EventSent,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStarted,
    HistoryEvent,
    RetryDeclined,
    Rewound,
    StartSent,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
    TurnStarted,
)
from durably.core.history import decode_rows, encode_events
from durably.core.instance import InstanceState
from durably.core.orchestration import Commit
from durably.core.retry import RetrySpec
from durably.core.rewind import Plan, children_of, plan_rewind
from durably.errors import FailureDetails, HistoryCorruptError

FAILURE = FailureDetails("ValueError", "no")
RETRY = RetrySpec(1_000, 3)
STARTED = ExecutionStarted("i", "flow", None, "e0", 0, 100, "3.13")


def T(at: int) -> TurnStarted:  # noqa: N802 - the histories below are tables
    return TurnStarted(at)


def call(seq: int, **fields: Any) -> TaskScheduled:
    return TaskScheduled(seq, f"work{seq}", None, **fields)


def end(*tasks: int) -> ExecutionFailed:
    return ExecutionFailed(FAILURE, tasks)


def plan(*events: HistoryEvent) -> Plan:
    return plan_rewind("i", [T(100), STARTED, *events])


def kept(*events: HistoryEvent) -> list[HistoryEvent]:
    return [T(100), STARTED, *events]


# --- the cut ---------------------------------------------------------------------------------------------------------


def test_the_cut_is_the_failure_that_ended_the_instance() -> None:
    made = plan(
        call(0), T(110), TaskCompleted(0, b"1"), call(1), T(120), TaskFailed(1, FAILURE), T(130), end(1)
    )
    assert made.kept == kept(call(0), T(110), TaskCompleted(0, b"1"), call(1), T(120))
    assert (made.failed, made.dropped, made.late, made.next_seq) == ((1,), (), [], 2)
    assert (made.failed_at, made.ended_at) == (120, 130)


def test_the_earliest_of_several_causes_counts() -> None:
    made = plan(
        call(0), call(1), T(110), TaskFailed(0, FAILURE), call(2), T(120), TaskFailed(1, FAILURE), end(1, 0)
    )
    assert made.kept == kept(call(0), call(1), T(110))
    assert made.failed == (0, 1)
    assert made.dropped == (Dropped(2, "TaskScheduled", "work2"),)


def test_a_failure_that_is_no_cause_and_came_before_the_cut_stays() -> None:
    made = plan(call(0), T(110), TaskFailed(0, FAILURE), call(1), T(120), TaskFailed(1, FAILURE), end(1))
    assert made.kept == kept(call(0), T(110), TaskFailed(0, FAILURE), call(1), T(120))
    assert made.failed == (1,)


@pytest.mark.parametrize("tasks", [(), (7,)])
def test_without_a_known_cause_the_earliest_failure_of_all_counts(tasks: tuple[int, ...]) -> None:
    made = plan(call(0), call(1), T(110), TaskFailed(1, FAILURE), T(120), TaskFailed(0, FAILURE), end(*tasks))
    assert made.kept == kept(call(0), call(1), T(110))
    assert made.failed == (0, 1)


@pytest.mark.parametrize(
    "last",
    [TaskCompleted(0, b"1"), TimerFired(1), EventRaised("go", b"1")],
    ids=lambda event: type(event).__name__,
)
def test_without_any_failure_what_came_last_is_delivered_once_more(last: Any) -> None:
    timer = TimerCreated(1, 500)
    made = plan(call(0), timer, T(600), last, call(2), CustomStatusSet(b"1"), end(), ActionCanceled(0))
    assert made.kept == kept(call(0), timer, T(600))
    assert made.late == [last]
    assert made.dropped == (Dropped(2, "TaskScheduled", "work2"),)


def test_a_cancel_that_the_code_failed_on_is_dropped() -> None:
    made = plan(call(0), T(110), CancelRequested("why"), end(), ActionCanceled(0))
    assert made.kept == kept(call(0), T(110))
    assert made.late == []


def test_code_that_failed_at_once_begins_anew() -> None:
    made = plan(call(0), end(), ActionCanceled(0))
    assert made.kept == []
    assert (made.next_seq, made.dropped) == (0, (Dropped(0, "TaskScheduled", "work0"),))


def test_a_rewound_execution_that_failed_at_once_again_begins_anew() -> None:
    before = Rewound(1, "00", None, (), (Dropped(0, "TaskScheduled", "work0"),), (), 0, {"base": 0})
    made = plan(before, end())
    assert made.kept == []
    assert (made.lineage, made.former) == ({"base": 0}, ("base",))


@pytest.mark.parametrize(
    "history", [[], [T(1)], [T(1), STARTED], [T(1), STARTED, ExecutionCompleted(None)], [end()]]
)
def test_a_history_that_does_not_say_how_it_failed_is_refused(history: list[HistoryEvent]) -> None:
    with pytest.raises(HistoryCorruptError, match="'i' cannot be rewound"):
        plan_rewind("i", history)


# --- attempts --------------------------------------------------------------------------------------------------------


def test_the_attempts_of_a_void_call_go_with_its_failure() -> None:
    tried = [AttemptFailed(0, 1, FAILURE, 115), T(115), AttemptStarted(0, 2)]
    made = plan(
        call(0, retry=RETRY),
        call(1),
        T(110),
        *tried,
        TaskCompleted(1, None),
        T(120),
        TaskFailed(0, FAILURE),
        end(0),
    )
    assert made.kept == kept(call(0, retry=RETRY), call(1), T(110), T(115), TaskCompleted(1, None), T(120))


def test_the_attempts_of_another_call_stay() -> None:
    tried = [AttemptFailed(1, 1, FAILURE, 115), T(115), AttemptStarted(1, 2)]
    made = plan(call(0), call(1, retry=RETRY), T(110), *tried, TaskFailed(0, FAILURE), end(0))
    assert made.kept == kept(call(0), call(1, retry=RETRY), T(110), *tried)


def test_attempts_behind_the_cut_are_dropped_whether_or_not_they_failed_in_the_end() -> None:
    made = plan(
        call(0),
        call(1, retry=RETRY),
        T(110),
        TaskFailed(0, FAILURE),
        AttemptFailed(1, 1, FAILURE, 115),
        T(115),
        AttemptStarted(1, 2),
        end(0),
    )
    assert made.kept == kept(call(0), call(1, retry=RETRY), T(110))
    assert made.failed == (0,)


def test_a_declined_retry_fails_where_its_attempt_failed() -> None:
    made = plan(
        call(0, retry=RETRY), T(110), AttemptFailed(0, 1, FAILURE, 115), RetryDeclined(0), call(1), end(0)
    )
    assert made.kept == kept(call(0, retry=RETRY), T(110))
    assert made.failed == (0,)
    assert made.dropped == (Dropped(1, "TaskScheduled", "work1"),)


# --- behind the cut --------------------------------------------------------------------------------------------------


def test_later_successes_of_earlier_actions_and_events_are_late_and_those_of_later_ones_are_dropped() -> None:
    made = plan(
        call(0),
        call(1),
        TimerCreated(2, 130),
        EventAwaited(3, "go"),
        T(110),
        TaskFailed(0, FAILURE),
        call(4),
        T(120),
        TaskCompleted(4, b"4"),
        T(130),
        TimerFired(2),
        T(140),
        EventRaised("other", b"5"),
        TaskCompleted(1, b"1"),
        CancelRequested(),
        end(0),
        ActionCanceled(3),
    )
    assert made.late == [TimerFired(2), EventRaised("other", b"5"), TaskCompleted(1, b"1")]
    assert made.late_seqs == (2, 1)


def test_what_is_dropped_is_listed_with_its_kind_name_and_child() -> None:
    made = plan(
        call(0),
        T(110),
        TaskFailed(0, FAILURE),
        TimerCreated(1, 500),
        EventAwaited(2, "go"),
        EventSent(3, "other", "hi", None),
        StartSent(4, "flow", "free", None),
        ChildScheduled(5, "flow", "c", None, retry=RETRY),
        AttemptFailed(5, 1, FAILURE, 120),
        T(120),
        AttemptStarted(5, 2),
        end(0),
        ActionCanceled(5),
    )
    assert made.dropped == (
        Dropped(1, "TimerCreated"),
        Dropped(2, "EventAwaited", "go"),
        Dropped(3, "EventSent", "hi"),
        Dropped(4, "StartSent", "flow"),
        Dropped(5, "ChildScheduled", "flow", "c", 2),
    )
    assert [(child.seq, attempt) for child, attempt in made.orphans] == [(5, 2)]


def test_a_dropped_child_that_is_known_to_have_ended_is_no_orphan() -> None:
    made = plan(
        call(0),
        T(110),
        TaskFailed(0, FAILURE),
        ChildScheduled(1, "flow", "c", None),
        TaskCompleted(1, None),
        end(0),
    )
    assert made.orphans == []


# --- again -----------------------------------------------------------------------------------------------------------


def rewound(commit: Commit, made: Plan, now: int) -> Commit:
    """What the engine does with a plan."""
    commit.turn(max(now, made.ended_at))
    lineage = {**made.lineage, "e0": made.next_seq}
    event = Rewound(
        1, "00", None, made.failed, made.dropped, made.late_seqs, now - made.failed_at, lineage, b"9"
    )
    commit.begin_again(made.kept, event)
    return commit


def test_a_second_rewind_behind_the_first_keeps_it() -> None:
    first = Rewound(1, "00", None, (0,), (), (), 50, {"base": 1})
    made = plan(
        call(0), T(150), first, TaskCompleted(0, None), call(1), T(160), TaskFailed(1, FAILURE), end(1)
    )
    assert first in made.kept
    assert made.lineage == {"base": 1}


def test_a_second_rewind_to_before_the_first_drops_it_and_keeps_what_it_dropped_in_mind() -> None:
    gone = Dropped(2, "ChildScheduled", "flow", "c")
    first = Rewound(1, "00", None, (1,), (gone,), (), 50, {"base": 2})
    made = plan(
        call(0), T(110), TaskFailed(0, FAILURE), call(1), T(150), first, TaskFailed(1, FAILURE), end(0, 1)
    )
    assert first not in made.kept
    assert made.dropped == (Dropped(1, "TaskScheduled", "work1"), gone)
    assert made.lineage == {"base": 1}, "only what lies before both cuts is the same"


def test_timers_get_their_time_back_and_calls_begin_now() -> None:
    made = plan(
        call(0, retry=RETRY, timeout_us=30),
        call(1, timeout_us=30),
        call(2, retry=RETRY),
        TimerCreated(3, 500),
        EventAwaited(4, "go", 400),
        TimerCreated(5, 190),
        T(120),
        AttemptFailed(2, 1, FAILURE, 220),
        T(200),
        TaskFailed(0, FAILURE),
        TimerFired(5),
        end(0),
    )
    state = InstanceState("i")
    commit = rewound(Commit(state), made, 1_200)
    assert state.now == 1_200
    assert dict(state.moved) == {3: 1_500, 4: 1_400}
    assert sorted(state.timers()) == [
        (0, 2, 1_230),  # a void call runs again, with all its time
        (1, 2, 1_230),  # one that was cut off runs again, too
        (2, 1, 1_220),  # one that waits for its next attempt waits on
        (3, 0, 1_500),
        (4, 0, 1_400),
        (5, 0, 190),  # its event follows
    ]
    assert commit.timers == {(seq, kind): due_at for seq, kind, due_at in state.timers()}
    assert [(task.seq, attempt) for task, attempt in commit.activities] == [(0, 1), (1, 1)]
    assert state.attempts[0].first_at == 1_200
    assert state.attempts[2].first_at == 1_100
    assert state.custom_status == b"9"


def test_what_a_rewind_records_folds_to_the_same_state_and_survives_the_disk() -> None:
    made = plan(call(0), call(1, retry=RETRY), T(110), TaskFailed(0, FAILURE), TaskCompleted(1, b"1"), end(0))
    state = InstanceState("i")
    commit = rewound(Commit(state), made, 300)
    from durably.core.commit import HistoryRow
    from durably.core.history import chain, chain_start

    data = encode_events(commit.events)
    row = HistoryRow(2, 0, 300, data, chain(chain_start("e0"), data))
    events, _ = decode_rows("i", "e0", [row])
    assert events == commit.events
    folded = InstanceState.fold("i", events)
    assert (folded.open, folded.attempts, folded.timers(), folded.now) == (
        state.open,
        state.attempts,
        state.timers(),
        state.now,
    )


def test_children_of_a_history_are_those_it_called_and_those_it_dropped() -> None:
    dropped = (Dropped(4, "ChildScheduled", "flow", "d", 2), Dropped(5, "TaskScheduled", "work5"))
    history = [
        T(100),
        STARTED,
        ChildScheduled(0, "flow", "a", None),
        ChildScheduled(1, "flow", "b", None, retry=RETRY),
        AttemptStarted(1, 2),
        AttemptStarted(1, 3),
        Rewound(1, "00", None, (), dropped, (), 0, {}),
    ]
    assert children_of(history) == [("a", 0, 1), ("b", 1, 3), ("d", 4, 2)]
