"""FEATURES 4.6: sub-orchestrations."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from durably import App, InstanceStateError, OrchestrationContext, RetryPolicy, TaskFailedError
from tests.support.clock import ManualClock
from tests.support.hubs import Deployment
from tests.support.waiting import eventually, has_event, is_quiet, reaches


def family(parent: Any) -> App:
    """An app with the given parent, and a child that answers "go" with its input."""
    app = App()
    app.orchestrator(name="parent")(parent)

    @app.orchestrator(name="child")
    async def child(ctx: OrchestrationContext, value: Any) -> Any:
        return [value, await ctx.wait_for_external_event("go")]

    @app.orchestrator(name="quick")
    async def quick(ctx: OrchestrationContext, value: Any) -> Any:
        return [ctx.instance_id, ctx.parent_instance_id, ctx.version, value]

    @app.orchestrator(name="failing")
    async def failing(ctx: OrchestrationContext, text: str) -> None:
        raise ValueError(text)

    return app


async def test_4_6_1_a_child_without_an_id_gets_one_of_parent_execution_and_call(hub: Deployment) -> None:
    async def parent(ctx: OrchestrationContext, again: bool) -> Any:
        ctx.create_timer(0)
        first = await ctx.call_sub_orchestrator("quick", 1)
        second = await ctx.call_sub_orchestrator("quick", 2)
        ctx.set_custom_status([first[0], second[0]])
        await ctx.wait_for_external_event("go")
        if again:
            ctx.continue_as_new(False)

    host = await hub.start(family(parent))
    await host.client.start("parent", True, instance_id="p")
    await has_event(host, "p", "CustomStatusSet")
    first = await host.client.get_status("p")
    assert first is not None
    assert first.custom_status == ["p:0:0001", "p:0:0002"]
    host = await hub.recover(host, family(parent))
    await host.client.raise_event("p", "go")
    await eventually(lambda: asks_for(host, "p", ["p:1:0001", "p:1:0002"]))
    await host.client.raise_event("p", "go")
    assert (await host.client.wait_for_completion("p")).blocked is None


async def asks_for(host: Any, instance_id: str, custom_status: Any) -> bool:
    status = await host.client.get_status(instance_id)
    return status is not None and status.custom_status == custom_status


@pytest.mark.parametrize("taken", ["p", "@entity", "a/b", ""])
async def test_4_6_2_a_child_cannot_take_the_id_of_its_parent_or_one_that_is_not_allowed(
    memory: Deployment, taken: str
) -> None:
    async def parent(ctx: OrchestrationContext) -> Any:
        try:
            await ctx.call_sub_orchestrator("quick", 1, instance_id=taken)
        except Exception as error:  # noqa: BLE001
            return type(error).__name__

    async with memory.host(family(parent)) as host:
        handle = await host.client.start("parent", instance_id="p")
        assert await handle.result() == "InvalidIdError"


async def test_4_6_2_a_grandchild_cannot_take_the_id_of_its_grandparent(memory: Deployment) -> None:
    async def parent(ctx: OrchestrationContext, depth: int) -> Any:
        if depth == 0:
            return await ctx.call_sub_orchestrator("parent", 1, instance_id="middle")
        try:
            await ctx.call_sub_orchestrator("quick", 1, instance_id="p")
        except Exception as error:  # noqa: BLE001
            return type(error).__name__

    async with memory.host(family(parent)) as host:
        handle = await host.client.start("parent", 0, instance_id="p")
        assert await handle.result() == "InvalidIdError"


async def test_4_6_3_the_failure_of_a_child_reaches_the_parent_with_details(memory: Deployment) -> None:
    async def parent(ctx: OrchestrationContext) -> Any:
        try:
            await ctx.call_sub_orchestrator("failing", "broken", instance_id="c")
        except TaskFailedError as error:
            details = error.details
            caught = [error.task_name, details.type, details.message, details.is_caused_by(ValueError)]
            await ctx.wait_for_external_event("go")
            return caught

    host = await memory.start(family(parent))
    await host.client.start("parent", instance_id="p")
    await has_event(host, "p", "EventAwaited")
    host = await memory.recover(host, family(parent))
    await host.client.raise_event("p", "go")
    done = await host.client.wait_for_completion("p")
    assert done.output == ["failing", "ValueError", "broken", True]
    child = await host.client.get_status("c")
    assert child is not None
    assert (child.runtime_status, child.parent_instance_id) == ("Failed", "p")


@pytest.mark.parametrize("how", ["terminate", "cancel"])
async def test_4_6_3_a_child_that_was_stopped_fails_in_the_parent(memory: Deployment, how: str) -> None:
    async def parent(ctx: OrchestrationContext) -> Any:
        try:
            await ctx.call_sub_orchestrator("child", 1, instance_id="c")
        except TaskFailedError as error:
            return [error.details.type, error.details.message]

    async with memory.host(family(parent)) as host:
        handle = await host.client.start("parent")
        await reaches(host, "c", "Running")
        await getattr(host.client, how)("c", "enough")
        kind = {"terminate": "Terminated", "cancel": "CancelledError"}[how]
        assert await handle.result() == [kind, "enough"]


@pytest.mark.parametrize("crash", [False, True])
async def test_4_6_4_terminating_a_parent_leaves_its_children_and_their_results_do_not_revive_it(
    hub: Deployment, crash: bool
) -> None:
    async def parent(ctx: OrchestrationContext) -> Any:
        return await ctx.call_sub_orchestrator("child", 1, instance_id="c")

    host = await hub.start(family(parent))
    await host.client.start("parent", instance_id="p")
    await reaches(host, "c", "Running")
    await host.client.terminate("p", "enough")
    before = await host.client.wait_for_completion("p")
    history = await host.client.get_history("p")
    if crash:
        host = await hub.recover(host, family(parent))
    await is_quiet(host)
    child = await host.client.get_status("c")
    assert child is not None
    assert child.runtime_status == "Running"
    await host.client.raise_event("c", "go", 2)
    assert (await host.client.wait_for_completion("c")).output == [1, 2]
    await is_quiet(host)
    assert await host.client.get_status("p") == before
    assert before.runtime_status == "Terminated"
    assert await host.client.get_history("p") == history


async def test_4_6_4_a_parent_that_is_gone_or_replaced_is_not_told(memory: Deployment) -> None:
    async def parent(ctx: OrchestrationContext, first: bool) -> Any:
        if first:
            return await ctx.call_sub_orchestrator("child", 1, instance_id="c")
        return await ctx.call_sub_orchestrator("child", 2, instance_id="d")

    async with memory.host(family(parent)) as host:
        await host.client.start("parent", True, instance_id="p")
        await reaches(host, "c", "Running")
        await host.client.start("parent", False, instance_id="p", on_existing="replace")
        await reaches(host, "d", "Running")
        await host.client.raise_event("c", "go", 1)  # call #0 too, but of the execution before
        await is_quiet(host)
        status = await host.client.get_status("p")
        assert status is not None
        assert status.runtime_status == "Running"
        await host.client.raise_event("d", "go", 2)
        assert (await host.client.wait_for_completion("p")).output == [2, 2]


async def test_4_6_5_purging_a_parent_leaves_its_children(hub: Deployment) -> None:
    async def parent(ctx: OrchestrationContext) -> Any:
        return await ctx.call_sub_orchestrator("quick", 1, instance_id="c")

    host = await hub.start(family(parent))
    await (await host.client.start("parent", instance_id="p")).result()
    assert await host.client.purge("p") is True
    host = await hub.restart(host, family(parent))
    assert await host.client.get_status("p") is None
    child = await host.client.get_status("c")
    assert child is not None
    assert child.output == ["c", "p", None, 1]


async def test_4_6_6_the_id_of_a_running_instance_fails_the_child_task_alone(hub: Deployment) -> None:
    async def parent(ctx: OrchestrationContext) -> Any:
        try:
            await ctx.call_sub_orchestrator("quick", 1, instance_id="taken")
        except TaskFailedError as error:
            return [
                error.details.type,
                "'taken'" in error.details.message,
                await ctx.call_sub_orchestrator("quick", 2),
            ]

    async with hub.host(family(parent)) as host:
        await host.client.start("child", 0, instance_id="taken")
        handle = await host.client.start("parent", instance_id="p")
        kind, named, after = await handle.result()
        assert (kind, named, after[-1]) == ("InstanceAlreadyExistsError", True, 2)
        await host.client.raise_event("taken", "go", "untouched")
        assert (await host.client.wait_for_completion("taken")).output == [0, "untouched"]


async def test_4_6_6_the_id_of_a_finished_instance_is_free(memory: Deployment) -> None:
    async def parent(ctx: OrchestrationContext) -> Any:
        first = await ctx.call_sub_orchestrator("quick", 1, instance_id="c")
        return [first, await ctx.call_sub_orchestrator("quick", 2, instance_id="c")]

    async with memory.host(family(parent)) as host:
        handle = await host.client.start("parent", instance_id="p")
        assert await handle.result() == [["c", "p", None, 1], ["c", "p", None, 2]]


async def test_4_6_7_a_child_does_not_inherit_the_version_of_its_parent(memory: Deployment) -> None:
    async def parent(ctx: OrchestrationContext) -> Any:
        plain = await ctx.call_sub_orchestrator("quick", 1)
        given = await ctx.call_sub_orchestrator("quick", 2, version="3.0")
        return [ctx.version, plain[2], given[2]]

    async with memory.host(family(parent)) as host:
        assert await (await host.client.start("parent", version="2.0")).result() == ["2.0", None, "3.0"]


async def test_4_6_8_an_orchestration_started_without_waiting_has_no_parent(memory: Deployment) -> None:
    async def parent(ctx: OrchestrationContext) -> Any:
        return [
            await ctx.start_orchestration("quick", 1, instance_id="s"),
            await ctx.start_orchestration("failing", "nobody is told"),
        ]

    async with memory.host(family(parent)) as host:
        named, made = await (await host.client.start("parent", instance_id="p")).result()
        assert (named, made) == ("s", "p:0:0001")
        assert (await reaches(host, "s", "Completed")).output == ["s", None, None, 1]
        assert (await reaches(host, made, "Failed")).parent_instance_id is None


async def test_4_6_9_each_retry_of_a_child_is_a_fresh_instance_and_shows_in_the_history(
    hub: Deployment, clock: ManualClock
) -> None:
    ran: list[str] = []
    app = App()

    @app.orchestrator
    async def child(ctx: OrchestrationContext) -> str:
        if not ctx.is_replaying:
            ran.append(ctx.instance_id)
        if len(ran) < 3:
            raise ValueError(f"attempt {len(ran)}")
        return ctx.instance_id

    @app.orchestrator
    async def parent(ctx: OrchestrationContext) -> str:
        policy = RetryPolicy(timedelta(seconds=10), 5)
        return await ctx.call_sub_orchestrator(child, instance_id="c", retry=policy)

    host = await hub.start(app, clock=clock)
    await host.client.start(parent, instance_id="p")
    for attempt in (1, 2):
        await has_event(host, "p", "TaskAttemptFailed", attempt)
        if attempt == 1:
            host = await hub.recover(host, app, clock=clock)
        clock.advance(9)
        await is_quiet(host)
        assert len(ran) == attempt
        clock.advance(1)
    assert (await host.client.wait_for_completion("p")).output == "c~3"
    assert ran == ["c", "c~2", "c~3"]
    attempts = [
        (entry.event_type, entry.details["attempt"])
        for entry in await host.client.get_history("p")
        if entry.event_type.startswith("TaskAttempt")
    ]
    assert attempts == [
        ("TaskAttemptFailed", 1),
        ("TaskAttemptStarted", 2),
        ("TaskAttemptFailed", 2),
        ("TaskAttemptStarted", 3),
    ]
    for instance_id, status in (("c", "Failed"), ("c~2", "Failed"), ("c~3", "Completed")):
        assert (await reaches(host, instance_id, status)).parent_instance_id == "p"


async def test_4_6_3_a_finished_child_answers_a_parent_that_was_suspended_meanwhile(hub: Deployment) -> None:
    async def parent(ctx: OrchestrationContext) -> Any:
        return await ctx.call_sub_orchestrator("child", 1, instance_id="c")

    host = await hub.start(family(parent))
    await host.client.start("parent", instance_id="p")
    await reaches(host, "c", "Running")
    await host.client.suspend("p")
    await host.client.raise_event("c", "go", 2)
    await reaches(host, "c", "Completed")
    host = await hub.recover(host, family(parent))
    with pytest.raises(InstanceStateError):
        await host.client.raise_event("c", "go", 2)
    await host.client.resume("p")
    assert (await host.client.wait_for_completion("p")).output == [1, 2]


async def test_4_6_3_a_child_of_many_answers_its_own_call(memory: Deployment) -> None:
    async def parent(ctx: OrchestrationContext) -> Any:
        return await asyncio.gather(*(ctx.call_sub_orchestrator("quick", number) for number in range(50)))

    async with memory.host(family(parent)) as host:
        results = await (await host.client.start("parent", instance_id="p")).result()
    assert [result[3] for result in results] == list(range(50))
    assert len({result[0] for result in results}) == 50
