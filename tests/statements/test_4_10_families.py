"""FEATURES 4.10.7, 4.6.4, 4.6.5: restart, and orders that reach the descendants."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from durably import App, AppHost, InstanceNotFoundError, InstanceStateError, OrchestrationContext
from tests.support.clock import ManualClock
from tests.support.hubs import Deployment, MemoryHubOfTest
from tests.support.waiting import eventually, has_event, is_quiet, reaches


async def statuses(host: AppHost) -> dict[str, str]:
    page = await host.client.query_instances()
    return {one.instance_id: str(one.runtime_status) for one in page.instances}


# --- restart ---------------------------------------------------------------------------------------------------------


def waiting() -> App:
    app = App()

    @app.orchestrator(version="2")
    async def flow(ctx: OrchestrationContext, value: Any) -> Any:
        event = await ctx.wait_for_external_event("go")
        if event == "fail":
            raise ValueError("told to")
        if event == "again":
            ctx.continue_as_new(value + 1)
        return [value, event]

    return app


@pytest.mark.parametrize("end", ["Completed", "Failed", "Canceled", "Terminated"])
@pytest.mark.parametrize("crash", [False, True])
async def test_4_10_7_restart_with_the_same_id_replaces_a_finished_instance(
    hub: Deployment, end: str, crash: bool
) -> None:
    app = waiting()
    host = await hub.start(app)
    await host.client.start("flow", 7, instance_id="i", version="2", tags={"team": "x"})
    match end:
        case "Canceled":
            await host.client.cancel("i")
        case "Terminated":
            await host.client.terminate("i")
        case _:
            await host.client.raise_event("i", "go", "fail" if end == "Failed" else 1)
    await reaches(host, "i", end)
    if crash:
        host = await hub.recover(host, app)
    handle = await host.client.restart("i", reason="once more")
    assert handle.instance_id == "i"
    if crash:
        host = await hub.recover(host, app)
    await host.client.raise_event("i", "go", 2)
    done = await host.client.wait_for_completion("i")
    assert (done.output, done.name, done.version, done.tags) == ([7, 2], "flow", "2", {"team": "x"})
    history = await host.client.get_history("i")
    assert [entry.event_type for entry in history].count("ExecutionStarted") == 1
    assert history[1].details["reason"] == "once more"


@pytest.mark.parametrize("state", ["Pending", "Running", "Suspended"])
async def test_4_10_7_restart_with_the_same_id_is_refused_before_the_end(
    hub: Deployment, clock: ManualClock, state: str
) -> None:
    host = await hub.start(waiting(), clock=clock)
    await host.client.start("flow", 7, instance_id="i", start_at=60.0 if state == "Pending" else None)
    if state == "Suspended":
        await host.client.suspend("i")
    with pytest.raises(InstanceStateError, match="terminate it first") as caught:
        await host.client.restart("i")
    assert (caught.value.status, caught.value.operation) == (state, "restart")
    assert await statuses(host) == {"i": state}


@pytest.mark.parametrize("ended", [False, True])
async def test_4_10_7_restart_with_a_new_id_leaves_the_old_one_alone(hub: Deployment, ended: bool) -> None:
    host = await hub.start(waiting())
    await host.client.start("flow", 7, instance_id="i", tags={"team": "x"})
    if ended:
        await host.client.raise_event("i", "go", 1)
        await reaches(host, "i", "Completed")
    old = await host.client.get_status("i")
    handle = await host.client.handle("i").restart(new_instance_id=True)
    assert handle.instance_id != "i"
    assert len(handle.instance_id) == 32
    await handle.raise_event("go", 2)
    assert await handle.result() == [7, 2]
    new = await handle.status()
    assert new is not None
    assert (new.tags, new.parent_instance_id) == ({"team": "x"}, None)
    assert await host.client.get_status("i") == old


async def test_4_10_7_restart_of_an_unknown_instance_is_refused(hub: Deployment) -> None:
    host = await hub.start(waiting())
    for new_instance_id in (False, True):
        with pytest.raises(InstanceNotFoundError):
            await host.client.restart("unknown", new_instance_id=new_instance_id)
    assert await statuses(host) == {}


async def test_4_10_7_after_continue_as_new_the_input_is_that_of_the_current_execution(
    hub: Deployment,
) -> None:
    host = await hub.start(waiting())
    await host.client.start("flow", 7, instance_id="i")
    await host.client.raise_event("i", "go", "again")
    await host.client.raise_event("i", "go", 1)
    assert (await host.client.wait_for_completion("i")).output == [8, 1]
    await host.client.restart("i")
    await host.client.raise_event("i", "go", 2)
    assert (await host.client.wait_for_completion("i")).output == [8, 2]


async def test_4_10_7_of_two_restarts_at_the_same_time_one_wins(hub: Deployment) -> None:
    host = await hub.start(waiting())
    await host.client.start("flow", 7, instance_id="i")
    await host.client.raise_event("i", "go", 1)
    await reaches(host, "i", "Completed")
    outcomes = await asyncio.gather(
        host.client.restart("i"), host.client.restart("i"), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Handle", "InstanceStateError"]


# --- families --------------------------------------------------------------------------------------------------------


def family() -> App:
    """Each generation calls two children, down to the leaves, which wait; and starts one that is on its own."""
    app = App()

    @app.orchestrator
    async def branch(ctx: OrchestrationContext, depth: int) -> Any:
        if depth == 0:
            return await ctx.wait_for_external_event("go")
        calls = [
            ctx.call_sub_orchestrator(branch, depth - 1, instance_id=f"{ctx.instance_id}.{n}") for n in "ab"
        ]
        ctx.start_orchestration(branch, 0, instance_id=f"{ctx.instance_id}-free")
        return await ctx.when_all(calls)

    return app


TREE = ["p", "p.a", "p.b", "p.a.a", "p.a.b", "p.b.a", "p.b.b"]
FREE = ["p-free", "p.a-free", "p.b-free"]


async def grown(hub: Deployment) -> AppHost:
    host = await hub.start(family())
    await host.client.start("branch", 2, instance_id="p")

    async def all_run() -> bool:
        return await statuses(host) == dict.fromkeys([*TREE, *FREE], "Running")

    await eventually(all_run, "a family")
    return host


async def test_4_6_4_terminate_leaves_the_children_unless_it_is_recursive(hub: Deployment) -> None:
    host = await grown(hub)
    await host.client.terminate("p", "enough")
    await is_quiet(host)
    assert await statuses(host) == {**dict.fromkeys([*TREE, *FREE], "Running"), "p": "Terminated"}


@pytest.mark.parametrize("crash", [False, True])
async def test_4_6_4_a_recursive_terminate_ends_all_descendants_and_nothing_revives_the_parent(
    hub: Deployment, crash: bool
) -> None:
    host = await grown(hub)
    if crash:
        host = await hub.recover(host, family())
    await host.client.suspend("p.a")
    await host.client.terminate("p", "enough", recursive=True)
    expected = {**dict.fromkeys(TREE, "Terminated"), **dict.fromkeys(FREE, "Running")}
    assert await statuses(host) == expected
    leaf = await host.client.get_status("p.b.a")
    assert leaf is not None
    assert leaf.output == "enough"
    history = await host.client.get_history("p")
    host = await hub.recover(host, family())
    await is_quiet(host)
    assert await statuses(host) == expected
    assert await host.client.get_history("p") == history


async def test_4_6_4_a_recursive_terminate_reaches_a_child_that_was_given_up_and_still_cleans_up(
    hub: Deployment,
) -> None:
    app = App()

    @app.orchestrator
    async def slow(ctx: OrchestrationContext) -> None:
        try:
            await ctx.wait_for_external_event("never")
        finally:
            await ctx.wait_for_external_event("cleaned up")

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> None:
        child = ctx.call_sub_orchestrator(slow, instance_id="c")
        await ctx.wait_for_external_event("go")
        child.cancel()
        await ctx.wait_for_external_event("never")

    host = await hub.start(app)
    await host.client.start(flow, instance_id="p")
    await reaches(host, "c", "Running")
    await host.client.raise_event("p", "go")
    await has_event(host, "c", "CancelRequested")
    await host.client.terminate("p", recursive=True)
    await reaches(host, "c", "Terminated")


async def test_4_6_4_a_stranger_under_the_id_of_a_child_is_left_alone(hub: Deployment) -> None:
    host = await grown(hub)
    await host.client.start("branch", 0, instance_id="p.a", on_existing="replace")
    await host.client.terminate("p", recursive=True)
    await is_quiet(host)
    seen = await statuses(host)
    assert seen["p.a"] == "Running"
    assert seen["p.b.a"] == "Terminated"


async def test_4_6_5_purge_leaves_the_children_unless_it_is_recursive(hub: Deployment) -> None:
    host = await grown(hub)
    await host.client.terminate("p", recursive=True)
    assert await host.client.purge("p") is True
    assert set(await statuses(host)) == {*TREE[1:], *FREE}


@pytest.mark.parametrize("crash", [False, True])
async def test_4_6_5_a_recursive_purge_deletes_all_finished_descendants(hub: Deployment, crash: bool) -> None:
    host = await grown(hub)
    await host.client.terminate("p", recursive=True)
    if crash:
        host = await hub.recover(host, family())
    assert await host.client.purge("p", recursive=True) is True
    assert set(await statuses(host)) == set(FREE)
    assert await host.client.purge("p", recursive=True) is False


async def test_4_6_5_a_descendant_that_has_not_ended_stays_with_all_below_it(hub: Deployment) -> None:
    host = await grown(hub)
    await host.client.terminate("p")
    await host.client.terminate("p.a", recursive=True)
    with pytest.raises(InstanceStateError):
        await host.client.purge("p.b", recursive=True)
    assert await host.client.purge("p", recursive=True) is True
    assert set(await statuses(host)) == {"p.b", "p.b.a", "p.b.b", *FREE}


async def test_4_6_5_what_a_rewind_dropped_is_purged_too_and_no_row_is_left(memory: Deployment) -> None:
    app = App()
    broken = True

    @app.activity
    async def work() -> str:
        if broken:
            raise ValueError("broken")
        return "fine"

    @app.orchestrator
    async def leaf(ctx: OrchestrationContext) -> str:
        return "leaf"

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        await ctx.call_sub_orchestrator(leaf, instance_id="before")
        try:
            return await ctx.call_activity(work)
        except Exception:
            await ctx.call_sub_orchestrator(leaf, instance_id="undo")
            raise

    host = await memory.start(app)
    await host.client.start(flow, instance_id="p")
    for _ in range(2):
        await reaches(host, "p", "Failed")
        await host.client.rewind("p")
    await reaches(host, "p", "Failed")
    broken = False
    await host.client.rewind("p")
    await reaches(host, "p", "Completed")
    assert set(await statuses(host)) == {"p", "before", "undo"}
    assert await host.client.purge("p", recursive=True) is True
    assert await statuses(host) == {}
    assert isinstance(memory.hub, MemoryHubOfTest)
    rows = memory.hub.hub
    assert (any(rows.history.values()), rows.timers, rows.inbox) == (False, {}, {})


# --- children of executions before a continue-as-new -----------------------------------------------------------------


def eternal() -> App:
    """Each round calls a child, which calls one itself, and starts one on its own; then continues as new, or waits.

    Children that are given up clean up for as long as nobody tells them that it is enough.
    """
    app = App()

    @app.orchestrator
    async def leaf(ctx: OrchestrationContext) -> str:
        try:
            return await ctx.wait_for_external_event("go", str)
        finally:
            await ctx.wait_for_external_event("clean")

    @app.orchestrator
    async def child(ctx: OrchestrationContext) -> str:
        try:
            return await ctx.call_sub_orchestrator(leaf, instance_id=f"{ctx.instance_id}.leaf")
        finally:
            await ctx.wait_for_external_event("clean")

    @app.orchestrator
    async def rounds(ctx: OrchestrationContext, number: int) -> None:
        call = ctx.call_sub_orchestrator(child, instance_id=f"{ctx.instance_id}.{number}")
        ctx.start_orchestration(leaf, instance_id=f"{ctx.instance_id}.{number}-free")
        if await ctx.wait_for_external_event("next", str) == "wait":
            await call
        ctx.continue_as_new(number + 1)

    return app


def generations(*numbers: int) -> list[str]:
    return [f"p.{number}{what}" for number in numbers for what in ("", ".leaf")]


def free(*numbers: int) -> list[str]:
    return [f"p.{number}-free" for number in numbers]


async def all_are(host: AppHost, expected: dict[str, str]) -> None:
    async def look() -> bool:
        return await statuses(host) == expected

    await eventually(look, f"{expected}")


async def gone_round(hub: Deployment, rounds: int) -> AppHost:
    host = await hub.start(eternal())
    await host.client.start("rounds", 0, instance_id="p")
    for number in range(rounds):
        await reaches(host, f"p.{number}.leaf", "Running")
        await host.client.raise_event("p", "next", "again")
        await has_event(host, f"p.{number}", "CancelRequested")
    await all_are(
        host, dict.fromkeys(["p", *generations(*range(rounds + 1)), *free(*range(rounds + 1))], "Running")
    )
    return host


@pytest.mark.parametrize("crash", [False, True])
async def test_4_6_4_a_recursive_terminate_reaches_children_of_executions_before(
    hub: Deployment, crash: bool
) -> None:
    host = await gone_round(hub, 2)
    if crash:
        host = await hub.recover(host, eternal())
    await host.client.terminate("p", "enough", recursive=True)
    ended = dict.fromkeys(["p", *generations(0, 1, 2)], "Terminated")
    assert await statuses(host) == {**ended, **dict.fromkeys(free(0, 1, 2), "Running")}


@pytest.mark.parametrize("crash", [False, True])
async def test_4_6_5_a_recursive_purge_reaches_children_of_executions_before(
    hub: Deployment, crash: bool
) -> None:
    host = await gone_round(hub, 2)
    await host.client.terminate("p", recursive=True)
    if crash:
        host = await hub.recover(host, eternal())
    assert await host.client.purge("p", recursive=True) is True
    assert await statuses(host) == dict.fromkeys(free(0, 1, 2), "Running")


async def test_4_6_5_a_purge_that_is_refused_leaves_the_children_of_executions_before(
    hub: Deployment,
) -> None:
    host = await gone_round(hub, 1)
    await host.client.terminate("p.0", recursive=True)
    with pytest.raises(InstanceStateError):
        await host.client.purge("p", recursive=True)
    assert set(await statuses(host)) == {"p", *generations(0, 1), *free(0, 1)}


async def test_4_6_5_what_is_below_a_child_that_has_not_ended_stays_even_when_it_has_ended(
    hub: Deployment,
) -> None:
    host = await gone_round(hub, 1)
    await host.client.terminate("p")
    for leaf in ("p.0.leaf", "p.1.leaf"):
        await host.client.terminate(leaf)
    assert await host.client.purge("p", recursive=True) is True
    assert set(await statuses(host)) == {*generations(0, 1), *free(0, 1)}


@pytest.mark.parametrize("anew", ["start", "restart", "purge"])
async def test_4_6_4_children_of_an_instance_that_was_replaced_are_strangers(
    hub: Deployment, anew: str
) -> None:
    host = await gone_round(hub, 1)
    if anew == "start":
        await host.client.start("rounds", 7, instance_id="p", on_existing="replace")
    else:
        await host.client.terminate("p")
        if anew == "restart":
            await host.client.restart("p")  # with the input of its last execution: that child is there
        else:
            await host.client.purge("p")
            await host.client.start("rounds", 7, instance_id="p")
    if anew != "restart":
        await reaches(host, "p.7.leaf", "Running")
    await host.client.terminate("p", recursive=True)
    seen = await statuses(host)
    assert {seen[key] for key in generations(0, 1)} == {"Running"}
    assert seen["p"] == "Terminated"
    assert {seen[key] for key in generations(7) if key in seen} <= {"Terminated"}


async def test_4_6_4_a_life_lasts_over_rewinds_and_what_continues_after_them(hub: Deployment) -> None:
    app = App()
    broken = True

    @app.orchestrator
    async def stubborn(ctx: OrchestrationContext) -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await ctx.wait_for_external_event("never")

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, number: int) -> None:
        ctx.call_sub_orchestrator(stubborn, instance_id=f"p.{number}")
        await ctx.wait_for_external_event("next")
        if broken:
            raise ValueError("broken")
        ctx.continue_as_new(number + 1)

    host = await hub.start(app)
    await host.client.start(flow, 0, instance_id="p")
    for number in range(3):
        broken = True
        await reaches(host, f"p.{number}", "Running")
        await host.client.raise_event("p", "next")
        await reaches(host, "p", "Failed")
        broken = False
        await host.client.rewind("p")
    await reaches(host, "p.3", "Running")
    await host.client.terminate("p", recursive=True)
    assert await statuses(host) == dict.fromkeys(["p", "p.0", "p.1", "p.2", "p.3"], "Terminated")


async def test_children_are_found_by_their_parent(hub: Deployment) -> None:
    host = await grown(hub)
    page = await host.client.query_instances(parent_instance_id="p")
    assert [one.instance_id for one in page.instances] == ["p.a", "p.b"]
    assert {one.parent_instance_id for one in page.instances} == {"p"}
    page = await host.client.query_instances(parent_instance_id="p", runtime_status="Completed")
    assert page.instances == []


@pytest.mark.parametrize("order", ["terminate", "purge"])
async def test_a_stranger_under_the_id_of_a_child_keeps_its_own_children(hub: Deployment, order: str) -> None:
    app = App()

    @app.orchestrator
    async def leaf(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go")

    @app.orchestrator
    async def stranger(ctx: OrchestrationContext) -> Any:
        first = ctx.call_sub_orchestrator(leaf, instance_id="its own")
        await ctx.wait_for_external_event("go")
        return await first

    @app.orchestrator
    async def parent(ctx: OrchestrationContext) -> Any:
        ctx.call_sub_orchestrator(stranger, instance_id="taken")
        await ctx.wait_for_external_event("go")

    host = await hub.start(app)
    await host.client.start(stranger, instance_id="taken")
    await reaches(host, "its own", "Running")
    await host.client.start(parent, instance_id="p")
    await has_event(host, "p", "SubOrchestrationInstanceFailed")
    if order == "purge":
        await host.client.raise_event("its own", "go")
        await reaches(host, "its own", "Completed")
        await host.client.raise_event("p", "go")
        await reaches(host, "p", "Completed")
        await host.client.purge("p", recursive=True)
        expected = {"its own": "Completed", "taken": "Running"}
    else:
        await host.client.terminate("p", recursive=True)
        expected = {"p": "Terminated", "its own": "Running", "taken": "Running"}
    assert await statuses(host) == expected
