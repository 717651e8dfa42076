"""Replay against changed code: every difference is found, and told so that one can act on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durably.core.events import (
    ActionCanceled,
    ExecutionStarted,
    ExecutionTerminated,
    HistoryEvent,
    TaskCompleted,
    TurnStarted,
)
from durably.errors import NonDeterminismError
from durably.program.context import OrchestrationContext
from tests.unit.program.corpus import CORPUS
from tests.unit.program.harness import Play, kinds

Program = Callable[[OrchestrationContext], Any]


def replay_with(code: Program, history: list[HistoryEvent]) -> Play:
    play = Play(code, shadow=False)
    play.replayed(history).close()
    return play


def told(code: Program, history: list[HistoryEvent]) -> str:
    with pytest.raises(NonDeterminismError) as caught:
        replay_with(code, history)
    assert caught.value.instance_id == "play"
    assert caught.value.diff == str(caught.value)
    return caught.value.diff


def recorded(code: Program, *completed: int) -> list[HistoryEvent]:
    play = Play(code, shadow=False)
    for seq in completed:
        play.complete(seq)
    return play.history


async def original(ctx: OrchestrationContext) -> None:
    await ctx.call_activity("charge")
    await ctx.call_activity("ship")
    await ctx.call_activity("thank")


@pytest.mark.parametrize("name", CORPUS)
def test_4_1_1_a_replay_with_unchanged_code_decides_nothing_and_has_the_same_open(name: str) -> None:
    fn, input, script = CORPUS[name]
    play = Play(fn, input, shadow=False)
    script(play)
    turns = [i for i, event in enumerate(play.history) if isinstance(event, TurnStarted)]
    cut = play.history[: turns[len(turns) // 2]]
    first, second = play.replayed(cut), play.replayed(cut)
    assert list(first._decisions.open) == list(second._decisions.open) != []
    assert list(first._decisions.made) == []
    first.close()
    second.close()


def test_4_1_5_another_name_is_told_with_number_and_both_sides() -> None:
    async def changed(ctx: OrchestrationContext) -> None:
        await ctx.call_activity("charge")
        await ctx.call_activity("deliver")

    text = told(changed, recorded(original, 0))
    line = changed.__code__.co_firstlineno + 2
    assert "Instance 'play' (orchestrator 'changed') does not replay at step 5" in text
    assert "history says:  activity 'ship' (#1)" in text
    assert f"code now does: activity 'deliver' (#1) at {__file__}:{line} in changed" in text
    assert "  4    #0 completed" in text
    assert "  5  - activity 'ship' (#1)" in text
    assert f"  5  + activity 'deliver' (#1) at {__file__}:{line} in changed" in text
    assert "The instance is blocked, and nothing is lost. Deploy code" in text


def test_4_1_5_another_kind_is_told() -> None:
    async def changed(ctx: OrchestrationContext) -> None:
        await ctx.call_activity("charge")
        async with asyncio.timeout(5):
            await ctx.call_activity("ship")

    text = told(changed, recorded(original, 0))
    assert "history says:  activity 'ship' (#1)" in text
    assert f"code now does: timer (#1) at {__file__}:" in text  # the line of the user, not that of asyncio
    assert "in changed" in text


def test_4_1_5_another_order_is_told() -> None:
    async def ordered(ctx: OrchestrationContext) -> None:
        await asyncio.gather(ctx.call_activity("a"), ctx.create_timer(5))

    async def changed(ctx: OrchestrationContext) -> None:
        await asyncio.gather(ctx.create_timer(5), ctx.call_activity("a"))

    assert "history says:  activity 'a' (#0)" in told(changed, recorded(ordered))


def test_4_1_5_an_added_call_is_told() -> None:
    async def changed(ctx: OrchestrationContext) -> None:
        ctx.call_activity("audit")
        await original(ctx)

    text = told(changed, recorded(original))
    assert "history says:  activity 'charge' (#0)" in text

    async def more(ctx: OrchestrationContext) -> None:
        task = ctx.call_activity("charge")
        ctx.call_activity("audit")
        await task

    text = told(more, recorded(original))
    assert "history says:  nothing more on this event" in text
    assert "code now does: activity 'audit' (#1)" in text


def test_4_1_6_a_removed_call_is_told() -> None:
    async def changed(ctx: OrchestrationContext) -> None:
        await ctx.call_activity("charge")
        await ctx.call_activity("thank")

    assert "history says:  activity 'ship' (#1)" in told(changed, recorded(original, 0, 1))

    async def nothing(ctx: OrchestrationContext) -> None:
        await asyncio.Event().wait()

    text = told(nothing, recorded(original))
    assert "code now does: end: failed (OrchestratorDeadlockError" in text

    async def less(ctx: OrchestrationContext) -> None:
        await ctx.call_activity("charge")
        await ctx.call_activity("ship")
        await ctx.create_timer(9)

    async def more(ctx: OrchestrationContext) -> None:
        await ctx.call_activity("charge")
        both = [ctx.call_activity("ship"), ctx.call_activity("audit")]
        await asyncio.gather(*both)

    text = told(less, recorded(more, 0))
    assert "history says:  activity 'audit' (#2)" in text
    assert "code now does: nothing more on this event" in text


@pytest.mark.parametrize(
    ("before", "after", "says", "does"),
    [
        (
            lambda ctx: ctx.send_event("alice", "hi"),
            lambda ctx: ctx.send_event("bob", "hi"),
            "event 'hi' sent to 'alice' (#0)",
            "event 'hi' sent to 'bob' (#0)",
        ),
        (
            lambda ctx: ctx.call_sub_orchestrator("c", instance_id="one"),
            lambda ctx: ctx.call_sub_orchestrator("c", instance_id="two"),
            "sub-orchestration 'c' with id 'one' (#0)",
            "sub-orchestration 'c' with id 'two' (#0)",
        ),
        (
            lambda ctx: ctx.start_orchestration("c", instance_id="one"),
            lambda ctx: ctx.start_orchestration("c", instance_id="two"),
            "start of orchestration 'c' with id 'one' (#0)",
            "start of orchestration 'c' with id 'two' (#0)",
        ),
        (
            lambda ctx: ctx.wait_for_external_event("one"),
            lambda ctx: ctx.wait_for_external_event("two"),
            "wait for external event 'one' (#0)",
            "wait for external event 'two' (#0)",
        ),
        (
            lambda ctx: ctx.create_timer(5).cancel(),
            lambda ctx: ctx.create_timer(5),
            "cancellation of #0",
            "timer (#1)",
        ),
        (
            lambda ctx: ctx.set_custom_status(1),
            lambda ctx: ctx.call_activity("a"),
            "custom status set",
            "activity 'a' (#0)",
        ),
    ],
)
def test_4_1_7_a_changed_target_is_told(before: Program, after: Program, says: str, does: str) -> None:
    async def one(ctx: OrchestrationContext) -> None:
        before(ctx)
        await ctx.create_timer(1)

    async def two(ctx: OrchestrationContext) -> None:
        after(ctx)
        await ctx.create_timer(1)

    text = told(two, recorded(one))
    assert f"history says:  {says}" in text
    assert f"code now does: {does}" in text


def test_inputs_and_due_times_may_change() -> None:
    async def one(ctx: OrchestrationContext) -> None:
        ctx.call_activity("a", 1)
        ctx.create_timer(1)
        await ctx.wait_for_external_event("EVENT", timeout=1)

    async def two(ctx: OrchestrationContext) -> None:
        ctx.call_activity("a", 2)
        ctx.create_timer(2)
        await ctx.wait_for_external_event("event", timeout=2)

    replay_with(two, recorded(one))


def test_another_end_is_told() -> None:
    async def ends(ctx: OrchestrationContext) -> None:
        await ctx.call_activity("a")

    async def fails(ctx: OrchestrationContext) -> None:
        await ctx.call_activity("a")
        raise ValueError("now")

    text = told(fails, recorded(ends, 0))
    assert "history says:  end: completed" in text
    assert "code now does: end: failed (ValueError: now)" in text


def test_4_1_13_calls_added_behind_the_last_recorded_one_are_fine() -> None:
    async def longer(ctx: OrchestrationContext) -> None:
        await ctx.call_activity("charge")
        await ctx.call_activity("ship")
        await ctx.call_activity("something new")

    play = Play(longer, shadow=False)
    run = play.replayed(recorded(original, 0))
    assert [getattr(one, "name", None) for one in run.advance(TaskCompleted(1, None), play.now)] == [
        "something new"
    ]
    run.close()


def test_4_1_16_unknown_events_are_ignored() -> None:
    class Rewound:
        pass

    history = recorded(original, 0)
    note: Any = Rewound()
    replay_with(original, [note, *history[:3], note, *history[3:], note])


def test_what_the_engine_records_behind_an_end_is_not_compared() -> None:
    async def ends(ctx: OrchestrationContext) -> None:
        ctx.call_activity("open")

    replay_with(ends, [*recorded(ends), ActionCanceled(0)])


def test_a_terminated_history_replays() -> None:
    history = [*recorded(original, 0), TurnStarted(1), ExecutionTerminated("stop"), ActionCanceled(1)]
    replay_with(original, history)


def test_a_run_that_did_not_replay_is_closed() -> None:
    seen: list[str] = []

    async def changed(ctx: OrchestrationContext) -> None:
        try:
            await ctx.call_activity("other")
        finally:
            seen.append("closed")

    told(changed, recorded(original))
    assert seen == ["closed"]


def test_is_replaying_ends_with_the_replay_also_when_the_history_is_over() -> None:
    async def ends(ctx: OrchestrationContext) -> None: ...

    play = Play(ends, shadow=False)
    run = play.replayed()
    assert run._loop.is_replaying is False
    assert run.advance(TaskCompleted(0, None), play.now) == ()


def test_an_execution_id_from_anywhere_replays() -> None:
    play = Play(original, execution_id="Zürich/1\ud800", shadow=False)
    started = next(event for event in play.history if isinstance(event, ExecutionStarted))
    assert started.execution_id == play.started.execution_id
    play.replayed().close()
    assert kinds(play.made) == ["TaskScheduled"]


def test_the_text_names_files_only_of_users() -> None:
    async def changed(ctx: OrchestrationContext) -> None:
        await asyncio.wait_for(asyncio.sleep(5), 3)

    text = told(changed, recorded(original))
    assert str(Path(asyncio.__file__).parent) not in text
    assert "durably/program" not in text
