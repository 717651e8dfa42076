"""Rule 4 and I11: what belongs to the host outlives a partition object; the rows are the truth for the rest."""

from __future__ import annotations

import asyncio
from typing import Any

from durably import ActivityContext, App, AppHost, EngineOptions, OrchestrationContext, StoreUnavailableError
from tests.support.clock import ManualClock
from tests.support.hubs import Deployment
from tests.support.stores import FaultyStore
from tests.support.waiting import all_within, eventually, has_event, is_quiet, reaches


class Slow:
    """An app whose activity runs until it is told to end."""

    def __init__(self) -> None:
        self.app = App()
        self.runs: list[str] = []
        self.deliveries: list[int] = []
        self.end = asyncio.Event()

        @self.app.activity
        async def work(x: int, ctx: ActivityContext) -> int:
            self.runs.append(ctx.instance_id)
            self.deliveries.append(ctx.delivery)
            await self.end.wait()
            return x + 1

        @self.app.orchestrator
        async def flow(ctx: OrchestrationContext, x: int) -> int:
            return await ctx.call_activity(work, x)

        @self.app.orchestrator
        async def waits(ctx: OrchestrationContext) -> Any:
            return await ctx.wait_for_external_event("go")

        @self.app.orchestrator
        async def collects(ctx: OrchestrationContext, n: int) -> list[Any]:
            return [await ctx.wait_for_external_event("go") for _ in range(n)]


async def reloaded(host: AppHost) -> None:
    before = host.engine.partition
    host.engine.reload_partition("a test asks for it")
    await eventually(lambda: host.engine.partition is not None and host.engine.partition is not before)


async def test_a_running_activity_is_attached_again_and_does_not_run_twice(hub: Deployment) -> None:
    slow = Slow()
    host = await hub.start(slow.app)
    handle = await host.client.start("flow", 1)
    await eventually(lambda: slow.runs)
    await reloaded(host)
    await reloaded(host)
    slow.end.set()
    assert await handle.result() == 2
    assert len(slow.runs) == 1


async def test_a_result_that_ended_while_no_partition_was_there_is_not_lost(
    hub: Deployment, store: FaultyStore
) -> None:
    slow = Slow()
    host = await hub.start(slow.app, store=store)
    handle = await host.client.start("flow", 1)
    await eventually(lambda: slow.runs)
    host.engine.reload_partition("a test asks for it")
    assert host.engine.partition is None
    slow.end.set()
    assert await handle.result() == 2
    assert len(slow.runs) == 1


async def test_a_result_whose_commit_never_landed_is_delivered_again(
    hub: Deployment, store: FaultyStore, clock: ManualClock
) -> None:
    slow = Slow()
    host = await hub.start(slow.app, store=store, clock=clock)
    handle = await host.client.start("flow", 1)
    await eventually(lambda: slow.runs)
    await is_quiet(host)
    tries: list[str] = []

    def busy(call: str) -> None:
        tries.append(call)
        raise StoreUnavailableError("busy")

    store.before = busy
    slow.end.set()
    await eventually(lambda: tries)
    host.engine.reload_partition("a test asks for it")
    store.before = lambda call: None
    while host.engine.partition is None:
        clock.advance(0.1)
        await asyncio.sleep(0)
    assert await handle.result() == 2
    assert len(slow.runs) == 1


async def test_an_activity_of_a_dead_host_runs_again_as_a_redelivery(hub: Deployment) -> None:
    slow = Slow()
    host = await hub.start(slow.app)
    handle = await host.client.start("flow", 1, instance_id="i")
    await eventually(lambda: slow.runs)
    host = await hub.recover(host, slow.app)
    await eventually(lambda: len(slow.runs) == 2)
    slow.end.set()
    await host.client.wait_for_completion(handle.instance_id)
    assert slow.deliveries == [1, 2]


async def test_an_activity_that_ends_at_once_while_its_host_recovers_is_not_lost(hub: Deployment) -> None:
    """It is over before the partition is loaded: its result waits for that."""
    slow = Slow()
    host = await hub.start(slow.app)
    await host.client.start("flow", 1, instance_id="i")
    await eventually(lambda: slow.runs)
    slow.end.set()
    host = await hub.recover(host, slow.app)
    assert (await host.client.wait_for_completion("i", 2)).output == 2


