"""Conformance: what each kind of row in a batch does."""

from __future__ import annotations

import pytest

from durably.core.commit import Removal, TimerKey, Tombstone
from durably.core.query import InstanceQuery
from durably.errors import InvariantError
from durably.testing.store_scene import (
    FOREVER,
    Scene,
    StoreHooks,
    history_row,
    instance_change,
    instance_row,
    message,
    scenario,
    timer_row,
)


async def _order(scene: Scene) -> list[str]:
    return [row.instance_id for row in (await scene.store.query(InstanceQuery())).rows]


class RowsConformance(StoreHooks):
    """History, instances, timers, messages and tombstones in a batch."""

    # --- history -----------------------------------------------------------------------------------------------------

    @scenario
    async def test_history_is_read_in_order_and_without_gaps(self, scene: Scene) -> None:
        await scene.commit(instances=[instance_row("a", 1), instance_row("b", 2)])
        for first in range(0, 300, 3):
            await scene.commit(
                history=[history_row(1, first + seq) for seq in range(3)] + [history_row(2, first // 3)]
            )
        assert await scene.store.read_history("a") == [history_row(1, seq) for seq in range(300)]
        assert await scene.store.read_history("b") == [history_row(2, seq) for seq in range(100)]

    @scenario
    async def test_a_history_row_that_exists_breaks_an_invariant(self, scene: Scene) -> None:
        await scene.commit(history=[history_row(1, 0), history_row(1, 1)], instances=[instance_row("a")])
        twice = [history_row(2, 0), history_row(2, 1), history_row(2, 1)]
        for rows in ([history_row(1, 2), history_row(1, 1)], [history_row(1, 0)], twice):
            with pytest.raises(InvariantError) as caught:
                await scene.store.commit(
                    scene.lease,
                    scene.batch(history=rows, instances=[instance_row("b", 2), instance_row("c", 3)]),
                )
            assert caught.value.rule == "I1"
            assert caught.value.instance_id == ("b" if rows is twice else "a")
        assert await scene.store.read_history("a") == [history_row(1, 0), history_row(1, 1)]
        assert await _order(scene) == ["a"]

    @scenario
    async def test_only_the_history_of_the_current_execution_is_read(self, scene: Scene) -> None:
        await scene.commit(history=[history_row(1, 0), history_row(2, 0)], instances=[instance_row("a", 2)])
        assert await scene.store.read_history("a") == [history_row(2, 0)]

    @scenario
    async def test_an_execution_may_begin_and_end_in_one_batch(self, scene: Scene) -> None:
        await scene.commit(
            history=[history_row(1, 0)], instances=[instance_row("a", 1)], timers_set=[timer_row(1, 0, 5)]
        )
        await scene.commit(
            history=[history_row(1, 1), history_row(2, 0), history_row(3, 0)],
            executions_dropped=[1, 2],
            instances=[instance_row("a", 3)],
            timers_set=[timer_row(3, 0, 5)],
        )
        assert await scene.store.read_history("a") == [history_row(3, 0)]
        assert (await scene.load()).timers == [timer_row(3, 0, 5)]
        await scene.commit(instances=[instance_row("a", 2)])
        assert await scene.store.read_history("a") == []

    # --- instances ---------------------------------------------------------------------------------------------------

    @scenario
    async def test_an_instance_that_is_written_again_keeps_its_place(self, scene: Scene) -> None:
        await scene.commit(instances=[instance_row("a", 1), instance_row("b", 2)])
        await scene.commit(
            instances=[instance_row("c", 3), instance_row("a", 4, status="Failed", name="other")]
        )
        assert await _order(scene) == ["a", "b", "c"]
        assert await scene.store.get_instance("a") == instance_row("a", 4, status="Failed", name="other")

    @scenario
    async def test_of_several_rows_and_changes_the_last_one_counts(self, scene: Scene) -> None:
        await scene.commit(
            instances=[instance_row("a", 1), instance_row("b", 2), instance_row("a", 3, output=b"1")],
            changes=[
                instance_change("a", status="Suspended"),
                instance_change("b", status="Failed"),
                instance_change("a", status="Terminated", output=b"2"),
            ],
        )
        assert await _order(scene) == ["a", "b"]
        assert await scene.store.get_instance("a") == instance_row("a", 3, status="Terminated", output=b"2")

    @scenario
    async def test_a_change_writes_all_its_fields_and_no_others(self, scene: Scene) -> None:
        row = instance_row(
            "a", input=b"i", output=b"o", custom_status=b"c", failure=b"f", blocked="b", parked="p", in_flight=True,
            start_at=5, tags=b"{}", version="1", bases=b"[1]",
        )  # fmt: skip
        await scene.commit(instances=[row])
        emptied = instance_change("a", status="Running", updated_at=1)
        await scene.commit(changes=[emptied])
        assert await scene.store.get_instance("a") == row._replace(**emptied._asdict())
        filled = instance_change(
            "a", status="Failed", updated_at=2, output=b"O", custom_status=b"C", failure=b"F", blocked="B",
            parked="P", in_flight=True, start_at=6,
        )  # fmt: skip
        await scene.commit(changes=[filled])
        assert await scene.store.get_instance("a") == row._replace(**filled._asdict())

    @scenario
    async def test_changing_an_instance_that_is_not_there_breaks_an_invariant(self, scene: Scene) -> None:
        await scene.commit(instances=[instance_row("a")])
        with pytest.raises(InvariantError) as caught:
            await scene.store.commit(
                scene.lease,
                scene.batch(
                    instances=[instance_row("b", 2)], changes=[instance_change("a"), instance_change("x")]
                ),
            )
        assert caught.value.instance_id == "x"
        assert await scene.store.get_instance("a") == instance_row("a")
        assert await scene.store.get_instance("b") is None

    @scenario
    async def test_a_removed_instance_is_gone_with_all_that_is_its_own(self, scene: Scene) -> None:
        await scene.commit(
            history=[history_row(1, 0), history_row(2, 0)],
            instances=[instance_row("a", 1, in_flight=True), instance_row("b", 2, in_flight=True)],
            timers_set=[timer_row(1, 0, 5), timer_row(2, 0, 5, instance_id="b")],
        )
        await scene.commit(removed=[Removal("a", 1)])
        assert await scene.store.get_instance("a") is None
        assert await scene.store.read_history("a") == []
        snapshot = await scene.load()
        assert [stored.row.instance_id for stored in snapshot.in_flight] == ["b"]
        assert snapshot.timers == [timer_row(2, 0, 5, instance_id="b")]
        await scene.commit(instances=[instance_row("c", 1)])
        assert await scene.store.read_history("c") == []

    @scenario
    async def test_what_was_posted_to_an_instance_outlives_it(self, scene: Scene) -> None:
        """It may be the start of the next one under the same id, and the owner has not seen it yet."""
        await scene.commit(history=[history_row(1, 0)], instances=[instance_row("a", 1)])
        await scene.store.post([message("m", "a"), message("n", "a")])
        await scene.commit(removed=[Removal("a", 1)], inbox_consumed=["n"])
        assert [row.message_id for row in await scene.store.read_inbox(scene.lease)] == ["m"]

    @scenario
    async def test_removing_comes_first_so_that_an_id_may_be_used_again(self, scene: Scene) -> None:
        await scene.commit(
            history=[history_row(1, 0)],
            instances=[instance_row("a", 1), instance_row("b", 2)],
            inbox_put=[message("m")],
        )
        await scene.commit(
            removed=[Removal("a", 1)],
            history=[history_row(3, 0)],
            instances=[instance_row("a", 3)],
            changes=[instance_change("a")],
            inbox_put=[message("n")],
        )
        assert await _order(scene) == ["b", "a"]
        (stored,) = await scene.store.read_instances(scene.lease, ["a"])
        assert stored is not None
        assert stored.row == instance_row("a", 3, status="Completed")
        assert stored.history == [history_row(3, 0)]
        assert [row.message_id for row in stored.inbox] == ["m", "n"]

    @scenario
    async def test_removing_what_is_not_there_is_ignored(self, scene: Scene) -> None:
        await scene.commit(removed=[Removal("x", 9)], executions_dropped=[8])

    # --- timers ------------------------------------------------------------------------------------------------------

    @scenario
    async def test_a_timer_that_is_set_again_is_replaced(self, scene: Scene) -> None:
        await scene.commit(timers_set=[timer_row(1, 0, 5), timer_row(1, 0, 6, kind=1)])
        await scene.commit(timers_set=[timer_row(1, 0, 7)])
        assert (await scene.load()).timers == [timer_row(1, 0, 6, kind=1), timer_row(1, 0, 7)]

    @scenario
    async def test_timers_are_cleared_after_they_are_set(self, scene: Scene) -> None:
        await scene.commit(timers_set=[timer_row(1, 0, 5), timer_row(1, 1, 5), timer_row(1, 2, 5, kind=2)])
        cleared = [TimerKey(1, 0, 0), TimerKey(1, 2, 2), TimerKey(1, 3, 0), TimerKey(9, 9, 9)]
        await scene.commit(timers_set=[timer_row(1, 3, 5)], timers_cleared=cleared)
        assert (await scene.load()).timers == [timer_row(1, 1, 5)]

    @scenario
    async def test_timers_are_read_by_instant_within_their_window(self, scene: Scene) -> None:
        rows = [
            timer_row(2, 0, 5),
            timer_row(1, 1, 5),
            timer_row(1, 0, 5, kind=1),
            timer_row(1, 0, 5),
            timer_row(3, 0, 4),
        ]
        await scene.commit(timers_set=[*rows, timer_row(1, 5, 3), timer_row(1, 6, 6)])
        ordered = sorted(rows, key=lambda row: (row.due_at, row.execution, row.seq, row.kind))
        assert await scene.store.read_timers(scene.lease, 3, 5) == ordered
        assert await scene.store.read_timers(scene.lease, 6, FOREVER) == []
        snapshot = await scene.store.load(scene.lease, 4)
        assert snapshot.timers == [timer_row(1, 5, 3), timer_row(3, 0, 4)]
        assert len((await scene.load()).timers) == 7

    # --- messages ----------------------------------------------------------------------------------------------------

    @scenario
    async def test_a_message_may_come_and_go_in_one_batch(self, scene: Scene) -> None:
        await scene.commit(
            inbox_put=[message("m"), message("n")],
            inbox_consumed=["m", "never seen"],
            tombstones=[Tombstone("m", 1)],
        )
        assert [row.message_id for row in await scene.store.read_inbox(scene.lease)] == ["n"]

    @scenario
    async def test_a_message_is_put_once(self, scene: Scene) -> None:
        await scene.commit(inbox_put=[message("m", body=b"first"), message("m", body=b"second")])
        await scene.commit(inbox_put=[message("m", body=b"third")])
        assert [row.body for row in await scene.store.read_inbox(scene.lease)] == [b"first"]
        await scene.commit(inbox_consumed=["m"], tombstones=[Tombstone("m", 1)])
        await scene.commit(inbox_put=[message("m", body=b"fourth")])
        assert await scene.store.read_inbox(scene.lease) == []

    @scenario
    async def test_only_tombstones_older_than_the_instant_are_deleted(self, scene: Scene) -> None:
        await scene.commit(tombstones=[Tombstone("old", 4), Tombstone("even", 5), Tombstone("new", 6)])
        await scene.commit(tombstones=[Tombstone("old", 7)])  # it was consumed once more
        await scene.commit(tombstones_before=0)
        await scene.commit(tombstones=[Tombstone("older", 1)], tombstones_before=5)
        await scene.store.post([message("old"), message("even"), message("new"), message("older")])
        assert [row.message_id for row in await scene.store.read_inbox(scene.lease)] == ["older"]
