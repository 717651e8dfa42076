"""Conformance: snapshots, instances, and queries."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Any

import msgspec

from durably.core.commit import InstanceRow, Removal
from durably.core.query import FIRST, InstanceQuery, Place, place_of_waiting
from durably.storage.api import Store
from durably.testing.store_scene import (
    Scene,
    StoreHooks,
    history_row,
    instance_change,
    instance_row,
    message,
    scenario,
)


async def _walk(store: Store, query: InstanceQuery) -> list[InstanceRow]:
    """All pages of a query, from its `after`."""
    rows: list[InstanceRow] = []
    after: Place | None = query.after
    while after is not None:
        page = await store.query(msgspec.structs.replace(query, after=after))
        assert page.rows or page.next_after is None
        assert len(page.rows) <= query.page_size
        rows += page.rows
        after = page.next_after
    return rows


def _queries() -> Iterator[InstanceQuery]:
    """Every filter alone and with every other one."""
    names = (None, "order", "none", "")
    statuses = (
        None,
        (),
        ("Running",),
        ("Completed",),
        ("Failed", "Running", "Failed"),
        ("Completed", "Failed", "x"),
    )
    prefixes = (None, "", "a", "a-", "a\0", "\ud7ff", "\U0010ffff", "%", "A")
    times = ((None, None), (10, None), (None, 20), (10, 20), (21, 20))
    tags: tuple[dict[str, str] | None, ...] = (
        None,
        {},
        {"k": "v"},
        {"k": "v", "é\"'": "\0"},
        {"k": "x"},
        {"n": "1"},
    )
    yield from (InstanceQuery(stuck=stuck, name=name) for stuck in (True, False) for name in names)
    yield from (
        InstanceQuery(updated_from=since, statuses=status) for since in (0, 20, 40) for status in statuses
    )
    yield InstanceQuery(updated_from=20, updated_to=30)
    yield from (
        InstanceQuery(updated_to=until, statuses=status) for until in (0, 20, 40) for status in statuses
    )
    yield from (
        InstanceQuery(parent_instance_id=parent, name=name, statuses=status)
        for parent, name, status in product(("a", "", "none", "A"), (None, "order"), statuses)
    )
    yield from (
        InstanceQuery(parent_instance_id="a", instance_id_prefix=prefix, tags=tag, stuck=stuck)
        for prefix, tag, stuck in product(prefixes, tags, (None, True))
    )
    yield InstanceQuery(stuck=True, tags={"k": "v"}, instance_id_prefix="a", updated_to=30)
    for name, status, prefix, (since, until), tag in product(names, statuses, prefixes, times, tags):
        picked = sum(value is not None for value in (name, status, prefix, since, until, tag))
        if picked <= 2:
            yield InstanceQuery(
                name=name,
                statuses=status,
                instance_id_prefix=prefix,
                created_from=since,
                created_to=until,
                tags=tag,
            )


class ReadsConformance(StoreHooks):
    """What the owner and anybody else can read."""

    @scenario
    async def test_a_new_hub_is_empty(self, scene: Scene) -> None:
        assert await scene.load() == (0, 0, [], [], [], frozenset())
        assert await scene.store.get_instance("a") is None
        assert await scene.store.read_history("a") == []
        assert await scene.store.read_instances(scene.lease, ["a"]) == [None]
        assert await scene.store.read_instances(scene.lease, []) == []
        assert await scene.store.query(InstanceQuery()) == ([], None)

    @scenario
    async def test_a_snapshot_holds_what_is_in_flight_and_nothing_else(self, scene: Scene) -> None:
        await scene.commit(
            history=[history_row(3, 0), history_row(2, 0), history_row(1, 0), history_row(3, 1)],
            instances=[
                instance_row("c", 3, in_flight=True),
                instance_row("b", 2),
                instance_row("a", 1, in_flight=True),
                instance_row("no history", 4, in_flight=True),
            ],
            inbox_put=[message("m", "a"), message("n", "b")],
        )
        snapshot = await scene.load()
        assert [stored.row.instance_id for stored in snapshot.in_flight] == ["a", "c", "no history"]
        assert [stored.history for stored in snapshot.in_flight] == [
            [history_row(1, 0)],
            [history_row(3, 0), history_row(3, 1)],
            [],
        ]
        assert [stored.inbox for stored in snapshot.in_flight] == [[], [], []]
        assert [row.message_id for row in snapshot.inbox] == ["m", "n"]
        await scene.commit(changes=[instance_change("c"), instance_change("b", in_flight=True)])
        assert [stored.row.instance_id for stored in (await scene.load()).in_flight] == [
            "a",
            "b",
            "no history",
        ]

    @scenario
    async def test_an_execution_number_stays_used(self, scene: Scene) -> None:
        await scene.commit(history=[history_row(7, 0)])
        assert (await scene.load()).execution == 7
        await scene.commit(instances=[instance_row("a", 9)])
        await scene.commit(removed=[Removal("a", 9)], executions_dropped=[7])
        assert (await scene.load()).execution == 9
        await scene.commit(history=[history_row(11, 0)], executions_dropped=[11])
        assert (await scene.close_and_reopen()).execution == 11

    @scenario
    async def test_instances_are_read_in_the_order_asked_for(self, scene: Scene) -> None:
        await scene.commit(
            history=[history_row(1, 0), history_row(1, 1), history_row(2, 0)],
            instances=[instance_row("a", 1), instance_row("b", 2)],
            inbox_put=[message("m", "b"), message("x", "unborn"), message("n", "b")],
        )
        ids = ["b", "unborn", "a", "b", *(f"missing {number}" for number in range(100)), "a"]
        found = await scene.store.read_instances(scene.lease, ids)
        assert [stored and stored.row.instance_id for stored in found] == [
            "b",
            None,
            "a",
            "b",
            *[None] * 100,
            "a",
        ]
        assert found[0] is not None
        assert found[2] is not None
        assert found[0].history == [history_row(2, 0)]
        assert [row.message_id for row in found[0].inbox] == ["m", "n"]
        assert found[2].history == [history_row(1, 0), history_row(1, 1)]
        assert found[2].inbox == []

    @scenario
    async def test_the_time_of_update_is_that_of_the_newest_row(self, scene: Scene) -> None:
        async def updated_at() -> int:
            row = await scene.store.get_instance("a")
            (stored,) = await scene.store.read_instances(scene.lease, ["a"])
            (found,) = (await scene.store.query(InstanceQuery())).rows
            (loaded,) = (await scene.load()).in_flight
            assert row is not None
            assert stored is not None
            assert row.updated_at == stored.row.updated_at == found.updated_at == loaded.row.updated_at
            return row.updated_at

        await scene.commit(instances=[instance_row("a", 1, updated_at=5, in_flight=True)])
        assert await updated_at() == 5
        await scene.commit(history=[history_row(1, 0, at=3), history_row(2, 0, at=50)])
        assert await updated_at() == 5
        await scene.commit(history=[history_row(1, 1, at=9)])
        assert await updated_at() == 9
        await scene.commit(changes=[instance_change("a", updated_at=11, in_flight=True)])
        assert await updated_at() == 11
        await scene.commit(
            instances=[instance_row("a", 2, updated_at=12, in_flight=True)], executions_dropped=[1]
        )
        assert await updated_at() == 50

    @scenario
    async def test_anybody_may_read_without_a_lease(self, scene: Scene) -> None:
        await scene.commit(history=[history_row(1, 0)], instances=[instance_row("a")])
        other = await scene.another()
        assert await other.get_instance("a") == instance_row("a")
        assert await other.read_history("a") == [history_row(1, 0)]
        assert (await other.query(InstanceQuery())).rows == [instance_row("a")]

    # --- queries -----------------------------------------------------------------------------------------------------

    @scenario
    async def test_every_filter_agrees_with_the_reference(self, scene: Scene) -> None:
        ids = [
            "a",
            "a-1",
            "a-2",
            "a\0",
            "b",
            "A",
            "%",
            "",
            "\ud7ff\ue000",
            "\ue000",
            "\U0010ffff",
            "\U0010ffffx",
            "é",
        ]
        tags = [None, {}, {"k": "v"}, {"k": "v", "é\"'": "\0"}, {"kk": "v"}, {"K": "v"}, {"n": "1"}]
        statuses = ["Running", "Completed", "Failed", "running"]
        rows = [
            instance_row(
                key,
                number + 1,
                created_at=number * 2,
                updated_at=number * 3,
                blocked="diff" if number % 5 == 1 else None,
                parked="cause" if number % 5 == 2 else None,
                parent_instance_id=(None, "a", "", "b")[number % 4],
                name=("order", "Order", "")[number % 3],
                status=statuses[number % 4],
                tags=None if (tag := tags[number % 7]) is None else json.dumps(tag).encode(),
            )
            for number, key in enumerate(ids)
        ]
        await scene.commit(instances=rows)
        for query in _queries():
            expected = [row for row in rows if query.matches(row)]
            assert (await scene.store.query(query)).rows == expected, query
            counted = Counter((row.name, row.status) for row in expected)
            assert await scene.store.count(query) == counted, query

    @scenario
    async def test_what_cannot_be_stored_is_not_found(self, scene: Scene) -> None:
        await scene.commit(instances=[instance_row("a", tags=b'{"k":"v"}')])
        odd = "\ud800"
        assert await scene.store.get_instance(odd) is None
        assert await scene.store.read_history(odd) == []
        for query in (
            InstanceQuery(name=odd),
            InstanceQuery(parent_instance_id=odd),
            InstanceQuery(instance_id_prefix=odd),
            InstanceQuery(statuses=(odd,)),
            InstanceQuery(tags={"k": odd}),
            InstanceQuery(after=Place(2**70, 0)),
            InstanceQuery(created_from=2**70),
            InstanceQuery(created_to=-(2**70)),
            InstanceQuery(statuses=tuple(f"{number}" for number in range(2_000))),
            InstanceQuery(tags={f"{number}": "v" for number in range(2_000)}),
        ):
            assert await scene.store.query(query) == ([], None)
            assert await scene.store.query_with_waiting(query) == (([], None), [], [])
            if query.after == FIRST:
                assert await scene.store.count(query) == {}
        everything = InstanceQuery(
            after=Place(-(2**70), 2**70), created_from=-(2**70), created_to=2**70, tags={"k": "v"}
        )
        assert len((await scene.store.query(everything)).rows) == 1
        assert await scene.store.count(everything) == {("order", "Running"): 1}

    @scenario
    async def test_walking_the_pages_visits_each_instance_once_and_in_order(self, scene: Scene) -> None:
        rows = [
            instance_row(f"{number}", number + 1, status=("Running", "Failed", "Completed")[number % 3])
            for number in range(30)
        ]
        await scene.commit(instances=rows)
        for size in (1, 2, 3, 10, 29, 30, 31, 1_000):
            for query in (
                InstanceQuery(page_size=size),
                InstanceQuery(page_size=size, statuses=("Failed",)),
                InstanceQuery(page_size=size, statuses=("Failed", "Running")),
                InstanceQuery(page_size=size, statuses=("Failed", "Completed")),
                InstanceQuery(page_size=size, instance_id_prefix="1"),
            ):
                assert await _walk(scene.store, query) == [row for row in rows if query.matches(row)], query

    @scenario
    async def test_pages_stay_right_while_instances_come_and_go(self, scene: Scene) -> None:
        await scene.commit(instances=[instance_row(f"{number}", number + 1) for number in range(20)])
        seen: list[str] = []
        after: Place | None = FIRST
        execution = 100
        while after is not None:
            page = await scene.store.query(InstanceQuery(page_size=3, after=after))
            seen += [row.instance_id for row in page.rows]
            after = page.next_after
            if execution < 108:
                # One behind the reader is purged and started again, one ahead is purged, one is new.
                behind, ahead = seen[-3], f"{19 - (execution - 100)}"
                execution += 2
                await scene.commit(
                    removed=[Removal(behind, int(behind) + 1), Removal(ahead, int(ahead) + 1)],
                    instances=[
                        instance_row(behind, execution),
                        instance_row(f"new {execution}", execution + 1),
                    ],
                )
        stayed = [key for key in map(str, range(20)) if seen.count(key) == 1]
        assert stayed == [key for key in seen if key in stayed]
        assert {f"new {number}" for number in (102, 104, 106, 108)} <= set(seen)
        restarted = [key for key in dict.fromkeys(seen) if seen.count(key) == 2]
        assert restarted == ["0", "3", "6", "9"]

    @scenario
    async def test_all_pages_are_counted_as_they_are_now(self, scene: Scene) -> None:
        assert await scene.store.count(InstanceQuery()) == {}
        await scene.commit(
            instances=[instance_row(f"{number}", number + 1, created_at=number) for number in range(30)]
        )
        query = InstanceQuery(page_size=1, after=Place(10, 0))
        assert await scene.store.count(query) == {("order", "Running"): 30}
        await scene.commit(
            changes=[instance_change(f"{number}") for number in range(10)],
            removed=[Removal("29", 30)],
            instances=[instance_row("28", 29, created_at=28, name="other", status="Failed")],
        )
        assert await scene.store.count(query) == {
            ("order", "Completed"): 10,
            ("order", "Running"): 18,
            ("other", "Failed"): 1,
        }
        assert await scene.store.count(InstanceQuery(created_from=5, created_to=12)) == {
            ("order", "Completed"): 5,
            ("order", "Running"): 3,
        }

    @scenario
    async def test_messages_to_instances_that_do_not_exist_come_with_the_page_of_their_time(
        self, scene: Scene
    ) -> None:
        await scene.commit(
            instances=[
                instance_row(f"i{number}", number + 1, created_at=10 * (number + 1)) for number in range(4)
            ],
            inbox_put=[message("held", "i0", at=12)],
        )
        await scene.store.post(
            [
                message("d", "x-d", at=40),
                message("a", "x-a", at=10),
                message("b", "b", at=25),
                message("again", "b", at=26),
                message("c", "x-c", at=25),
                message("e", "x-e", at=99),
            ]
        )

        async def waiting(**filters: Any) -> list[str]:
            listed = await scene.store.query_with_waiting(InstanceQuery(**filters))
            assert listed.found == await scene.store.query(InstanceQuery(**filters))
            assert [place.created_at for place in listed.places] == [
                row.created_at for row in listed.found.rows
            ]
            if listed.found.next_after is not None:
                assert listed.places[-1] == listed.found.next_after
            assert all(row.body == b"body" and row.position for row in listed.waiting)
            return [row.message_id for row in listed.waiting]

        assert await waiting() == ["a", "b", "c", "d", "e"]
        assert await waiting(page_size=2) == ["a"]
        assert await waiting(page_size=3) == ["a", "b", "c"]
        assert await waiting(statuses=(), page_size=2) == ["a", "b", "c"]
        assert await waiting(name="none", tags={"k": "v"}, stuck=True) == ["a", "b", "c", "d", "e"]
        assert await waiting(instance_id_prefix="x-") == ["a", "c", "d", "e"]
        assert await waiting(created_from=25, created_to=40) == ["b", "c", "d"]
        assert await waiting(after=Place(25, 0)) == ["b", "c", "d", "e"]
        listed = await scene.store.query_with_waiting(InstanceQuery())
        places = list(map(place_of_waiting, listed.waiting))
        assert places == sorted(places)
        assert places[0] > listed.places[0]  # of one instant: behind the instances
        for number, place in enumerate(places):
            assert await waiting(after=place) == ["a", "b", "c", "d", "e"][number + 1 :]
        await scene.commit(instances=[instance_row("x-c", 9, created_at=25)], inbox_consumed=["b"])
        assert await waiting() == ["a", "again", "d", "e"]

    @scenario
    async def test_an_instance_that_is_purged_and_started_again_goes_to_the_end(self, scene: Scene) -> None:
        await scene.commit(instances=[instance_row("a", 1), instance_row("b", 2)])
        await scene.commit(removed=[Removal("a", 1)])
        await scene.commit(instances=[instance_row("a", 3)])
        assert [row.instance_id for row in await _walk(scene.store, InstanceQuery(page_size=1))] == ["b", "a"]

    @scenario
    async def test_many_instances_are_read_at_once(self, scene: Scene) -> None:
        ids = [f"{number}" for number in range(200)]
        await scene.commit(instances=[instance_row(key, place + 1) for place, key in enumerate(ids)])
        await scene.commit(history=[history_row(3, 0, at=99)])
        asked = ["x", *reversed(ids), "0", "\udfff"]
        found = await scene.store.get_instances(asked)
        assert found == [await scene.store.get_instance(key) for key in asked]
        assert found[0] is None
        assert await scene.store.get_instances([]) == []

    @scenario
    async def test_pages_are_in_the_order_of_creation_whatever_the_clock_did(self, scene: Scene) -> None:
        instants = [50, 20, 20, 90, 10, 20, 90, 50]
        tags = b'{"k":"v"}'
        rows = [
            instance_row(
                f"{number}",
                number + 1,
                created_at=at,
                status="Failed",
                name="n",
                tags=tags,
                parent_instance_id="p",
            )
            for number, at in enumerate(instants)
        ]
        for row in rows:
            await scene.commit(instances=[row])
        ordered = sorted(rows, key=lambda row: row.created_at)  # stable: then in order of arrival
        for size in (1, 2, 3, 100):
            for query in (
                InstanceQuery(page_size=size),
                InstanceQuery(page_size=size, name="n"),
                InstanceQuery(page_size=size, statuses=("Failed", "Running")),
                InstanceQuery(page_size=size, tags={"k": "v"}),
                InstanceQuery(page_size=size, instance_id_prefix=""),
                InstanceQuery(page_size=size, parent_instance_id="p"),
                InstanceQuery(page_size=size, created_from=20, created_to=50),
            ):
                assert await _walk(scene.store, query) == [row for row in ordered if query.matches(row)], (
                    query
                )

    @scenario
    async def test_tags_are_found_by_as_they_are_now(self, scene: Scene) -> None:
        async def tagged(**tags: str) -> list[str]:
            return [row.instance_id for row in (await scene.store.query(InstanceQuery(tags=tags))).rows]

        await scene.commit(instances=[instance_row("a", 1, tags=b'{"k":"1","l":"x"}'), instance_row("b", 2)])
        assert (await tagged(k="1"), await tagged(l="x", k="1"), await tagged(k="2")) == (["a"], ["a"], [])
        await scene.commit(
            instances=[instance_row("a", 1, tags=b'{"k":"2"}'), instance_row("b", 2, tags=b'{"k":"2"}')]
        )
        assert (await tagged(k="1"), await tagged(l="x"), await tagged(k="2")) == ([], [], ["a", "b"])
        await scene.commit(instances=[instance_row("b", 2)], removed=[Removal("a", 1)])
        assert await tagged(k="2") == []
