"""FEATURES 4.5: external events."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from durably import App, InstanceNotFoundError, InstanceStateError, OrchestrationContext, UsageError
from tests.support.clock import ManualClock
from tests.support.hubs import Deployment
from tests.support.stores import FaultyStore
from tests.support.waiting import all_within, eventually, has_event, is_quiet


def app_of(body: Any) -> App:
    app = App()
    app.orchestrator(name="flow")(body)
    return app


async def test_4_5_1_an_event_that_came_before_the_wait_is_kept_for_it(hub: Deployment) -> None:
    async def flow(ctx: OrchestrationContext) -> Any:
        await ctx.wait_for_external_event("go")
        return await ctx.wait_for_external_event("early", int)

    host = await hub.start(app_of(flow))
    await host.client.start("flow", instance_id="i")
    await host.client.raise_event("i", "early", 1)
    host = await hub.recover(host, app_of(flow))
    await host.client.raise_event("i", "go")
    assert (await host.client.wait_for_completion("i")).output == 1


@pytest.mark.parametrize(
    ("waits", "raised"), [("Approval", "APPROVAL"), ("straße", "STRASSE"), ("ÉTÉ", "été")]
)
@pytest.mark.parametrize("early", [False, True])
async def test_4_5_2_names_match_without_regard_to_case(
    memory: Deployment, waits: str, raised: str, early: bool
) -> None:
    async def flow(ctx: OrchestrationContext) -> Any:
        if early:
            await ctx.wait_for_external_event("go")
        return await ctx.wait_for_external_event(waits, int)

    async with memory.host(app_of(flow)) as host:
        handle = await host.client.start("flow")
        await handle.raise_event(raised, 1)
        if early:
            await handle.raise_event("go")
        assert await handle.result() == 1


async def test_4_5_3_events_of_one_name_come_in_the_order_of_their_arrival_one_per_wait(
    hub: Deployment,
) -> None:
    async def flow(ctx: OrchestrationContext) -> Any:
        await ctx.wait_for_external_event("go")
        return [await ctx.wait_for_external_event("item", int) for _ in range(20)]

    host = await hub.start(app_of(flow))
    await host.client.start("flow", instance_id="i")
    for number in range(10):
        await host.client.raise_event("i", "item", number)
    host = await hub.recover(host, app_of(flow))
    await asyncio.gather(*(host.client.raise_event("i", "ITEM", number) for number in range(10, 20)))
    await host.client.raise_event("i", "go")
    assert (await host.client.wait_for_completion("i")).output == list(range(20))


async def test_4_5_4_the_earliest_wait_is_served_first(hub: Deployment) -> None:
    async def flow(ctx: OrchestrationContext) -> Any:
        return await ctx.when_all([ctx.wait_for_external_event("go", int) for _ in range(3)])

    host = await hub.start(app_of(flow))
    await host.client.start("flow", instance_id="i")
    await host.client.raise_event("i", "go", 1)
    host = await hub.recover(host, app_of(flow))
    await host.client.raise_event("i", "go", 2)
    await host.client.raise_event("i", "go", 3)
    assert (await host.client.wait_for_completion("i")).output == [1, 2, 3]


@pytest.mark.parametrize("how", ["cancel", "timeout", "wait_for"])
async def test_4_5_4_an_abandoned_wait_takes_no_event(
    memory: Deployment, clock: ManualClock, how: str
) -> None:
    async def flow(ctx: OrchestrationContext) -> Any:
        if how == "cancel":
            ctx.wait_for_external_event("go", int).cancel()
        elif how == "timeout":
            assert await ctx.wait_for_external_event("go", int, timeout=10, default=-1) == -1
        else:
            try:
                await asyncio.wait_for(ctx.wait_for_external_event("go", int), 10)
            except TimeoutError:
                pass
        return await ctx.wait_for_external_event("go", int)

    host = await memory.start(app_of(flow), clock=clock)
    await host.client.start("flow", instance_id="i")
    clock.advance(10)
    await has_event(host, "i", "EventAwaited", 2)
    host = await memory.recover(host, app_of(flow), clock=clock)
    await host.client.raise_event("i", "go", 7)
    assert (await host.client.wait_for_completion("i")).output == 7


async def test_4_5_5_events_of_different_names_do_not_take_each_other(memory: Deployment) -> None:
    async def flow(ctx: OrchestrationContext) -> Any:
        a = await ctx.wait_for_external_event("a", int)
        b, ab = await ctx.when_all([ctx.wait_for_external_event("b"), ctx.wait_for_external_event("ab")])
        return [a, b, ab]

    async with memory.host(app_of(flow)) as host:
        handle = await host.client.start("flow")
        for name, value in (("ab", 3), ("b", 2), ("a ", 9), ("a", 1)):
            await handle.raise_event(name, value)
        assert await handle.result() == [1, 2, 3]


async def test_4_5_6_a_null_payload_is_an_event(memory: Deployment, clock: ManualClock) -> None:
    async def flow(ctx: OrchestrationContext) -> Any:
        first = await ctx.wait_for_external_event("null", timeout=10, default="nothing came")
        second = await ctx.wait_for_external_event("null", timeout=10, default="nothing came")
        return [first, second]

    async with memory.host(app_of(flow), clock=clock) as host:
        handle = await host.client.start("flow")
        await handle.raise_event("null", None)
        await has_event(host, handle.instance_id, "EventAwaited", 2)
        clock.advance(10)
        assert await handle.result() == [None, "nothing came"]


@pytest.mark.parametrize("crash", [False, True])
async def test_4_5_7_an_event_to_a_pending_instance_is_kept_until_it_started(
    hub: Deployment, clock: ManualClock, crash: bool
) -> None:
    async def flow(ctx: OrchestrationContext) -> Any:
        return [await ctx.wait_for_external_event("go", int) for _ in range(2)]

    host = await hub.start(app_of(flow), clock=clock)
    await host.client.start("flow", instance_id="i", start_at=60.0)
    await host.client.raise_event("i", "go", 1)
    await host.client.raise_event("i", "go", 2)
    if crash:
        host = await hub.recover(host, app_of(flow), clock=clock)
    status = await host.client.get_status("i")
    assert status is not None
    assert status.runtime_status == "Pending"
    clock.advance(60)
    assert (await host.client.wait_for_completion("i")).output == [1, 2]


@pytest.mark.parametrize("crash", [False, True])
async def test_4_5_8_an_event_to_a_suspended_instance_is_kept_until_it_is_resumed(
    hub: Deployment, crash: bool
) -> None:
    async def flow(ctx: OrchestrationContext) -> Any:
        return [await ctx.wait_for_external_event("go", int) for _ in range(3)]

    host = await hub.start(app_of(flow))
    await host.client.start("flow", instance_id="i")
    await host.client.raise_event("i", "go", 0)
    await host.client.suspend("i")
    await host.client.raise_event("i", "go", 1)
    await host.client.raise_event("i", "go", 2)
    if crash:
        host = await hub.recover(host, app_of(flow))
    await is_quiet(host)
    types = [entry.event_type for entry in await host.client.get_history("i")]
    assert types.count("EventRaised") == 1
    await host.client.resume("i")
    assert (await host.client.wait_for_completion("i")).output == [0, 1, 2]


@pytest.mark.parametrize("crash", [False, True])
async def test_4_5_9_an_event_to_a_finished_instance_is_refused_and_does_not_revive_it(
    hub: Deployment, crash: bool
) -> None:
    async def flow(ctx: OrchestrationContext) -> str:
        return "done"

    host = await hub.start(app_of(flow))
    await host.client.start("flow", instance_id="i")
    before = await host.client.wait_for_completion("i")
    if crash:
        host = await hub.recover(host, app_of(flow))
    with pytest.raises(InstanceStateError) as caught:
        await host.client.raise_event("i", "go", 1)
    assert (caught.value.instance_id, caught.value.status) == ("i", "Completed")
    await is_quiet(host)
    assert await host.client.get_status("i") == before


async def test_4_5_10_an_event_to_an_unknown_id_is_refused_and_creates_nothing(memory: Deployment) -> None:
    async def flow(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go", timeout=0, default="nothing was kept")

    async with memory.host(app_of(flow)) as host:
        with pytest.raises(InstanceNotFoundError):
            await host.client.raise_event("nobody", "go", 1)
        assert await host.client.get_status("nobody") is None
        assert (await host.client.query_instances()).instances == []
        handle = await host.client.start("flow", instance_id="nobody")
        assert await handle.result() == "nothing was kept"


async def test_4_5_10_an_orchestration_that_sends_to_nobody_goes_on(memory: Deployment) -> None:
    async def flow(ctx: OrchestrationContext) -> str:
        await ctx.send_event("nobody", "hello", 1)
        return "sent"

    async with memory.host(app_of(flow)) as host:
        assert await (await host.client.start("flow")).result() == "sent"
        await is_quiet(host)
        assert await host.client.get_status("nobody") is None


async def test_4_5_11_the_payload_is_read_by_the_type_of_its_wait(memory: Deployment) -> None:
    @dataclass
    class Approval:
        by: str
        level: int = 1

    async def flow(ctx: OrchestrationContext) -> Any:
        plain, typed = ctx.wait_for_external_event("go"), ctx.wait_for_external_event("go", Approval)
        approval = await typed
        return [await plain, type(approval).__name__, approval.by, approval.level]

    async with memory.host(app_of(flow)) as host:
        handle = await host.client.start("flow")
        await handle.raise_event("go", {"by": "ann"})
        await handle.raise_event("go", Approval("bob", 2))
        assert await handle.result() == [{"by": "ann"}, "Approval", "bob", 2]


async def test_4_5_11_a_payload_of_another_type_fails_its_wait_alone(memory: Deployment) -> None:
    async def flow(ctx: OrchestrationContext) -> Any:
        try:
            await ctx.wait_for_external_event("go", int)
        except Exception as error:  # noqa: BLE001
            return [type(error).__name__, "'go'" in str(error), await ctx.wait_for_external_event("go", int)]

    async with memory.host(app_of(flow)) as host:
        handle = await host.client.start("flow")
        await handle.raise_event("go", "text")
        await handle.raise_event("go", 2)
        assert await handle.result() == ["PayloadError", True, 2]


@pytest.mark.parametrize("default", [False, True])
async def test_4_5_12_a_wait_times_out_and_the_late_event_stays_for_the_next_one(
    hub: Deployment, clock: ManualClock, default: bool
) -> None:
    async def flow(ctx: OrchestrationContext) -> Any:
        if default:
            first = await ctx.wait_for_external_event("go", int, timeout=30, default=None)
        else:
            try:
                first = await ctx.wait_for_external_event("go", int, timeout=30)
            except TimeoutError as error:
                first = type(error).__name__
        await ctx.wait_for_external_event("next")
        return [first, await ctx.wait_for_external_event("go", int)]

    host = await hub.start(app_of(flow), clock=clock)
    await host.client.start("flow", instance_id="i")
    clock.advance(29)
    await is_quiet(host)
    assert [e.event_type for e in await host.client.get_history("i")].count("EventAwaited") == 1
    clock.advance(1)
    await has_event(host, "i", "EventAwaited", 2)
    await host.client.raise_event("i", "go", 5)
    host = await hub.recover(host, app_of(flow), clock=clock)
    await host.client.raise_event("i", "next")
    first = None if default else "TimeoutError"
    assert (await host.client.wait_for_completion("i")).output == [first, 5]


async def test_4_5_12_an_event_in_time_takes_the_time_out_away(
    memory: Deployment, clock: ManualClock
) -> None:
    async def flow(ctx: OrchestrationContext) -> Any:
        first = await ctx.wait_for_external_event("go", int, timeout=30)
        return [first, await ctx.wait_for_external_event("end", int)]

    async with memory.host(app_of(flow), clock=clock) as host:
        handle = await host.client.start("flow")
        await handle.raise_event("go", 1)
        clock.advance(60)
        await is_quiet(host)
        await handle.raise_event("end", 2)
        assert await handle.result() == [1, 2]
        assert "TimerFired" not in [entry.event_type for entry in await handle.history()]


async def test_4_5_13_an_event_is_applied_once_although_its_partition_was_lost_before_the_answer(
    memory: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit of "go" is durable, but the partition object dies of a bug before it heard so, and is loaded anew."""
    failed: list[bool] = []

    async def flow(ctx: OrchestrationContext) -> Any:
        await ctx.wait_for_external_event("go")
        await ctx.wait_for_external_event("end")
        return await ctx.wait_for_external_event("go", timeout=0, default="once")

    async def victim(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("go")

    app = app_of(flow)
    app.orchestrator(name="victim")(victim)
    store = FaultyStore(memory.hub.hub)  # type: ignore[attr-defined]
    async with memory.host(app, store=store) as host:
        await host.client.start("flow", instance_id="i")
        await host.client.start("victim", instance_id="v")
        partition = host.engine.partition
        assert partition is not None
        run = partition.residents["v"].run
        assert run is not None
        advance = type(run).advance

        def broken(self: Any, event: Any, now: int) -> Any:
            if self is run:
                failed.append(True)
                raise RuntimeError("a bug of the engine")
            return advance(self, event, now)

        monkeypatch.setattr(type(run), "advance", broken)
        store.gate = asyncio.Event()
        first = asyncio.create_task(host.client.raise_event("i", "go", 1))
        await has_event(host, "i", "EventRaised")
        second = asyncio.create_task(host.client.raise_event("v", "go", 1))
        await eventually(lambda: failed)
        store.gate.set()
        await all_within(first, second)
        assert host.engine.partition is not partition
        await host.client.raise_event("i", "end")
        assert (await host.client.wait_for_completion("i")).output == "once"


@pytest.mark.parametrize("name", ["", None, 5])
async def test_4_5_1_a_name_that_is_no_text_is_refused(memory: Deployment, name: Any) -> None:
    async def flow(ctx: OrchestrationContext) -> Any:
        await ctx.wait_for_external_event("go")

    async with memory.host(app_of(flow)) as host:
        handle = await host.client.start("flow")
        with pytest.raises(UsageError):
            await handle.raise_event(name, 1)
        await handle.raise_event("go")
        await handle.result()
