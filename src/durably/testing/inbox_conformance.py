"""Conformance: messages from anybody, and how the owner learns of them."""

from __future__ import annotations

import asyncio

import pytest

from durably.core.commit import Removal, Tombstone
from durably.errors import StoreRefusedError
from durably.storage.news import News
from durably.testing.store_scene import WAIT_S, Scene, StoreHooks, instance_row, message, scenario


async def _ids(scene: Scene, after: int = 0) -> list[str]:
    return [row.message_id for row in await scene.store.read_inbox(scene.lease, after)]


class InboxConformance(StoreHooks):
    """`post`, `read_inbox`, `read_messages`, `verdicts`, `on_arrival`, `heed`."""

    @scenario
    async def test_what_is_posted_is_read_by_position(self, scene: Scene) -> None:
        await scene.store.post([])
        await scene.store.post([message("m", "a", 5, b"1"), message("l", "b", 4, b"2")])
        await scene.store.post([message("k")])
        rows = await scene.store.read_inbox(scene.lease)
        assert [row.message_id for row in rows] == ["m", "l", "k"]
        assert [row._replace(position=0) for row in rows[:2]] == [
            message("m", "a", 5, b"1"),
            message("l", "b", 4, b"2"),
        ]
        assert 0 < rows[0].position < rows[1].position < rows[2].position
        assert await _ids(scene, rows[0].position) == ["l", "k"]
        assert await _ids(scene, rows[2].position) == []
        assert (await scene.load()).inbox == rows

    @scenario
    async def test_a_repeat_is_ignored(self, scene: Scene) -> None:
        await scene.store.post([message("m", body=b"first"), message("m", body=b"second")])
        await scene.store.post([message("m", body=b"third"), message("n")])
        rows = await scene.store.read_inbox(scene.lease)
        assert [(row.message_id, row.body) for row in rows] == [("m", b"first"), ("n", b"body")]

    @scenario
    async def test_a_message_with_a_tombstone_is_ignored(self, scene: Scene) -> None:
        await scene.store.post([message("m"), message("n")])
        await scene.commit(inbox_consumed=["m", "n"], tombstones=[Tombstone("m", 5)])
        await scene.store.post([message("m"), message("n")])
        assert await _ids(scene) == ["n"]
        await scene.commit(tombstones_before=6)
        await scene.store.post([message("m")])
        assert await _ids(scene) == ["n", "m"]

    @scenario
    async def test_a_position_is_never_given_twice(self, scene: Scene) -> None:
        seen: set[int] = set()
        for number in range(5):
            await scene.store.post([message(f"{number}")])
            (row,) = await scene.store.read_inbox(scene.lease, max(seen, default=0))
            assert row.position not in seen
            seen.add(row.position)
            await scene.commit(inbox_consumed=[row.message_id])
        await scene.close_and_reopen()
        await scene.store.post([message("last")])
        assert await _ids(scene, max(seen)) == ["last"]

    @scenario
    async def test_a_post_that_is_refused_leaves_nothing_behind(self, scene: Scene) -> None:
        with pytest.raises(StoreRefusedError):
            await scene.store.post([message("m"), message("n", "\udfff")])
        assert await _ids(scene) == []

    @scenario
    async def test_anybody_may_post_without_a_lease(self, scene: Scene) -> None:
        other = await scene.another()
        await other.post([message("m")])
        assert await _ids(scene) == ["m"]
        await scene.commit(inbox_consumed=["m"])
        assert await _ids(scene) == []

    @scenario
    async def test_what_is_posted_outlives_its_store(self, scene: Scene) -> None:
        other = await scene.another()
        await other.post([message("m")])
        await self.crash(other)
        assert [row.message_id for row in (await scene.crash_and_reopen()).inbox] == ["m"]

    @scenario
    async def test_many_may_post_while_the_owner_commits(self, scene: Scene) -> None:
        posters = [scene.store, await scene.another(), await scene.another()]

        async def post(number: int) -> None:
            for count in range(10):
                await posters[number % 3].post([message(f"{number}.{count}"), message(f"shared {count}")])

        async def commit() -> None:
            for count in range(30):
                await scene.commit(instances=[instance_row(f"{count}", count + 1)])

        await asyncio.gather(commit(), *(post(number) for number in range(9)))
        ids = await _ids(scene)
        assert len(ids) == len(set(ids)) == 9 * 10 + 10
        for number in range(9):  # in order per sender
            assert [key for key in ids if key.startswith(f"{number}.")] == [
                f"{number}.{count}" for count in range(10)
            ]

    @scenario
    async def test_the_owner_is_told_of_what_others_post(self, scene: Scene) -> None:
        if not scene.store.capabilities.wakeups:
            return
        told = asyncio.Event()
        scene.store.on_arrival(told.set)
        for poster in (await scene.another(), scene.store):
            for number in range(3):
                told.clear()
                await poster.post([message(f"{id(poster)} {number}")])
                await asyncio.wait_for(told.wait(), WAIT_S)

    @scenario
    async def test_the_next_owner_is_told_too(self, scene: Scene) -> None:
        if not scene.store.capabilities.wakeups:
            return
        client = await scene.another()
        for end in (scene.close_and_reopen, scene.crash_and_reopen):
            await end()
            told = asyncio.Event()
            scene.store.on_arrival(told.set)
            await asyncio.sleep(0)
            told.clear()
            await client.post([message(f"for {scene.lease.epoch}")])
            await asyncio.wait_for(told.wait(), WAIT_S)

    @scenario
    async def test_the_poster_learns_whether_there_is_an_owner(self, scene: Scene) -> None:
        client = await scene.another()
        assert await client.post([]) is True
        assert await client.post([message("m")]) is True
        assert await scene.store.post([message("n")]) is True
        await scene.store.release(scene.lease)
        assert await client.post([]) is False
        assert await client.post([message("o")]) is False
        await self.crash(scene.store)
        assert await client.post([message("p")]) is False
        assert len((await scene.crash_and_reopen()).inbox) == 4
        assert await client.post([]) is True

    @scenario
    async def test_verdicts_are_those_of_the_tombstones(self, scene: Scene) -> None:
        client = await scene.another()
        assert await client.verdicts([]) == []
        assert await client.verdicts(["m"]) == [None]
        await client.post([message("m"), message("n")])
        assert await client.verdicts(["m", "n"]) == [None, None]
        await scene.commit(inbox_consumed=["m"], tombstones=[Tombstone("m", 1), Tombstone("n", 1, b"no\0")])
        assert await client.verdicts(["n", "x", "m", "n", "\udfff"]) == [b"no\0", None, b"", b"no\0", None]
        await scene.commit(inbox_consumed=["n"], tombstones=[Tombstone("n", 2, b"now")])
        assert await client.verdicts(["n"]) == [b"now"]
        many = [Tombstone(f"{number}", 1, f"{number}".encode()) for number in range(300)]
        await scene.commit(tombstones=many)
        asked = [one.message_id for one in reversed(many)]
        assert await client.verdicts(asked) == [one.verdict for one in reversed(many)]

    @scenario
    async def test_messages_to_one_instance_are_read_by_anybody(self, scene: Scene) -> None:
        client = await scene.another()
        await client.post([message("m", "a"), message("n", "b"), message("l", "a")])
        assert [row.message_id for row in await client.read_messages("a")] == ["m", "l"]
        assert await client.read_messages("a") == [
            row for row in await scene.store.read_inbox(scene.lease) if row.instance_id == "a"
        ]
        await scene.commit(inbox_consumed=["m"])
        assert [row.message_id for row in await client.read_messages("a")] == ["l"]
        assert await client.read_messages("none") == await client.read_messages("\udfff") == []

    @scenario
    async def test_clients_are_told_of_what_the_owner_writes(self, scene: Scene) -> None:
        if not scene.store.capabilities.wakeups:
            return
        client = await scene.another()
        told = asyncio.Event()
        client.on_arrival(told.set)
        for number in range(3):
            await asyncio.sleep(0)
            told.clear()
            await scene.commit(instances=[instance_row(f"{number}", number + 1)])
            await asyncio.wait_for(told.wait(), WAIT_S)

    @scenario
    async def test_who_waits_is_told_of_answers_and_of_ends(self, scene: Scene) -> None:
        if not (scene.store.capabilities.shared and scene.hooks.tells):
            return
        client = await scene.another()
        scene.store.on_arrival(lambda: None)
        heard: asyncio.Queue[News] = asyncio.Queue()
        async with asyncio.timeout(WAIT_S):
            while not client.heed(heard.put_nowait):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.02)
        ended = [instance_row("a", 1, status="Completed"), instance_row("b", 2)]
        await scene.commit(instances=ended, tombstones=[Tombstone("m", 1), Tombstone("n", 1, b"no\0")])
        await scene.commit(removed=[Removal("a", 1)])
        found = [frozenset[str]()] * 3
        async with asyncio.timeout(WAIT_S):
            while found != [{"m"}, {"n"}, {"a"}]:
                found = [old | new for old, new in zip(found, await heard.get(), strict=True)]
