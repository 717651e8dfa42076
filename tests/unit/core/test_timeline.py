"""Histories for people: names, times, payloads as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from durably.core.events import (
    ActionCanceled,
    AttemptFailed,
    AttemptStarted,
    ChildScheduled,
    CustomStatusSet,
    Dropped,
    EntityCalled,
    EntitySignaled,
    EventAwaited,
    EventRaised,
    ExecutionCompleted,
    ExecutionStarted,
    HistoryEvent,
    LockGranted,
    LockReleased,
    LockRequested,
    Rewound,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
    TurnStarted,
)
from durably.core.timeline import HistoryEntry, instant, timeline
from durably.errors import FailureDetails

SECOND = 1_000_000
FAILURE = FailureDetails("ValueError", "no")


def last(*events: HistoryEvent) -> HistoryEntry:
    return timeline([TurnStarted(SECOND), *events])[-1]


def test_each_event_is_an_entry_at_the_time_of_its_turn() -> None:
    entries = timeline(
        [
            TurnStarted(SECOND),
            ExecutionStarted("i", "flow", b'"in"', "e", 0, SECOND, "3.13"),
            TaskScheduled(0, "work", b"[1]"),
            TurnStarted(3 * SECOND),
            TaskCompleted(0, b"2"),
            ExecutionCompleted(b"3"),
        ]
    )
    assert [(entry.event_type, entry.timestamp.second, entry.task_id, entry.name) for entry in entries] == [
        ("OrchestratorStarted", 1, None, None),
        ("ExecutionStarted", 1, None, "flow"),
        ("TaskScheduled", 1, 0, "work"),
        ("OrchestratorStarted", 3, None, None),
        ("TaskCompleted", 3, 0, "work"),
        ("ExecutionCompleted", 3, None, None),
    ]
    assert [entry.input for entry in entries] == [None, '"in"', "[1]", None, None, None]
    assert [entry.result for entry in entries] == [None, None, None, None, "2", "3"]


def test_the_result_of_a_child_has_the_names_of_sub_orchestrations() -> None:
    child = ChildScheduled(1, "child", "c", None)
    assert last(child).event_type == "SubOrchestrationInstanceCreated"
    completed, failed = last(child, TaskCompleted(1, b"1")), last(child, TaskFailed(1, FAILURE))
    assert (completed.event_type, completed.name) == ("SubOrchestrationInstanceCompleted", "child")
    assert failed.event_type == "SubOrchestrationInstanceFailed"
    assert failed.details["failure"]["message"] == "no"


@pytest.mark.parametrize(
    ("action", "event_type"),
    [(TimerCreated(0, SECOND), "TimerCanceled"), (TaskScheduled(0, "work", None), "TaskCanceled"),
     (EventAwaited(0, "go"), "TaskCanceled")],
)  # fmt: skip
def test_what_was_given_up_is_named_by_what_it_was(action: HistoryEvent, event_type: str) -> None:
    assert last(action, ActionCanceled(0)).event_type == event_type


def test_a_child_that_was_given_up_is_told_from_an_activity() -> None:
    assert last(ChildScheduled(0, "child", "c", None), ActionCanceled(0)).event_type.startswith(
        "SubOrchestration"
    )


def test_operations_of_entities_have_their_names_from_the_call_to_its_end() -> None:
    called = EntityCalled(0, "@counter@a", "add", b"1")
    entries = [
        last(called),
        last(called, TaskCompleted(0, b"2")),
        last(called, TaskFailed(0, FAILURE)),
        last(called, ActionCanceled(0)),
        last(EntitySignaled(0, "@counter@a", "add", b"1")),
    ]
    assert [(entry.event_type, entry.task_id, entry.name) for entry in entries] == [
        ("EntityOperationCalled", 0, "add"),
        ("EntityOperationCompleted", 0, "add"),
        ("EntityOperationFailed", 0, "add"),
        ("EntityOperationCanceled", 0, "add"),
        ("EntityOperationSignaled", 0, "add"),
    ]
    assert entries[0].details == entries[4].details == {"entity": "@counter@a"}
    assert (entries[0].input, entries[1].result) == ("1", "2")


def test_locks_of_entities_have_the_names_of_durable_functions() -> None:
    assert last(LockRequested(0, ("@counter@a",))).event_type == "EntityLockRequested"
    assert last(LockGranted(0, "@counter@a")).event_type == "EntityLockGranted"
    assert last(LockReleased(0)).event_type == "EntityUnlockSent"


def test_attempts_tell_number_time_and_failure() -> None:
    task = TaskScheduled(0, "work", None)
    failed = last(task, AttemptFailed(0, 2, FAILURE, 5 * SECOND))
    assert failed.event_type == "TaskAttemptFailed"
    assert failed.details["attempt"] == 2
    assert failed.details["retry_at"] == "1970-01-01T00:00:05+00:00"
    assert last(task, AttemptStarted(0, 3)).event_type == "TaskAttemptStarted"


def test_timers_and_waits_tell_when_they_end() -> None:
    assert last(TimerCreated(0, 5 * SECOND)).details == {"fire_at": "1970-01-01T00:00:05+00:00"}
    assert last(TimerCreated(0, 5), TimerFired(0)).event_type == "TimerFired"
    assert last(EventAwaited(0, "go")).details == {}


def test_external_events_keep_name_and_payload() -> None:
    entry = last(EventRaised("Go", b'{"a":1}'))
    assert (entry.event_type, entry.name, entry.input) == ("EventRaised", "Go", '{"a":1}')


def test_a_custom_status_is_its_result() -> None:
    assert last(CustomStatusSet(b"5")).result == "5"
    assert last(CustomStatusSet(None)).result is None


def test_an_instant_is_exact_to_the_microsecond() -> None:
    assert instant(1_234_567) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=1_234_567)
    assert instant(253_402_300_799_999_999).year == 9999


def test_a_rewind_says_what_it_did() -> None:
    dropped = (Dropped(2, "TaskScheduled", "undo"), Dropped(3, "ChildScheduled", "flow", "c", 2))
    entry = last(Rewound(7, "0a", "mended", (1,), dropped, (), 5 * SECOND, {"e0": 2}, b'"half"'))
    assert entry.event_type == "ExecutionRewound"
    assert entry.task_id is None
    assert entry.details == {
        "base_execution": 7,
        "base_checksum": "0a",
        "reason": "mended",
        "failed": [1],
        "dropped": [
            {"seq": 2, "kind": "TaskScheduled", "name": "undo", "attempts": 1},
            {"seq": 3, "kind": "ChildScheduled", "name": "flow", "child": "c", "attempts": 2},
        ],
        "shift_us": 5 * SECOND,
        "lineage": {"e0": 2},
        "custom_status": '"half"',
    }
