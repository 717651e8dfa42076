"""External events: which wait gets which."""

from __future__ import annotations

import asyncio
from typing import Any

from durably.core.events import ActionCanceled, EventAwaited, TaskScheduled
from durably.program.context import OrchestrationContext
from tests.unit.program.harness import T0, Play, kinds

S = 1_000_000


def test_4_5_1_an_event_before_the_wait_is_kept_and_completes_it_at_once() -> None:
    async def program(ctx: OrchestrationContext) -> Any:
        await ctx.call_activity("a")
        return await ctx.wait_for_external_event("go")

    play = Play(program)
    assert play.event("go", 5) == []
    assert kinds(play.complete(0)) == ["EventAwaited", "ExecutionCompleted"]
    assert play.result == 5


def test_4_5_2_names_match_without_case() -> None:
    async def program(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("ManualApproval")

    play = Play(program)
    play.event("MANUALAPPROVAL", "yes")
    assert play.result == "yes"


def test_4_5_3_buffered_events_are_delivered_in_order_one_per_wait() -> None:
    async def program(ctx: OrchestrationContext) -> list[Any]:
        await ctx.call_activity("a")
        return [await ctx.wait_for_external_event("e") for _ in range(3)]

    play = Play(program)
    for value in (1, 2, 3):
        play.event("e", value)
    play.complete(0)
    assert play.result == [1, 2, 3]


def test_4_5_4_the_earliest_wait_is_served_first_and_an_abandoned_one_never() -> None:
    async def program(ctx: OrchestrationContext) -> list[Any]:
        first, second, third = (ctx.wait_for_external_event("e") for _ in range(3))
        first.cancel()
        return [await second, await third]

    play = Play(program)
    play.event("e", 1)
    play.event("e", 2)
    assert play.result == [1, 2]


def test_4_5_5_events_of_other_names_are_left_alone() -> None:
    async def program(ctx: OrchestrationContext) -> list[Any]:
        return [await ctx.wait_for_external_event("b"), await ctx.wait_for_external_event("a")]

    play = Play(program)
    assert play.event("a", "A") == []
    play.event("b", "B")
    assert play.result == ["B", "A"]


def test_4_5_6_no_payload_is_an_event() -> None:
    async def program(ctx: OrchestrationContext) -> list[Any]:
        return [await ctx.wait_for_external_event("e", timeout=5, default="default") for _ in range(2)]

    play = Play(program)
    play.event("e", None)
    play.fire(1)
    assert play.result == [None, "default"]


def test_4_5_11_the_waiter_chooses_the_type() -> None:
    async def program(ctx: OrchestrationContext) -> list[str]:
        await ctx.call_activity("a")
        seen = [await ctx.wait_for_external_event("e", type_) for type_ in (set[int], list[int], None)]
        return [type(one).__name__ for one in seen]

    play = Play(program)
    for _ in range(3):
        play.event("e", [1])
    play.complete(0)
    assert play.result == ["set", "list", "list"]


def test_an_event_that_does_not_fit_fails_its_wait() -> None:
    async def program(ctx: OrchestrationContext) -> list[Any]:
        try:
            await ctx.wait_for_external_event("e", int)
        except TypeError as error:
            return [str(error), await ctx.wait_for_external_event("e", int)]
        return []

    play = Play(program)
    play.event("e", "text")
    play.event("e", 5)
    assert play.result[0].startswith("External event 'e' (#0): ")
    assert play.result[1] == 5


def test_4_5_12_a_timeout_raises_or_gives_the_default_and_the_event_stays() -> None:
    async def program(ctx: OrchestrationContext) -> list[Any]:
        seen: list[Any] = []
        try:
            await ctx.wait_for_external_event("e", timeout=10)
        except TimeoutError:
            seen.append("timeout")
        seen.append(await ctx.wait_for_external_event("e", timeout=20, default=None))
        await ctx.call_activity("a")
        seen.append(await ctx.wait_for_external_event("e"))
        return seen

    play = Play(program)
    assert play.made == [EventAwaited(0, "e", T0 + 10 * S)]
    play.fire(0)
    play.fire(1)
    play.event("e", "late")
    play.complete(2)
    assert play.result == ["timeout", None, "late"]


def test_a_wait_in_a_timeout_of_asyncio_takes_no_event_afterwards() -> None:
    async def program(ctx: OrchestrationContext) -> Any:
        try:
            async with asyncio.timeout(10):
                await ctx.wait_for_external_event("e")
        except TimeoutError:
            await ctx.call_activity("a")
        return await ctx.wait_for_external_event("e")

    play = Play(program)
    assert play.fire(0) == [ActionCanceled(1), TaskScheduled(2, "a", None)]
    play.event("e", "late")
    play.complete(2)
    assert play.result == "late"


def test_an_event_and_the_timeout_of_its_wait_settle_it_once() -> None:
    async def program(ctx: OrchestrationContext) -> Any:
        value = await ctx.wait_for_external_event("e", timeout=10, default="default")
        await ctx.call_activity("a")
        return value

    play = Play(program)
    play.event("e", "event")
    assert play.fire(0) == []
    play.complete(1)
    assert play.result == "event"
