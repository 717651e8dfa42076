"""From where on the partitions of a copy number their executions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from durably.core.dump import DumpRows, Executions, PlacedInstance, base_of
from durably.testing.store_scene import entity_row, instance_row


def test_a_partition_begins_at_its_block() -> None:
    assert Executions(3, [0]).newest == [0, 1 << 48, 2 << 48]
    assert base_of(31) + (1 << 48) == 1 << 53


def test_each_goes_on_behind_what_was_used_in_its_block_and_the_last_one_behind_all_others() -> None:
    used = [7, base_of(1) + 5, base_of(2) + 9, base_of(3) + 2]
    assert Executions(4, used).newest == used
    assert Executions(3, used).newest == [7, base_of(1) + 5, base_of(3) + 2]
    assert Executions(1, used).newest == [base_of(3) + 2]
    assert Executions(8, used).newest == [*used, *map(base_of, range(4, 8))]


def test_rows_say_which_numbers_were_used() -> None:
    found = Executions(4, [base_of(3) + 2])
    row = instance_row("a", base_of(1) + 8, bases=b"[%d, 3]" % (base_of(2) + 4))
    found.note_rows(DumpRows("instances", [PlacedInstance(1, row)]))
    found.note_rows(DumpRows("entities", [entity_row("@a@b", 6)]))
    assert found.newest == [6, base_of(1) + 8, base_of(2) + 4, base_of(3) + 2]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.data())
def test_however_often_a_hub_is_divided_no_number_is_given_twice(
    sizes: list[int], data: st.DataObject
) -> None:
    live: list[int] = []
    newest: list[int] = [base_of(partition) for partition in range(sizes[0])]
    for size in sizes:
        found = Executions(size, newest)
        for execution in live:
            found.note(execution)
        newest = list(found.newest)
        for partition in data.draw(st.lists(st.integers(0, size - 1), max_size=20)):
            newest[partition] += 1
            assert newest[partition] not in live
            live.append(newest[partition])
        live = [execution for execution in live if data.draw(st.booleans())]
