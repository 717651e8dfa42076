"""Conformance: what an owner leaves behind when it dies, and messages that are set aside."""

from __future__ import annotations

import pytest

from durably.core.commit import InboxRow, ParkedMessage, Tombstone
from durably.errors import StoreRefusedError
from durably.storage.api import Store, WorkLog
from durably.testing.store_scene import Scene, StoreHooks, message, scenario


def _parked(message_id: str, instance_id: str = "a", **fields: object) -> ParkedMessage:
    row = ParkedMessage(message_id, instance_id, 1, b"\xff\0body", "it cannot be read", 2)
    return row._replace(**fields)


async def _ids(store: Store) -> list[str]:
    return [row.message_id for row in await store.read_parked()]


class ParkingConformance(StoreHooks):
    """Leases that were not released, the log of running work, and parked messages."""

    # --- who died ----------------------------------------------------------------------------------------------------

    @scenario
    async def test_a_new_hub_and_one_that_was_released_are_no_orphans(self, scene: Scene) -> None:
        assert not scene.lease.orphaned
        await scene.store.release(scene.lease)
        await scene.close_and_reopen()
        assert not scene.lease.orphaned

    @scenario
    async def test_a_hub_whose_owner_died_is_an_orphan_until_it_is_released(self, scene: Scene) -> None:
        for _ in range(2):
            await scene.crash_and_reopen()
            assert scene.lease.orphaned
        await scene.store.release(scene.lease)
        await scene.close_and_reopen()
        assert not scene.lease.orphaned

    @scenario
    async def test_a_clean_release_of_a_lease_that_is_over_says_nothing(self, scene: Scene) -> None:
        stale = scene.lease
        await scene.own("again")
        await scene.store.release(stale)
        await scene.crash_and_reopen()
        assert scene.lease.orphaned

    # --- the log of running work -------------------------------------------------------------------------------------

    async def _orphaned_log(self, scene: Scene) -> WorkLog:
        await scene.crash_and_reopen()
        return await scene.store.work_log(scene.lease)

    @scenario
    async def test_what_ran_when_the_owner_died_is_left_to_the_next_one(self, scene: Scene) -> None:
        log = await self._orphaned_log(scene)
        assert list(log.left) == []
        places = [log.put(b"entry %d" % number) for number in range(5)]
        log.drop(places[1])
        log.drop(places[3])
        log.put(b"a later one")
        after = await self._orphaned_log(scene)
        assert sorted(after.left) == [b"a later one", b"entry 0", b"entry 2", b"entry 4"]

    @scenario
    async def test_what_is_left_stays_until_it_is_settled(self, scene: Scene) -> None:
        log = await self._orphaned_log(scene)
        log.put(b"first")
        log = await self._orphaned_log(scene)
        place = log.put(b"second")
        assert list(log.left) == [b"first"]
        log = await self._orphaned_log(scene)
        assert sorted(log.left) == [b"first", b"second"]
        log.put(b"third")
        log.settle()
        assert list(log.left) == []
        assert list((await self._orphaned_log(scene)).left) == [b"third"]
        del place

    @scenario
    async def test_many_things_may_run_at_once_and_have_long_names(self, scene: Scene) -> None:
        log = await self._orphaned_log(scene)
        entries = {b"%d " % number + b"x" * 1_100 for number in range(1_500)}
        places = {entry: log.put(entry) for entry in entries}
        assert min(places.values()) >= 0
        gone = {entry for entry in entries if entry[0:1] == b"7"}
        for entry in gone:
            log.drop(places[entry])
        assert set((await self._orphaned_log(scene)).left) == entries - gone

    @scenario
    async def test_what_does_not_fit_is_not_noted(self, scene: Scene) -> None:
        log = await self._orphaned_log(scene)
        log.drop(-1)
        log.drop(log.put(b"x" * 100_000))
        log.put(b"fits")
        assert b"fits" in (await self._orphaned_log(scene)).left

    @scenario
    async def test_a_release_leaves_nothing(self, scene: Scene) -> None:
        log = await self._orphaned_log(scene)
        place = log.put(b"running")
        await scene.store.release(scene.lease)
        log.drop(place)
        log.put(b"too late")
        await scene.close_and_reopen()
        assert list((await scene.store.work_log(scene.lease)).left) == []
        assert list((await self._orphaned_log(scene)).left) == []

    # --- parked messages ---------------------------------------------------------------------------------------------

    @scenario
    async def test_a_message_is_set_aside_with_all_that_is_known_of_it(self, scene: Scene) -> None:
        await scene.store.post([message("m"), message("n")])
        await scene.commit(inbox_consumed=["m"], parked=[_parked("m"), _parked("o", "b")])
        assert [row.message_id for row in (await scene.load()).inbox] == ["n"]
        other = await scene.another()
        rows = await other.read_parked()
        assert [row._replace(position=0) for row in rows] == [_parked("m"), _parked("o", "b")]
        assert 0 < rows[0].position < rows[1].position

    @scenario
    async def test_parked_messages_are_read_page_by_page_or_by_id(self, scene: Scene) -> None:
        await scene.commit(parked=[_parked(f"m{number}") for number in range(150)])
        seen: list[str] = []
        after = 0
        while page := await scene.store.read_parked(after, 40):
            seen += [row.message_id for row in page]
            after = page[-1].position
        assert seen == [f"m{number}" for number in range(150)]
        (one,) = await scene.store.read_parked(message_id="m77")
        assert one.message_id == "m77"
        assert await scene.store.read_parked(message_id="x") == []
        assert await scene.store.read_parked(message_id="\udfff") == []

    @scenario
    async def test_a_message_that_is_set_aside_again_is_replaced(self, scene: Scene) -> None:
        await scene.commit(parked=[_parked("m"), _parked("n")])
        await scene.commit(parked=[_parked("m", cause="still not")])
        assert [(row.message_id, row.cause) for row in await scene.store.read_parked()] == [
            ("n", "it cannot be read"),
            ("m", "still not"),
        ]

    @scenario
    async def test_a_parked_message_goes_back_to_the_end_of_the_inbox(self, scene: Scene) -> None:
        await scene.commit(parked=[_parked("m"), _parked("n")], tombstones=[Tombstone("m", 1, b"no")])
        await scene.store.post([message("k")])
        await scene.commit(unparked=["n", "m", "x"])
        rows = await scene.store.read_inbox(scene.lease)
        assert [row._replace(position=0) for row in rows[1:]] == [
            InboxRow("n", "a", 1, b"\xff\0body"),
            InboxRow("m", "a", 1, b"\xff\0body"),
        ]
        assert await _ids(scene.store) == []
        await scene.commit(unparked=["m"])
        assert len(await scene.store.read_inbox(scene.lease)) == 3

    @scenario
    async def test_a_parked_message_is_deleted_for_good(self, scene: Scene) -> None:
        await scene.commit(parked=[_parked("m"), _parked("n")])
        await scene.commit(parked_dropped=["m", "x"])
        assert await _ids(scene.store) == ["n"]
        assert await scene.store.read_inbox(scene.lease) == []

    @scenario
    async def test_a_position_of_a_parked_message_is_never_given_twice(self, scene: Scene) -> None:
        await scene.commit(parked=[_parked("m")])
        (first,) = await scene.store.read_parked()
        await scene.commit(parked_dropped=["m"])
        await scene.commit(parked=[_parked("m")])
        (second,) = await scene.store.read_parked()
        assert second.position > first.position

    @scenario
    async def test_parked_messages_outlive_their_owner_and_go_with_their_hub(self, scene: Scene) -> None:
        await scene.commit(parked=[_parked("m")])
        for end in (scene.close_and_reopen, scene.crash_and_reopen):
            await end()
            assert await _ids(scene.store) == ["m"]
        await scene.store.delete()
        scene.store = await scene.another()
        await scene.own()
        assert await _ids(scene.store) == []
        assert not scene.lease.orphaned

    @scenario
    async def test_parking_is_all_or_nothing(self, scene: Scene) -> None:
        await scene.store.post([message("m")])
        with pytest.raises(StoreRefusedError):
            await scene.store.commit(
                scene.lease, scene.batch(inbox_consumed=["m"], parked=[_parked("m"), _parked("\udfff")])
            )
        assert await _ids(scene.store) == []
        assert len(await scene.store.read_inbox(scene.lease)) == 1
