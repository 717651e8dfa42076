"""Conformance: opening, closing and deleting a hub, and who owns it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from durably.core.query import InstanceQuery
from durably.errors import (
    HubClosedError,
    HubLockedError,
    HubNotFoundError,
    InvariantError,
    LeaseLostError,
    UsageError,
)
from durably.storage.api import HostReport, Lease, Store
from durably.testing.store_scene import (
    FOREVER,
    Scene,
    StoreHooks,
    history_row,
    instance_row,
    message,
    scenario,
    timer_row,
)


def _calls(store: Store, lease: Lease, scene: Scene) -> dict[str, Callable[[], Awaitable[object]]]:
    """Every call of the contract that needs an open store."""
    return {
        "acquire": lambda: store.acquire(0, "somebody"),
        "renew": lambda: store.renew(lease),
        "release": lambda: store.release(lease),
        "load": lambda: store.load(lease, 0),
        "commit": lambda: store.commit(lease, scene.batch()),
        "read_instances": lambda: store.read_instances(lease, ["a"]),
        "read_timers": lambda: store.read_timers(lease, 0, 1),
        "read_inbox": lambda: store.read_inbox(lease),
        "work_log": lambda: store.work_log(lease),
        "survey": store.survey,
        "report": lambda: store.survey(HostReport("a host", "1")),
        "withdraw": store.withdraw,
        "ask_to_drain": lambda: store.ask_to_drain("00"),
        "read_parked": store.read_parked,
        "post": lambda: store.post([message("m")]),
        "get_instance": lambda: store.get_instance("a"),
        "read_history": lambda: store.read_history("a"),
        "query": lambda: store.query(InstanceQuery()),
        "workload": lambda: store.workload(0),
        "identity": store.identity,
        "add_key": lambda: store.add_key("key", b"proof"),
        "dump": lambda: anext(store.dump()),
    }


class HubConformance(StoreHooks):
    """The hub as a whole, and its leases."""

    @scenario
    async def test_a_hub_has_an_id_of_its_own_for_good(self, scene: Scene) -> None:
        first = await scene.store.identity()
        assert len(first.hub_id) == 16
        assert first.is_new
        await scene.commit(instances=[instance_row("a")], history=[history_row(1, 0)])
        await scene.close_and_reopen()
        again = await scene.store.identity()
        assert (again.hub_id, again.is_new) == (first.hub_id, False)
        other = await self.make()
        await other.open()
        assert (await other.identity()).hub_id != first.hub_id
        await other.delete()

    @scenario
    async def test_a_hub_with_a_message_is_not_new(self, scene: Scene) -> None:
        await scene.store.post([message("m")])
        assert not (await scene.store.identity()).is_new

    @scenario
    async def test_the_first_proof_of_a_key_stays(self, scene: Scene) -> None:
        known = (await scene.store.identity()).keys
        for key_id, proof in (("x", b"1"), ("y", b"2"), ("x", b"3")):
            await scene.store.add_key(key_id, proof)
        assert (await scene.store.identity()).keys == {**known, "x": b"1", "y": b"2"}

    @scenario
    async def test_a_hub_that_does_not_exist_is_not_found(self, scene: Scene) -> None:
        store = await self.make()
        for _ in range(2):  # looking for it does not create it
            with pytest.raises(HubNotFoundError):
                await store.open(create=False)
        await store.open()
        await store.close()
        again = await self.reopen(store)
        await again.open(create=False)
        await again.delete()

    @scenario
    async def test_opening_twice_is_opening_once(self, scene: Scene) -> None:
        await scene.store.open()
        await scene.commit(instances=[instance_row("a")])
        await scene.store.open()
        assert await scene.store.get_instance("a") is not None

    @scenario
    async def test_creating_a_hub_that_exists_keeps_what_is_in_it(self, scene: Scene) -> None:
        await scene.commit(instances=[instance_row("a")])
        other = await scene.another()
        assert await other.get_instance("a") == instance_row("a")

    @scenario
    async def test_the_url_and_the_capabilities_are_told(self, scene: Scene) -> None:
        assert "://" in scene.store.url
        assert scene.store.capabilities.partitions >= 1

    @scenario
    async def test_a_call_before_open_says_so(self, scene: Scene) -> None:
        store = await self.reopen(scene.store)
        for call in _calls(store, scene.lease, scene).values():
            with pytest.raises(UsageError, match=r"open\(\)"):
                await call()

    @scenario
    async def test_after_close_every_call_raises(self, scene: Scene) -> None:
        await scene.store.close()
        for call in _calls(scene.store, scene.lease, scene).values():
            with pytest.raises(HubClosedError):
                await call()
        with pytest.raises(HubClosedError):
            scene.store.on_arrival(lambda: None)
        with pytest.raises(HubClosedError):
            scene.store.on_lease_lost(lambda _: None)
        with pytest.raises(HubClosedError):
            await scene.store.open()

    @scenario
    async def test_close_waits_for_what_is_being_written(self, scene: Scene) -> None:
        written = scene.store.commit(scene.lease, scene.batch(instances=[instance_row("a")]))
        await scene.store.close()
        await written
        await scene.store.close()
        scene.store = await scene.another()
        assert await scene.store.get_instance("a") is not None

    @scenario
    async def test_what_was_committed_outlives_its_store(self, scene: Scene) -> None:
        await scene.commit(history=[history_row(1, 0)], instances=[instance_row("a", in_flight=True)])
        for end in (scene.close_and_reopen, scene.crash_and_reopen):
            snapshot = await end()
            assert snapshot.batch == 1
            assert [stored.history for stored in snapshot.in_flight] == [[history_row(1, 0)]]

    @scenario
    async def test_a_deleted_hub_is_gone_with_all_that_was_in_it(self, scene: Scene) -> None:
        await scene.commit(
            instances=[instance_row("a")], timers_set=[timer_row(1, 0, 5)], inbox_put=[message("m")]
        )
        await scene.store.delete()
        await scene.store.delete()
        with pytest.raises(HubNotFoundError):
            await (await self.reopen(scene.store)).open(create=False)
        scene.store = await scene.another()
        snapshot = await scene.own()
        assert (snapshot.batch, snapshot.execution, snapshot.in_flight) == (0, 0, [])
        assert (snapshot.timers, snapshot.inbox) == ([], [])
        assert (await scene.store.query(InstanceQuery())).rows == []

    @scenario
    async def test_a_hub_that_is_served_is_not_deleted(self, scene: Scene) -> None:
        other = await self.reopen(scene.store)
        with pytest.raises(HubLockedError):
            await other.delete()
        await scene.commit(instances=[instance_row("a")])

    # --- leases ------------------------------------------------------------------------------------------------------

    @scenario
    async def test_a_lease_tells_partition_and_owner(self, scene: Scene) -> None:
        assert scene.lease.partition == 0
        assert scene.lease.owner == "first owner"
        assert scene.lease.epoch >= 1

    @scenario
    async def test_each_acquisition_raises_the_epoch_by_one(self, scene: Scene) -> None:
        first = scene.lease.epoch
        assert (await scene.store.acquire(0, "again")).epoch == first + 1
        await scene.close_and_reopen()
        assert scene.lease.epoch == first + 2
        await scene.crash_and_reopen()
        assert scene.lease.epoch == first + 3

    @scenario
    async def test_a_partition_that_is_not_there_cannot_be_acquired(self, scene: Scene) -> None:
        with pytest.raises(UsageError):
            await scene.store.acquire(scene.store.capabilities.partitions, "somebody")

    @scenario
    async def test_a_second_host_is_told_who_the_first_one_is(self, scene: Scene) -> None:
        other = await scene.another()
        with pytest.raises(HubLockedError, match="first owner"):
            await other.acquire(0, "second owner")
        await scene.commit(instances=[instance_row("a")])
        await scene.store.release(scene.lease)
        await other.acquire(0, "second owner")

    @scenario
    async def test_a_lease_is_renewed_until_another_one_is_given(self, scene: Scene) -> None:
        stale = scene.lease
        await scene.store.renew(stale)
        await scene.own("again")
        with pytest.raises(LeaseLostError):
            await scene.store.renew(stale)
        await scene.store.renew(scene.lease)

    @scenario
    async def test_releasing_a_lease_that_is_over_changes_nothing(self, scene: Scene) -> None:
        stale = scene.lease
        await scene.own("again")
        await scene.store.release(stale)
        await scene.store.renew(scene.lease)
        await scene.commit(instances=[instance_row("a")])

    @scenario
    async def test_a_batch_of_another_epoch_is_refused(self, scene: Scene) -> None:
        stale = scene.lease
        await scene.own("again")
        for epoch in (stale.epoch, scene.lease.epoch + 1):
            with pytest.raises(LeaseLostError):
                await scene.store.commit(
                    stale._replace(epoch=epoch), scene.batch(instances=[instance_row("a")])
                )
        assert await scene.store.get_instance("a") is None
        assert (await scene.load()).batch == 0

    @scenario
    async def test_whoever_was_taken_for_dead_is_fenced(self, scene: Scene) -> None:
        zombie, stale = scene.store, scene.lease
        await scene.crash_and_reopen()
        with pytest.raises((LeaseLostError, HubClosedError)):
            await zombie.commit(stale, scene.batch(instances=[instance_row("a")]))
        assert await scene.store.get_instance("a") is None

    @scenario
    async def test_a_number_of_an_earlier_epoch_is_not_taken_for_a_repeat(self, scene: Scene) -> None:
        await scene.commit(instances=[instance_row("a")])
        await scene.close_and_reopen()
        repeat = scene.batch(instances=[instance_row("b")])
        repeat.number = 1
        with pytest.raises(InvariantError):
            await scene.store.commit(scene.lease, repeat)
        assert await scene.store.get_instance("b") is None

    @scenario
    async def test_loading_sees_all_that_an_earlier_owner_wrote(self, scene: Scene) -> None:
        written = scene.store.commit(scene.lease, scene.batch(instances=[instance_row("a", in_flight=True)]))
        lease = await scene.store.acquire(0, "again")
        snapshot = await scene.store.load(lease, FOREVER)
        await written
        assert snapshot.batch == 1
        assert [stored.row.instance_id for stored in snapshot.in_flight] == ["a"]