async def test_an_event_whose_commit_landed_during_the_reload_is_applied_once(
    hub: Deployment, store: FaultyStore
) -> None:
    """The batch is durable, only its receipt was lost: to offer its commands again would double them."""
    host = await hub.start(Slow().app, store=store)
    handle = await host.client.start("collects", 2, instance_id="i")
    await is_quiet(host)
    store.gate = asyncio.Event()
    raising = asyncio.create_task(host.client.raise_event("i", "go", 1))
    await has_event(host, "i", "EventRaised")
    host.engine.reload_partition("a test asks for it")
    store.gate.set()
    await all_within(raising)
    await host.client.raise_event("i", "go", 2)
    assert await all_within(handle.result()) == [[1, 2]]


async def test_a_waiting_caller_is_told_of_an_end_that_landed_during_the_reload(
    hub: Deployment, store: FaultyStore
) -> None:
    host = await hub.start(Slow().app, store=store)
    handle = await host.client.start("waits", instance_id="i")
    waiting = asyncio.create_task(handle.result())
    await is_quiet(host)
    store.gate = asyncio.Event()
    raising = asyncio.create_task(host.client.raise_event("i", "go", 1))
    await reaches(host, "i", "Completed")
    host.engine.reload_partition("a test asks for it")
    store.gate.set()
    assert await all_within(raising, waiting) == [None, 1]


async def test_the_pool_forgets_a_result_whose_commit_landed_during_the_reload(
    hub: Deployment, store: FaultyStore
) -> None:
    slow = Slow()
    host = await hub.start(slow.app, store=store)
    await host.client.start("flow", 1, instance_id="i")
    await eventually(lambda: slow.runs)
    await is_quiet(host)
    store.gate = asyncio.Event()
    slow.end.set()
    await reaches(host, "i", "Completed")
    host.engine.reload_partition("a test asks for it")
    store.gate.set()
    await is_quiet(host)
    assert len(host.engine.pool) == 0


async def test_reloads_with_commits_between_them_never_stop_the_host(
    hub: Deployment, clock: ManualClock
) -> None:
    """Twenty reloads in a row without a commit are hopeless; twenty in the life of a host are not."""
    host = await hub.start(Slow().app, clock=clock)
    for number in range(30):
        before = host.engine.partition
        host.engine.reload_partition("a test asks for it")
        while host.engine.partition in {None, before} and host.engine.failure is None:
            clock.advance(60)
            await asyncio.sleep(0)
        assert host.engine.failure is None, f"it gave up at reload {number}"
        await host.client.start("waits", instance_id=f"i{number}")


async def test_timers_and_waits_go_on_after_a_reload(hub: Deployment, clock: ManualClock) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        await asyncio.sleep(10)
        return await ctx.wait_for_external_event("go", str)

    host = await hub.start(app, clock=clock)
    handle = await host.client.start(flow, instance_id="i")
    await is_quiet(host)
    await reloaded(host)
    clock.advance(10)
    await has_event(host, "i", "EventAwaited")
    host.engine.reload_partition("a test asks for it")
    while host.engine.partition is None:  # the second one in a row waits a little
        clock.advance(0.05)
        await asyncio.sleep(0)
    await host.client.raise_event("i", "go", "on")
    assert await handle.result() == "on"


async def test_a_limit_of_the_pool_holds_across_a_reload(hub: Deployment) -> None:
    slow = Slow()
    host = await hub.start(slow.app, options=EngineOptions(max_concurrent_activities=1))
    handles = [await host.client.start("flow", n) for n in range(3)]
    await eventually(lambda: slow.runs)
    await reloaded(host)
    await is_quiet(host)
    assert len(slow.runs) == 1
    slow.end.set()
    assert await all_within(*(handle.result() for handle in handles)) == [1, 2, 3]
    assert len(slow.runs) == 3
