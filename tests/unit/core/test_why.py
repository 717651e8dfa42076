"""One sentence for each thing that an instance may wait for."""

from __future__ import annotations

from typing import Any

import pytest

from durably.core.commit import InstanceRow
from durably.core.events import (
    AttemptFailed,
    AttemptStarted,
    ChildScheduled,
    ContinuedAsNew,
    EventAwaited,
    ExecutionCompleted,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    HistoryEvent,
    TaskCompleted,
    TaskScheduled,
    TimerCreated,
    TurnStarted,
)
from durably.core.history import encode_failure
from durably.core.retry import RetrySpec
from durably.core.why import needs_history, open_children, why
from durably.errors import FailureDetails

SECOND = 1_000_000
T0 = 1_767_225_600 * SECOND  # 2026-01-01
NOW = T0 + 3_600 * SECOND
SINCE = "since 2026-01-01T00:00:00Z (1 h)"
FAILURE = FailureDetails("ValueError", "no\nfunds.")
RETRY = RetrySpec(SECOND, 5)


def row(status: str = "Running", **more: Any) -> InstanceRow:
    plain = InstanceRow(
        "i", 1, 0, "e", "flow", None, status, T0, T0, None, None, None, None, None, None, False, None, None, None
    )  # fmt: skip
    return plain._replace(**more)


def asked(*events: HistoryEvent, status: str = "Running", **more: Any) -> str:
    history = [TurnStarted(T0), ExecutionStarted("i", "flow", None, "e", 0, T0, "3.13"), *events]
    return why(row(status), history, NOW, **more)


def after(seconds: float) -> int:
    return NOW + int(seconds * SECOND)


# --- the instance as a whole -----------------------------------------------------------------------------------------


def test_how_it_ended() -> None:
    ended = "at 2026-01-01T00:00:00Z (1 h ago)"
    assert why(row("Completed"), [], NOW) == f"Ended as Completed {ended}."
    failed = row("Failed", failure=encode_failure(FAILURE))
    assert why(failed, [], NOW) == f"Ended as Failed {ended}: ValueError: no funds."
    assert why(failed, [], NOW, served=False) == why(failed, [], NOW)  # nobody has to serve what has ended


def test_an_end_that_is_newer_than_the_row() -> None:
    assert asked(ExecutionCompleted(None)) == "Ended as Completed a moment ago."


def test_parked_comes_before_blocked() -> None:
    both = row(parked="It broke I6 three times.", blocked="x")
    assert why(both, [], NOW) == "Is parked, set aside with its messages: It broke I6 three times."


def test_blocked_with_the_head_of_the_diff() -> None:
    diff = "Instance 'i' does not replay at step 3\n  history says:  activity 'a' (#1)\n  code now does: timer (#1)\n\n  rest"
    assert why(row(blocked=diff), [], NOW) == (
        "Is blocked, its code and its history disagree: Instance 'i' does not replay at step 3; "
        "history says: activity 'a' (#1); code now does: timer (#1)."
    )


def test_suspended_with_its_reason() -> None:
    goes_on = "it goes on when it is resumed"
    assert asked(ExecutionSuspended("audit")) == f"Is suspended {SINCE}: 'audit'; {goes_on}."
    assert asked(ExecutionSuspended()) == f"Is suspended {SINCE}: no reason was given; {goes_on}."
    unserved = asked(ExecutionSuspended(), served=False)
    assert unserved.endswith(f"{goes_on}; no host serves the hub.")
    assert asked(ExecutionSuspended(), ExecutionResumed(), EventAwaited(0, "Go")).startswith(
        "Waits for event"
    )


def test_a_scheduled_start() -> None:
    pending = row("Pending", start_at=after(3 * 86_400))
    text = "Waits for its scheduled start at 2026-01-04T01:00:00Z (in 3 d)"
    assert why(pending, [], NOW) == f"{text}."
    assert why(pending, [], NOW, served=False) == f"{text}; no host serves the hub."
    assert why(pending._replace(start_at=T0), [], NOW).startswith("Waits to be started; ")


def test_a_start_that_no_host_has_taken_in() -> None:
    accepted = "it was accepted at 2026-01-01T00:00:00Z (1 h ago)."
    pending = row("Pending", execution=0)
    assert (
        why(pending, [], NOW, served=False) == f"Waits to be started, but no host serves the hub; {accepted}"
    )
    assert why(pending, [], NOW) == f"Waits to be started; {accepted}"


def test_between_two_executions() -> None:
    assert asked(ContinuedAsNew(None)) == "Waits for its next execution to begin."


def test_nothing_open() -> None:
    assert asked() == "Waits for its next turn, which has what it needs."


# --- one open thing --------------------------------------------------------------------------------------------------


