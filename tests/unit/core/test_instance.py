"""InstanceState: what each event does to it, and what cannot be."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from durably.core.events import (
    ActionCanceled,
    AttemptFailed,
    AttemptStarted,
    CancelRequested,
    ChildScheduled,
    ContinuedAsNew,
    CustomStatusSet,
    Event,
    EventAwaited,
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
    RetryDeclined,
    StartSent,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
    TurnStarted,
)
from durably.core.instance import Attempt, InstanceState
from durably.core.messages import TIMER_DUE, TIMER_RETRY, TIMER_TIMEOUT
from durably.core.retry import RetrySpec
from durably.errors import FailureDetails, InvariantError

STARTED = ExecutionStarted("i", "flow", None, "e", 0, 100, "3.13", custom_status=b'"inherited"')
FAILURE = FailureDetails("ValueError", "no")
RETRY = RetrySpec(1_000, 3)
TASK = TaskScheduled(0, "work", b"1")
CHILD = ChildScheduled(1, "child", "c", None)
TIMER = TimerCreated(2, 900)
WAIT = EventAwaited(3, "go", 800)


def fold(*events: HistoryEvent) -> InstanceState:
    return InstanceState.fold("i", [TurnStarted(500), STARTED, *events])


def test_a_state_without_history_is_pending() -> None:
    state = InstanceState("i")
    assert (state.status, state.ended, state.open, state.timers()) == ("Pending", False, {}, [])
    with pytest.raises(InvariantError, match="I1"):
        _ = state.begun


def test_a_started_execution_runs_with_the_status_it_inherited() -> None:
    state = fold()
    assert (state.status, state.now, state.custom_status, state.begun) == (
        "Running",
        500,
        b'"inherited"',
        STARTED,
    )


def test_a_turn_moves_the_time() -> None:
    assert fold(TurnStarted(700)).now == 700


@pytest.mark.parametrize("action", [TASK, CHILD, TIMER, WAIT, EventAwaited(4, "go")])
def test_an_action_is_open_until_something_completes_it(action: Any) -> None:
    assert fold(action).open == {action.seq: action}


@pytest.mark.parametrize(
    ("action", "end"),
    [
        (TASK, TaskCompleted(0, b"2")),
        (TASK, TaskFailed(0, FAILURE)),
        (TASK, ActionCanceled(0)),
        (CHILD, TaskCompleted(1, None)),
        (CHILD, TaskFailed(1, FAILURE)),
        (TIMER, TimerFired(2)),
        (TIMER, ActionCanceled(2)),
        (WAIT, TimerFired(3)),
        (WAIT, ActionCanceled(3)),
        (WAIT, EventRaised("GO", None)),
    ],
)
def test_what_completes_an_action_closes_it_with_its_timers(action: Any, end: Any) -> None:
    state = fold(action, end)
    assert (state.open, state.timers(), state.tasks_open, state.attempts) == ({}, [], 0, {})


@pytest.mark.parametrize(
    "event",
    [TaskCompleted(9, None), TaskFailed(9, FAILURE), TimerFired(9), ActionCanceled(9), RetryDeclined(9)],
)
def test_a_completion_without_an_open_action_breaks_i6(event: Any) -> None:
    with pytest.raises(InvariantError, match=r"I6.*#9.*not open"):
        fold(event)


def test_a_second_completion_breaks_i6() -> None:
    with pytest.raises(InvariantError, match="I6"):
        fold(TASK, TaskCompleted(0, b"1"), TaskCompleted(0, b"1"))


@pytest.mark.parametrize("event", [AttemptFailed(9, 1, FAILURE, 600), AttemptStarted(9, 2)])
def test_an_attempt_without_an_open_action_breaks_i6(event: Any) -> None:
    with pytest.raises(InvariantError, match="I6"):
        fold(event)


@pytest.mark.parametrize("event", [AttemptFailed(0, 1, FAILURE, 600), AttemptStarted(0, 2)])
def test_a_retry_of_a_call_without_a_policy_breaks_i6(event: Any) -> None:
    with pytest.raises(InvariantError, match="I6"):
        fold(TASK, event)


def test_only_activities_count_as_tasks_in_flight() -> None:
    assert fold(TASK, CHILD, TIMER, WAIT).tasks_open == 1


def test_an_attempt_that_failed_waits_for_its_timer_and_then_runs_again() -> None:
    task = TaskScheduled(0, "work", None, RETRY, timeout_us=50)
    state = fold(task)
    assert state.attempts[0] == Attempt(1, 500, None, 550)
    assert state.timers() == [(0, TIMER_TIMEOUT, 550)]
    assert state.running_tasks() == [(task, 1)]
    state.apply(AttemptFailed(0, 1, FAILURE, 1_500))
    assert state.timers() == [(0, TIMER_RETRY, 1_500)]
    assert (state.running_tasks(), state.attempt_number(0)) == ([], 1)
    state.apply(TurnStarted(1_500))
    state.apply(AttemptStarted(0, 2))
    assert state.attempts[0] == Attempt(2, 500, None, 1_550)
    assert state.timers() == [(0, TIMER_TIMEOUT, 1_550)]
    assert state.running_tasks() == [(task, 2)]
    state.apply(TaskCompleted(0, None))
    assert (state.attempts, state.timers(), state.tasks_open) == ({}, [], 0)


def test_a_declined_retry_closes_the_call() -> None:
    state = fold(TaskScheduled(0, "work", None, RETRY), AttemptFailed(0, 1, FAILURE, 1_500), RetryDeclined(0))
    assert (state.open, state.timers(), state.tasks_open) == ({}, [], 0)


def test_attempts_of_children_have_no_deadline() -> None:
    state = fold(ChildScheduled(1, "child", "c", None, retry=RETRY))
    assert state.attempts[1] == Attempt(1, 500, None, None)
    assert (state.timers(), state.running_tasks()) == ([], [])


def test_a_call_without_a_policy_is_at_its_first_attempt() -> None:
    assert fold(TASK).attempt_number(0) == 1


def test_timers_follow_from_what_is_open() -> None:
    task = TaskScheduled(0, "work", None, timeout_us=50)
    assert fold(task, CHILD, TIMER, WAIT, EventAwaited(4, "go")).timers() == [
        (0, TIMER_TIMEOUT, 550),
        (2, TIMER_DUE, 900),
        (3, TIMER_DUE, 800),
    ]


def test_an_event_that_came_before_its_wait_is_taken_by_it() -> None:
    state = fold(EventRaised("go", b"1"), EventAwaited(3, "Go"))
    assert state.open == {}
    assert state.events is not None
    assert state.events.unconsumed() == []


def test_an_event_does_not_go_to_a_wait_that_timed_out() -> None:
    state = fold(WAIT, TimerFired(3), EventRaised("go", b"1"))
    assert state.events is not None
    assert state.events.unconsumed() == [EventRaised("go", b"1")]


def test_suspend_and_resume_change_the_status_and_nothing_else() -> None:
    state = fold(TIMER, ExecutionSuspended("why"))
    assert (state.status, state.suspended, list(state.open)) == ("Suspended", True, [2])
    state.apply(ExecutionResumed())
    assert (state.status, state.suspended) == ("Running", False)


@pytest.mark.parametrize(
    "event", [CancelRequested("why"), EventSent(5, "j", "go", None), StartSent(5, "f", "j", None)]
)
def test_some_events_leave_the_state_as_it_is(event: Event) -> None:
    state = fold(TASK)
    before = (state.status, dict(state.open), state.timers(), state.tasks_open)
    state.apply(event)
    assert (state.status, dict(state.open), state.timers(), state.tasks_open) == before


def test_the_custom_status_is_the_newest_one() -> None:
    assert fold(CustomStatusSet(b"1"), CustomStatusSet(b"2")).custom_status == b"2"
    assert fold(CustomStatusSet(None)).custom_status is None


@pytest.mark.parametrize(
    ("event", "status", "output", "failure"),
    [
        (ExecutionCompleted(b"7"), "Completed", b"7", None),
        (ExecutionFailed(FAILURE), "Failed", None, FAILURE),
        (ExecutionCanceled("why"), "Canceled", None, FailureDetails("CancelledError", "why")),
        (
            ExecutionCanceled(),
            "Canceled",
            None,
            FailureDetails("CancelledError", "the instance was canceled"),
        ),
        (ExecutionTerminated("why"), "Terminated", b'"why"', FailureDetails("Terminated", "why")),
        (
            ExecutionTerminated(),
            "Terminated",
            None,
            FailureDetails("Terminated", "the instance was terminated"),
        ),
    ],
)
def test_each_end_sets_status_output_and_failure(event: Any, status: str, output: Any, failure: Any) -> None:
    state = fold(event)
    assert (state.status, state.output, state.failure, state.ended) == (status, output, failure, True)


def test_a_suspended_instance_that_is_terminated_is_not_suspended() -> None:
    assert not fold(ExecutionSuspended(), ExecutionTerminated()).suspended


def test_continuing_as_new_is_no_end_of_the_instance() -> None:
    state = fold(ContinuedAsNew(b"1"))
    assert (state.continuing, state.ended, state.status) == (True, False, "Running")


def test_every_kind_of_event_can_be_applied() -> None:
    """A new event without its handler would show only when one is read."""
    from typing import get_args

    from durably.core.instance import TRANSITIONS

    assert set(TRANSITIONS) == set(get_args(HistoryEvent))


def test_live_and_stored_histories_fold_alike() -> None:
    events: list[HistoryEvent] = [
        TASK,
        CHILD,
        TIMER,
        WAIT,
        TaskCompleted(0, b"1"),
        EventRaised("x", None),
        TimerFired(2),
    ]
    live = fold()
    for event in events:
        live.apply(event)
    data = msgspec.msgpack.encode([TurnStarted(500), STARTED, *events])
    stored = InstanceState.fold("i", msgspec.msgpack.decode(data, type=list[HistoryEvent]))
    assert (live.open, live.timers(), live.status, live.now) == (
        stored.open,
        stored.timers(),
        stored.status,
        stored.now,
    )
