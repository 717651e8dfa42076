"""FEATURES 4.7: continue-as-new."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import Any

import pytest

from durably import App, AppHost, OrchestrationContext
from tests.support.clock import START, ManualClock
from tests.support.hubs import Deployment
from tests.support.waiting import eventually, has_event, is_quiet


def app_of(body: Any) -> App:
    app = App()
    app.orchestrator(name="flow")(body)
    return app


async def has_input(host: AppHost, value: Any) -> None:
    async def look() -> bool:
        status = await host.client.get_status("i")
        return status is not None and status.input == value

    await eventually(look, f"an execution with input {value}")


async def test_4_7_1_the_next_execution_has_a_new_id_an_empty_history_and_the_old_created_time(
    hub: Deployment, clock: ManualClock
) -> None:
    seen: list[tuple[str, str]] = []

    async def flow(ctx: OrchestrationContext, number: int) -> int:
        if not ctx.is_replaying:
            seen.append((ctx.instance_id, ctx.execution_id))
        await ctx.wait_for_external_event("go")
        if number < 3:
            ctx.continue_as_new(number + 1)
        return number

    host = await hub.start(app_of(flow), clock=clock)
    await host.client.start("flow", 1, instance_id="i", tags={"of": "ann"})
    for number in (1, 2):
        clock.advance(60)
        await host.client.raise_event("i", "go")
        await has_input(host, number + 1)
        types = [entry.event_type for entry in await host.client.get_history("i")]
        assert types == ["OrchestratorStarted", "ExecutionStarted", "EventAwaited"]
        host = await hub.recover(host, app_of(flow), clock=clock)
    await host.client.raise_event("i", "go")
    done = await host.client.wait_for_completion("i")
    assert (done.output, done.input, done.created_time, done.tags) == (3, 3, START, {"of": "ann"})
    assert [instance_id for instance_id, _ in seen] == ["i"] * 3
    assert len({execution_id for _, execution_id in seen}) == 3


async def test_4_7_2_events_that_nobody_took_move_on_in_their_order(hub: Deployment) -> None:
    async def flow(ctx: OrchestrationContext, again: bool) -> Any:
        await ctx.wait_for_external_event("go")
        if again:
            ctx.continue_as_new(False)
            return None
        return [await ctx.wait_for_external_event(name) for name in ("a", "b", "a")]

    host = await hub.start(app_of(flow))
    await host.client.start("flow", True, instance_id="i")
    for name, value in (("a", 1), ("b", 2), ("A", 3)):
        await host.client.raise_event("i", name, value)
    await host.client.raise_event("i", "go")
    await has_input(host, False)
    host = await hub.recover(host, app_of(flow))
    await host.client.raise_event("i", "go")
    assert (await host.client.wait_for_completion("i")).output == [1, 2, 3]


async def test_4_7_2_events_between_the_call_and_the_commit_move_on(hub: Deployment) -> None:
    """Fifty raises at once meet an execution that takes one and continues: none is lost, and their order stays."""

    async def flow(ctx: OrchestrationContext, taken: list[int]) -> Any:
        ctx.continue_as_new(taken)
        taken.append(await ctx.wait_for_external_event("item", int))
        if len(taken) == 50:
            ctx.set_custom_status("all")
            await ctx.wait_for_external_event("end")
        ctx.continue_as_new(taken)

    async with hub.host(app_of(flow)) as host:
        await host.client.start("flow", [], instance_id="i")
        await asyncio.gather(*(host.client.raise_event("i", "item", number) for number in range(50)))

        async def all_taken() -> bool:
            status = await host.client.get_status("i")
            return status is not None and status.custom_status == "all"

        await eventually(all_taken)
        status = await host.client.get_status("i")
        assert status is not None
        assert status.input == list(range(49))
        await host.client.terminate("i")


async def test_4_7_2_the_switch_leaves_events_behind(memory: Deployment) -> None:
    async def flow(ctx: OrchestrationContext, again: bool) -> Any:
        await ctx.wait_for_external_event("go")
        if again:
            ctx.continue_as_new(False, preserve_events=False)
            return None
        return await ctx.wait_for_external_event("a", timeout=0, default="left behind")

    async with memory.host(app_of(flow)) as host:
        await host.client.start("flow", True, instance_id="i")
        await host.client.raise_event("i", "a", 1)
        await host.client.raise_event("i", "go")
        await has_input(host, False)
        await host.client.raise_event("i", "go")
        assert (await host.client.wait_for_completion("i")).output == "left behind"


async def test_4_7_3_open_work_of_the_old_execution_does_not_reach_the_new_one(
    hub: Deployment, clock: ManualClock
) -> None:
    running: list[str] = []
    gates = {"old": asyncio.Event(), "new": asyncio.Event()}
    app = App()

    @app.activity
    async def work(which: str) -> str:
        running.append(which)
        try:
            await gates[which].wait()
        except asyncio.CancelledError:
            await gates[which].wait()  # stubborn: it returns a result although it was cancelled
        return which

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, which: str) -> Any:
        result = ctx.call_activity(work, which)  # call #0 in both executions
        ctx.create_timer(60 if which == "old" else 600)
        if which == "old":
            await ctx.wait_for_external_event("go")
            ctx.continue_as_new("new")
            return None
        return await result

    async with hub.host(app, clock=clock) as host:
        await host.client.start(flow, "old", instance_id="i")
        await eventually(lambda: running == ["old"])
        await host.client.raise_event("i", "go")
        await eventually(lambda: running == ["old", "new"])
        gates["old"].set()
        clock.advance(60)
        await is_quiet(host)
        types = [entry.event_type for entry in await host.client.get_history("i")]
        assert types == ["OrchestratorStarted", "ExecutionStarted", "TaskScheduled", "TimerCreated"]
        gates["new"].set()
        assert (await host.client.wait_for_completion("i")).output == "new"


async def test_4_7_5_the_custom_status_stays_until_it_is_set_again(hub: Deployment) -> None:
    async def flow(ctx: OrchestrationContext, number: int) -> Any:
        if number == 1:
            ctx.set_custom_status({"progress": 1})
        await ctx.wait_for_external_event("go")
        if number == 2:
            ctx.set_custom_status("over")
        if number < 3:
            ctx.continue_as_new(number + 1)

    host = await hub.start(app_of(flow))
    await host.client.start("flow", 1, instance_id="i")
    seen: list[Any] = []
    for number in (2, 3):
        await host.client.raise_event("i", "go")
        await has_input(host, number)
        host = await hub.recover(host, app_of(flow))
        status = await host.client.get_status("i")
        assert status is not None
        seen.append(status.custom_status)
    assert seen == [{"progress": 1}, "over"]
    await host.client.raise_event("i", "go")
    assert (await host.client.wait_for_completion("i")).custom_status == "over"


async def test_4_7_6_the_return_value_after_the_call_is_ignored(memory: Deployment) -> None:
    async def flow(ctx: OrchestrationContext, again: bool) -> Any:
        if again:
            ctx.continue_as_new("ignored")
            ctx.continue_as_new(False)  # the last one counts
            return object()  # not even looked at
        return "second"

    async with memory.host(app_of(flow)) as host:
        handle = await host.client.start("flow", True)
        assert await handle.result() == "second"


async def test_4_7_6_code_that_raises_after_the_call_fails(memory: Deployment) -> None:
    async def flow(ctx: OrchestrationContext) -> Any:
        ctx.continue_as_new()
        raise ValueError("broken")

    async with memory.host(app_of(flow)) as host:
        done = await (await host.client.start("flow")).wait_for_completion()
        assert done.failure is not None
        assert (done.runtime_status, done.failure.message) == ("Failed", "broken")


async def test_4_7_6_work_goes_on_between_the_call_and_the_return(memory: Deployment) -> None:
    async def flow(ctx: OrchestrationContext, again: bool) -> Any:
        if not again:
            return "second"
        ctx.continue_as_new(False)
        await ctx.wait_for_external_event("go")
        return None

    async with memory.host(app_of(flow)) as host:
        handle = await host.client.start("flow", True, instance_id="i")
        await is_quiet(host)
        status = await handle.status()
        assert status is not None
        assert status.input is True
        await handle.raise_event("go")
        assert await handle.result() == "second"


async def test_4_7_7_ten_thousand_iterations_keep_memory_constant(memory: Deployment) -> None:
    at: dict[int, int] = {}

    async def flow(ctx: OrchestrationContext, number: int) -> int:
        if number in (2_000, 9_000):
            gc.collect()
            at[number] = sys.getallocatedblocks()
        if number < 10_000:
            ctx.continue_as_new(number + 1)
        return number

    async with memory.host(app_of(flow)) as host:
        handle = await host.client.start("flow", 0)
        assert await handle.result() == 10_000
        assert at[9_000] - at[2_000] < 3_500  # not even half a block per execution
        assert len(await handle.history()) == 3


@pytest.mark.parametrize("crash_after", [0, 1, 2, 3])
async def test_4_7_2_a_crash_around_the_change_of_execution_loses_no_event(
    hub: Deployment, crash_after: int
) -> None:
    async def flow(ctx: OrchestrationContext, taken: list[int]) -> Any:
        taken.append(await ctx.wait_for_external_event("item", int))
        if len(taken) == 4:
            return taken
        ctx.continue_as_new(taken)
        return None

    host = await hub.start(app_of(flow))
    await host.client.start("flow", [], instance_id="i")
    for number in range(4):
        if number == crash_after:
            host = await hub.recover(host, app_of(flow))
        await host.client.raise_event("i", "item", number)
    assert (await host.client.wait_for_completion("i")).output == [0, 1, 2, 3]


async def test_4_7_3_a_child_of_the_old_execution_does_not_answer_the_new_one(memory: Deployment) -> None:
    app = App()

    @app.orchestrator
    async def child(ctx: OrchestrationContext, which: str) -> str:
        try:
            await ctx.wait_for_external_event("go")
        except asyncio.CancelledError:
            return f"{which} in spite of it"
        return which

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, which: str) -> Any:
        result = ctx.call_sub_orchestrator(child, which, instance_id=which)
        if which == "old":
            await ctx.wait_for_external_event("go")
            ctx.continue_as_new("new")
            return None
        return await result

    async with memory.host(app) as host:
        await host.client.start(flow, "old", instance_id="i")
        await has_event(host, "i", "EventAwaited")
        await host.client.raise_event("i", "go")
        assert (await host.client.wait_for_completion("old")).output == "old in spite of it"
        await is_quiet(host)
        status = await host.client.get_status("i")
        assert status is not None
        assert (status.runtime_status, status.input) == ("Running", "new")
        await host.client.raise_event("new", "go")
        assert (await host.client.wait_for_completion("i")).output == "new"
