"""Conformance: batches are atomic, numbered, and applied in the order of their fields."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durably.core.commit import Batch, Removal, TimerKey, Tombstone
from durably.core.query import InstanceQuery
from durably.errors import InvariantError, StoreRefusedError
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

_SURROGATE = "\ud800"
_REFUSED: dict[str, dict[str, Any]] = {
    "an instance id that is not UTF-8": {"instances": [instance_row(_SURROGATE)]},
    "an integer of more than 64 bits": {"timers_set": [timer_row(1, 0, 2**63)]},
    "a message id that is not UTF-8": {"inbox_put": [message(_SURROGATE)]},
    "a tombstone that is not UTF-8": {"tombstones": [Tombstone("good", 1), Tombstone(_SURROGATE, 1)]},
}
_SIZES = (1, 2, 15, 16, 17, 31, 32, 47, 48, 63, 64, 65, 130)
"""Providers write rows in chunks; the edges are here."""


class CommitConformance(StoreHooks):
    """What `commit` promises as a whole."""

    @scenario
    async def test_a_commit_is_not_done_when_it_returns(self, scene: Scene) -> None:
        written = scene.store.commit(scene.lease, scene.batch(instances=[instance_row("a")]))
        assert not isinstance(written, asyncio.Future) or not written.done()
        await written
        assert await scene.store.get_instance("a") == instance_row("a")

    @scenario
    async def test_the_same_batch_twice_is_applied_once(self, scene: Scene) -> None:
        batch = scene.batch(
            history=[history_row(1, 0)], instances=[instance_row("a")], inbox_put=[message("m")]
        )
        for _ in range(3):
            await scene.store.commit(scene.lease, batch)
        snapshot = await scene.load()
        assert snapshot.batch == 1
        assert len(snapshot.inbox) == 1
        assert await scene.store.read_history("a") == [history_row(1, 0)]

    @scenario
    async def test_a_repeat_does_nothing_even_if_it_says_something_else(self, scene: Scene) -> None:
        await scene.store.commit(scene.lease, scene.batch(instances=[instance_row("a")]))
        await scene.store.commit(scene.lease, scene.batch(instances=[instance_row("b")]))
        assert await scene.store.get_instance("b") is None

    @scenario
    async def test_a_number_that_is_not_the_next_one_is_refused(self, scene: Scene) -> None:
        await scene.commit()
        await scene.commit()
        for number in (0, 1, 4, 5):
            with pytest.raises(InvariantError):
                await scene.store.commit(scene.lease, Batch(number, instances=[instance_row("a")]))
        assert await scene.store.get_instance("a") is None
        await scene.commit(instances=[instance_row("a")])
        assert (await scene.load()).batch == 3

    @scenario
    async def test_an_empty_batch_counts(self, scene: Scene) -> None:
        for _ in range(3):
            await scene.commit()
        assert (await scene.load()).batch == 3

    @scenario
    async def test_a_batch_that_is_refused_leaves_nothing_behind(self, scene: Scene) -> None:
        await scene.commit(
            instances=[instance_row("kept")], timers_set=[timer_row(9, 0, 1)], inbox_put=[message("k")]
        )
        before = await scene.load()
        rest: dict[str, Any] = {
            "removed": [Removal("kept", 1)],
            "history": [history_row(2, 0)],
            "instances": [instance_row("a", 2)],
            "timers_cleared": [TimerKey(9, 0, 0)],
            "inbox_consumed": ["k"],
        }
        for what, refused in _REFUSED.items():
            fields = {**rest, **refused}
            with pytest.raises(StoreRefusedError):
                await scene.store.commit(scene.lease, scene.batch(**fields))
            assert await scene.load() == before, what
            assert await scene.store.get_instance("kept") is not None, what
            assert await scene.store.get_instance("a") is None, what
        await scene.commit(**rest)
        assert await scene.store.read_history("a") == [history_row(2, 0)]

    @scenario
    async def test_readers_see_whole_batches(self, scene: Scene) -> None:
        reader = await scene.another()

        async def write() -> None:
            for seq in range(40):
                row = instance_row("a", updated_at=seq)
                await scene.commit(history=[history_row(1, seq, at=seq)], instances=[row])

        writing = asyncio.ensure_future(write())
        while not writing.done():
            row = await reader.get_instance("a")
            rows = await reader.read_history("a")
            assert [history.seq for history in rows] == list(range(len(rows)))
            assert row is None or row.updated_at <= len(rows) - 1
        await writing

    @scenario
    async def test_a_read_sees_every_commit_that_completed(self, scene: Scene) -> None:
        for seq in range(30):
            await scene.commit(history=[history_row(1, seq)], instances=[instance_row("a", status=f"{seq}")])
            (stored,) = await scene.store.read_instances(scene.lease, ["a"])
            assert stored is not None
            assert stored.row.status == f"{seq}"
            assert len(stored.history) == seq + 1

    @scenario
    async def test_batches_of_any_size_are_written_whole(self, scene: Scene) -> None:
        execution = 0
        for count in _SIZES:
            ids = [f"{count}-{index}" for index in range(count)]
            numbers = range(execution + 1, execution + 1 + count)
            execution += count
            await scene.commit(
                history=[history_row(number, seq) for number in numbers for seq in range(2)],
                instances=[instance_row(key, number) for key, number in zip(ids, numbers, strict=True)],
                timers_set=[timer_row(number, 0, number) for number in numbers],
                inbox_put=[message(key, key) for key in ids],
            )
            await scene.commit(
                changes=[instance_change(key) for key in ids],
                timers_cleared=[TimerKey(number, 0, 0) for number in numbers],
                inbox_consumed=ids,
                tombstones=[Tombstone(key, 1) for key in ids],
            )
            found = await scene.store.read_instances(scene.lease, ids)
            assert [stored and stored.row.instance_id for stored in found] == ids
            assert {stored and stored.row.status for stored in found} == {"Completed"}
            assert [len(stored.history) for stored in found if stored] == [2] * count
            assert (await scene.load())[3:5] == ([], [])
            await scene.store.post([message(key, key) for key in ids])
            assert await scene.store.read_inbox(scene.lease) == []
            await scene.commit(
                removed=[Removal(key, number) for key, number in zip(ids, numbers, strict=True)],
                executions_dropped=list(numbers),
                tombstones_before=2,
            )
            assert await scene.store.query(InstanceQuery()) == ([], None)

    @scenario
    async def test_large_payloads_are_kept(self, scene: Scene) -> None:
        payload = bytes(range(256)) * 40_960  # 10 MiB
        await scene.commit(
            history=[history_row(1, 0, data=payload)],
            instances=[instance_row("a", input=payload, output=b"")],
            inbox_put=[message("m", body=payload)],
        )
        (stored,) = await scene.store.read_instances(scene.lease, ["a"])
        assert stored is not None
        assert stored.row.input == stored.history[0].data == stored.inbox[0].body == payload
        assert stored.row.output == b""
        assert stored.row.custom_status is None

    @scenario
    async def test_every_text_is_kept(self, scene: Scene) -> None:
        texts = [
            "",
            " ",
            "\0",
            "a\0b",
            "a\0c",
            "'\"`;--",
            "%_\\",
            "é",
            "e\u0301",
            "\uffff",
            "😀",
            "\U0010ffff",
            "A",
            "a",
        ]
        for number, text in enumerate(texts, 1):
            row = instance_row(
                f"id {text}", number, execution_id=text, name=text, version=text, status=text, blocked=text,
                parked=text, parent_instance_id=text,
            )  # fmt: skip
            await scene.commit(instances=[row], inbox_put=[message(f"m {text}", f"id {text}")])
            await scene.commit(timers_set=[timer_row(number, 0, 1, instance_id=text)])
            (stored,) = await scene.store.read_instances(scene.lease, [f"id {text}"])
            assert stored is not None
            assert stored.row == row
            assert [kept.message_id for kept in stored.inbox] == [f"m {text}"]
        assert [
            timer.instance_id for timer in await scene.store.read_timers(scene.lease, 0, FOREVER)
        ] == texts
        assert len((await scene.load()).inbox) == len(texts)

    @scenario
    async def test_every_field_is_kept(self, scene: Scene) -> None:
        row = instance_row(
            "a", 2**62, ordinal=7, version="2", status="Pending", created_at=-5, updated_at=2**63 - 1, input=b"\0i",
            output=b"o", custom_status=b"c", failure=b"f", blocked="b", parked="p", in_flight=True,
            parent_instance_id="parent", tags=b'{"k":"v"}', start_at=-(2**63), bases=b"[1]",
        )  # fmt: skip
        await scene.commit(instances=[row])
        stored = await scene.store.get_instance("a")
        assert stored == row
        assert stored is not None
        assert stored.in_flight is True
