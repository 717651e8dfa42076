"""Conformance: a hub is read as a whole, and another one made of that."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from durably.core.commit import ParkedMessage, Tombstone
from durably.core.dump import KINDS, DumpChunk, DumpHead, DumpRows
from durably.core.query import EntityQuery, InstanceQuery
from durably.errors import ExportFileError, HubNotEmptyError, HubNotFoundError, UsageError
from durably.storage.api import Store
from durably.testing.store_scene import (
    FOREVER,
    Scene,
    StoreHooks,
    entity_row,
    history_row,
    instance_row,
    message,
    scenario,
    timer_row,
)

_LARGE = bytes(range(256)) * 1_000


async def _dumped(store: Store) -> tuple[DumpHead, dict[str, list[Any]]]:
    """A dump in memory; fails when its parts do not come in order."""
    found: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    heads: list[DumpHead] = []
    kinds: list[str] = []
    async with aclosing(store.dump()) as chunks:
        async for chunk in chunks:
            if isinstance(chunk, DumpHead):
                heads.append(chunk)
                continue
            assert len(heads) == 1
            assert chunk.rows
            assert all(type(row) is KINDS[chunk.kind] for row in chunk.rows)
            kinds.append(chunk.kind)
            found[chunk.kind] += chunk.rows
    assert kinds == sorted(kinds, key=list(KINDS).index)
    return heads[0], found


async def _fill(scene: Scene) -> None:
    """Something of everything."""
    full = instance_row(
        "full", 3, ordinal=2, name="é\0", version="1", status="Failed", created_at=5, updated_at=6, input=_LARGE,
        output=b"", custom_status=b"\0", failure=_LARGE, blocked="b", parked="p", in_flight=True,
        parent_instance_id="a", tags=b'{"k":"v","\xc3\xa9":""}', start_at=7, bases=b"[1,2]",
    )  # fmt: skip
    await scene.commit(
        instances=[instance_row("gone", 9), instance_row("a", 4, created_at=9), full],
        history=[history_row(execution, seq, 10 + seq) for execution in (1, 2, 3, 4) for seq in (0, 1)],
        timers_set=[
            timer_row(3, 0, 50, 1, "full"),
            timer_row(4, 1, 2**62),
            timer_row(5, 0, 3, 2, "@order@b"),
        ],
        entities=[entity_row("@order@b", 5, locked_by="full"), entity_row("@order@a", 6, state=None)],
        inbox_put=[message("m1", "full"), message("m2", "nobody", 3, _LARGE), message("m3", "full")],
        tombstones=[Tombstone("t1", 1), Tombstone("é", 2, b"refused")],
        parked=[ParkedMessage("p1", "full", 1, b"\0", "why", 2), ParkedMessage("p2", "none", 1, b"", "", 2)],
    )
    await scene.commit(instances=[instance_row("b", 7, bases=b"[]")], unparked=["p1"])
    await scene.store.add_key("some key", b"proof")


async def _chunks_of(head: DumpHead, found: dict[str, list[Any]]) -> AsyncGenerator[DumpChunk]:
    yield head
    for kind, rows in found.items():
        for row in rows:
            yield DumpRows(kind, [row])


async def _all_reads(store: Store) -> list[object]:
    """What anybody can read of what `_fill` wrote."""
    ids = ["full", "a", "b", "gone", "nobody", "none"]
    queries = (
        InstanceQuery(),
        InstanceQuery(page_size=1),
        InstanceQuery(tags={"k": "v"}),
        InstanceQuery(name="order"),
        InstanceQuery(stuck=True),
    )
    return [
        await store.identity(),
        await store.get_instances(ids),
        [await store.read_history(one) for one in ids],
        [await store.read_messages(one) for one in ids],
        [await store.query_with_waiting(query) for query in queries],
        [await store.count(query) for query in queries],
        await store.query_entities(EntityQuery(with_transient=True)),
        await store.read_parked(),
        await store.verdicts(["m1", "t1", "é"]),
    ]


class MovingConformance(StoreHooks):
    """`dump` and `restore`."""

    async def _restored(self, chunks: AsyncIterator[DumpChunk]) -> Store:
        store = await self.make()
        await store.restore(chunks)
        return store

    @scenario
    async def test_a_hub_made_of_a_dump_reads_as_the_first_one(self, scene: Scene) -> None:
        await _fill(scene)
        expected = await _all_reads(scene.store)
        async with aclosing(scene.store.dump()) as chunks:
            copy = await self._restored(chunks)
        # The raw rows, for the stand-in of a key would keep a store from opening that encrypts.
        inner: Store = getattr(copy, "inner", copy)
        await inner.open(create=False)
        first: Store = getattr(scene.store, "inner", scene.store)
        assert await _all_reads(inner) == (expected if first is scene.store else await _all_reads(first))
        (head, found), (head_again, found_again) = await _dumped(inner), await _dumped(first)
        assert head == head_again
        assert {kind: sorted(rows) for kind, rows in found.items()} == {
            kind: sorted(rows) for kind, rows in found_again.items()
        }
        assert all(found.values())
        await inner.delete()

    @scenario
    async def test_a_dump_has_each_row_once_and_in_order(self, scene: Scene) -> None:
        await _fill(scene)
        _, found = await _dumped(scene.store)
        placed = [row.position for row in found["instances"]]
        assert placed == sorted(set(placed))
        assert [one.row.instance_id for one in found["instances"]] == ["gone", "a", "full", "b"]
        history = [(owned.instance_id, owned.row.execution, owned.row.seq) for owned in found["history"]]
        assert sorted(history) == [
            ("a", 4, 0), ("a", 4, 1), ("full", 1, 0), ("full", 1, 1), ("full", 2, 0), ("full", 2, 1),
            ("full", 3, 0), ("full", 3, 1),
        ]  # fmt: skip
        assert all(
            later[2] == before[2] + 1 for before, later in zip(history[::2], history[1::2], strict=True)
        )
        assert [row.message_id for row in found["inbox"]] == ["m1", "m2", "m3", "p1"]

    @scenario
    async def test_the_owner_of_the_copy_goes_on(self, scene: Scene) -> None:
        await scene.commit(instances=[instance_row("a", in_flight=True)], history=[history_row(1, 0)])
        await scene.commit(
            instances=[instance_row("b", 2), instance_row("c", 3)], timers_set=[timer_row(2, 0, 9)]
        )
        await scene.commit(inbox_put=[message("m1"), message("m2"), message("m3")])
        await scene.commit(inbox_consumed=["m3"])
        before, last = await scene.load(), (await _dumped(scene.store))[0].positions.inbox
        copy = await self._restored(scene.store.dump())
        await copy.open(create=False)
        lease = await copy.acquire(0, "next owner")
        assert (lease.epoch > scene.lease.epoch, lease.orphaned) == (True, False)
        snapshot = await copy.load(lease, FOREVER)
        assert snapshot == before
        again = await self.reopen(copy)
        await again.open(create=False)
        assert await again.post([message("m2"), message("m4")])
        batch = scene.batch(
            history=[history_row(1, 1), history_row(4, 0)],
            instances=[instance_row("d", snapshot.execution + 1)],
        )
        await copy.commit(lease, batch)
        await copy.commit(lease, batch)
        assert [row.seq for row in await copy.read_history("a")] == [0, 1]
        inbox = await copy.read_inbox(lease, last)
        assert [row.message_id for row in inbox] == ["m4"]
        found = await copy.query(InstanceQuery())
        assert [row.instance_id for row in found.rows] == ["a", "b", "c", "d"]
        await again.close()
        await copy.delete()

    @scenario
    async def test_a_dump_is_of_one_moment(self, scene: Scene) -> None:
        await scene.commit(instances=[instance_row("a")], history=[history_row(1, 0)])
        async with aclosing(scene.store.dump()) as chunks:
            head = await anext(chunks)
            await scene.commit(
                instances=[instance_row("b", 2)],
                history=[history_row(1, 1), history_row(2, 0)],
                inbox_put=[message("m")],
            )
            await scene.store.post([message("n")])
            rest = [chunk async for chunk in chunks]
        assert isinstance(head, DumpHead)
        assert head.batch == 1
        assert [(chunk.kind, len(chunk.rows)) for chunk in rest if isinstance(chunk, DumpRows)] == [
            ("instances", 1),
            ("history", 1),
        ]

    @scenario
    async def test_a_dump_that_is_not_read_to_its_end_holds_nothing_up(self, scene: Scene) -> None:
        await scene.commit(instances=[instance_row(f"i{n}", n + 1) for n in range(2_000)])
        async with aclosing(scene.store.dump()) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, DumpRows):
                    break
        await scene.close_and_reopen()
        await scene.commit(instances=[instance_row("more", 2_001)])

    @scenario
    async def test_a_large_hub_comes_in_chunks(self, scene: Scene) -> None:
        rows = [instance_row(f"i{n:05}", n + 1, input=b"%d" % n) for n in range(3_000)]
        large = [instance_row(f"l{n}", 3_001 + n, input=_LARGE, output=_LARGE) for n in range(20)]
        await scene.commit(instances=rows, history=[history_row(n + 1, 0) for n in range(3_000)])
        await scene.commit(instances=large)
        chunks = [chunk async for chunk in scene.store.dump()]
        assert all(len(chunk.rows) <= 1_000 for chunk in chunks if isinstance(chunk, DumpRows))

        async def again() -> AsyncGenerator[DumpChunk]:
            for chunk in chunks:
                yield chunk

        copy = await self._restored(again())
        await copy.open(create=False)
        found = await copy.get_instances([row.instance_id for row in (*rows, *large)])
        assert found == [*rows, *large]
        await copy.delete()

    @scenario
    async def test_an_empty_hub_is_copied_too(self, scene: Scene) -> None:
        copy = await self._restored(scene.store.dump())
        await copy.open(create=False)
        identity = await copy.identity()
        assert identity == await scene.store.identity()
        await copy.delete()

    @scenario
    async def test_numbers_of_executions_stay_behind_those_of_the_hub_before(self, scene: Scene) -> None:
        await scene.commit(instances=[instance_row("a")])
        head, found = await _dumped(scene.store)
        far = 31 << 48
        copy = await self._restored(_chunks_of(head._replace(executions=[1, far + 5]), found))
        await copy.open(create=False)
        snapshot = await copy.load(await copy.acquire(0, "owner"), FOREVER)
        assert snapshot.execution == far + 5
        await copy.delete()

    # --- refusals ----------------------------------------------------------------------------------------------------

    @scenario
    async def test_a_hub_that_was_used_is_left_alone(self, scene: Scene) -> None:
        await scene.commit(instances=[instance_row("a")])
        before = await _dumped(scene.store)
        await scene.store.release(scene.lease)
        other = await self.reopen(scene.store)
        with pytest.raises(HubNotEmptyError):
            await other.restore(_chunks_of(*before))
        await scene.own("again")
        assert (await _dumped(scene.store))[1] == before[1]

    @scenario
    async def test_there_is_no_hub_when_the_dump_ends_early(self, scene: Scene) -> None:
        await scene.commit(instances=[instance_row("a")])

        async def broken() -> AsyncGenerator[DumpChunk]:
            async with aclosing(scene.store.dump()) as chunks:
                async for chunk in chunks:
                    yield chunk
            raise ExportFileError("it is cut off")

        store = await self.make()
        with pytest.raises(ExportFileError):
            await store.restore(broken())
        with pytest.raises(HubNotFoundError):
            await (await self.reopen(store)).open(create=False)
        again = await self.reopen(store)
        await again.restore(scene.store.dump())
        await again.open(create=False)
        assert await again.get_instance("a") == instance_row("a")
        await again.delete()

    @scenario
    async def test_a_store_that_was_opened_takes_no_dump(self, scene: Scene) -> None:
        with pytest.raises(UsageError):
            await scene.store.restore(scene.store.dump())
