"""Lists and counts that hold instances and starts that wait for an owner, on each store."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from durably.core.commit import Batch, InboxRow
from durably.core.history import encode_body
from durably.core.messages import RaiseEvent, StartInstance
from durably.core.query import Found, InstanceQuery, Place
from durably.engine.listing import count_instances, query_instances
from durably.storage.api import Lease, Store
from durably.storage.memory import MemoryStore
from durably.storage.sqlite.store import SqliteStore
from durably.testing.store_scene import instance_row

PENDING = ("order", "Pending")


class Hub:
    """A store with an owner that takes starts in when it is told to."""

    def __init__(self, store: Store, lease: Lease) -> None:
        self.store = store
        self._lease = lease
        self._batches = 0

    async def post(self, *starts: tuple[str, int], **fields: Any) -> None:
        await self.store.post([start(key, at, **fields) for key, at in starts])

    async def commit(self, **fields: Any) -> None:
        self._batches += 1
        await self.store.commit(self._lease, Batch(self._batches, **fields))

    async def take(self, instance_id: str, *, gone: bool = False) -> None:
        (message,) = await self.store.read_messages(instance_id)
        row = instance_row(instance_id, self._batches + 100, created_at=message.at)
        await self.commit(instances=[] if gone else [row], inbox_consumed=[message.message_id])

    async def ids(self, **filters: Any) -> list[str]:
        return [row.instance_id for row in (await query_instances(self.store, InstanceQuery(**filters))).rows]


def start(instance_id: str, at: int, name: str = "order", **fields: Any) -> InboxRow:
    body = encode_body(StartInstance(name, b"1", f"e-{instance_id}", **fields))
    return InboxRow(f"start {instance_id}", instance_id, at, body)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(str(tmp_path / "hub.db"))


@asynccontextmanager
async def owned(store: Store) -> AsyncIterator[Hub]:
    await store.open()
    yield Hub(store, await store.acquire(0, "owner"))
    await store.close()


async def test_a_start_that_waits_is_pending_at_its_place(store: Store) -> None:
    async with owned(store) as hub:
        await hub.commit(instances=[instance_row(f"i{at}", at, created_at=at) for at in (10, 20, 30)])
        await hub.post(("b", 20), ("a", 15), ("z", 99), tags={"k": "v"})
        assert await hub.ids() == ["i10", "a", "i20", "b", "i30", "z"]
        assert await hub.ids(statuses=("Pending",)) == ["a", "b", "z"]
        assert await hub.ids(statuses=("Running",)) == ["i10", "i20", "i30"]
        assert await hub.ids(tags={"k": "v"}, created_to=20) == ["a", "b"]
        assert await hub.ids(tags={"k": "w"}) == []
        assert await hub.ids(name="order", instance_id_prefix="z") == ["z"]
        assert await hub.ids(parent_instance_id="p") == []
        assert await hub.ids(updated_to=19) == ["i10", "a", "i20", "i30"]
        assert await hub.ids(updated_from=99) == ["z"]
        assert await hub.ids(stuck=True) == []
        (row,) = (await query_instances(store, InstanceQuery(instance_id_prefix="z"))).rows
        assert (row.status, row.created_at, row.updated_at, row.input) == ("Pending", 99, 99, b"1")


async def test_what_waits_is_counted(store: Store) -> None:
    async with owned(store) as hub:
        assert await count_instances(store, InstanceQuery()) == {}
        await hub.commit(instances=[instance_row("i", 1)])
        await hub.post(*[(f"{number}", number) for number in range(1_100)])
        await hub.post(("other", 5), name="other")
        everything = {("order", "Running"): 1, PENDING: 1_100, ("other", "Pending"): 1}
        assert await count_instances(store, InstanceQuery()) == everything
        assert await count_instances(store, InstanceQuery(created_to=9, name="order")) == {
            ("order", "Running"): 1,
            PENDING: 10,
        }
        assert await count_instances(store, InstanceQuery(statuses=("Running",))) == {("order", "Running"): 1}
        assert await count_instances(store, InstanceQuery(stuck=True)) == {}


async def test_only_what_starts_an_instance_is_listed_and_the_first_of_several_starts(store: Store) -> None:
    async with owned(store) as hub:
        event = encode_body(RaiseEvent("go", None))
        await store.post(
            [
                InboxRow("m1", "nobody", 1, event),
                InboxRow("m2", "rubbish", 2, b"\xc1"),
                InboxRow("m3", "late", 3, event),
                start("late", 4),
                start("twice", 5)._replace(message_id="first"),
                start("twice", 6, "replacement"),
            ]
        )
        rows = (await query_instances(store, InstanceQuery())).rows
        assert [(row.instance_id, row.name) for row in rows] == [("late", "order"), ("twice", "order")]
        assert await hub.ids(page_size=1) == ["late"]  # empty pages are passed over
        assert await count_instances(store, InstanceQuery()) == {PENDING: 2}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("every", [1, 2, 4])
async def test_pages_have_each_instance_once_while_starts_are_taken(
    store: Store, size: int, every: int
) -> None:
    async with owned(store) as hub:
        await hub.commit(instances=[instance_row(f"i{at}", at, created_at=at) for at in range(10, 200, 10)])
        await hub.post(*[(f"s{at}", at) for at in range(5, 200, 6)])
        expected = [
            *((at, f"i{at}") for at in range(10, 200, 10)),
            *((at, f"s{at}") for at in range(5, 200, 6)),
        ]
        left = [f"s{at}" for at in (*range(101, 200, 6), *range(5, 100, 6))][::every]
        seen: list[str] = []
        after: Place | None = InstanceQuery().after
        while after is not None:
            found = await query_instances(store, InstanceQuery(page_size=size, after=after))
            assert 0 < len(found.rows) <= size
            seen += [row.instance_id for row in found.rows]
            after = found.next_after
            if left:
                await hub.take(left.pop())
        assert seen == [key for _, key in sorted(expected)]


class _Meanwhile:
    """A store on which a start is taken after each count."""

    def __init__(self, hub: Hub, taken: Sequence[str]) -> None:
        self._hub = hub
        self._taken = list(taken)

    async def count(self, query: InstanceQuery) -> Any:
        if self._taken:
            await self._hub.take(self._taken.pop())
        return await self._hub.store.count(query)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hub.store, name)


async def test_a_start_that_is_taken_while_it_is_counted_counts_once(store: Store) -> None:
    async with owned(store) as hub:
        await hub.post(*[(f"{number}", number) for number in range(5)])
        counted: Any = await count_instances(_Meanwhile(hub, "01"), InstanceQuery())  # type: ignore[arg-type]
        assert Counter(counted) == {PENDING: 3, ("order", "Running"): 2}


async def test_a_hub_without_waiting_starts_is_asked_once(store: Store) -> None:
    asked: list[str] = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            return getattr(store, name)

    async with owned(store) as hub:
        await hub.commit(instances=[instance_row("i", 1)])
        counting: Any = Counting()
        found = await query_instances(counting, InstanceQuery())
        assert found == Found(found.rows, None)
        assert asked == ["query_with_waiting"]
        await query_instances(counting, msgspec.structs.replace(InstanceQuery(), statuses=("Failed",)))
        assert asked == ["query_with_waiting", "query"]
