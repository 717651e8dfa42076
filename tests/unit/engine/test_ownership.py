"""How partitions come and go, where others may have them meanwhile."""

from __future__ import annotations

import asyncio

from durably import App, EngineOptions
from durably.clock import SystemClock
from durably.storage.api import Lease
from durably.storage.memory import MemoryHub, MemoryStore
from tests.support.waiting import eventually


class Slow(MemoryStore):
    """Its first lease runs out, and that is told, while the host waits for the answer that it has it."""

    is_late = True

    async def acquire(self, partition: int, owner: str) -> Lease:
        lease = await super().acquire(partition, owner)
        if self.is_late:
            self.is_late = False
            self.hub.expire(partition)
            self._lose(lease)
            await asyncio.sleep(0.01)
        return lease


async def test_a_lease_that_is_lost_before_the_host_knows_of_it_is_not_taken_for_its_own() -> None:
    """Nobody would tell the host again: it would serve a partition that is free, and others would find no owner."""
    hub = MemoryHub(exclusive=False, clock=SystemClock(), lease_us=300_000)
    async with App().host(Slow(hub), options=EngineOptions(lease_s=0.3)) as host:
        await eventually(lambda: host.engine.epochs == {0: 2})
        assert hub.is_live(hub.partitions[0])


class Reluctant(MemoryStore):
    """Takes its time to let a partition go."""

    async def release(self, lease: Lease) -> None:
        await asyncio.sleep(0.2)
        await super().release(lease)


async def test_a_host_that_stops_waits_for_what_it_is_giving_away() -> None:
    """Else the lease stays held, and the next owner takes an orderly end for a death."""
    hub = MemoryHub(exclusive=False, clock=SystemClock(), lease_us=15_000_000)
    host = App().host(Reluctant(hub), options=EngineOptions(lease_s=15))
    await host.start()
    await eventually(lambda: host.engine.epochs == {0: 1})
    giving = asyncio.ensure_future(host.engine._own.give(0, 1.0))
    await eventually(lambda: not host.engine.epochs)
    await host.stop()
    assert giving.done()
    next_one = MemoryStore(hub)
    await next_one.open()
    assert not (await next_one.acquire(0, "next")).orphaned
    await next_one.close()
