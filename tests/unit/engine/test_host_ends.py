"""How a host ends: whatever happens meanwhile, nothing of it is left behind, and the hub is free."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durably import (
    App,
    EngineOptions,
    InvariantError,
    OrchestrationContext,
    StoreUnavailableError,
    UsageError,
)
from durably.core.commit import InboxRow
from durably.core.history import encode_body
from durably.core.messages import StartInstance
from durably.engine.partition import Partition
from durably.storage.api import Capabilities, Lease
from durably.storage.memory import MemoryHub
from tests.support.clock import ManualClock
from tests.support.hubs import Deployment, MemoryHubOfTest
from tests.support.stores import FaultyStore
from tests.support.waiting import eventually, reaches


class Busy:
    """An app with an activity that ends when told, and another one that does not let itself be cancelled."""

    def __init__(self) -> None:
        self.app = App()
        self.end = asyncio.Event()
        self.running = 0
        self.cancelled = 0

        @self.app.activity
        async def work(stubborn: bool) -> None:
            self.running += 1
            while not self.end.is_set():
                try:
                    await self.end.wait()
                except asyncio.CancelledError:
                    self.cancelled += 1
                    if not stubborn or self.cancelled > 9:
                        raise

        @self.app.orchestrator
        async def flow(ctx: OrchestrationContext, stubborn: bool) -> None:
            await ctx.call_activity(work, stubborn)


async def is_free(hub: Deployment) -> bool:
    """True when another host can serve the hub."""
    host = await hub.start(App(), options=EngineOptions(unknown_functions="wait"))
    await hub.crash(host)
    return True


async def test_a_stop_that_is_cancelled_lets_go_at_once(hub: Deployment) -> None:
    busy = Busy()
    host = busy.app.host(hub.hub.store(), options=EngineOptions(drain_timeout_s=1_000))
    await host.start()
    handle = await host.client.start("flow", False)
    waiting = asyncio.ensure_future(handle.result())
    await eventually(lambda: busy.running)
    stopping = asyncio.ensure_future(host.stop())
    await eventually(lambda: host.engine._closing)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert busy.cancelled == 1
    assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], Exception)
    assert await is_free(hub)


async def test_who_stops_a_host_that_is_stopping_waits_until_it_has(hub: Deployment) -> None:
    busy = Busy()
    host = busy.app.host(hub.hub.store(), options=EngineOptions(drain_timeout_s=1_000))
    await host.start()
    await host.client.start("flow", False)
    await eventually(lambda: busy.running)
    first, second = asyncio.ensure_future(host.stop()), asyncio.ensure_future(host.stop())
    await eventually(lambda: host.engine._closing)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not second.done()
    busy.end.set()
    await second
    assert await is_free(hub)
    await first
    await host.stop()


async def test_an_activity_that_cannot_be_cancelled_is_left_behind(
    hub: Deployment, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    busy = Busy()
    host = busy.app.host(hub.hub.store(), options=EngineOptions(drain_timeout_s=0), clock=clock)
    await host.start()
    await host.client.start("flow", True, instance_id="i")
    await eventually(lambda: busy.running)
    stopping = asyncio.ensure_future(host.stop())
    await eventually(lambda: busy.cancelled)
    clock.advance(60)
    await stopping
    assert "activity 'work' (#0) of instance 'i' goes on although it was cancelled" in caplog.text
    assert await is_free(hub)
    busy.end.set()
    await eventually(lambda: len(asyncio.all_tasks()) == 1)


async def test_a_lease_that_cannot_be_given_back_keeps_nothing_open(
    hub: Deployment, store: FaultyStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refused(lease: Lease) -> None:
        raise StoreUnavailableError("the disk is full")

    monkeypatch.setattr(store, "release", refused)
    async with App().host(store):
        pass
    assert "the lease of memory:// could not be given back: the disk is full" in caplog.text
    assert await is_free(hub)


async def test_a_host_is_started_once(hub: Deployment) -> None:
    host = await hub.start(App())
    with pytest.raises(UsageError, match="The host of memory:// was started before; make another one"):
        await host.start()
    await hub.stop(host)
    with pytest.raises(UsageError, match="was started before"):
        await host.start()


async def test_a_host_that_cannot_start_leaves_nothing_running(
    hub: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = Busy()
    before = await hub.start(busy.app)
    await before.client.start("flow", False)
    await eventually(lambda: busy.running)
    await hub.crash(before)
    load = Partition.load

    async def broken(partition: Partition) -> None:
        await load(partition)
        raise InvariantError("I1", "i", "a test says so")

    monkeypatch.setattr(Partition, "load", broken)
    with pytest.raises(InvariantError):
        await busy.app.host(hub.hub.store()).start()
    await eventually(lambda: len(asyncio.all_tasks()) == 1)
    monkeypatch.undo()
    assert await is_free(hub)


async def test_reads_of_the_inbox_do_not_pile_up_behind_a_slow_one(clock: ManualClock) -> None:
    memory = MemoryHubOfTest()
    answer = asyncio.Event()

    class Slow(FaultyStore):
        reads = 0

        def read_inbox(self, lease: Lease, after: int = 0) -> Any:
            self.reads += 1

            async def late() -> list[InboxRow]:
                await answer.wait()
                return []

            return asyncio.ensure_future(late())

    store = Slow(memory.hub)
    async with App().host(store, clock=clock):
        for _ in range(10):
            clock.advance(1)
            for _ in range(3):
                await asyncio.sleep(0)
        assert store.reads == 1
        answer.set()
        for _ in range(10):
            await asyncio.sleep(0)
        clock.advance(1)
        await eventually(lambda: store.reads == 2)


@pytest.mark.parametrize("in_order", [True, False])
async def test_a_poll_reads_what_is_new_where_messages_appear_in_order_and_everything_elsewhere(
    clock: ManualClock, in_order: bool
) -> None:
    class Watched(FaultyStore):
        def __init__(self, hub: MemoryHub) -> None:
            super().__init__(hub)
            self.behind: list[int] = []

        @property
        def capabilities(self) -> Capabilities:
            return super().capabilities._replace(inbox_in_order=in_order)

        def read_inbox(self, lease: Lease, after: int = 0) -> Any:
            self.behind.append(after)
            return super().read_inbox(lease, after)

    memory = MemoryHubOfTest()
    store = Watched(memory.hub)
    app = App()

    @app.orchestrator
    async def later(ctx: OrchestrationContext) -> None:
        return

    async with app.host(store, clock=clock) as host:
        client = memory.store()
        await client.open()
        start = StartInstance("later", None, "e", start_at=clock.now() + 3_600_000_000)
        await client.post([InboxRow("m", "i", clock.now(), encode_body(start))])
        await reaches(host, "i", "Pending")
        store.behind.clear()
        for _ in range(3):
            clock.advance(1)
            for _ in range(5):
                await asyncio.sleep(0)
        assert len(store.behind) == 3
        assert all((after > 0) == in_order for after in store.behind)
        await client.close()
