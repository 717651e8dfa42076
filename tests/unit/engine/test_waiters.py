"""Callers that wait for an end: all are told, once, and those who left are forgotten."""

from __future__ import annotations

import asyncio
import gc

import pytest

from durably import (
    App,
    HubClosedError,
    OrchestrationContext,
    OrchestrationFailedError,
    StoreFailedError,
)
from durably.core.commit import InstanceRow
from durably.core.status import Outcome
from durably.engine.waiters import Waiters
from durably.storage.memory import MemoryHub, MemoryStore
from tests.support.hubs import Deployment
from tests.support.stores import FaultyStore
from tests.support.waiting import all_within, reaches

DONE = Outcome("Completed", b"1", None)


async def test_everybody_who_waits_for_an_instance_is_told_of_its_end() -> None:
    waiters = Waiters()
    first, second, other = waiters.add("i"), waiters.add("i"), waiters.add("j")
    waiters.ended("i", DONE)
    assert await asyncio.gather(first, second) == [DONE, DONE]
    assert not other.done()


async def test_who_stopped_waiting_is_left_alone() -> None:
    waiters = Waiters()
    first, second = waiters.add("i"), waiters.add("i")
    waiters.discard("i", first)
    waiters.discard("i", first)
    waiters.ended("i", DONE)
    assert not first.done()
    assert await second == DONE


async def test_an_end_that_nobody_waits_for_is_nothing() -> None:
    waiters = Waiters()
    waiters.ended("i", DONE)
    waiter = waiters.add("i")
    waiters.discard("i", waiter)
    waiters.ended("i", DONE)
    waiters.discard("nobody", waiter)


async def test_a_caller_that_was_cancelled_does_not_stop_the_others() -> None:
    waiters = Waiters()
    first, second = waiters.add("i"), waiters.add("i")
    first.cancel()
    waiters.ended("i", DONE)
    assert await second == DONE


async def test_all_are_told_when_the_host_goes_away() -> None:
    waiters = Waiters()
    waiting = [waiters.add("i"), waiters.add("j")]
    waiters.fail(HubClosedError("the host stops"))
    for waiter in waiting:
        with pytest.raises(HubClosedError):
            await waiter


async def test_who_asks_after_the_host_went_away_is_told_at_once() -> None:
    waiters = Waiters()
    waiters.fail(HubClosedError("the host stops"))
    with pytest.raises(HubClosedError, match="the host stops"):
        await waiters.add("i")


async def test_callers_that_left_before_they_were_told_are_not_reported_by_the_loop() -> None:
    waiters = Waiters()
    waiting = [waiters.add("i") for _ in range(100)]
    waiters.fail(HubClosedError("the host stops"))
    waiting.append(waiters.add("i"))
    waiting.clear()
    gc.collect()  # what nobody has looked at would reach the exception handler of the loop, which fails this test


class SlowReader(MemoryStore):
    """Tells that a hundred have asked for an instance, and does not answer them."""

    def __init__(self, hub: MemoryHub) -> None:
        super().__init__(hub)
        self.asked = 0
        self.everybody_asked = asyncio.Event()

    async def get_instance(self, instance_id: str, *, payloads: bool = True) -> InstanceRow | None:
        if instance_id == "failed":
            await self.everybody_asked.wait()
            return await super().get_instance(instance_id, payloads=payloads)
        self.asked += 1
        if self.asked == 100:
            self.everybody_asked.set()
        return await asyncio.Future()


def two_ends() -> App:
    app = App()

    @app.orchestrator
    async def fails(ctx: OrchestrationContext) -> None:
        raise ValueError("no")

    @app.orchestrator
    async def waits(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("go")

    return app


async def left_while_a_hundred_wait() -> None:
    app, memory = two_ends(), MemoryHub()
    async with app.host(MemoryStore(memory)) as host:
        for number in range(100):
            await host.client.start("waits", instance_id=f"i{number}")
        await host.client.start("fails", instance_id="failed")
        await reaches(host, "failed", "Failed")
    async with app.host(SlowReader(memory)) as host:
        handles = [host.client.handle("failed"), *(host.client.handle(f"i{n}") for n in range(100))]
        await asyncio.gather(*(handle.result() for handle in handles))


def test_leaving_a_host_while_callers_wait_prints_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(OrchestrationFailedError):
        asyncio.run(left_while_a_hundred_wait())
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


async def test_a_result_that_is_asked_of_a_host_that_stopped_by_itself_is_refused(
    hub: Deployment, store: FaultyStore
) -> None:
    host = await hub.start(two_ends(), store=store)
    handle = await host.client.start("waits")
    done = await host.client.start("fails")
    await reaches(host, done.instance_id, "Failed")

    def broken(call: str) -> None:
        raise StoreFailedError("the disk is gone")

    store.before = broken
    with pytest.raises(StoreFailedError):
        await handle.raise_event("other")
    await host.engine.failed()
    with pytest.raises(StoreFailedError, match="the disk is gone"):
        await all_within(handle.result())
    with pytest.raises(OrchestrationFailedError):
        await all_within(done.result())