def test_an_event() -> None:
    assert asked(EventAwaited(0, "Go")) == f"Waits for event 'Go' {SINCE}."
    patient = asked(EventAwaited(0, "Go", after(10_800)))
    assert patient == f"Waits for event 'Go' {SINCE}, giving up in 3 h."
    assert asked(EventAwaited(0, "Go", after(-1))) == f"Waits for event 'Go' {SINCE}, giving up now."
    assert (
        asked(EventAwaited(0, "Go"), served=False) == f"Waits for event 'Go' {SINCE}; no host serves the hub."
    )


def test_a_timer() -> None:
    due = asked(TimerCreated(0, after(10_800)))
    assert due == "Waits for the timer due at 2026-01-01T04:00:00Z (in 3 h)."
    late = asked(TimerCreated(0, after(-2)))
    assert late == "Waits for the timer due at 2026-01-01T00:59:58Z (overdue by 2.0 s)."


def test_an_activity() -> None:
    task = TaskScheduled(4, "charge", None)
    assert asked(task) == f"Waits for activity 'charge' #4 running {SINCE}."
    assert (
        asked(task, served=False) == f"Waits for activity 'charge' #4 open {SINCE}; no host serves the hub."
    )
    with_timeout = TaskScheduled(4, "charge", None, timeout_us=3_620 * SECOND)
    assert asked(with_timeout) == f"Waits for activity 'charge' #4 running {SINCE}, timing out in 20 s."


def test_an_activity_between_two_attempts_and_at_a_later_one() -> None:
    task = TaskScheduled(4, "charge", None, RETRY)
    failed = AttemptFailed(4, 2, FAILURE, after(12))
    assert asked(task, failed) == (
        "Waits for attempt 3 of 5 of activity 'charge' #4 in 12 s (the last one failed: ValueError: no funds)."
    )
    again = asked(task, failed, TurnStarted(T0 + 1_800 * SECOND), AttemptStarted(4, 3))
    assert again == (
        "Waits for attempt 3 of 5 of activity 'charge' #4 running since 2026-01-01T00:30:00Z (30 min)."
    )


@pytest.mark.parametrize(
    ("child", "word"),
    [
        (row("Running"), " (Running)"),
        (row("Suspended"), " (Suspended)"),
        (row(blocked="x"), " (blocked)"),
        (row(parked="x"), " (parked)"),
        (None, ""),
    ],
)
def test_a_child_and_its_status(child: InstanceRow | None, word: str) -> None:
    children = {} if child is None else {"i:0:0007": child}
    text = asked(ChildScheduled(7, "ship", "i:0:0007", None), children=children)
    assert text == f"Waits for child 'ship' #7 with id 'i:0:0007'{word} {SINCE}."


def test_a_later_attempt_of_a_child_has_an_id_of_its_own() -> None:
    call = ChildScheduled(7, "ship", "c", None, retry=RETRY)
    history = [call, AttemptFailed(7, 1, FAILURE, after(-1)), AttemptStarted(7, 2)]
    text = asked(*history, children={"c~2": row("Suspended")})
    assert text == f"Waits for attempt 2 of 5 of child 'ship' #7 with id 'c~2' (Suspended) {SINCE}."
    assert open_children(row(), [TurnStarted(T0), *history]) == ["c~2"]


# --- several ---------------------------------------------------------------------------------------------------------


def test_two_and_three_are_all_named_and_timers_come_last() -> None:
    timer, event = TimerCreated(0, after(60)), EventAwaited(1, "Go")
    named = f"event 'Go' {SINCE} and the timer due at 2026-01-01T01:01:00Z (in 1 min)"
    assert asked(timer, event) == f"Waits for {named}."
    three = asked(timer, event, TaskScheduled(2, "pack", None))
    assert three == (
        f"Waits for event 'Go' {SINCE}, activity 'pack' #2 running {SINCE} "
        "and the timer due at 2026-01-01T01:01:00Z (in 1 min)."
    )


def test_of_many_the_decisive_ones_and_how_many_more() -> None:
    calls = [TaskScheduled(seq, "pack", None) for seq in range(1_000)]
    failing = TaskScheduled(1_000, "charge", None, RETRY)
    child = ChildScheduled(1_001, "ship", "c", None)
    text = asked(
        *calls,
        TaskCompleted(0, None),
        failing,
        AttemptFailed(1_000, 1, FAILURE, after(5)),
        child,
        children={"c": row("Suspended")},
    )
    assert text == (
        "Waits for attempt 2 of 5 of activity 'charge' #1000 in 5.0 s (the last one failed: ValueError: no funds), "
        f"child 'ship' #1001 with id 'c' (Suspended) {SINCE} and 999 more."
    )


def test_names_with_line_breaks_stay_in_the_sentence() -> None:
    assert asked(EventAwaited(0, "Go\nnow")) == f"Waits for event 'Go now' {SINCE}."


# --- what is needed to answer ----------------------------------------------------------------------------------------


def test_a_damaged_history_is_not_read_where_the_row_says_it_all() -> None:
    assert needs_history(row())
    assert needs_history(row("Suspended"))
    for other in (row("Failed"), row(parked="x"), row(blocked="x"), row("Pending"), row(execution=0)):
        assert not needs_history(other)
