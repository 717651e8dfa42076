"""Futures of futures: all, any, as completed, map."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from durably.core.events import ActionCanceled, CancelRequested, ExecutionCanceled, TaskScheduled
from durably.program.context import OrchestrationContext
from tests.unit.program.harness import Play, kinds

# --- when_all --------------------------------------------------------------------------------------------------------


async def all_of_three(ctx: OrchestrationContext) -> Any:
    try:
        return await ctx.when_all([ctx.call_activity("a"), ctx.call_activity("b"), ctx.call_activity("c")])
    except Exception as error:  # noqa: BLE001
        return str(error)


def test_4_2_1_when_all_gives_results_in_argument_order() -> None:
    play = Play(all_of_three)
    for seq in (2, 0, 1):
        play.complete(seq, "abc"[seq])
    assert play.result == ["a", "b", "c"]


def test_4_2_1_when_all_waits_for_every_child_and_raises_the_first_failure() -> None:
    play = Play(all_of_three)
    assert play.fail(2, message="first") == []
    assert play.fail(0, message="second") == []
    play.complete(1)
    assert play.result == "Task 'c' (#2) failed: ValueError: first"


def test_4_2_2_when_all_of_nothing_is_done_and_when_any_of_nothing_raises() -> None:
    async def program(ctx: OrchestrationContext) -> list[Any]:
        empty = ctx.when_all([])
        assert empty.done()
        try:
            ctx.when_any(iter(()))
        except Exception as error:  # noqa: BLE001
            return [await empty, str(error)]
        return []

    assert Play(program).result[0] == []
    assert "at least one" in Play(program).result[1]


def test_when_all_takes_tasks_coroutines_and_finished_ones() -> None:
    async def program(ctx: OrchestrationContext) -> list[Any]:
        async def coroutine() -> str:
            return "coroutine"

        done = ctx.call_activity("a")
        await done
        return await ctx.when_all(
            [done, coroutine(), done, asyncio.create_task(coroutine()), ctx.when_all([done])]
        )

    play = Play(program)
    play.complete(0, 1)
    assert play.result == [1, "coroutine", 1, "coroutine", [1]]


def test_when_all_of_finished_ones_raises_the_failure_that_came_first() -> None:
    async def program(ctx: OrchestrationContext) -> str:
        one, two = ctx.call_activity("a"), ctx.call_activity("b")
        await asyncio.wait([one, two])
        try:
            await ctx.when_all([one, two])
        except Exception as error:  # noqa: BLE001
            return str(error)
        return "fine"

    play = Play(program)
    play.fail(1, message="first")
    play.fail(0, message="second")
    assert play.result.endswith("first")


def test_cancelling_when_all_gives_up_what_is_open() -> None:
    async def program(ctx: OrchestrationContext) -> list[Any]:
        one, two = ctx.call_activity("a"), ctx.call_activity("b")
        both = ctx.when_all([one, two])
        await one
        assert both.cancel() is True
        try:
            await both
        except asyncio.CancelledError:
            return [both.cancel(), two.cancelled()]
        return []

    play = Play(program)
    assert play.complete(0)[0] == ActionCanceled(1)
    assert play.result == [False, True]


def test_a_cancelled_child_counts_as_a_failure_of_when_all() -> None:
    async def program(ctx: OrchestrationContext) -> str:
        one, two = ctx.call_activity("a"), ctx.call_activity("b")
        one.cancel()
        try:
            await ctx.when_all([one, two])
        except asyncio.CancelledError:
            return "cancelled"
        return "fine"

    play = Play(program)
    play.complete(1)
    assert play.result == "cancelled"


def test_a_cancellation_is_not_hidden_by_an_earlier_failure() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        await ctx.when_all([ctx.call_activity("a"), ctx.call_activity("b")])

    play = Play(program)
    play.fail(0)
    assert play.send(CancelRequested("x"))[-1] == ExecutionCanceled("x")


# --- when_any --------------------------------------------------------------------------------------------------------


def test_4_2_3_when_any_returns_the_task_that_finished_first_in_history() -> None:
    async def program(ctx: OrchestrationContext) -> list[bool]:
        one, two = ctx.call_activity("a"), ctx.call_activity("b")
        winner = await ctx.when_any([one, two])
        await asyncio.gather(one, two)
        again = await ctx.when_any([one, two])
        return [winner is two, again is two]

    play = Play(program)
    play.complete(1)
    play.complete(0)
    assert play.result == [True, True]


def test_when_any_may_win_by_failure() -> None:
    async def program(ctx: OrchestrationContext) -> str:
        winner = await ctx.when_any([ctx.call_activity("a"), ctx.create_timer(5)])
        try:
            await winner
        except Exception as error:  # noqa: BLE001
            return str(error)
        return "fine"

    play = Play(program)
    play.fail(0)
    assert play.result.startswith("Task 'a' (#0) failed")


def test_4_2_4_losing_tasks_stay_usable() -> None:
    async def program(ctx: OrchestrationContext) -> list[Any]:
        one, two = ctx.call_activity("a"), ctx.call_activity("b")
        await ctx.when_any([one, two])
        return [await two, await one]

    play = Play(program)
    play.complete(1, "b")
    play.complete(0, "a")
    assert play.result == ["b", "a"]


def test_cancelling_when_any_leaves_its_tasks_alone() -> None:
    async def program(ctx: OrchestrationContext) -> Any:
        one = ctx.call_activity("a")
        try:
            async with asyncio.timeout(5):
                await ctx.when_any([one, ctx.call_activity("b")])
        except TimeoutError:
            return await one
        return "not reached"

    play = Play(program)
    assert play.fire(1) == []
    play.complete(0, "still here")
    assert play.result == "still here"


# --- as_completed ----------------------------------------------------------------------------------------------------


def test_as_completed_gives_tasks_in_history_order() -> None:
    async def program(ctx: OrchestrationContext) -> list[Any]:
        async def slow(name: str) -> str:
            return await ctx.call_activity(name)

        seen: list[Any] = []
        async for task in ctx.as_completed([slow("a"), ctx.call_activity("b"), slow("c")]):
            try:
                seen.append(await task)
            except Exception as error:  # noqa: BLE001
                seen.append(type(error).__name__)
        return seen

    play = Play(program)
    assert [one.name for one in play.made if isinstance(one, TaskScheduled)] == ["b", "a", "c"]
    play.complete(2, "c")
    play.fail(0)
    play.complete(1, "a")
    assert play.result == ["c", "TaskFailedError", "a"]


def test_as_completed_orders_what_finished_before() -> None:
    async def program(ctx: OrchestrationContext) -> list[Any]:
        tasks = [ctx.call_activity(name) for name in "abc"]
        await asyncio.gather(*tasks)
        return [await task async for task in ctx.as_completed(tasks)]

    play = Play(program)
    for seq in (1, 2, 0):
        play.complete(seq, seq)
    assert play.result == [1, 2, 0]


def test_as_completed_for_generators() -> None:
    def program(ctx: OrchestrationContext) -> Any:
        seen = []
        for task in ctx.as_completed([ctx.call_activity(name) for name in "abc"]):
            try:
                seen.append((yield task))
            except Exception as error:  # noqa: BLE001
                seen.append(type(error).__name__)
        return seen

    play = Play(program)
    play.complete(2, "c")
    play.complete(0, "a")
    play.fail(1)
    assert play.result == ["c", "a", "TaskFailedError"]


def test_as_completed_goes_on_after_a_timeout() -> None:
    async def program(ctx: OrchestrationContext) -> list[Any]:
        finished = ctx.as_completed([ctx.call_activity("a"), ctx.call_activity("b")])
        seen: list[Any] = []
        try:
            async with asyncio.timeout(5):
                await anext(finished)
        except TimeoutError:
            seen.append("late")
        seen += [await task async for task in finished]
        return seen

    play = Play(program)
    play.fire(2)
    play.complete(1, "b")
    play.complete(0, "a")
    assert play.result == ["late", "b", "a"]


def test_as_completed_may_be_shared() -> None:
    async def program(ctx: OrchestrationContext) -> list[list[Any]]:
        finished = ctx.as_completed([ctx.call_activity(name) for name in "abc"])

        async def consume() -> list[Any]:
            return [await task async for task in finished]

        return await asyncio.gather(consume(), consume(), consume(), consume())

    play = Play(program)
    for seq in (2, 1, 0):
        play.complete(seq, seq)
    assert sorted(itertools.chain(*play.result)) == [0, 1, 2]


def test_a_cancelled_future_of_as_completed_gives_its_task_to_the_next() -> None:
    async def program(ctx: OrchestrationContext) -> list[Any]:
        finished = ctx.as_completed([ctx.call_activity("a"), ctx.call_activity("b")])
        next(finished).cancel()
        seen = [await next(finished)]
        return [*seen, *[await future for future in finished]]

    play = Play(program)
    play.complete(1, "b")
    play.complete(0, "a")
    assert play.result == ["b", "a"]


# --- map -------------------------------------------------------------------------------------------------------------


def test_map_keeps_so_many_in_flight_and_gives_results_in_order() -> None:
    drawn: list[int] = []

    async def program(ctx: OrchestrationContext) -> list[Any]:
        def items() -> Iterator[int]:
            for i in range(5):
                drawn.append(i)
                yield i

        return await ctx.map("a", items(), max_in_flight=2)

    play = Play(program, shadow=False)
    assert kinds(play.made) == ["TaskScheduled"] * 2
    assert drawn == [0, 1]
    for seq in (1, 2, 0, 3, 4):
        made = play.complete(seq, seq * 10)
        assert len(play.open) <= 2
    assert kinds(made) == ["ExecutionCompleted"]
    assert play.result == [0, 10, 20, 30, 40]


def test_map_of_nothing_is_done() -> None:
    async def program(ctx: OrchestrationContext) -> Any:
        return await ctx.map("a", [])

    assert Play(program).result == []


def test_map_starts_no_more_after_a_failure() -> None:
    async def program(ctx: OrchestrationContext) -> str:
        try:
            await ctx.map("a", range(9), max_in_flight=3)
        except Exception as error:  # noqa: BLE001
            return str(error)
        return "fine"

    play = Play(program)
    assert play.fail(1, message="first") == []
    assert play.fail(0, message="second") == []
    play.complete(2)
    assert play.result.endswith("first")


def test_map_raises_what_its_items_raise() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        await ctx.map("a", (1 // i for i in (1, 0)), max_in_flight=5)

    play = Play(program)
    play.complete(0)
    assert play.failed.type == "ZeroDivisionError"


def test_cancelling_map_gives_up_what_is_in_flight() -> None:
    async def program(ctx: OrchestrationContext) -> None:
        await ctx.map("a", range(5), max_in_flight=2)

    play = Play(program)
    assert play.send(CancelRequested()) == [ActionCanceled(0), ActionCanceled(1), ExecutionCanceled(None)]


# --- others ----------------------------------------------------------------------------------------------------------


def test_4_1_11_a_caught_failure_replays_alike() -> None:
    async def program(ctx: OrchestrationContext) -> str:
        for attempt in range(3):
            try:
                return await ctx.call_activity("a", attempt)
            except Exception:  # noqa: BLE001
                await ctx.create_timer(attempt)
        return "gave up"

    play = Play(program)
    play.fail(0)
    play.fire(1)
    play.complete(2, "second")
    assert play.result == "second"


def test_a_failure_that_nobody_awaits_is_not_noise(caplog: pytest.LogCaptureFixture) -> None:
    async def program(ctx: OrchestrationContext) -> str:
        ctx.call_activity("a")
        await ctx.create_timer(5)
        return "done"

    play = Play(program)
    play.fail(0)
    play.fire(1)
    assert play.result == "done"
    assert caplog.records == []


def test_a_task_may_be_awaited_twice() -> None:
    async def program(ctx: OrchestrationContext) -> list[Any]:
        task = ctx.call_activity("a")
        return [await task, await task]

    play = Play(program)
    play.complete(0, [1])
    assert play.result == [[1], [1]]
