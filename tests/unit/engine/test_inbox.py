"""Rules 8 and 9: a message that somebody posted is applied exactly once, however often it is posted and read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from durably import App, AppHost, EngineOptions, OrchestrationContext, StoreFailedError, StoreUnavailableError
from durably.core.commit import InboxRow
from durably.core.history import encode_body
from durably.core.messages import RaiseEvent, StartInstance
from durably.storage.api import Lease
from durably.storage.memory import MemoryHub, MemoryStore
from tests.support.clock import ManualClock
from tests.support.hubs import Deployment, MemoryHubOfTest
from tests.support.stores import FaultyStore
from tests.support.waiting import all_within, eventually, has_event, is_quiet


def event(message_id: str, data: Any, instance_id: str = "i") -> InboxRow:
    return InboxRow(message_id, instance_id, 0, encode_body(RaiseEvent("go", str(data).encode())))


def collecting() -> App:
    app = App()

    @app.orchestrator
    async def collects(ctx: OrchestrationContext, n: int) -> list[Any]:
        return [await ctx.wait_for_external_event("go") for _ in range(n)]

    return app


class LateReads(MemoryStore):
    """Reads the inbox at once and, when told, answers late, as a read on a thread of its own may."""

    def __init__(self, hub: MemoryHub) -> None:
        super().__init__(hub)
        self.gate: asyncio.Event | None = None
        self.seen: list[list[str]] = []

    def read_inbox(self, lease: Lease, after: int = 0) -> asyncio.Future[list[InboxRow]]:
        rows = self.hub.read_inbox(lease.partition, after)
        self.seen.append([row.message_id for row in rows])
        return asyncio.ensure_future(self._answer(rows, self.gate))

    async def _answer(self, rows: list[InboxRow], gate: asyncio.Event | None) -> list[InboxRow]:
        if gate is not None:
            await gate.wait()
        return rows


async def test_a_message_that_is_posted_again_before_it_is_consumed_counts_once(hub: Deployment) -> None:
    host = await hub.start(collecting())
    handle = await host.client.start("collects", 2, instance_id="i")
    await host.engine.store.post([event("m1", 1), event("m1", 1)])
    await host.engine.store.post([event("m1", 1)])
    await host.engine.store.post([event("m2", 2)])
    assert await handle.result() == [1, 2]


async def test_a_message_that_is_posted_again_after_it_was_consumed_counts_once(hub: Deployment) -> None:
    host = await hub.start(collecting())
    handle = await host.client.start("collects", 2, instance_id="i")
    await host.engine.store.post([event("m1", 1)])
    await has_event(host, "i", "EventRaised")
    await is_quiet(host)
    await host.engine.store.post([event("m1", 1)])
    await host.engine.store.post([event("m2", 2)])
    assert await handle.result() == [1, 2]


async def test_what_was_posted_while_no_host_was_there_is_applied_once(hub: Deployment) -> None:
    app = collecting()
    host = await hub.start(app)
    await host.client.start("collects", 3, instance_id="i")
    await hub.crash(host)
    client = hub.hub.store()
    await client.open()
    for _ in range(2):
        await client.post([event("m1", 1), event("m2", 2)])
    await client.close()
    host = await hub.start(app)
    await host.engine.store.post([event("m1", 1), event("m3", 3)])
    assert (await host.client.wait_for_completion("i")).output == [1, 2, 3]


async def test_a_start_that_was_posted_twice_creates_one_instance(hub: Deployment) -> None:
    host = await hub.start(collecting())
    start = encode_body(StartInstance("collects", b"0", "e1"))
    await host.engine.store.post([InboxRow("s1", "i", 0, start), InboxRow("s2", "i", 0, start)])
    await eventually(lambda: host.client.get_status("i"))
    await is_quiet(host)
    assert len(await host.client.get_history("i")) == 3


async def test_a_read_that_is_answered_late_does_not_apply_what_was_consumed_meanwhile(
    hub: Deployment, clock: ManualClock
) -> None:
    """It saw the message before the commit that consumed it was durable; its answer comes after that."""
    assert isinstance(hub.hub, MemoryHubOfTest)
    store = LateReads(hub.hub.hub)
    host = await hub.start(collecting(), store=store, clock=clock)
    handle = await host.client.start("collects", 2, instance_id="i")
    store.gate = gate = asyncio.Event()
    store.hub.post([event("m1", 1)])
    await eventually(lambda: store.seen == [["m1"]])  # the wake-up: on its way
    store.gate = None
    clock.advance(1)  # the poll: at once
    await has_event(host, "i", "EventRaised")
    await is_quiet(host)
    gate.set()
    await is_quiet(host)
    await store.post([event("m2", 2)])
    assert await handle.result() == [1, 2]


@pytest.mark.parametrize("everything", [True, False])
async def test_two_reads_at_once_deliver_a_message_once(hub: Deployment, *, everything: bool) -> None:
    host = await hub.start(collecting())
    handle = await host.client.start("collects", 2, instance_id="i")
    partition = host.engine.partition
    assert partition is not None
    await host.engine.store.post([event("m1", 1)])
    await all_within(*(partition.read_inbox(everything=everything) for _ in range(5)))
    await host.engine.store.post([event("m2", 2)])
    assert await handle.result() == [1, 2]


async def test_a_store_without_wakeups_is_polled(hub: Deployment, clock: ManualClock) -> None:
    class Silent(MemoryStore):
        def on_arrival(self, callback: Any) -> None:
            pass

    assert isinstance(hub.hub, MemoryHubOfTest)
    host = await hub.start(
        collecting(), store=Silent(hub.hub.hub), clock=clock, options=EngineOptions(inbox_poll_s=2)
    )
    handle = await host.client.start("collects", 1, instance_id="i")
    await host.engine.store.post([event("m1", 1)])
    await is_quiet(host)
    assert len(await host.client.get_history("i")) == 3
    clock.advance(2)
    assert await handle.result() == [1]


async def test_a_store_that_cannot_read_the_inbox_now_is_asked_again(
    hub: Deployment, clock: ManualClock
) -> None:
    failures: list[Exception] = [StoreUnavailableError("busy")]

    class Busy(MemoryStore):
        def read_inbox(self, lease: Lease, after: int = 0) -> asyncio.Future[list[InboxRow]]:
            if failures:
                raise failures.pop()
            return super().read_inbox(lease, after)

    assert isinstance(hub.hub, MemoryHubOfTest)
    host = await hub.start(collecting(), store=Busy(hub.hub.hub), clock=clock)
    handle = await host.client.start("collects", 1, instance_id="i")
    await host.engine.store.post([event("m1", 1)])
    await is_quiet(host)
    clock.advance(1)
    assert await handle.result() == [1]


async def test_a_store_that_fails_while_the_inbox_is_read_stops_the_host(hub: Deployment) -> None:
    class Broken(MemoryStore):
        def read_inbox(self, lease: Lease, after: int = 0) -> asyncio.Future[list[InboxRow]]:
            raise StoreFailedError("the disk is gone")

    assert isinstance(hub.hub, MemoryHubOfTest)
    host = await hub.start(collecting(), store=Broken(hub.hub.hub))
    await host.engine.store.post([event("m1", 1)])
    await all_within(host.engine.failed())
    assert isinstance(host.engine.failure, StoreFailedError)


def serves_others(host: AppHost) -> Any:
    return all_within(_starts_and_ends(host))


async def _starts_and_ends(host: AppHost) -> None:
    handle = await host.client.start("collects", 1, instance_id="other")
    await host.engine.store.post([event("fine", 1, "other")])
    assert await handle.result() == [1]


async def test_a_message_that_cannot_be_read_harms_nobody_else(hub: Deployment) -> None:
    """Of a newer version, or damaged: it is set aside, and what was posted after it is applied."""
    host = await hub.start(collecting())
    await host.engine.store.post([InboxRow("bad", "i", 0, b"\xc1")])
    await serves_others(host)


async def test_a_host_starts_although_a_message_in_the_inbox_cannot_be_read(hub: Deployment) -> None:
    client = hub.hub.store()
    await client.open()
    await client.post([InboxRow("bad", "i", 0, b"\xc1")])
    await client.close()
    host = await hub.start(collecting())
    await serves_others(host)


async def test_reads_of_instances_overlap_with_commits(hub: Deployment, store: FaultyStore) -> None:
    host = await hub.start(collecting(), store=store, options=EngineOptions(max_resident_instances=1))
    for n in range(4):
        await host.client.start("collects", 1, instance_id=f"i{n}")
    await is_quiet(host)
    store.gate = asyncio.Event()
    calls: list[str] = []
    store.before = calls.append
    raising = [asyncio.create_task(host.client.raise_event(f"i{n}", "go", n)) for n in range(4)]
    await eventually(lambda: "read_instances" in calls and "commit" in calls)
    store.gate.set()
    await all_within(*raising)


def in_order(numbers: Sequence[int]) -> bool:
    return list(numbers) == sorted(numbers)


async def test_messages_of_one_sender_keep_their_order(hub: Deployment) -> None:
    host = await hub.start(collecting())
    handle = await host.client.start("collects", 50, instance_id="i")
    for n in range(50):
        await host.engine.store.post([event(f"m{n}", n)])
    assert in_order(await handle.result())
