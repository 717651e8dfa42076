"""The host of a simulated world, and the weather: crashes, restarts, graceful stops, jumps of the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from durably.app import App, AppHost
from durably.core.commit import Batch
from durably.core.entities import EntityState
from durably.engine.options import EngineOptions
from durably.engine.partition import Partition
from durably.errors import OperationError
from durably.testing.sim_doors import Door
from durably.testing.sim_loop import SimRandom
from durably.testing.sim_scene import Scene
from durably.testing.sim_store import SimStore


class Hosts:
    """One host after the other.

    Args:
        scene: The world.
        app: What they serve.
        options: Of their engines.
        committed: Called with each batch once it is applied.
    """

    def __init__(
        self, scene: Scene, app: App, options: EngineOptions, committed: Callable[[Batch], None]
    ) -> None:
        self.host: AppHost | None = None
        """The one that is up, or None."""
        self._scene = scene
        self._app = app
        self._options = options
        self._committed = committed
        self._random = SimRandom(scene.chance)

    @property
    def door(self) -> Door | None:
        """See `Doors.door`."""
        return None if self.host is None else Door(self.host.client, self.host.engine.store)

    def begin(self, call: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """See `Doors.begin`."""
        return asyncio.ensure_future(call)

    @property
    def partitions(self) -> list[Partition]:
        """The objects in memory."""
        return [] if self.host is None else self.host.engine.partitions

    async def boot(self) -> None:
        """Return when a host is up."""
        while self.host is None:
            store = SimStore(
                self._scene.hub,
                self._scene.rates,
                self._scene.chance,
                self._scene.report.faults,
                self._committed,
            )
            host = AppHost(self._app, store, self._options, self._scene.clock, self._random)
            try:
                await host.start()
            except OperationError:
                store.abandon()
                await asyncio.sleep(0.5)
            else:
                self.host = host

    async def boot_if_down(self) -> None:
        """The same, of a host that may have stopped by itself."""
        if self.host is not None and self.host.engine.failure is not None:
            self._crash()
        if self.host is None:
            await self.boot()

    def _crash(self) -> None:
        host, self.host = self.host, None
        if host is not None:
            self._count_cut_sections(host)
            self._scene.crashes += 1
            host.engine.abandon()
            store = host.engine.store
            if isinstance(store, SimStore):
                store.abandon()

    def _count_cut_sections(self, host: AppHost) -> None:
        """What is lost with a host, or with the partition object of one."""
        rows = self._scene.hub.entities.values()
        durable = {holder.section for row in rows if (holder := EntityState.of(row).holder) is not None}
        partition = host.engine.partition
        residents = () if partition is None else partition.entities.values()
        granted = {holder.section for resident in residents if (holder := resident.state.holder) is not None}
        self._scene.report.cut_sections += len(durable | granted)
        self._scene.report.cut_grants += len(granted - durable)

    async def weather(self) -> None:
        """Crashes, restarts, graceful stops, jumps of the clock."""
        while self._scene.storm:
            await asyncio.sleep(self._scene.chance.uniform(0.1, 1.2))
            what = self._scene.chance.random()
            if what < 0.45:
                self._scene.report.faults["crash"] += 1
                self._crash()
                await asyncio.sleep(self._scene.chance.uniform(0.0, 1.0))
                await self.boot_if_down()
            elif what < 0.55 and self.host is not None:
                self._scene.report.faults["stop"] += 1
                host, self.host = self.host, None
                self._scene.crashes += 1  # what it cut off at the end of its drain runs again
                await host.stop()
                await self.boot_if_down()
            elif what < 0.7:
                self._scene.report.faults["clock"] += 1
                self._scene.clock.jumped_us += self._scene.chance.choice((-300, -5, 5, 120)) * 1_000_000
            elif what < 0.85 and self.host is not None and self.host.engine.partition is not None:
                self._scene.report.faults["reload"] += 1
                self._scene.crashes += 1
                self._count_cut_sections(self.host)
                self.host.engine.reload_partition("simulated")
            await self.boot_if_down()
