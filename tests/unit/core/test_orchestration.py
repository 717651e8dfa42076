"""Commits: what each message and each decision adds to the history, and what follows from it."""

from __future__ import annotations

from typing import Any

import pytest

from durably.core.events import (
    Action,
    ActionCanceled,
    AttemptFailed,
    AttemptStarted,
    CancelRequested,
    ChildScheduled,
    ContinuedAsNew,
    CustomStatusSet,
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
    ParentRef,
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
from durably.core.ids import derived_execution_id
from durably.core.instance import InstanceState
from durably.core.messages import (
    TIMER_DUE,
    TIMER_RETRY,
    TIMER_TIMEOUT,
    ActivityDone,
    Cancel,
    ChildDone,
    Continue,
    MessageBody,
    Purge,
    RaiseEvent,
    Resume,
    Rewind,
    StartInstance,
    Suspend,
    Terminate,
    TimerDue,
)
from durably.core.orchestration import Commit
from durably.core.retry import RetrySpec
from durably.errors import FailureDetails, InvariantError

FAILURE = FailureDetails("ValueError", "no")
FATAL = FailureDetails("NonRetryableError", "never", non_retryable=True)
RETRY = RetrySpec(1_000, 3)
TASK = TaskScheduled(0, "work", b"1")
RETRIED = TaskScheduled(0, "work", b"1", RETRY)
TIMED = TaskScheduled(0, "work", b"1", RETRY, timeout_us=50)
CHILD = ChildScheduled(1, "child", "c", b"1")


class Instance:
    """An instance, one batch after the other."""

    def __init__(self, *decisions: Action, parent: ParentRef | None = None, now: int = 100) -> None:
        self.state = InstanceState("i")
        self.now = now
        commit = self.commit()
        commit.begin(ExecutionStarted("i", "flow", None, "e", 0, now, "3.13", parent=parent))
        for decision in decisions:
            commit.decide(decision)
        self.first = commit

    def commit(self, now: int | None = None) -> Commit:
        """The next batch, with its first turn begun."""
        self.now = self.now + 10 if now is None else now
        commit = Commit(self.state)
        commit.turn(self.now)
        return commit

    def receive(self, body: MessageBody, now: int | None = None) -> tuple[Any, Commit]:
        commit = self.commit(now)
        return commit.receive(body), commit


def done(
    seq: int = 0, attempt: int = 1, result: bytes | None = b"2", failure: Any = None, execution: str = "e"
) -> ActivityDone:
    return ActivityDone(execution, seq, attempt, None if failure else result, failure)


def child_done(attempt: int = 1, failure: Any = None, execution: str = "e") -> ChildDone:
    return ChildDone(execution, 1, attempt, None if failure else b"2", failure)


# --- turns -----------------------------------------------------------------------------------------------------------


def test_a_turn_is_recorded_with_its_first_event() -> None:
    instance = Instance()
    commit = instance.commit(500)
    assert commit.events == []
    commit.record(CustomStatusSet(b"1"))
    commit.record(CustomStatusSet(b"2"))
    assert commit.events == [TurnStarted(500), CustomStatusSet(b"1"), CustomStatusSet(b"2")]


def test_several_turns_may_share_a_commit() -> None:
    commit = Instance().commit(500)
    commit.record(CustomStatusSet(b"1"))
    commit.turn(600)
    commit.turn(700)
    commit.record(CustomStatusSet(b"2"))
    assert commit.turns == 3
    assert commit.events == [TurnStarted(500), CustomStatusSet(b"1"), TurnStarted(700), CustomStatusSet(b"2")]


def test_orchestration_time_never_goes_back() -> None:
    instance = Instance(now=100)
    commit = instance.commit(50)
    commit.record(CustomStatusSet(b"1"))
    assert commit.events[0] == TurnStarted(110)
    assert instance.state.now == 110


# --- results ---------------------------------------------------------------------------------------------------------


def test_a_call_starts_its_activity() -> None:
    assert Instance(TASK).first.activities == [(TASK, 1)]


def test_a_result_completes_its_call() -> None:
    event, commit = Instance(TASK).receive(done())
    assert event == TaskCompleted(0, b"2")
    assert commit.events[1:] == [event]


def test_a_failure_without_a_policy_fails_its_call() -> None:
    event, _ = Instance(TASK).receive(done(failure=FAILURE))
    assert event == TaskFailed(0, FAILURE)


@pytest.mark.parametrize(
    "body",
    [
        done(seq=7),
        done(execution="before"),
        child_done(execution="before"),
        child_done(attempt=2),
        ChildDone("e", 0, 1, b"2"),
        ChildDone("e", 7, 1, b"2"),
        TimerDue(1, 7, TIMER_DUE),
        TimerDue(1, 0, TIMER_RETRY),
        TimerDue(1, 0, TIMER_TIMEOUT),
    ],
)
def test_what_belongs_to_nothing_that_is_open_is_ignored(body: MessageBody) -> None:
    event, commit = Instance(TASK, CHILD).receive(body)
    assert (event, commit.events, commit.messages, commit.activities) == (None, [], [], [])


def test_a_result_that_comes_twice_counts_once() -> None:
    instance = Instance(TASK)
    instance.receive(done())
    event, commit = instance.receive(done())
    assert (event, commit.events) == (None, [])


def test_a_result_of_an_older_attempt_is_ignored() -> None:
    instance = Instance(TIMED)
    instance.receive(TimerDue(1, 0, TIMER_TIMEOUT), now=150)
    assert instance.receive(done(attempt=1))[0] is None  # it waits for its next attempt
    instance.receive(TimerDue(1, 0, TIMER_RETRY), now=2_000)
    assert instance.receive(done(attempt=1))[0] is None
    assert instance.receive(done(attempt=2))[0] == TaskCompleted(0, b"2")


def test_a_second_attempt_of_a_call_without_a_policy_does_not_exist() -> None:
    instance = Instance(TASK, TaskScheduled(4, "other", None, RETRY))
    assert instance.receive(done(attempt=2))[0] is None


# --- attempts --------------------------------------------------------------------------------------------------------


def test_a_failed_attempt_sets_the_timer_of_the_next_one() -> None:
    event, commit = Instance(RETRIED).receive(done(failure=FAILURE), now=200)
    assert event == AttemptFailed(0, 1, FAILURE, 1_200)
    assert commit.timers == {(0, TIMER_RETRY): 1_200}


def test_a_due_retry_starts_the_next_attempt() -> None:
    instance = Instance(RETRIED)
    instance.receive(done(failure=FAILURE), now=200)
    event, commit = instance.receive(TimerDue(1, 0, TIMER_RETRY), now=1_200)
    assert event == AttemptStarted(0, 2)
    assert commit.activities == [(RETRIED, 2)]
    assert commit.timers == {(0, TIMER_RETRY): None}


def test_the_last_attempt_fails_the_call() -> None:
    instance = Instance(RETRIED)
    for attempt in (1, 2):
        instance.receive(done(attempt=attempt, failure=FAILURE))
        instance.receive(TimerDue(1, 0, TIMER_RETRY), now=10_000 * attempt)
    event, commit = instance.receive(done(attempt=3, failure=FAILURE))
    assert (event, commit.timers) == (TaskFailed(0, FAILURE), {})


def test_a_failure_that_no_policy_may_retry_fails_the_call() -> None:
    event, commit = Instance(RETRIED).receive(done(failure=FATAL))
    assert (event, commit.timers) == (TaskFailed(0, FATAL), {})


def test_a_policy_that_ran_out_of_time_fails_the_call() -> None:
    task = TaskScheduled(0, "work", None, RetrySpec(1_000, 9, timeout_us=1_500))
    instance = Instance(task)
    assert isinstance(instance.receive(done(failure=FAILURE), now=200)[0], AttemptFailed)
    instance.receive(TimerDue(1, 0, TIMER_RETRY), now=1_200)
    assert instance.receive(done(attempt=2, failure=FAILURE), now=1_300)[0] == TaskFailed(0, FAILURE)


def test_a_declined_retry_takes_its_timer_back() -> None:
    instance = Instance(RETRIED)
    _, commit = instance.receive(done(failure=FAILURE))
    commit.decide(RetryDeclined(0))
    assert commit.timers == {(0, TIMER_RETRY): None}
    assert instance.state.open == {}


def test_a_retry_that_rings_after_it_was_declined_is_ignored() -> None:
    instance = Instance(RETRIED)
    _, commit = instance.receive(done(failure=FAILURE))
    commit.decide(RetryDeclined(0))
    event, commit = instance.receive(TimerDue(1, 0, TIMER_RETRY), now=9_000)
    assert (event, commit.activities) == (None, [])


def test_a_timer_that_rings_early_moves_the_time_to_its_instant() -> None:
    """The clock was set back between the ring and the turn."""
    instance = Instance(RETRIED)
    instance.receive(done(failure=FAILURE), now=200)
    _, commit = instance.receive(TimerDue(1, 0, TIMER_RETRY), now=900)
    assert commit.events == [TurnStarted(1_200), AttemptStarted(0, 2)]


# --- time-outs -------------------------------------------------------------------------------------------------------


def test_a_timed_attempt_arms_its_deadline_and_a_result_takes_it_back() -> None:
    instance = Instance(TIMED)
    assert instance.first.timers == {(0, TIMER_TIMEOUT): 160}
    _, commit = instance.receive(done())
    assert commit.timers == {(0, TIMER_TIMEOUT): None}


def test_a_deadline_aborts_the_attempt_and_counts_as_its_failure() -> None:
    event, commit = Instance(TIMED).receive(TimerDue(1, 0, TIMER_TIMEOUT), now=160)
    assert isinstance(event, AttemptFailed)
    assert (event.failure.type, event.failure.is_caused_by(TimeoutError)) == ("TaskTimeoutError", True)
    assert "work" in event.failure.message
    assert commit.aborted == [0]
    assert commit.timers == {(0, TIMER_TIMEOUT): None, (0, TIMER_RETRY): 1_160}


def test_a_deadline_without_a_policy_fails_the_call() -> None:
    event, commit = Instance(TaskScheduled(0, "work", None, timeout_us=50)).receive(
        TimerDue(1, 0, TIMER_TIMEOUT)
    )
    assert isinstance(event, TaskFailed)
    assert commit.timers == {(0, TIMER_TIMEOUT): None}


def test_each_attempt_has_a_deadline_of_its_own() -> None:
    instance = Instance(TIMED)
    instance.receive(TimerDue(1, 0, TIMER_TIMEOUT), now=160)
    _, commit = instance.receive(TimerDue(1, 0, TIMER_RETRY), now=1_160)
    assert commit.timers == {(0, TIMER_RETRY): None, (0, TIMER_TIMEOUT): 1_210}


# --- timers and events -----------------------------------------------------------------------------------------------


def test_a_timer_is_armed_when_it_is_created_and_cleared_when_it_fires() -> None:
    instance = Instance(TimerCreated(2, 900))
    assert instance.first.timers == {(2, TIMER_DUE): 900}
    event, commit = instance.receive(TimerDue(1, 2, TIMER_DUE), now=900)
    assert (event, commit.timers) == (TimerFired(2), {(2, TIMER_DUE): None})


def test_a_timer_that_is_cancelled_in_the_commit_that_created_it_is_cleared() -> None:
    commit = Instance().commit()
    commit.decide(TimerCreated(2, 900))
    commit.decide(ActionCanceled(2))
    assert commit.timers == {(2, TIMER_DUE): None}


def test_a_wait_without_patience_has_no_timer() -> None:
    assert Instance(EventAwaited(3, "go")).first.timers == {}


def test_an_event_completes_the_first_wait_and_takes_its_timer_back() -> None:
    instance = Instance(EventAwaited(3, "go", 800), EventAwaited(4, "go", 900))
    event, commit = instance.receive(RaiseEvent("GO", b"1"))
    assert event == EventRaised("GO", b"1")
    assert commit.timers == {(3, TIMER_DUE): None}
    assert list(instance.state.open) == [4]


def test_a_wait_whose_event_is_there_already_has_no_timer() -> None:
    instance = Instance()
    _, commit = instance.receive(RaiseEvent("go", b"1"))
    commit.decide(EventAwaited(3, "go", 800))
    assert (commit.timers, instance.state.open) == ({}, {})


def test_an_event_that_nobody_waits_for_is_recorded_and_kept() -> None:
    instance = Instance()
    event, _ = instance.receive(RaiseEvent("go", None))
    assert event == EventRaised("go", None)
    assert instance.state.events is not None
    assert instance.state.events.unconsumed() == [event]


# --- orders ----------------------------------------------------------------------------------------------------------


def test_a_cancel_is_recorded_and_shown_to_the_code() -> None:
    event, commit = Instance(TASK).receive(Cancel("why"))
    assert event == CancelRequested("why")
    assert commit.aborted == []


def test_suspending_and_resuming_are_recorded_once_and_not_shown() -> None:
    instance = Instance()
    event, commit = instance.receive(Suspend("why"))
    assert (event, commit.events[1:]) == (None, [ExecutionSuspended("why")])
    assert instance.receive(Suspend())[1].events == []
    event, commit = instance.receive(Resume("go"))
    assert (event, commit.events[1:]) == (None, [ExecutionResumed("go")])
    assert instance.receive(Resume())[1].events == []


def test_terminating_gives_up_what_is_open_and_leaves_children_alone() -> None:
    instance = Instance(TIMED, CHILD, TimerCreated(2, 900), EventAwaited(3, "go", 800))
    event, commit = instance.receive(Terminate("why"))
    assert event is None
    assert commit.events[1:] == [ExecutionTerminated("why"), *(ActionCanceled(seq) for seq in range(4))]
    assert commit.aborted == [0]
    assert commit.messages == []
    assert commit.timers == {(0, TIMER_TIMEOUT): None, (2, TIMER_DUE): None, (3, TIMER_DUE): None}


def test_terminating_while_a_retry_waits_clears_its_timer_and_aborts_nothing() -> None:
    instance = Instance(RETRIED)
    instance.receive(done(failure=FAILURE))
    _, commit = instance.receive(Terminate())
    assert (commit.aborted, commit.timers) == ([], {(0, TIMER_RETRY): None})


@pytest.mark.parametrize("body", [Purge(), StartInstance("flow", None, "e"), Continue(None, "e")])
def test_what_is_not_for_a_running_instance_breaks_i5(body: MessageBody) -> None:
    with pytest.raises(InvariantError, match="I5"):
        Instance().receive(body)


# --- decisions -------------------------------------------------------------------------------------------------------


def test_a_call_of_a_child_sends_a_start_that_names_its_parent() -> None:
    ((target, body),) = Instance(CHILD).first.messages
    assert target == "c"
    assert isinstance(body, StartInstance)
    assert body.parent == ParentRef("i", "e", 1, life="e", name="flow")
    assert (body.name, body.input, body.execution_id) == (
        "child",
        b"1",
        derived_execution_id("e", "child:1:1"),
    )


def test_the_next_attempt_of_a_child_is_another_instance() -> None:
    child = ChildScheduled(1, "child", "c", b"1", retry=RETRY)
    instance = Instance(child)
    event, _ = instance.receive(child_done(failure=FAILURE), now=200)
    assert isinstance(event, AttemptFailed)
    _, commit = instance.receive(TimerDue(1, 1, TIMER_RETRY), now=1_200)
    ((target, body),) = commit.messages
    assert target == "c~2"
    assert isinstance(body, StartInstance)
    assert body.parent == ParentRef("i", "e", 1, 2, life="e", name="flow")
    assert body.execution_id != derived_execution_id("e", "child:1:1")
    assert instance.receive(child_done(attempt=1))[0] is None
    assert instance.receive(child_done(attempt=2))[0] == TaskCompleted(1, b"2")


def test_a_child_that_is_given_up_is_asked_to_cancel() -> None:
    commit = Instance(CHILD).commit()
    commit.decide(ActionCanceled(1))
    assert [(target, type(body)) for target, body in commit.messages] == [("c", Cancel)]


def test_the_attempt_of_a_child_that_runs_is_the_one_that_is_asked() -> None:
    instance = Instance(ChildScheduled(1, "child", "c", b"1", retry=RETRY))
    instance.receive(child_done(failure=FAILURE), now=200)
    instance.receive(TimerDue(1, 1, TIMER_RETRY), now=1_200)
    commit = instance.commit()
    commit.decide(ActionCanceled(1))
    assert [target for target, _ in commit.messages] == ["c~2"]


def test_a_child_that_waits_for_its_retry_has_nobody_to_ask() -> None:
    instance = Instance(ChildScheduled(1, "child", "c", b"1", retry=RETRY))
    instance.receive(child_done(failure=FAILURE), now=200)
    commit = instance.commit()
    commit.decide(ActionCanceled(1))
    assert (commit.messages, commit.timers) == ([], {(1, TIMER_RETRY): None})


def test_an_activity_that_is_given_up_is_aborted() -> None:
    commit = Instance(TIMED).commit()
    commit.decide(ActionCanceled(0))
    assert (commit.aborted, commit.timers) == ([0], {(0, TIMER_TIMEOUT): None})


def test_giving_up_what_is_not_open_breaks_i6() -> None:
    with pytest.raises(InvariantError, match=r"I6.*#9"):
        Instance().commit().decide(ActionCanceled(9))


def test_an_event_for_another_instance_and_a_start_are_messages() -> None:
    commit = Instance(
        EventSent(0, "j", "go", b"1"), StartSent(1, "other", "k", b"2", start_at=900, tags={"a": "b"})
    ).first
    (first, event), (second, start) = commit.messages
    assert (first, event) == ("j", RaiseEvent("go", b"1"))
    assert (second, start) == (
        "k",
        StartInstance("other", b"2", derived_execution_id("e", "start:1"), tags={"a": "b"}, start_at=900),
    )


@pytest.mark.parametrize(
    "end", [ExecutionCompleted(b"7"), ExecutionFailed(FAILURE), ExecutionCanceled("why")]
)
def test_an_end_gives_up_what_is_open_and_asks_children_to_cancel(end: Action) -> None:
    instance = Instance(TASK, CHILD, TimerCreated(2, 900))
    commit = instance.commit()
    commit.decide(end)
    assert commit.events[1:] == [end, ActionCanceled(0), ActionCanceled(1), ActionCanceled(2)]
    assert commit.aborted == [0]
    assert [(target, type(body)) for target, body in commit.messages] == [("c", Cancel)]
    assert commit.timers == {(2, TIMER_DUE): None}
    assert instance.state.ended


@pytest.mark.parametrize(
    ("end", "result", "failed"),
    [
        (ExecutionCompleted(b"7"), b"7", None),
        (ExecutionFailed(FAILURE), None, "ValueError"),
        (ExecutionCanceled(), None, "CancelledError"),
    ],
)
def test_the_end_of_a_child_is_told_to_its_parent(
    end: Action, result: bytes | None, failed: str | None
) -> None:
    instance = Instance(parent=ParentRef("p", "pe", 4, 2))
    commit = instance.commit()
    commit.decide(end)
    ((target, body),) = commit.messages
    assert target == "p"
    assert isinstance(body, ChildDone)
    assert (body.execution_id, body.seq, body.attempt, body.result) == ("pe", 4, 2, result)
    assert (body.failure.type if body.failure else None) == failed


def test_a_terminated_child_tells_its_parent() -> None:
    _, commit = Instance(parent=ParentRef("p", "pe", 4)).receive(Terminate("why"))
    ((target, body),) = commit.messages
    assert target == "p"
    assert isinstance(body, ChildDone)
    assert body.failure == FailureDetails("Terminated", "why")


def test_continuing_as_new_carries_unconsumed_events_and_the_status_and_tells_no_parent() -> None:
    instance = Instance(TASK, CustomStatusSet(b'"half"'), parent=ParentRef("p", "pe", 4))
    _, commit = instance.receive(RaiseEvent("go", b"1"))
    commit.decide(ContinuedAsNew(b"5"))
    assert commit.aborted == [0]
    ((target, body),) = commit.messages
    assert (target, body) == (
        "i",
        Continue(b"5", derived_execution_id("e", "next"), (EventRaised("go", b"1"),), b'"half"'),
    )


def test_continuing_as_new_may_leave_events_behind() -> None:
    instance = Instance()
    _, commit = instance.receive(RaiseEvent("go", b"1"))
    commit.decide(ContinuedAsNew(None, preserve_events=False))
    ((_, body),) = commit.messages
    assert isinstance(body, Continue)
    assert body.carried == ()


# --- lines of rewinds ------------------------------------------------------------------------------------------------


def rewound_instance(until: int = 2) -> Instance:
    instance = Instance(CHILD)
    commit = instance.commit()
    commit.record(Rewound(1, "00", None, (), (), (), 0, {"before": until}))
    return instance


def test_a_child_of_the_execution_before_may_still_succeed() -> None:
    event, _ = rewound_instance().receive(child_done(execution="before"))
    assert event == TaskCompleted(1, b"2")


def test_a_child_of_the_execution_before_that_did_not_succeed_is_wanted_once_more() -> None:
    instance = rewound_instance()
    event, commit = instance.receive(child_done(execution="before", failure=FAILURE))
    assert event is None
    assert commit.events == []
    ((target, body),) = commit.messages
    assert target == "c"
    assert isinstance(body, Rewind)
    assert (body.parent, body.lineage) == (ParentRef("i", "e", 1, life="e"), ("before",))
    assert body.start is not None
    assert body.start.parent == ParentRef("i", "e", 1, life="e", name="flow")
    assert instance.receive(child_done(failure=FAILURE))[0] == TaskFailed(1, FAILURE)


@pytest.mark.parametrize("done", [child_done(execution="before"), child_done(execution="stranger")])
def test_a_child_of_a_call_behind_the_cut_or_of_a_stranger_is_not_listened_to(done: ChildDone) -> None:
    event, commit = rewound_instance(until=1).receive(done)
    assert (event, commit.events, commit.messages) == (None, [], [])


def test_an_order_to_a_child_reaches_one_of_the_execution_before() -> None:
    instance = rewound_instance()
    commit = instance.commit()
    commit.decide(ActionCanceled(1))
    assert commit.messages == [
        ("c", Cancel("its caller gave it up", ParentRef("i", "e", 1, life="e"), ("before",)))
    ]


def test_a_recursive_terminate_reaches_children_that_are_open_and_those_that_were_given_up() -> None:
    second = ChildScheduled(2, "child", "d", None)
    instance = Instance(CHILD, second)
    instance.commit().decide(ActionCanceled(1))
    _, commit = instance.receive(Terminate("why", recursive=True))
    assert commit.messages == [
        (target, Terminate("why", recursive=True, parent=ParentRef("i", "e", seq, life="e")))
        for target, seq in (("c", 1), ("d", 2))
    ]


def test_a_child_that_waits_for_its_next_attempt_has_nobody_to_terminate() -> None:
    retried = ChildScheduled(1, "child", "c", None, retry=RETRY)
    instance = Instance(retried)
    instance.receive(child_done(failure=FAILURE))
    _, commit = instance.receive(Terminate("why", recursive=True))
    assert commit.messages == []
