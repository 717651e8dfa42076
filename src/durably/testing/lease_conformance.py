"""Conformance: who is there, who owns what, and how a lease is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from durably.errors import HubLockedError, LeaseLostError
from durably.storage.api import FUNCTIONS_MAX, HostInfo, HostReport, Lease, PartitionInfo, Store
from durably.testing.store_scene import WAIT_S, Scene, StoreHooks, instance_row, message, scenario

REPORT = HostReport(
    "pid 1 on box", "1.2.3", ("activity:charge", "orchestrator:order"), backlog=7, oldest_us=250_000
)


async def _me(store: Store) -> HostInfo:
    (mine,) = [host for host in (await store.survey(REPORT)).hosts if host.is_me]
    return mine


async def _owner(store: Store) -> PartitionInfo:
    return (await store.survey()).partitions[0]


async def _told(scene: Scene, store: Store, act: Callable[[], Awaitable[object]]) -> None:
    """Do something that a store is to be told of, and wait until it was."""
    if not scene.hooks.tells:
        await act()
        return
    told = asyncio.Event()
    store.on_arrival(told.set)
    async with asyncio.timeout(WAIT_S):
        while not store.listening:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        told.clear()
        await act()
        await told.wait()


def _losses(store: Store) -> asyncio.Queue[Lease]:
    losses: asyncio.Queue[Lease] = asyncio.Queue()
    store.on_lease_lost(losses.put_nowait)
    return losses


class LeaseConformance(StoreHooks):
    """`survey`, `withdraw`, `ask_to_drain`, `on_lease_lost`, and what ends a lease."""

    # --- hosts -------------------------------------------------------------------------------------------------------

    @scenario
    async def test_a_hub_without_a_host_tells_its_partitions(self, scene: Scene) -> None:
        await scene.store.release(scene.lease)
        survey = await scene.store.survey()
        assert survey.hosts == []
        assert [partition.partition for partition in survey.partitions] == [0]
        assert survey.partitions[0][2:] == (None, scene.lease.epoch, False)

    @scenario
    async def test_a_host_is_seen_as_it_says(self, scene: Scene) -> None:
        mine = await _me(scene.store)
        assert mine.report == REPORT
        assert (mine.partitions, mine.is_me, mine.told_to_drain) == (1, True, False)
        assert 0 < mine.since <= mine.seen_at
        changed = REPORT._replace(draining=True, backlog=0, oldest_us=None, functions=())
        (again,) = (await scene.store.survey(changed)).hosts
        assert (again.report, again.since, again.host_id) == (changed, mine.since, mine.host_id)
        assert again.seen_at >= mine.seen_at
        assert (await scene.store.survey()).hosts == [again]

    @scenario
    async def test_too_many_functions_are_not_told(self, scene: Scene) -> None:
        many = tuple(f"activity:{number}" for number in range(FUNCTIONS_MAX + 5))
        (mine,) = (await scene.store.survey(REPORT._replace(functions=many))).hosts
        assert mine.report.functions == many[:FUNCTIONS_MAX]

    @scenario
    async def test_a_partition_names_its_owner(self, scene: Scene) -> None:
        mine = await _me(scene.store)
        assert await _owner(scene.store) == PartitionInfo(
            0, "first owner", mine.host_id, scene.lease.epoch, orphaned=False
        )

    @scenario
    async def test_an_owner_is_seen_by_others(self, scene: Scene) -> None:
        mine = await _me(scene.store)
        other = await scene.another()
        survey = await other.survey()
        (seen,) = survey.hosts
        assert (seen.host_id, seen.partitions, seen.is_me) == (mine.host_id, 1, False)
        assert seen.report.name
        assert survey.partitions == (await scene.store.survey()).partitions

    @scenario
    async def test_a_host_that_withdraws_is_not_seen(self, scene: Scene) -> None:
        first = await _me(scene.store)
        await scene.store.withdraw()
        await scene.store.withdraw()
        assert (await scene.store.survey()).hosts == []
        again = await _me(scene.store)
        assert (again.host_id, again.told_to_drain) == (first.host_id, False)

    @scenario
    async def test_a_host_that_closed_is_not_seen(self, scene: Scene) -> None:
        await _me(scene.store)
        await scene.store.close()
        scene.store = await scene.another()
        assert (await scene.store.survey()).hosts == []

    @scenario
    async def test_a_host_is_asked_to_drain(self, scene: Scene) -> None:
        assert not await scene.store.ask_to_drain("00")
        assert not await scene.store.ask_to_drain("nobody")
        mine = await _me(scene.store)
        assert await scene.store.ask_to_drain(mine.host_id)
        assert (await _me(scene.store)).told_to_drain

    @scenario
    async def test_hosts_of_a_shared_hub_see_and_ask_each_other(self, scene: Scene) -> None:
        if not scene.store.capabilities.shared:
            return
        first, other = await _me(scene.store), await scene.another()
        second = await _me(other)
        assert first.host_id != second.host_id
        hosts = (await scene.store.survey()).hosts
        assert [(host.host_id, host.partitions) for host in hosts] == [
            (first.host_id, 1),
            (second.host_id, 0),
        ]
        await _told(scene, scene.store, lambda: other.ask_to_drain(first.host_id))
        assert (await _me(scene.store)).told_to_drain
        assert not (await _me(other)).told_to_drain

    @scenario
    async def test_hosts_of_a_shared_hub_are_told_who_comes_and_goes(self, scene: Scene) -> None:
        if not scene.store.capabilities.shared:
            return
        other = await scene.another()
        await _told(scene, scene.store, lambda: other.survey(REPORT))
        await _told(scene, scene.store, other.withdraw)

    # --- leases ------------------------------------------------------------------------------------------------------

    @scenario
    async def test_what_was_not_released_is_orphaned(self, scene: Scene) -> None:
        for end in (scene.store.close, lambda: self.crash(scene.store)):
            await end()
            scene.store = await scene.another()
            survey = await scene.store.survey()
            assert survey.hosts == []
            assert survey.partitions[0][2:] == (None, scene.lease.epoch, True)
            await scene.own("next owner")
            assert scene.lease.orphaned
            assert not (await _owner(scene.store)).orphaned
        await scene.store.release(scene.lease)
        assert not (await _owner(scene.store)).orphaned
        await scene.own("last owner")
        assert not scene.lease.orphaned

    @scenario
    async def test_a_lease_given_back_or_acquired_anew_is_not_lost(self, scene: Scene) -> None:
        losses = _losses(scene.store)
        await scene.own("again")
        await scene.store.release(scene.lease)
        await scene.own("and again")
        await scene.commit(instances=[instance_row("a")])
        assert losses.empty()

    @scenario
    async def test_others_are_told_when_a_lease_is_given_back(self, scene: Scene) -> None:
        if not scene.store.capabilities.shared:
            return
        other = await scene.another()
        await _told(scene, other, lambda: scene.store.release(scene.lease))
        await other.acquire(0, "second owner")

    @scenario
    async def test_a_lease_that_ran_out_is_lost_and_taken_over(self, scene: Scene) -> None:
        if not scene.store.capabilities.shared:
            return
        losses, other = _losses(scene.store), await scene.another()
        with pytest.raises(HubLockedError, match="first owner"):
            await other.acquire(0, "second owner")
        await self.expire(scene.store)
        assert (await _owner(other))[2:] == (None, scene.lease.epoch, True)
        lease = await other.acquire(0, "second owner")
        assert (lease.epoch, lease.orphaned) == (scene.lease.epoch + 1, True)
        with pytest.raises(LeaseLostError):
            await scene.commit(instances=[instance_row("a")])
        with pytest.raises(LeaseLostError):
            await scene.store.renew(scene.lease)
        assert await asyncio.wait_for(losses.get(), WAIT_S) == scene.lease
        await scene.store.release(scene.lease)
        await other.renew(lease)
        assert losses.empty()

    @scenario
    async def test_a_lease_that_ran_out_and_that_nobody_took_is_lost_too(self, scene: Scene) -> None:
        if not scene.store.capabilities.shared:
            return
        losses = _losses(scene.store)
        await self.expire(scene.store)
        assert await asyncio.wait_for(losses.get(), WAIT_S) == scene.lease
        await scene.own("again")
        assert scene.lease.orphaned
        await scene.commit(instances=[instance_row("a")])

    @scenario
    async def test_an_owner_whose_lease_ran_out_deals_with_nothing_behind_a_post_that_found_no_owner(
        self, scene: Scene
    ) -> None:
        """Whoever posts in the belief that the next owner will find it must not see later messages dealt with first."""
        if not scene.store.capabilities.shared:
            return
        other = await scene.another()
        await self.expire(scene.store)
        assert not await other.post([message("m")])
        with pytest.raises(LeaseLostError):
            await scene.commit(instances=[instance_row("a")])
        await scene.own("next owner")
        assert scene.lease.orphaned
        assert [row.message_id for row in await scene.store.read_inbox(scene.lease)] == ["m"]
        await scene.commit(instances=[instance_row("a")])
