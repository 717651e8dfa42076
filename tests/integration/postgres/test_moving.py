"""Hubs of several partitions: divided, merged, and made where nobody has been yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import asyncpg
import pytest

from durably.core.commit import Batch, Tombstone
from durably.core.dump import KINDS, DumpChunk, DumpHead, base_of
from durably.errors import HubLockedError, HubNotEmptyError, HubVersionError, UsageError
from durably.storage.api import Store
from durably.storage.memory import MemoryStore
from durably.storage.memory_hub import MemoryHub
from durably.storage.postgres.migrations import STEPS
from durably.storage.postgres.schema import quoted
from durably.storage.postgres.store import PostgresStore
from durably.storage.slots import partition_of
from durably.testing.store_scene import FOREVER, entity_row, history_row, instance_row, message, timer_row

Hub = Callable[..., PostgresStore]

PARTITIONS = 4


def ids_of(partition: int, partitions: int = PARTITIONS) -> list[str]:
    return [name for name in (f"i{n}" for n in range(40)) if partition_of(name, partitions) == partition]


async def dumped(store: Store) -> tuple[DumpHead, dict[str, list[Any]]]:
    head: DumpHead | None = None
    found: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    async with aclosing(store.dump()) as chunks:
        async for chunk in chunks:
            if isinstance(chunk, DumpHead):
                head = chunk
            else:
                found[chunk.kind] += chunk.rows
    assert head is not None
    return head, {kind: sorted(rows) for kind, rows in found.items()}


async def fill(store: PostgresStore) -> None:
    """Each partition counts its executions from its block, and has some of everything."""
    for partition in range(PARTITIONS):
        lease = await store.acquire(partition, "owner")
        number = (await store.load(lease, FOREVER)).execution
        assert number == base_of(partition)
        batch = Batch(1)
        for name in ids_of(partition):
            number += 1
            batch.instances.append(instance_row(name, number, in_flight=True, tags=b'{"p":"%d"}' % partition))
            batch.history += [history_row(number, 0), history_row(number, 1)]
            batch.timers_set.append(timer_row(number, 1, number, instance_id=name))
            batch.inbox_put.append(message(f"to {name}", name))
            batch.tombstones.append(Tombstone(f"from {name}", 1))
        number += 1
        batch.entities.append(entity_row(f"@e@{partition}", number))
        await store.commit(lease, batch)
        await store.release(lease)


async def restored(store: Store, chunks: AsyncGenerator[DumpChunk]) -> Store:
    async with aclosing(chunks):
        await store.restore(chunks)
    await store.open(create=False)
    return store


async def newest(store: Store) -> Sequence[int]:
    found: list[int] = []
    for partition in range(store.capabilities.partitions):
        lease = await store.acquire(partition, "next")
        found.append((await store.load(lease, FOREVER)).execution)
        await store.release(lease)
    return found


def test_partitions_are_merged_and_divided_again(hub: Hub) -> None:
    async def main() -> None:
        source = hub(partitions=PARTITIONS)
        await source.open()
        await fill(source)
        head, rows = await dumped(source)
        assert sum(map(len, rows.values())) == 40 * 7 + PARTITIONS - 40
        counts = await newest(source)
        one = await restored(MemoryStore(), source.dump())
        assert (await newest(one), (await dumped(one))[1]) == ([counts[-1]], rows)
        for partitions in (PARTITIONS, 3, 7):
            url = source.url.replace("?hub=", f"?hub=again_{partitions}_")
            many = await restored(PostgresStore(url, partitions=partitions), one.dump())
            assert (await dumped(many))[1] == rows
            assert (await many.identity()).hub_id == head.hub_id
            again = await newest(many)
            assert all(number not in again[:at] for at, number in enumerate(again))
            for partition in range(partitions):
                lease = await many.acquire(partition, "owner")
                snapshot = await many.load(lease, FOREVER)
                mine = sorted(ids_of(partition, partitions))
                assert sorted(stored.row.instance_id for stored in snapshot.in_flight) == mine
                assert all(len(stored.history) == 2 for stored in snapshot.in_flight)
                assert sorted(timer.instance_id for timer in snapshot.timers) == mine
                assert sorted(row.instance_id for row in snapshot.inbox) == mine
                first = f"new {partition}"
                row = instance_row(first, snapshot.execution + 1)
                batch = Batch(snapshot.batch + 1, instances=[row], tombstones_before=2)
                batch.history.append(history_row(row.execution, 0))
                await many.commit(lease, batch)
                assert row.execution not in [one.row.execution for one in rows["instances"]]
            assert (await dumped(many))[1]["tombstones"] == [], "each is forgotten by somebody"
            await many.delete()
        await source.delete()

    asyncio.run(main())


def test_a_hub_that_nobody_has_used_is_taken_as_it_is(hub: Hub) -> None:
    async def main() -> None:
        source = MemoryStore()
        await source.open()
        lease = await source.acquire(0, "owner")
        await source.commit(lease, Batch(1, instances=[instance_row("a")], history=[history_row(1, 0)]))
        made = hub(partitions=3)
        await made.open()
        await made.acquire(1, "somebody")
        with pytest.raises(HubLockedError, match="'somebody'"):
            await restored(hub(), source.dump())
        await made.close()
        with pytest.raises(UsageError, match="has 3 partitions, 5 are asked for"):
            await restored(hub(partitions=5), source.dump())
        taken = await restored(hub(), source.dump())
        assert taken.capabilities.partitions == 3
        assert await taken.get_instance("a") == instance_row("a")
        with pytest.raises(HubNotEmptyError, match="has been used already"):
            await restored(hub(), source.dump())
        await taken.delete()

    asyncio.run(main())


def test_an_unused_hub_that_misses_a_step_is_not_taken(hub: Hub) -> None:
    async def main() -> None:
        source = MemoryStore()
        await source.open()
        made = hub()
        await made.open()
        await made.close()
        connection = await asyncpg.connect(made._address.dsn)
        table = f"{quoted(made._address.schema)}.migrations"
        await connection.execute(f"DELETE FROM {table} WHERE step = {len(STEPS)}")
        await connection.close()
        with pytest.raises(HubVersionError, match="run durably hub migrate first"):
            await restored(hub(), source.dump())

    asyncio.run(main())


def test_partitions_in_memory_are_divided_and_merged_as_well(hub: Hub) -> None:
    async def main() -> None:
        source = hub(partitions=PARTITIONS)
        await source.open()
        await fill(source)
        head, rows = await dumped(source)
        for partitions in (1, 3, PARTITIONS):
            many = await restored(MemoryStore(MemoryHub(partitions=partitions)), source.dump())
            assert (await dumped(many))[1] == rows
            again = await restored(MemoryStore(MemoryHub(partitions=PARTITIONS)), many.dump())
            assert (await dumped(again))[1] == rows
            assert (await again.identity()).hub_id == head.hub_id
            for partition in range(PARTITIONS):
                snapshot = await again.load(await again.acquire(partition, "next"), FOREVER)
                found = sorted(stored.row.instance_id for stored in snapshot.in_flight)
                assert found == sorted(ids_of(partition))
        await source.delete()

    asyncio.run(main())


@pytest.mark.parametrize("use", ["message", "key"])
def test_a_hub_with_a_message_or_a_key_is_in_use(hub: Hub, use: str) -> None:
    async def main() -> None:
        source = MemoryStore()
        await source.open()
        made = hub()
        await made.open()
        if use == "key":
            await made.add_key("k", b"proof")
        else:
            await made.post([message("m")])
        before = await made.identity()
        with pytest.raises(HubNotEmptyError):
            await restored(hub(), source.dump())
        assert await made.identity() == before
        await made.delete()

    asyncio.run(main())


def test_two_imports_at_once_make_one_hub(hub: Hub) -> None:
    async def main() -> None:
        source = MemoryStore()
        await source.open()
        lease = await source.acquire(0, "owner")
        await source.commit(lease, Batch(1, instances=[instance_row("a")]))
        stores = [hub() for _ in range(3)]
        found = await asyncio.gather(
            *(store.restore(source.dump()) for store in stores), return_exceptions=True
        )
        assert [type(one) for one in found if one is not None] == [HubNotEmptyError] * 2
        await stores[0].delete()

    asyncio.run(main())
