"""History entries in, a tree out."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from durably import App, HistoryEntry, InstanceStatus, OrchestrationContext, RetryPolicy, RuntimeStatus
from durably.cli.steps import GROUP_ABOVE, Group, Step, Tree, tree_of

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def entry(
    event_type: str, seconds: float, task_id: int | None = None, name: str | None = None, **details: Any
) -> HistoryEntry:
    return HistoryEntry(
        event_type=event_type, timestamp=at(seconds), task_id=task_id, name=name, details=details
    )


def status(runtime_status: RuntimeStatus = RuntimeStatus.Running, **more: Any) -> InstanceStatus:
    return InstanceStatus(
        instance_id="i",
        name="main",
        runtime_status=runtime_status,
        created_time=T0,
        last_updated_time=T0,
        **more,
    )


def tree(*entries: HistoryEntry) -> Tree:
    return tree_of([entry("ExecutionStarted", 0, None, "main", ordinal=0), *entries], status())


def only(*entries: HistoryEntry) -> Step:
    (step,) = tree(*entries).steps
    return step


FAILURE = {"type": "ValueError", "message": "no"}


def test_a_call_runs_from_when_it_was_scheduled_to_when_it_completed():
    running = only(entry("TaskScheduled", 1, 0, "charge"))
    assert (running.kind, running.label, running.state, running.ended) == (
        "activity",
        "charge",
        "running",
        None,
    )

    done = only(entry("TaskScheduled", 1, 0, "charge"), entry("TaskCompleted", 3, 0, "charge"))
    assert (done.state, done.started, done.ended) == ("done", at(1), at(3))


def test_a_failed_call_says_why():
    step = only(entry("TaskScheduled", 1, 0, "charge"), entry("TaskFailed", 3, 0, "charge", failure=FAILURE))
    assert (step.state, step.failure, step.ended) == ("failed", "ValueError: no", at(3))


def test_a_failure_may_have_no_message():
    step = only(
        entry("TaskScheduled", 1, 0, "charge"),
        entry("TaskFailed", 3, 0, "charge", failure={"type": "KeyError"}),
    )
    assert step.failure == "KeyError"


def test_between_attempts_a_call_shows_the_next_one_and_when_it_is_due():
    entries = [
        entry("TaskScheduled", 1, 0, "charge"),
        entry("TaskAttemptFailed", 2, 0, "charge", attempt=1, failure=FAILURE, retry_at=at(7).isoformat()),
    ]
    step = only(*entries)
    assert (step.state, step.attempt, step.due, step.failure) == ("retrying", 2, at(7), "ValueError: no")

    entries.append(entry("TaskAttemptStarted", 7, 0, "charge", attempt=2))
    step = only(*entries)
    assert (step.state, step.attempt, step.due) == ("running", 2, None)

    entries.append(entry("TaskCompleted", 8, 0, "charge"))
    step = only(*entries)
    assert (step.state, step.attempt, step.failure) == ("done", 2, None)


def test_an_attempt_that_was_declined_is_not_counted():
    step = only(
        entry("TaskScheduled", 1, 0, "charge"),
        entry("TaskAttemptFailed", 2, 0, "charge", attempt=1, failure=FAILURE, retry_at=at(7).isoformat()),
        entry("RetryDeclined", 2, 0, "charge"),
    )
    assert (step.state, step.attempt, step.failure) == ("failed", 1, "ValueError: no")


def test_a_sub_orchestration_is_followed_under_the_id_of_its_attempt():
    entries = [entry("SubOrchestrationInstanceCreated", 1, 0, "child", instance_id="i:0:0000")]
    assert only(*entries).child_id == "i:0:0000"

    entries += [
        entry("TaskAttemptFailed", 2, 0, "child", attempt=1, failure=FAILURE, retry_at=at(3).isoformat()),
        entry("TaskAttemptStarted", 3, 0, "child", attempt=2),
    ]
    assert only(*entries).child_id == "i:0:0000~2"

    entries.append(entry("SubOrchestrationInstanceCompleted", 4, 0, "child"))
    step = only(*entries)
    assert (step.kind, step.state) == ("child", "done")


def test_a_timer_waits_until_it_fires():
    entries = [entry("TimerCreated", 1, 0, fire_at=at(5).isoformat())]
    step = only(*entries)
    assert (step.label, step.state, step.due) == ("timer", "waiting", at(5))
    step = only(*entries, entry("TimerFired", 5, 0))
    assert (step.state, step.due, step.ended) == ("done", None, at(5))


def test_a_cancelled_timer_is_not_shown():
    found = tree(entry("TimerCreated", 1, 0, fire_at=at(5).isoformat()), entry("TimerCanceled", 2, 0))
    assert found.steps[0].state == "canceled"
    assert found.shown() == []


def test_a_wait_ends_with_its_event_whatever_its_case():
    entries = [entry("EventAwaited", 1, 0, "Go")]
    assert (only(*entries).label, only(*entries).state) == ("event Go", "waiting")
    step = only(*entries, entry("EventRaised", 4, None, "GO"))
    assert (step.state, step.ended) == ("done", at(4))


def test_events_go_to_waits_in_order():
    found = tree(
        entry("EventAwaited", 1, 0, "Go"),
        entry("EventAwaited", 1, 1, "Go"),
        entry("EventRaised", 2, None, "go"),
    )
    assert [step.state for step in found.steps] == ["done", "waiting"]


def test_an_event_that_came_first_ends_the_wait_at_once():
    step = only(entry("EventRaised", 1, None, "Go"), entry("EventAwaited", 4, 0, "Go"))
    assert (step.state, step.started, step.ended) == ("done", at(4), at(4))


def test_a_wait_that_timed_out_or_was_cancelled_takes_no_event():
    late = [
        entry("EventRaised", 6, None, "Go"),
        entry("EventAwaited", 6, 1, "Go"),
    ]
    waiting = entry("EventAwaited", 1, 0, "Go", fire_at=at(5).isoformat())
    timed_out, second = tree(waiting, entry("TimerFired", 5, 0, "Go"), *late).steps
    assert (timed_out.state, timed_out.timed_out, second.state) == ("done", True, "done")

    canceled, second = tree(waiting, entry("TaskCanceled", 5, 0, "Go"), *late).steps
    assert (canceled.state, second.state) == ("canceled", "done")


def test_what_is_sent_is_done():
    found = tree(
        entry("EventSent", 1, 0, "Go", instance_id="x"),
        entry("OrchestrationStarted", 1, 1, "other", instance_id="y"),
    )
    assert [(step.label, step.state) for step in found.steps] == [
        ("send Go", "done"),
        ("start other", "done"),
    ]


def test_events_of_newer_versions_are_passed_over():
    assert (
        tree(entry("SomethingNew", 1), entry("SomethingNew", 1, 7), entry("TaskCompleted", 2, 9)).steps == []
    )


@pytest.mark.parametrize(
    ("event_type", "state", "word"),
    [
        ("ExecutionCompleted", "done", "Completed"),
        ("ExecutionFailed", "failed", "Failed"),
        ("ExecutionCanceled", "canceled", "Canceled"),
        ("ExecutionTerminated", "canceled", "Terminated"),
    ],
)
def test_the_end_of_the_instance(event_type: str, state: str, word: str):
    found = tree(entry(event_type, 9, failure=FAILURE if state == "failed" else None))
    assert (found.state, found.status, found.started, found.ended) == (state, word, at(0), at(9))
    assert found.failure == ("ValueError: no" if state == "failed" else None)


def test_what_no_event_says_comes_from_the_status():
    pending = tree_of([], status(RuntimeStatus.Pending))
    assert (pending.name, pending.state, pending.status, pending.started) == (
        "main",
        "waiting",
        "Pending",
        None,
    )
    assert tree_of([], status(RuntimeStatus.Suspended)).status == "Suspended"
    blocked = tree_of([], status(blocked="the diff"))
    assert (blocked.state, blocked.status, blocked.blocked) == ("waiting", "Blocked", "the diff")


def test_a_status_that_is_newer_than_the_history_does_not_end_the_tree():
    found = tree_of([entry("TaskScheduled", 1, 0, "charge")], status(RuntimeStatus.Completed))
    assert (found.state, found.status, found.ended) == ("running", "Running", None)


def test_custom_status_and_execution():
    started = entry("ExecutionStarted", 0, None, "main", ordinal=3, custom_status='"old"')
    found = tree_of([started], status())
    assert (found.ordinal, found.custom_status) == (3, '"old"')
    change = HistoryEntry(event_type="CustomStatusSet", timestamp=at(1), result='"new"')
    assert tree_of([started, change], status()).custom_status == '"new"'


def scheduled(count: int, *, name: str = "resize") -> list[HistoryEntry]:
    return [entry("TaskScheduled", 1, seq, name) for seq in range(count)]


def test_few_calls_have_lines_of_their_own_many_have_one():
    assert len(tree(*scheduled(GROUP_ABOVE)).shown()) == GROUP_ABOVE

    found = tree(
        entry("TaskScheduled", 0, 5000, "before"),
        *scheduled(1000),
        entry("TaskCompleted", 3, 1, "resize"),
        entry("TaskFailed", 4, 2, "resize", failure=FAILURE),
        entry("TaskScheduled", 5, 5001, "after"),
    )
    before, group, after = found.shown()
    assert (before.label, after.label) == ("before", "after")
    assert isinstance(group, Group)
    assert (group.label, group.total, group.open) == ("resize", 1000, 998)
    assert (group.tally["done"], group.tally["failed"], group.failure) == (1, 1, "ValueError: no")
    assert (group.state, group.concurrent, group.started, group.ended) == ("running", True, at(1), None)


def test_a_group_ends_with_the_last_of_its_calls():
    ends = [entry("TaskCompleted", 2 + seq, seq, "resize") for seq in range(12)]
    (group,) = tree(*scheduled(12), *ends).shown()
    assert (group.state, group.ended) == ("done", at(13))


def test_a_loop_is_a_group_that_knows_no_total():
    entries: list[HistoryEntry] = []
    for seq in range(20):
        entries += [entry("TaskScheduled", seq, seq, "poll"), entry("TaskCompleted", seq + 1, seq, "poll")]
    (group,) = tree(*entries).shown()
    assert isinstance(group, Group)
    assert not group.concurrent


def test_waits_in_a_group_wait():
    (group,) = tree(*(entry("EventAwaited", 1, seq, "Go") for seq in range(12))).shown()
    assert group.state == "waiting"


def test_children_in_a_group_are_not_read_and_others_are():
    def created(seq: int, name: str) -> HistoryEntry:
        return entry("SubOrchestrationInstanceCreated", 1, seq, name, instance_id=f"i:0:{seq}")

    found = tree(*(created(seq, "many") for seq in range(50)), created(50, "one"))
    assert [step.child_id for step in found.children()] == ["i:0:50"]


def test_a_tree_is_walked_with_its_children():
    root, child = tree(entry("SubOrchestrationInstanceCreated", 1, 0, "child", instance_id="c")), tree()
    root.steps[0].child = child
    assert list(root.walk()) == [root, child]


# --- against the engine: the names of entries are agreed upon there ----------------------------------------------------

app = App()


@app.activity
async def flaky(count: int) -> int:
    tries.append(count)
    if len(tries) < 2:
        raise ValueError("not yet")
    return count


tries: list[int] = []


@app.orchestrator
async def child(ctx: OrchestrationContext) -> None:
    await ctx.create_timer(timedelta(microseconds=1))


@app.orchestrator
async def everything(ctx: OrchestrationContext) -> str:
    ctx.set_custom_status("busy")
    await ctx.call_activity(flaky, 1, retry=RetryPolicy(0.001, 3))
    await ctx.call_sub_orchestrator(child)
    await ctx.wait_for_external_event("Never", timeout=0.001, default=None)
    async with asyncio.timeout(60):
        await ctx.wait_for_external_event("Go")
    ctx.send_event("i", "Echo", None)
    return "done"


def test_a_history_of_the_engine_is_understood():
    async def history() -> tuple[list[HistoryEntry], InstanceStatus | None]:
        async with app.host("memory://") as host:
            handle = await host.client.start(everything, instance_id="i")
            await handle.raise_event("Go")
            await handle.result(timeout=60)
            return await handle.history(), await handle.status()

    tries.clear()
    entries, found = asyncio.run(history())
    assert found is not None
    whole = tree_of(entries, found)
    assert (whole.name, whole.state, whole.status, whole.custom_status) == (
        "everything",
        "done",
        "Completed",
        '"busy"',
    )
    assert [(step.label, step.state) for step in whole.steps] == [
        ("flaky", "done"),
        ("child", "done"),
        ("event Never", "done"),
        ("timer", "canceled"),
        ("event Go", "done"),
        ("send Echo", "done"),
    ]
    assert whole.steps[0].attempt == 2
    assert whole.steps[1].child_id == "i:0:0001"
    assert whole.steps[2].timed_out


def test_what_is_open_when_an_instance_is_rewound_is_due_later() -> None:
    shown = tree(
        entry("TimerCreated", 1, 0, fire_at=at(60).isoformat()),
        entry("TimerCreated", 1, 1, fire_at=at(10).isoformat()),
        entry("ExecutionRewound", 100, shift_us=90_000_000, late=[1], custom_status='"half"'),
    )
    assert [step.due for step in shown.steps] == [at(150), at(10)]
    assert shown.custom_status == '"half"'
