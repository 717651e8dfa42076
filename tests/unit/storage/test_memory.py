"""What the store in memory has beyond the provider contract."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from durably.core.commit import Batch
from durably.errors import HubClosedError, HubLockedError, InvariantError, LeaseLostError
from durably.storage.api import HostReport
from durably.storage.memory import MemoryHub, MemoryStore
from durably.testing.clock import VirtualClock
from durably.testing.store_scene import FOREVER, history_row, instance_row, message, timer_row


def _run(test: Callable[[], Awaitable[None]]) -> None:
    async def call() -> None:
        await test()

    asyncio.run(call())


async def _store(hub: MemoryHub | None = None) -> MemoryStore:
    store = MemoryStore(hub)
    await store.open()
    return store


def test_a_gap_in_a_history_breaks_an_invariant() -> None:
    async def act() -> None:
        store = await _store()
        lease = await store.acquire(0, "owner")
        await store.commit(lease, Batch(1, history=[history_row(1, 0)], instances=[instance_row("a")]))
        for rows in ([history_row(1, 2)], [history_row(1, 1), history_row(1, 3)], [history_row(2, 1)]):
            with pytest.raises(InvariantError) as caught:
                await store.commit(lease, Batch(2, history=rows))
            assert caught.value.rule == "I1"
        assert await store.read_history("a") == [history_row(1, 0)]

    _run(act)


def test_nothing_is_done_before_the_loop_comes_round() -> None:
    async def act() -> None:
        store = await _store()
        lease = await store.acquire(0, "owner")
        written = store.commit(lease, Batch(1, instances=[instance_row("a")]))
        read = store.read_instances(lease, ["a"])
        assert not written.done()
        assert not store.hub.instances
        assert await read != [None]
        assert written.done()

    _run(act)


def test_what_is_cancelled_in_time_is_not_done() -> None:
    async def act() -> None:
        store = await _store()
        lease = await store.acquire(0, "owner")
        store.commit(lease, Batch(1)).cancel()
        assert (await store.load(lease, 0)).batch == 0

    _run(act)


def test_a_crash_loses_what_was_not_applied_and_frees_the_lease() -> None:
    async def act() -> None:
        hub = MemoryHub()
        store = await _store(hub)
        lease = await store.acquire(0, "owner")
        await store.commit(lease, Batch(1))
        lost = store.commit(lease, Batch(2))
        store.abandon()
        await asyncio.sleep(0)
        assert not lost.done()
        with pytest.raises(HubClosedError):
            await store.post([message("m")])
        await store.close()
        heir = await _store(hub)
        again = await heir.acquire(0, "heir")
        assert again.epoch == lease.epoch + 1
        assert (await heir.load(again, FOREVER)).batch == 1

    _run(act)


def test_a_hub_is_exclusive_unless_it_is_said_to_be_shared() -> None:
    async def act() -> None:
        first = await _store(MemoryHub())
        await first.acquire(0, "first")
        with pytest.raises(HubLockedError):
            await (await _store(first.hub)).acquire(0, "second")

        shared = await _store(MemoryHub(exclusive=False))
        assert shared.capabilities.shared
        stale = await shared.acquire(0, "first")
        second = await _store(shared.hub)
        lease = await second.acquire(0, "second")
        with pytest.raises(LeaseLostError):
            await shared.commit(stale, Batch(1))
        with pytest.raises(LeaseLostError):
            await shared.renew(stale)
        await shared.release(stale)
        await second.commit(lease, Batch(1))

    _run(act)


def test_callers_on_other_loops_are_told_of_arrivals() -> None:
    hub = MemoryHub()

    async def listen(ready: Callable[[], None]) -> None:
        store = await _store(hub)
        told = asyncio.Event()
        store.on_arrival(told.set)
        ready()
        await asyncio.wait_for(told.wait(), 60)
        await store.close()

    async def act() -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        listening = asyncio.create_task(
            asyncio.to_thread(asyncio.run, listen(lambda: loop.call_soon_threadsafe(ready.set) and None))
        )
        await ready.wait()
        await (await _store(hub)).post([message("m")])
        await listening

    _run(act)


def test_leases_of_a_shared_hub_run_out_by_its_clock() -> None:
    async def act() -> None:
        clock = VirtualClock()
        hub = MemoryHub(exclusive=False, partitions=3, clock=clock)
        first, second = await _store(hub), await _store(hub)
        lost: list[int] = []
        first.on_lease_lost(lambda lease: lost.append(lease.partition))
        leases = [await first.acquire(number, "first") for number in range(3)]

        async def pass_by(seconds: float) -> None:
            for _ in range(int(seconds)):
                clock.advance(1)
                await asyncio.sleep(0)
                await asyncio.sleep(0)

        await pass_by(60)
        assert not lost  # a store renews its own
        with pytest.raises(HubLockedError, match="'first'"):
            await second.acquire(1, "second")
        hub.expire(0)
        await pass_by(5)
        assert lost == [0]
        first.renews = False
        await pass_by(20)
        assert lost == [0, 1, 2]
        taken = await second.acquire(1, "second")
        assert (taken.epoch, taken.orphaned) == (2, True)
        with pytest.raises(LeaseLostError):
            await first.commit(leases[1], Batch(1))
        await first.commit(leases[2], Batch(1))  # nobody has taken it: nothing contradicts

    _run(act)


def test_a_crash_on_a_shared_hub_leaves_its_leases_until_they_run_out() -> None:
    async def act() -> None:
        clock = VirtualClock()
        hub = MemoryHub(exclusive=False, clock=clock)
        first, second = await _store(hub), await _store(hub)
        await first.acquire(0, "first")
        await first.survey(HostReport("first", "1"))
        first.abandon()
        with pytest.raises(HubLockedError):
            await second.acquire(0, "second")
        assert [host.report.name for host in (await second.survey()).hosts] == ["first"]
        clock.advance(16)
        assert (await second.acquire(0, "second")).orphaned
        assert (await second.survey()).hosts == []

    _run(act)


def test_a_partition_writes_no_rows_of_another() -> None:
    async def act() -> None:
        store = await _store(MemoryHub(partitions=4))
        lease = await store.acquire(0, "owner")
        stranger = next(f"i{number}" for number in range(99) if store.partition_of(f"i{number}") == 1)
        for rows in (
            {"instances": [instance_row(stranger)]},
            {"timers_set": [timer_row(1, 0, 5, instance_id=stranger)]},
        ):
            with pytest.raises(InvariantError, match="belongs to partition 1"):
                await store.commit(lease, Batch(1, **rows))

    _run(act)
