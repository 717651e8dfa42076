"""Waiting for instances to end, by looking at rows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from durably.client import endings as endings_module
from durably.client.connection import Connection
from durably.client.endings import Endings
from durably.client.outside import OutsideOperations
from durably.clock import SystemClock, SystemRandom
from durably.core.commit import Batch, InboxRow, InstanceRow
from durably.core.history import encode_body
from durably.core.messages import StartInstance
from durably.errors import HubClosedError, InstanceNotFoundError, StoreUnavailableError
from durably.storage.memory import MemoryStore
from durably.testing.store_scene import instance_row


class Busy(MemoryStore):
    """A store that refuses some looks.

    Attributes:
        refusals: So many are to come.
    """

    refusals = 0

    async def get_instances(self, instance_ids: Sequence[str]) -> list[InstanceRow | None]:
        if self.refusals:
            self.refusals -= 1
            raise StoreUnavailableError("busy")
        return await super().get_instances(instance_ids)


async def _hub() -> tuple[MemoryStore, Busy]:
    memory = MemoryStore()
    await memory.open()
    lease = await memory.acquire(0, "owner")
    await memory.commit(lease, Batch(1, instances=[instance_row("a", 1), instance_row("b", 2)]))
    store = Busy(memory.hub)
    await store.open()
    return memory, store


async def _end(memory: MemoryStore, *ids: str) -> None:
    partition = memory.hub.partitions[0]
    lease = partition.lease
    assert lease is not None
    rows = [instance_row(key, number, status="Completed") for number, key in enumerate(ids, 1)]
    await memory.commit(lease, Batch(partition.batch + 1, instances=rows))


def test_many_are_waited_for_by_one_look() -> None:
    async def run() -> None:
        memory, store = await _hub()
        endings = Endings(store)
        waiting = [asyncio.create_task(endings.wait(key, 5)) for key in ("a", "b", "a")]
        await asyncio.sleep(0.01)
        await _end(memory, "a", "b")
        assert [(await one).status for one in waiting] == ["Completed"] * 3
        with pytest.raises(InstanceNotFoundError):
            await endings.wait("c", 5)
        endings.close()

    asyncio.run(run())


def test_a_store_that_is_busy_for_a_while_is_asked_again() -> None:
    async def run() -> None:
        memory, store = await _hub()
        endings = Endings(store)
        waiting = asyncio.create_task(endings.wait("a", 5))
        await asyncio.sleep(0)
        store.refusals = 3
        await _end(memory, "a")
        assert (await waiting).status == "Completed"
        assert store.refusals == 0
        endings.close()

    asyncio.run(run())


def test_time_outs_and_the_end_of_the_client_are_told() -> None:
    async def run() -> None:
        _, store = await _hub()
        endings = Endings(store)
        with pytest.raises(TimeoutError, match="ask again later"):
            await endings.wait("a", 0.01)
        waiting = asyncio.create_task(endings.wait("a", None))
        await asyncio.sleep(0.01)
        endings.close()
        with pytest.raises(HubClosedError):
            await waiting

    asyncio.run(run())


def test_a_look_that_comes_before_the_waiter_knows_of_a_new_start_does_not_answer_it() -> None:
    looked, known = asyncio.Event(), asyncio.Event()

    class Slow(Busy):
        async def get_instances(self, instance_ids: Sequence[str]) -> list[InstanceRow | None]:
            if "b" in instance_ids:
                looked.set()
            return await super().get_instances(instance_ids)

        async def read_messages(self, instance_id: str) -> list[InboxRow]:
            found = await super().read_messages(instance_id)
            if not looked.is_set():
                await known.wait()
            return found

    async def run() -> None:
        memory, _ = await _hub()
        await _end(memory, "b")
        store = Slow(memory.hub)
        await store.open()
        start = StartInstance("work", b'"again"', "e2", on_existing="replace_finished")
        await store.post([InboxRow("m1", "b", 1, encode_body(start))])
        endings = Endings(store)
        looking = asyncio.create_task(endings.wait("a", 60))
        waiting = asyncio.create_task(endings.wait("b", 0.2))
        await looked.wait()
        await asyncio.sleep(0.01)
        assert not waiting.done()
        known.set()
        with pytest.raises(TimeoutError):
            await waiting
        looking.cancel()
        endings.close()

    asyncio.run(run())


def test_many_are_looked_at_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings_module, "_LOOK_MAX", 1)
    looks: list[int] = []

    class Noting(Busy):
        async def get_instances(self, instance_ids: Sequence[str]) -> list[InstanceRow | None]:
            looks.append(len(instance_ids))
            return await super().get_instances(instance_ids)

    async def run() -> None:
        memory, _ = await _hub()
        store = Noting(memory.hub)
        await store.open()
        endings = Endings(store)
        waiting = [asyncio.create_task(endings.wait(key, 60)) for key in ("a", "b")]
        await asyncio.sleep(0)
        await _end(memory, "a", "b")
        assert [(await one).status for one in waiting] == ["Completed"] * 2
        endings.close()

    asyncio.run(run())
    assert set(looks) == {1}


def test_a_watch_where_nobody_tells_of_commits_says_when_to_look_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endings_module, "_WATCH_S", 0)
    operations = OutsideOperations(Connection(MemoryStore()), SystemClock(), SystemRandom())

    async def look_twice() -> None:
        with operations.watch("a") as watch:
            for _ in range(2):
                await watch.changed()

    asyncio.run(look_twice())
