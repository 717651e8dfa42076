"""FEATURES 4.2: tasks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durably import App, EngineOptions, OrchestrationContext, TaskFailedError
from tests.support.clock import ManualClock
from tests.support.hubs import Deployment
from tests.support.waiting import eventually, has_event, is_quiet, reaches


def app_with_echo() -> App:
    app = App()
    app.activity(name="echo")(lambda value: value)
    return app


async def test_4_2_1_when_all_waits_for_every_child_and_keeps_the_order_of_the_arguments(
    memory: Deployment,
) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        return await ctx.when_all([ctx.wait_for_external_event(name) for name in "abc"])

    async with memory.host(app) as host:
        handle = await host.client.start(flow)
        for name in "cab":
            status = await handle.status()
            assert status is not None
            assert status.runtime_status == "Running"
            await handle.raise_event(name, name.upper())
        assert await handle.result() == ["A", "B", "C"]


async def test_4_2_1_when_all_raises_the_first_failure_in_completion_order_after_the_last_child(
    memory: Deployment,
) -> None:
    gates = {name: asyncio.Event() for name in "abc"}
    caught: list[str] = []
    app = App()

    @app.activity
    async def work(name: str) -> str:
        await gates[name].wait()
        if name == "c":
            return "fine"
        raise ValueError(name)

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        try:
            await ctx.when_all([ctx.call_activity(work, name) for name in "abc"])
        except TaskFailedError as error:
            caught.append(error.details.message)
        return await ctx.wait_for_external_event("go", str)

    host = await memory.start(app)
    handle = await host.client.start(flow, instance_id="i")
    for name in "bac":
        assert caught == []
        gates[name].set()
        await has_event(
            host, "i", "TaskCompleted" if name == "c" else "TaskFailed", "bac".index(name) % 2 + 1
        )
    assert caught == ["b"]
    host = await memory.recover(host, app)
    await host.client.raise_event("i", "go", "on")
    assert (await host.client.wait_for_completion(handle.instance_id)).output == "on"
    assert caught == ["b", "b"]  # the same one on replay


async def test_4_2_2_when_all_of_nothing_is_done_and_when_any_of_nothing_raises(memory: Deployment) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        everything = ctx.when_all([])
        assert everything.done()
        try:
            ctx.when_any([])
        except Exception as error:  # noqa: BLE001
            return [await everything, type(error).__name__, str(error)]

    async with memory.host(app) as host:
        found, kind, text = await (await host.client.start(flow)).result()
        assert (found, kind) == ([], "UsageError")
        assert "at least one" in text


async def test_4_2_3_when_any_gives_the_task_that_was_first_in_history_and_again_on_replay(
    memory: Deployment,
) -> None:
    winners: list[list[bool]] = []
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        tasks = [ctx.wait_for_external_event(name) for name in "abc"]
        winner = await ctx.when_any(tasks)
        winners.append([winner is task for task in tasks])
        await ctx.wait_for_external_event("go")
        return winner.result()

    host = await memory.start(app)
    handle = await host.client.start(flow, instance_id="i")
    # one batch, and so one turn or several: the order of arrival decides
    await asyncio.gather(*(handle.raise_event(name, name) for name in "bac"))
    host = await memory.recover(host, app)
    await host.client.raise_event("i", "go")
    assert (await host.client.wait_for_completion("i")).output == "b"
    assert winners == [[False, True, False]] * 2


async def test_4_2_4_losing_tasks_stay_usable_and_give_their_result(memory: Deployment) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        slow, quick = ctx.wait_for_external_event("slow"), ctx.wait_for_external_event("quick")
        winner = await ctx.when_any([slow, quick])
        return [winner is quick, await slow, await slow, await winner]

    async with memory.host(app) as host:
        handle = await host.client.start(flow)
        await handle.raise_event("quick", 1)
        await handle.raise_event("slow", 2)
        assert await handle.result() == [True, 2, 2, 1]


async def test_4_2_5_an_instance_completes_at_return_and_its_open_tasks_are_cancelled(
    hub: Deployment, clock: ManualClock
) -> None:
    canceled = asyncio.Event()
    running = asyncio.Event()
    app = App()

    @app.activity
    async def forever() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            canceled.set()
            raise

    @app.orchestrator
    async def child(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("never")

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        ctx.call_activity(forever)
        ctx.create_timer(3600)
        ctx.wait_for_external_event("never")
        ctx.call_sub_orchestrator(child, instance_id="c")
        await ctx.wait_for_external_event("go")
        return "done"

    async with hub.host(app, clock=clock) as host:
        handle = await host.client.start(flow, instance_id="i")
        await running.wait()
        await handle.raise_event("go")
        done = await handle.wait_for_completion()
        assert (done.runtime_status, done.output) == ("Completed", "done")
        await canceled.wait()
        history = await handle.history()
        assert history[-5].event_type == "ExecutionCompleted"
        assert [entry.task_id for entry in history[-4:]] == [0, 1, 2, 3]
        assert all(entry.event_type.endswith("Canceled") for entry in history[-4:])
        await reaches(host, "c", "Canceled")
        clock.advance(7200)
        await is_quiet(host)
        assert await handle.history() == history


async def test_4_2_6_cancelling_a_completed_task_returns_false_and_changes_nothing(
    memory: Deployment,
) -> None:
    app = app_with_echo()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        task = ctx.call_activity("echo", 7)
        timer = ctx.create_timer(0)
        await task
        await timer
        return [task.cancel(), timer.cancel(), task.cancelled(), await task]

    async with memory.host(app) as host:
        handle = await host.client.start(flow)
        assert await handle.result() == [False, False, False, 7]
        types = [entry.event_type for entry in await handle.history()]
        assert "TaskCanceled" not in types
        assert "TimerCanceled" not in types


async def test_4_2_6_cancelling_an_open_task_returns_true_and_is_recorded_once(memory: Deployment) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        timer = ctx.create_timer(3600)
        return [timer.cancel(), timer.cancel(), timer.cancelled()]

    async with memory.host(app) as host:
        handle = await host.client.start(flow)
        assert await handle.result() == [True, False, True]
        types = [entry.event_type for entry in await handle.history()]
        assert types.count("TimerCanceled") == 1


async def test_4_2_7_results_that_arrive_after_completion_are_discarded(memory: Deployment) -> None:
    proceed = asyncio.Event()
    finished = asyncio.Event()
    app = App()

    @app.activity
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await proceed.wait()  # it is told, and goes on nevertheless
        finished.set()
        return "late"

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        ctx.call_activity(stubborn)
        await ctx.wait_for_external_event("go")
        return "early"

    async with memory.host(app) as host:
        handle = await host.client.start(flow)
        await eventually(lambda: len(host.engine.pool))
        await asyncio.sleep(0)
        await handle.raise_event("go")
        assert await handle.result() == "early"
        history = await handle.history()
        proceed.set()
        await finished.wait()
        await is_quiet(host)
        assert await handle.history() == history
        status = await handle.status()
        assert status is not None
        assert (status.runtime_status, status.output) == ("Completed", "early")
        assert len(host.engine.pool) == 0
        assert host.engine.failure is None


@pytest.mark.parametrize("catches", [False, True])
async def test_4_2_8_too_many_actions_fail_the_instance_with_a_clear_message(
    memory: Deployment, catches: bool
) -> None:
    app = app_with_echo()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        for number in range(11):
            try:
                await ctx.call_activity("echo", number)
            except Exception:
                if not catches:
                    raise
        return "unreachable"

    @app.orchestrator
    async def within(ctx: OrchestrationContext) -> int:
        for number in range(10):
            await ctx.call_activity("echo", number)
        return 10

    async with memory.host(app, options=EngineOptions(max_actions=10)) as host:
        done = await (await host.client.start(flow)).wait_for_completion()
        assert done.runtime_status == "Failed"
        assert done.failure is not None
        assert "more than 10 actions" in done.failure.message
        assert "continue_as_new" in done.failure.message
        assert await (await host.client.start(within)).result() == 10
