"""Conformance: rows of entities, how they are written, and found."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import msgspec
import pytest

from durably.core.commit import EntityRow, Removal, TimerKey
from durably.core.query import EntityQuery
from durably.errors import DurablyError
from durably.storage.api import Store
from durably.testing.store_scene import (
    Scene,
    StoreHooks,
    entity_row,
    history_row,
    instance_row,
    scenario,
    timer_row,
)

_COUNT = 40


def _rows() -> list[EntityRow]:
    """Entities of all kinds, none like another."""
    names = ("order", "é", "orders")
    return [
        entity_row(
            f"@{names[n % 3]}@{'kK%_'[n % 4]}{n:02}",
            n + 1,
            updated_at=n // 2,
            state=None if n % 5 == 0 else b"%d" % n,
            locked_by=f"i{n}" if n % 7 == 0 else None,
        )
        for n in range(_COUNT)
    ]


def _queries() -> Iterator[EntityQuery]:
    """Every filter with every other one."""
    kinds = (
        (None, None),
        ("order", None),
        ("order", "@order@"),
        ("order", "@order@k"),
        ("order", "@orders@"),
        ("é", "@é@"),
        ("none", None),
        ("", None),
        (None, "@order"),
        (None, "@order@%"),
        (None, ""),
    )
    times = ((None, None), (5, None), (None, 12), (5, 12), (13, 12), (0, 2**70))
    for (name, prefix), (start, end), transient, locked in product(
        kinds, times, (False, True), (False, True)
    ):
        yield EntityQuery(
            name=name,
            prefix=prefix,
            updated_from=start,
            updated_to=end,
            with_transient=transient,
            locked=locked,
            page_size=7,
        )


async def _walk(store: Store, query: EntityQuery) -> list[EntityRow]:
    """All pages of a query, from its `after`."""
    rows: list[EntityRow] = []
    after: str | None = query.after
    while after is not None:
        page = await store.query_entities(msgspec.structs.replace(query, after=after))
        assert len(page.rows) <= query.page_size
        assert page.next_after in (None, page.rows[-1].instance_id if page.rows else None)
        rows += page.rows
        after = page.next_after
    return rows


class EntitiesConformance(StoreHooks):
    """Rows of entities in a batch, and reads of them."""

    # --- writing -----------------------------------------------------------------------------------------------------

    @scenario
    async def test_an_entity_is_read_as_it_was_written(self, scene: Scene) -> None:
        full = entity_row(
            "@order@full", 1, created_at=3, updated_at=2**62, state=b"\0\xff", version=7, locked_by="é\0",
            rest=b"\0", checksum=b"",
        )  # fmt: skip
        rows = [full, entity_row("@order@", 2, state=None), entity_row("@order@empty", 3, state=b"")]
        await scene.commit(entities=rows)
        for store in (scene.store, await scene.another()):
            assert [await store.get_entity(row.instance_id) for row in rows] == rows
            assert await store.get_entity("@order@none") is None
            assert await store.get_entity("@order@FULL") is None
            assert await store.get_entity("\ud800") is None
        await scene.crash_and_reopen()
        assert [await scene.store.get_entity(row.instance_id) for row in rows] == rows

    @scenario
    async def test_the_owner_reads_several_at_once(self, scene: Scene) -> None:
        rows = [entity_row(f"@order@{n}", n + 1) for n in range(1_200)]
        await scene.commit(entities=rows)
        wanted = ["@order@none", *(row.instance_id for row in reversed(rows)), "@order@5"]
        found = await scene.store.read_entities(scene.lease, wanted)
        assert found == [None, *reversed(rows), rows[5]]
        assert await scene.store.read_entities(scene.lease, []) == []

    @scenario
    async def test_a_row_is_replaced_as_a_whole_and_the_last_one_counts(self, scene: Scene) -> None:
        await scene.commit(entities=[entity_row("@order@a", 1, locked_by="i", version=3)])
        last = entity_row("@order@a", 2, name="other", created_at=5, updated_at=6, state=None)
        await scene.commit(entities=[entity_row("@order@a", 3), entity_row("@order@b", 4), last])
        assert await scene.store.get_entity("@order@a") == last
        assert await scene.store.get_entity("@order@b") == entity_row("@order@b", 4)

    @scenario
    async def test_a_removed_entity_is_gone_with_its_timers(self, scene: Scene) -> None:
        await scene.commit(
            entities=[entity_row("@order@a", 1), entity_row("@order@b", 2)],
            timers_set=[timer_row(n, seq, 5, instance_id=f"@order@{n}") for n in (1, 2) for seq in (-1, 0)],
        )
        await scene.commit(entities_removed=[Removal("@order@a", 1), Removal("@order@none", 9)])
        assert await scene.store.get_entity("@order@a") is None
        assert await scene.store.read_entities(scene.lease, ["@order@a", "@order@b"]) == [
            None,
            entity_row("@order@b", 2),
        ]
        left = [timer_row(2, seq, 5, instance_id="@order@2") for seq in (-1, 0)]
        assert (await scene.load()).timers == left
        await scene.commit(timers_cleared=[TimerKey(2, -1, 0)], entities=[entity_row("@order@a", 3)])
        assert (await scene.load()).timers == left[1:]
        assert await scene.store.get_entity("@order@a") == entity_row("@order@a", 3)

    @scenario
    async def test_what_is_written_and_removed_in_one_batch_is_gone(self, scene: Scene) -> None:
        await scene.commit(entities=[entity_row("@order@a", 1)], entities_removed=[Removal("@order@a", 1)])
        assert await scene.store.get_entity("@order@a") is None
        await scene.commit(
            entities_removed=[Removal("@order@b", 2)], timers_set=[timer_row(2, 0, 5, instance_id="@order@b")]
        )
        assert len((await scene.load()).timers) == 1, "timers are set after removals"

    @scenario
    async def test_instances_and_entities_are_apart(self, scene: Scene) -> None:
        await scene.commit(
            history=[history_row(1, 0)],
            instances=[instance_row("a", 1)],
            entities=[entity_row("a", 2)],
        )
        await scene.commit(removed=[Removal("a", 1)])
        assert await scene.store.get_instance("a") is None
        assert await scene.store.get_entity("a") == entity_row("a", 2)
        await scene.commit(history=[history_row(3, 0)], instances=[instance_row("a", 3)])
        await scene.commit(entities_removed=[Removal("a", 2)])
        assert await scene.store.get_instance("a") == instance_row("a", 3)
        assert await scene.store.read_history("a") == [history_row(3, 0)]

    @scenario
    async def test_the_number_of_an_entity_is_not_used_again(self, scene: Scene) -> None:
        await scene.commit(entities=[entity_row("@order@a", 41)])
        await scene.commit(entities_removed=[Removal("@order@a", 41)])
        assert (await scene.close_and_reopen()).execution == 41

    @scenario
    async def test_a_batch_with_a_row_that_cannot_be_stored_changes_nothing(self, scene: Scene) -> None:
        await scene.commit(entities=[entity_row("@order@a", 1)])
        for bad in (entity_row("@order@\ud800", 3), entity_row("@order@c", 3, locked_by="\ud800")):
            with pytest.raises(DurablyError):
                await scene.store.commit(
                    scene.lease,
                    scene.batch(
                        entities=[entity_row("@order@b", 2), bad],
                        entities_removed=[Removal("@order@a", 1)],
                    ),
                )
        assert [row.instance_id for row in await _walk(scene.store, EntityQuery())] == ["@order@a"]

    # --- finding -----------------------------------------------------------------------------------------------------

    @scenario
    async def test_every_filter_finds_what_the_reference_says(self, scene: Scene) -> None:
        rows = sorted(_rows(), key=lambda row: row.instance_id)
        await scene.commit(entities=_rows())
        for query in _queries():
            expected = [row for row in rows if query.matches(row)]
            assert await _walk(scene.store, query) == expected, query

    @scenario
    async def test_pages_are_in_the_order_of_the_ids_by_code_point(self, scene: Scene) -> None:
        ids = ["@a@", "@a@\0", "@a@Z", "@a@a", "@a@é", "@a@\ud7ff", "@a@\ue000", "@a@\U0001f600", "@ab@"]
        await scene.commit(entities=[entity_row(one, n + 1) for n, one in enumerate(reversed(ids))])
        for size in (1, 2, len(ids), 100):
            found = await _walk(scene.store, EntityQuery(page_size=size))
            assert [row.instance_id for row in found] == ids
        page = await scene.store.query_entities(EntityQuery(after="@a@a", page_size=2))
        assert [row.instance_id for row in page.rows] == ["@a@é", "@a@\ud7ff"]
        exact = await scene.store.query_entities(EntityQuery(page_size=len(ids)))
        assert exact.next_after is None, "a page that holds the last one says so"

    @scenario
    async def test_what_no_row_can_have_finds_nothing(self, scene: Scene) -> None:
        await scene.commit(entities=[entity_row("@order@a", 1)])
        for query in (EntityQuery(name="\ud800"), EntityQuery(prefix="@order@\ud800")):
            assert await scene.store.query_entities(query) == ([], None)

    @scenario
    async def test_a_walk_sees_what_stays_once_while_others_come_and_go(self, scene: Scene) -> None:
        rows = [entity_row(f"@order@{n}", n + 1) for n in range(9)]
        await scene.commit(entities=rows)
        first = await scene.store.query_entities(EntityQuery(page_size=4))
        assert first.next_after is not None
        await scene.commit(
            entities=[entity_row("@order@00", 20), entity_row("@order@1", 2, updated_at=9)],
            entities_removed=[Removal("@order@3", 4), Removal("@order@7", 8)],
        )
        rest = await _walk(scene.store, EntityQuery(page_size=4, after=first.next_after))
        assert [row.instance_id[-1] for row in (*first.rows, *rest)] == list("01234568")
