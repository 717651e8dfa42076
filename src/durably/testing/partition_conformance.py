"""Conformance: partitions of one hub do not get into each other's way, and send each other messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from durably.core.commit import Batch, Tombstone
from durably.core.dump import base_of
from durably.errors import InvariantError, LeaseLostError, UsageError
from durably.storage.api import Lease, Store
from durably.testing.store_scene import (
    FOREVER,
    WAIT_S,
    StoreHooks,
    history_row,
    instance_row,
    message,
    timer_row,
)

PARTITIONS = 4


class Owned:
    """A hub of several partitions, all owned by one store."""

    def __init__(self, hooks: StoreHooks, store: Store) -> None:
        self.hooks = hooks
        self.store = store
        self.leases: list[Lease] = []
        self.ids: dict[int, str] = {}
        """An instance of each partition."""
        for number in range(1_000):
            self.ids.setdefault(store.partition_of(f"i{number}"), f"i{number}")

    async def own(self) -> None:
        """All of it."""
        count = self.store.capabilities.partitions
        self.leases = [await self.store.acquire(number, f"owner of {number}") for number in range(count)]

    async def inbox(self, number: int) -> list[str]:
        """The messages of a partition."""
        return [row.message_id for row in await self.store.read_inbox(self.leases[number])]


Self = TypeVar("Self", bound=StoreHooks)


def partitioned(test: Callable[[Self, Owned], Coroutine[Any, Any, None]]) -> Callable[[Self], None]:
    """Make a plain test of a coroutine, with a fresh hub of several partitions that are owned."""

    async def play(hooks: Self) -> None:
        store = await hooks.make_of(PARTITIONS)
        await store.open()
        owned = Owned(hooks, store)
        try:
            await owned.own()
            await test(hooks, owned)
        finally:
            await store.delete()

    def run(hooks: Self) -> None:
        asyncio.run(play(hooks))

    run.__name__, run.__qualname__, run.__doc__ = test.__name__, test.__qualname__, test.__doc__
    run.__module__ = test.__module__
    return run


class PartitionConformance(StoreHooks):
    """Several partitions of one hub."""

    @partitioned
    async def test_every_id_belongs_to_one_partition_for_good(self, owned: Owned) -> None:
        assert owned.store.capabilities.partitions == PARTITIONS
        assert sorted(owned.ids) == list(range(PARTITIONS))
        known = {"": 2, "a": 3, "order-1": 3, "@account@7": 3, "i0": 0}
        assert {one: owned.store.partition_of(one) for one in known} == known

    @partitioned
    async def test_each_partition_has_leases_of_its_own(self, owned: Owned) -> None:
        assert [lease.partition for lease in owned.leases] == list(range(PARTITIONS))
        again = await owned.store.acquire(1, "again")
        assert again.epoch == owned.leases[1].epoch + 1
        with pytest.raises(LeaseLostError):
            await owned.store.commit(owned.leases[1], Batch(1))
        await owned.store.release(owned.leases[2])
        for lease in (owned.leases[0], again, owned.leases[3]):
            await owned.store.commit(lease, Batch(1))
        survey = await owned.store.survey()
        assert [one.partition for one in survey.partitions if one.host_id is None] == [2]
        assert [one.epoch for one in survey.partitions] == [1, 2, 1, 1]
        with pytest.raises(UsageError):
            await owned.store.acquire(PARTITIONS, "somebody")

    @partitioned
    async def test_each_partition_counts_its_own_batches_and_its_block_of_executions(
        self, owned: Owned
    ) -> None:
        for number in range(3):
            lease, id_ = owned.leases[number], owned.ids[number]
            for batch in range(number + 1):
                execution = base_of(number) + batch + 1
                rows = [instance_row(id_, execution, in_flight=True)]
                history = [history_row(execution, 0, data=id_.encode())]
                await owned.store.commit(lease, Batch(batch + 1, instances=rows, history=history))
        for number in range(PARTITIONS):
            snapshot = await owned.store.load(owned.leases[number], FOREVER)
            count = number + 1 if number < 3 else 0
            assert (snapshot.batch, snapshot.execution) == (count, base_of(number) + count)
            expected = [] if number == 3 else [(owned.ids[number], owned.ids[number].encode())]
            assert [(one.row.instance_id, one.history[0].data) for one in snapshot.in_flight] == expected

    @partitioned
    async def test_executions_of_the_same_number_are_not_mixed_up(self, owned: Owned) -> None:
        store = owned.store
        for lease in owned.leases:
            id_ = owned.ids[lease.partition]
            batch = Batch(1, instances=[instance_row(id_)], history=[history_row(1, 0, data=id_.encode())])
            batch.timers_set = [timer_row(1, 0, 5 + lease.partition, instance_id=id_)]
            await store.commit(lease, batch)
        await store.commit(owned.leases[0], Batch(2, executions_dropped=[1]))
        for number in range(1, PARTITIONS):
            (row,) = await store.read_history(owned.ids[number])
            assert row.data == owned.ids[number].encode()
            (timer,) = await store.read_timers(owned.leases[number], 0, FOREVER)
            assert (timer.instance_id, timer.due_at) == (owned.ids[number], 5 + number)
        assert await store.read_history(owned.ids[0]) == []
        assert await store.read_timers(owned.leases[0], 0, FOREVER) == []

    @partitioned
    async def test_messages_go_to_the_partition_of_their_instance(self, owned: Owned) -> None:
        await owned.store.post([message(f"m{number}", owned.ids[number]) for number in range(PARTITIONS)])
        for number in range(PARTITIONS):
            assert await owned.inbox(number) == [f"m{number}"]
            snapshot = await owned.store.load(owned.leases[number], FOREVER)
            assert [row.message_id for row in snapshot.inbox] == [f"m{number}"]

    @partitioned
    async def test_reads_of_several_partitions_at_once_are_not_mixed_up(self, owned: Owned) -> None:
        store = owned.store
        for lease in owned.leases:
            id_ = owned.ids[lease.partition]
            timers = [timer_row(number, 0, number, instance_id=id_) for number in range(1, 6)]
            posted = [message(f"{lease.partition}.{number}", id_) for number in range(3)]
            await store.commit(lease, Batch(1, timers_set=timers, inbox_put=posted))
        positions = [[row.position for row in await store.read_inbox(lease)] for lease in owned.leases]
        reads = [
            store.read_inbox(lease, positions[number][number - 1] if number else 0)
            for number, lease in enumerate(owned.leases)
        ]
        found = await asyncio.gather(*reads)
        expected = [[f"{number}.{one}" for one in range(number, 3)] for number in range(PARTITIONS)]
        assert [[row.message_id for row in rows] for rows in found] == expected
        timers = await asyncio.gather(
            *(store.read_timers(lease, number, number + 2) for number, lease in enumerate(owned.leases))
        )
        assert [[row.due_at for row in rows] for rows in timers] == [[1, 2], [2, 3], [3, 4], [4, 5]]
        assert {row.instance_id for row in timers[2]} == {owned.ids[2]}

    @partitioned
    async def test_a_batch_with_a_message_to_another_partition_is_one(self, owned: Owned) -> None:
        store, told = owned.store, asyncio.Event()
        store.on_arrival(told.set)
        await asyncio.sleep(0.1)
        told.clear()
        sent = [message("m", owned.ids[2]), message("n", owned.ids[0])]
        with pytest.raises(InvariantError):
            await store.commit(owned.leases[1], Batch(7, inbox_put=sent))
        assert await owned.inbox(2) == []
        batch = Batch(1, inbox_put=sent)
        await store.commit(owned.leases[1], batch)
        await store.commit(owned.leases[1], batch)  # as one whose answer was lost
        await asyncio.wait_for(told.wait(), WAIT_S)
        assert [await owned.inbox(number) for number in range(PARTITIONS)] == [["n"], [], ["m"], []]

    @partitioned
    async def test_each_partition_forgets_its_own_tombstones(self, owned: Owned) -> None:
        store = owned.store
        for number in (0, 1):
            await store.post([message(f"m{number}", owned.ids[number])])
            done = Batch(1, inbox_consumed=[f"m{number}"], tombstones=[Tombstone(f"m{number}", 5, b"yes")])
            await store.commit(owned.leases[number], done)
        await store.commit(owned.leases[0], Batch(2, tombstones_before=9))
        assert await store.verdicts(["m0", "m1"]) == [None, b"yes"]

    @partitioned
    async def test_a_sender_is_told_whether_the_owner_of_its_message_is_alive(self, owned: Owned) -> None:
        store = owned.store
        await store.release(owned.leases[1])
        assert await store.post([message("a", owned.ids[0])])
        assert not await store.post([message("b", owned.ids[1])])
        assert not await store.post([message("c", owned.ids[0]), message("d", owned.ids[1])])
        assert await store.post([])
