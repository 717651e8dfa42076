"""What the store in memory has beyond the provider contract."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from durably.core.commit import Batch
from durably.errors import HubClosedError, HubLockedError, InvariantError, LeaseLostError
from durably.storage.memory import MemoryHub, MemoryStore
from durably.testing.store_scene import FOREVER, history_row, instance_row, message


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
