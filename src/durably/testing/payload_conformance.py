"""Conformance: large payloads of instances, wherever a store puts them."""

from __future__ import annotations

from durably.core.commit import InstanceRow, Removal
from durably.core.query import InstanceQuery
from durably.testing.store_scene import Scene, StoreHooks, instance_change, instance_row, scenario

_FIELDS = ("input", "output", "custom_status", "failure")
_LARGE_BYTES = 300_000


def _large(letter: str, more: int = 0) -> bytes:
    """A payload that is large, and not two alike: of a seed, so that it does not compress."""
    size = _LARGE_BYTES + more
    noise = b"".join(
        (ord(letter) * 31 + n * n * 2_654_435_761).to_bytes(12, "big") for n in range(size // 12 + 1)
    )
    return b'"' + noise[: size - 2] + b'"'


async def _same_everywhere(scene: Scene, expected: InstanceRow) -> None:
    """All ways to read an instance agree."""
    store, instance_id = scene.store, expected.instance_id
    (stored,) = await store.read_instances(scene.lease, [instance_id])
    assert stored is not None
    found = (await store.query(InstanceQuery(instance_id_prefix=instance_id))).rows
    rows = [
        stored.row,
        *found,
        *await store.get_instances([instance_id]),
        await store.get_instance(instance_id),
    ]
    rows += [one.row for one in (await scene.load()).in_flight if one.row.instance_id == instance_id]
    assert all(row == expected for row in rows)
    assert len(rows) == 4 + expected.in_flight


class PayloadConformance(StoreHooks):
    """A payload may be as large as a converter lets it be."""

    @scenario
    async def test_large_payloads_come_back_from_every_read(self, scene: Scene) -> None:
        fields = {field: _large(field[0]) for field in _FIELDS}
        row = instance_row("a", in_flight=True)._replace(**fields)
        await scene.commit(instances=[row, instance_row("b", 2)])
        await _same_everywhere(scene, row)
        await _same_everywhere(scene, instance_row("b", 2))
        await scene.close_and_reopen()
        await _same_everywhere(scene, row)

    @scenario
    async def test_a_change_replaces_large_payloads(self, scene: Scene) -> None:
        row = instance_row("a", input=_large("i"), output=_large("o"), custom_status=_large("c"))
        await scene.commit(instances=[row])
        for output, status in (
            (_large("p"), b"1"),
            (b"2", None),
            (_large("q", 9), _large("d")),
            (None, None),
        ):
            change = instance_change("a", output=output, custom_status=status)
            await scene.commit(changes=[change])
            await _same_everywhere(scene, row._replace(**change._asdict()))

    @scenario
    async def test_of_several_large_payloads_of_a_batch_the_last_one_counts(self, scene: Scene) -> None:
        row = instance_row("a", input=_large("i"), output=_large("o"))
        again = instance_row("a", input=b"1", output=_large("p"))
        change = instance_change("a", output=b"2", failure=_large("f"))
        await scene.commit(instances=[row, again], changes=[instance_change("a", output=_large("q")), change])
        await _same_everywhere(scene, again._replace(**change._asdict()))
        await scene.commit(instances=[again, row])
        await _same_everywhere(scene, row)

    @scenario
    async def test_a_removed_instance_leaves_no_payloads_behind(self, scene: Scene) -> None:
        await scene.commit(instances=[instance_row("a", input=_large("i"), output=_large("o"))])
        again = instance_row("a", 2, input=_large("j"))
        await scene.commit(removed=[Removal("a", 1)], instances=[again])
        await _same_everywhere(scene, again)
        await scene.commit(removed=[Removal("a", 2)])
        await scene.commit(instances=[instance_row("a", 3)])
        await _same_everywhere(scene, instance_row("a", 3))

    @scenario
    async def test_rows_can_be_read_without_input_and_output(self, scene: Scene) -> None:
        large = instance_row("a", input=_large("i"), output=_large("o"), custom_status=_large("c"))
        small = instance_row("b", 2, input=b"1", output=b"2", custom_status=b"3", failure=b"4")
        await scene.commit(instances=[large, small])
        expected = [row._replace(input=None, output=None) for row in (large, small)]
        assert (await scene.store.query(InstanceQuery(payloads=False))).rows == expected
        assert (
            await scene.store.query(InstanceQuery(payloads=False, instance_id_prefix="b"))
        ).rows == expected[1:]
        assert [await scene.store.get_instance(one, payloads=False) for one in ("a", "b")] == expected
        assert await scene.store.get_instance("c", payloads=False) is None
