"""`ctx.patched`: what an execution is told once, it is told for ever, and old histories go the old way."""

from __future__ import annotations

from typing import Any

import pytest

from durably.core.events import (
    ContinuedAsNew,
    ExecutionCompleted,
    ExecutionStarted,
    PatchApplied,
    TaskScheduled,
    TurnStarted,
)
from durably.errors import InvalidTextError, NonDeterminismError, UsageError
from durably.program.context import OrchestrationContext
from tests.unit.program.harness import Play, kinds

ROUNDS = 4


async def before(ctx: OrchestrationContext) -> list[str]:
    return [await ctx.call_activity("old", i) for i in range(ROUNDS)]


async def changed(ctx: OrchestrationContext) -> list[str]:
    taken: list[str] = []
    for i in range(ROUNDS):
        name = "new" if ctx.patched("other activity") else "old"
        taken.append(await ctx.call_activity(name, i))
    return taken


async def cleaned_up(ctx: OrchestrationContext) -> list[str]:
    return [await ctx.call_activity("new", i) for i in range(ROUNDS)]


def deployed(code: Any, play: Play) -> Play:
    """The same execution on other code, brought there by a replay."""
    after = Play(code, shadow=False)
    after.started, after.now, after.history = play.started, play.now, play.history
    after.run = after.replayed()
    return after


def test_a_new_execution_takes_the_new_way_and_says_so_once() -> None:
    play = Play(changed)
    for seq in range(ROUNDS):
        assert play.history[-1].name == "new"  # type: ignore[union-attr]
        play.complete(seq, "new")
    assert play.result == ["new"] * ROUNDS
    assert kinds(play.history).count("PatchApplied") == 1


@pytest.mark.parametrize("done", range(1, ROUNDS))
def test_an_execution_that_came_past_it_keeps_to_the_old_way(done: int) -> None:
    play = Play(before)
    for seq in range(done):
        play.complete(seq, "old")
    play = deployed(changed, play)
    play.shadow = True
    for seq in range(done, ROUNDS):
        play.complete(seq, "old")
    assert [event.name for event in play.history if isinstance(event, TaskScheduled)] == ["old"] * ROUNDS
    assert play.result == ["old"] * ROUNDS
    assert "PatchApplied" not in kinds(play.history)


def test_an_execution_that_has_not_come_to_it_takes_the_new_way() -> None:
    async def old(ctx: OrchestrationContext) -> Any:
        await ctx.wait_for_external_event("go")
        return await ctx.call_activity("old")

    async def new(ctx: OrchestrationContext) -> Any:
        await ctx.wait_for_external_event("go")
        return await ctx.call_activity("new" if ctx.patched("other activity") else "old")

    play = deployed(new, Play(old))
    assert kinds(play.event("go")) == ["PatchApplied", "TaskScheduled"]
    play.replayed().close()


def test_the_question_may_go_once_the_old_way_is_gone() -> None:
    play = Play(changed)
    play.complete(0, "new")
    play = deployed(cleaned_up, play)
    for seq in range(1, ROUNDS):
        play.complete(seq, "new")
    assert play.result == ["new"] * ROUNDS


def test_the_question_may_move_and_more_may_be_asked() -> None:
    async def moved(ctx: OrchestrationContext) -> list[str]:
        known = ctx.patched("other activity")
        also = ctx.patched("of today")  # the execution came past this place
        names = {(True, False): "new", (False, False): "old"}
        return [await ctx.call_activity(names[known, also], i) for i in range(ROUNDS)]

    play = Play(changed)
    play.complete(0, "new")
    play = deployed(moved, play)
    for seq in range(1, ROUNDS):
        play.complete(seq, "new")
    assert play.result == ["new"] * ROUNDS


def test_the_old_way_is_gone_too_early_for_an_execution_on_it() -> None:
    with pytest.raises(NonDeterminismError, match="history says:  activity 'old'"):
        deployed(cleaned_up, Play(before))


def test_a_rewind_keeps_what_was_told_before_the_failure() -> None:
    async def flow(ctx: OrchestrationContext) -> list[bool]:
        first = ctx.patched("first")
        await ctx.call_activity("brittle")
        return [first, ctx.patched("first"), ctx.patched("second")]

    play = Play(flow)
    play.fail(0)
    play.rewind()
    play.complete(0)
    assert play.result == [True, True, True]
    assert kinds(play.history).count("PatchApplied") == 2


def test_code_that_fails_by_itself_behind_the_question_can_be_rewound() -> None:
    async def flow(ctx: OrchestrationContext) -> bool:
        await ctx.wait_for_external_event("go")
        if ctx.patched("first"):
            raise ValueError("of the new way")
        return False

    async def mended(ctx: OrchestrationContext) -> bool:
        await ctx.wait_for_external_event("go")
        return ctx.patched("first")

    play = Play(flow)
    play.event("go")
    play.function = play.registry.add_orchestrator(mended)
    play.rewind()
    assert play.result is True


def test_the_next_execution_asks_for_itself() -> None:
    async def flow(ctx: OrchestrationContext) -> None:
        assert ctx.patched("first")
        ctx.continue_as_new(version="2.0")

    made = Play(flow).made
    assert made == [PatchApplied("first"), ContinuedAsNew(None, version="2.0")]


def test_a_history_of_another_place_of_the_marker_replays() -> None:
    """The marker says that it was told, not when."""

    async def flow(ctx: OrchestrationContext) -> bool:
        return ctx.patched("first")

    play = Play(flow)
    _, started, marker, end = play.history
    assert isinstance(started, ExecutionStarted)
    assert isinstance(end, ExecutionCompleted)
    play.replayed([TurnStarted(play.now), marker, started, end]).close()


@pytest.mark.parametrize(("change_id", "error"), [("", UsageError), (5, InvalidTextError)])
def test_a_change_has_a_name(change_id: Any, error: type[Exception]) -> None:
    async def flow(ctx: OrchestrationContext) -> str:
        try:
            ctx.patched(change_id)
        except UsageError as refused:
            return type(refused).__name__
        return "fine"

    assert Play(flow).result == error.__name__
