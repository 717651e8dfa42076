"""The commit lane: batches of several partitions in one statement, of which each one gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from durably.core.commit import Batch
from durably.core.dump import base_of
from durably.errors import HubLockedError, InvariantError, LeaseLostError, StoreRefusedError, UsageError
from durably.storage.api import Lease
from durably.storage.postgres.store import PostgresStore
from durably.storage.slots import partition_of
from durably.testing.store_scene import FOREVER, history_row, instance_change, instance_row, message

PARTITIONS = 4
IDS = {partition_of(f"i{number}", PARTITIONS): f"i{number}" for number in range(64)}
"""An instance of each partition."""

Hub = Callable[..., PostgresStore]


@asynccontextmanager
async def opened(hub: Hub, **options: Any) -> AsyncGenerator[PostgresStore]:
    store = hub(**options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def owning(hub: Hub) -> AsyncGenerator[tuple[PostgresStore, list[Lease]]]:
    async with opened(hub, partitions=PARTITIONS) as store:
        yield store, [await store.acquire(number, f"owner {number}") for number in range(PARTITIONS)]


async def committed(store: PostgresStore, leases: list[Lease], batches: list[Batch]) -> list[Any]:
    futures = [store.commit(lease, batch) for lease, batch in zip(leases, batches, strict=True)]
    return await asyncio.gather(*futures, return_exceptions=True)


def fine(number: int, **more: Any) -> Batch:
    first = base_of(number) + 1
    row = instance_row(IDS[number], first)
    return Batch(number=1, instances=[row], history=[history_row(first, 0)], **more)


def test_batches_of_all_partitions_go_in_one_statement(hub: Hub) -> None:
    async def main() -> None:
        async with owning(hub) as (store, leases):
            posted = [message(f"m{number}", IDS[(number + 1) % PARTITIONS]) for number in range(PARTITIONS)]
            batches = [fine(number, inbox_put=[posted[number]]) for number in range(PARTITIONS)]
            assert await committed(store, leases, batches) == [None] * PARTITIONS
            for number, lease in enumerate(leases):
                snapshot = await store.load(lease, FOREVER)
                assert (snapshot.batch, snapshot.execution) == (1, base_of(number) + 1)
                # A message to another partition is in its inbox, by the commit of its sender.
                assert [row.message_id for row in snapshot.inbox] == [f"m{(number - 1) % PARTITIONS}"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (lambda batch: setattr(batch, "number", 3), InvariantError),
        (lambda batch: batch.history.append(history_row(3, 0)), InvariantError),
        (lambda batch: batch.changes.append(instance_change("nobody")), InvariantError),
        (lambda batch: batch.inbox_put.append(message("\ud800")), StoreRefusedError),
    ],
)
def test_one_that_does_not_fit_keeps_none_of_the_others_out(
    hub: Hub, broken: Callable[[Batch], None], error: type[Exception]
) -> None:
    async def main() -> None:
        async with owning(hub) as (store, leases):
            batches = [fine(number) for number in range(PARTITIONS)]
            batches[2] = Batch(
                number=1,
                instances=[instance_row(IDS[2], 3)],
                history=[history_row(3, 0)],
                changes=[],
                inbox_put=[],
            )
            broken(batches[2])
            said = await committed(store, leases, batches)
            assert isinstance(said[2], error), said
            assert [said[number] for number in (0, 1, 3)] == [None] * 3
            found = [
                row is not None for row in await store.get_instances([IDS[number] for number in range(4)])
            ]
            assert found == [True, True, False, True]

    asyncio.run(main())


def test_a_partition_that_was_taken_over_is_fenced_and_the_others_go_on(hub: Hub) -> None:
    async def main() -> None:
        async with owning(hub) as (store, leases):
            await store.acquire(1, "the next one")
            said = await committed(store, leases, [fine(number) for number in range(PARTITIONS)])
            assert isinstance(said[1], LeaseLostError)
            assert [said[number] for number in (0, 2, 3)] == [None] * 3
            repeated = await committed(store, leases, [fine(number) for number in range(PARTITIONS)])
            assert isinstance(repeated[1], LeaseLostError)
            assert [repeated[number] for number in (0, 2, 3)] == [
                None
            ] * 3  # they were applied: nothing is done

    asyncio.run(main())


def test_a_partition_has_one_live_owner_at_a_time(hub: Hub) -> None:
    async def main() -> None:
        async with owning(hub) as (store, leases), opened(hub) as other:
            assert other.capabilities.partitions == PARTITIONS
            with pytest.raises(HubLockedError, match="'owner 2'"):
                await other.acquire(2, "other")
            await store.release(leases[2])
            lease = await other.acquire(2, "other")
            assert (lease.epoch, lease.orphaned) == (leases[2].epoch + 1, False)
            with pytest.raises(LeaseLostError):
                await store.commit(leases[2], fine(2))
        async with opened(hub) as third:  # both were closed without a release
            assert (await third.acquire(2, "third")).orphaned

    asyncio.run(main())


def test_the_number_of_partitions_never_changes(hub: Hub) -> None:
    async def main() -> None:
        async with opened(hub, partitions=3):
            with pytest.raises(UsageError, match="has 3 partitions, 5 are asked for"):
                await hub(partitions=5).open()

    asyncio.run(main())
