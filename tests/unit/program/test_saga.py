"""Sagas: what is undone, in which order, and what of it is recorded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durably.core.events import (
    ActionCanceled,
    CancelRequested,
    CompensationStarted,
    ExecutionCanceled,
    SagaEnded,
    TaskScheduled,
    UndoAdded,
    UndoEnded,
)
from durably.core.instance import InstanceState
from durably.core.undo import undo_input
from durably.errors import TaskFailedError, UsageError
from durably.program.context import OrchestrationContext
from durably.program.retry_policy import RetryPolicy
from tests.unit.program.harness import Play, kinds


async def trip(ctx: OrchestrationContext) -> str:
    async with ctx.saga() as saga:
        room = await saga.step("hotel", "Bergen", undo="leave")
        await saga.step("flight", room, undo="cancel flight", undo_input=lambda seat: {"seat": seat})
        await saga.step("look", 1)
        await saga.step("car", "red", undo="return car", undo_input="keys")
    return "gone"


def calls(play: Play) -> list[tuple[str, bytes | None]]:
    return [(event.name, event.input) for event in play.history if isinstance(event, TaskScheduled)]


def travelled(*results: Any) -> Play:
    play = Play(trip)
    for seq, result in enumerate(results):
        play.complete(seq, result)
    return play


def test_a_saga_that_ends_well_undoes_nothing() -> None:
    play = travelled("room 7", 12, None, None)
    assert play.result == "gone"
    assert [name for name, _ in calls(play)] == ["hotel", "flight", "look", "car"]
    assert kinds(play.made) == ["UndoAdded", "SagaEnded", "ExecutionCompleted"]
    assert InstanceState.fold("play", play.history).undos == {}


def test_steps_are_undone_in_reverse_with_the_input_that_was_said() -> None:
    play = travelled("room 7", 12, None)
    play.fail(3, message="no car")
    assert calls(play)[4:] == [("cancel flight", b'{"seat":12}')]
    play.complete(4)
    play.complete(5)
    assert calls(play)[4:] == [("cancel flight", b'{"seat":12}'), ("leave", b'"Bergen"')]
    assert play.failed.type == "TaskFailedError"
    assert play.failed.message == "Task 'car' (#3) failed: ValueError: no car"


def test_what_is_left_and_that_it_compensates_follows_from_the_history() -> None:
    play = travelled("room 7", 12, None)
    state = InstanceState.fold("play", play.history)
    assert undo_input(state.undos.values()) == (
        b'[{"name":"cancel flight","input":{"seat":12}},{"name":"leave","input":"Bergen"}]'
    )
    assert state.failure is None
    play.fail(3)
    state = InstanceState.fold("play", play.history)
    assert (state.failure and state.failure.type, list(state.undos)) == ("TaskFailedError", [1, 2])
    play.complete(4)
    assert list(InstanceState.fold("play", play.history).undos) == [1]


def test_an_undo_that_fails_is_named_and_the_others_run() -> None:
    play = travelled("room 7", 12, None)
    play.fail(3)
    play.fail(4, message="the desk is closed")
    play.complete(5)
    assert [name for name, _ in calls(play)[4:]] == ["cancel flight", "leave"]
    assert play.failed.message == (
        "Task 'car' (#3) failed: ValueError: no; undo 'cancel flight' failed: "
        "Task 'cancel flight' (#4) failed: ValueError: the desk is closed"
    )


def test_the_policy_of_a_step_is_that_of_its_undo_unless_that_has_its_own() -> None:
    policy, other = RetryPolicy(5, 3), RetryPolicy(6, 2)

    async def flow(ctx: OrchestrationContext) -> None:
        async with ctx.saga() as saga:
            await saga.step("do", undo="undo", retry=policy, undo_retry=other)
            await saga.step("do", undo="undo", retry=policy)
            raise ValueError("no")

    play = Play(flow)
    for seq in range(3):
        play.complete(seq)
    assert [e.retry for e in play.history if isinstance(e, TaskScheduled)] == [policy.spec()] * 3 + [
        other.spec()
    ]
    assert [e.retry for e in play.history if isinstance(e, UndoAdded)] == [other.spec(), policy.spec()]


def test_a_cancellation_is_compensated_and_cannot_stop_it() -> None:
    play = travelled("room 7", 12)
    made = play.send(CancelRequested("enough"))
    assert kinds(made) == ["ActionCanceled", "CompensationStarted", "TaskScheduled"]
    assert made[0] == ActionCanceled(2)
    assert play.send(CancelRequested("now!")) == []
    play.complete(3)
    made = play.fail(4, message="closed")
    assert made == [
        UndoEnded(1),
        SagaEnded(1),
        ExecutionCanceled("now!; undo 'leave' failed: Task 'leave' (#4) failed: ValueError: closed"),
    ]


def test_a_timeout_is_compensated_before_it_is_raised() -> None:
    async def flow(ctx: OrchestrationContext) -> str:
        try:
            async with asyncio.timeout(60), ctx.saga() as saga:
                await saga.step("do", undo="undo")
                await ctx.wait_for_external_event("never")
        except TimeoutError:
            return "late"
        return "fine"

    play = Play(flow)
    play.complete(1)
    play.fire(0)
    assert calls(play)[1:] == [("undo", None)]
    play.complete(3)
    assert play.result == "late"


def test_a_cancellation_while_an_error_is_compensated_comes_after_it() -> None:
    async def flow(ctx: OrchestrationContext) -> str:
        try:
            async with ctx.saga() as saga:
                await saga.step("do", undo="undo")
                await saga.step("fail")
        except TaskFailedError:
            await ctx.call_activity("go on")
        return "fine"

    play = Play(flow)
    play.complete(0)
    play.fail(1)
    play.send(CancelRequested("enough"))
    play.complete(2)
    assert isinstance(play.outcome, ExecutionCanceled)


def test_steps_at_once_are_undone_in_the_reverse_order_of_their_completion() -> None:
    async def flow(ctx: OrchestrationContext) -> None:
        async with ctx.saga() as saga:
            await asyncio.gather(*(saga.step("do", name, undo="undo") for name in "abc"))

    play = Play(flow)
    play.complete(1)
    play.fail(2)
    assert "CompensationStarted" not in kinds(play.history)  # the first one still runs
    play.complete(0)
    play.complete(3)
    play.complete(4)
    assert calls(play)[3:] == [("undo", b'"a"'), ("undo", b'"b"')]
    assert play.failed.message == "Task 'do' (#2) failed: ValueError: no"


def test_a_step_that_nobody_awaits_is_one_of_the_saga() -> None:
    async def flow(ctx: OrchestrationContext) -> str:
        async with ctx.saga() as saga:
            saga.step("first", undo="undo first")
            saga.step("second")
        return "fine"

    play = Play(flow)
    play.complete(0)
    play.fail(1)
    assert calls(play)[2:] == [("undo first", None)]
    play.complete(2)
    assert play.failed.type == "TaskFailedError"
    play = Play(flow)
    play.complete(1)
    play.complete(0)
    assert play.result == "fine"


def test_what_makes_the_input_of_an_undo_may_fail() -> None:
    async def flow(ctx: OrchestrationContext) -> None:
        async with ctx.saga() as saga:
            await saga.step("first", undo="undo first")
            await saga.step("second", undo="undo second", undo_input=lambda result: result["none"])

    play = Play(flow)
    play.complete(0)
    play.complete(1, {})
    assert calls(play)[2:] == [("undo first", None)]
    play.complete(2)
    assert play.failed.type == "KeyError"


def test_a_saga_within_a_saga_is_over_when_it_has_ended_well() -> None:
    async def flow(ctx: OrchestrationContext) -> None:
        async with ctx.saga() as outer:
            await outer.step("outer", undo="undo outer")
            async with ctx.saga() as inner:
                await inner.step("inner", undo="undo inner")
            await outer.step("fail")

    play = Play(flow)
    play.complete(0)
    play.complete(1)
    play.fail(2)
    assert calls(play)[3:] == [("undo outer", None)]
    started = [e.saga for e in play.history if isinstance(e, CompensationStarted)]
    assert started == [1]


@pytest.mark.parametrize("turns", range(7))
def test_a_saga_that_is_evicted_decides_nothing(turns: int) -> None:
    play = Play(trip)
    for seq in range(turns):
        if seq == 3:
            play.fail(3)
        else:
            play.complete(seq, seq)
        if play.outcome is not None:
            break
    run = play.replayed()
    made: list[Any] = []
    run.record_into(made)
    run.close()
    assert made == []


def test_a_step_needs_an_open_saga() -> None:
    async def before(ctx: OrchestrationContext) -> None:
        ctx.saga().step("do")

    async def behind(ctx: OrchestrationContext) -> None:
        async with ctx.saga() as saga:
            pass
        saga.step("do")

    async def twice(ctx: OrchestrationContext) -> None:
        saga = ctx.saga()
        for _ in range(2):
            async with saga:
                pass

    for flow, text in ((before, "not open"), (behind, "not open"), (twice, "entered twice")):
        play = Play(flow)
        assert play.failed.type == UsageError.__name__
        assert text in play.failed.message
