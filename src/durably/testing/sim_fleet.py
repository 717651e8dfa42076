"""The hosts of a simulated fleet: each with a machine, a clock and a store of its own, over one hub."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

from durably.app import App
from durably.client import Client
from durably.client.connection import Connection
from durably.client.outside import OutsideOperations
from durably.client.routed import RoutedOperations
from durably.clock import Random
from durably.core.commit import Batch
from durably.engine.executor import Executor
from durably.engine.host import Host
from durably.engine.options import EngineOptions
from durably.errors import OperationError
from durably.executors.native import NativeExecutor, NativeOptions
from durably.testing.sim_doors import Door
from durably.testing.sim_loop import SimClock, SimRandom
from durably.testing.sim_machine import MachineLoop
from durably.testing.sim_scene import Scene
from durably.testing.sim_shared import NetworkRates, SharedStore
from durably.testing.sim_shared_hub import SharedHub

_OUTSIDE: Final = 0.2
"""So many calls come from a process that hosts nothing."""

_SKEWS_S: Final = (-4, -1, 0, 0, 0, 1, 3)
"""How far the clocks of machines are from that of the hub."""


Dress = Callable[[MachineLoop, Executor, Random, Callable[[Executor], Host]], Host]
"""Makes a host on a machine, of the executor of its app and a source of chance: calls the last with what it is to have."""


def _bare(machine: MachineLoop, executor: Executor, random: Random, make: Callable[[Executor], Host]) -> Host:
    del machine, random
    return make(executor)


class Member:
    """One host of the fleet, from its boot to its end.

    Attributes:
        machine: What it runs on.
        store: The hub as it sees it.
        host: What runs there.
        client: Through it.
        clock: Of its machine.
        up: It has started, and nobody has told it to stop.
        reloads: How often a partition object of it was thrown away, by partition.
    """

    def __init__(
        self,
        name: str,
        scene: Scene,
        app: App,
        options: EngineOptions,
        store: Callable[[MachineLoop, str], SharedStore],
        *,
        dress: Dress,
    ) -> None:
        self.name = name
        self.machine = MachineLoop(scene.loop, self._failed)
        self.store = store(self.machine, name)
        self.clock = SimClock(self.machine)
        self.clock.jumped_us = scene.chance.choice(_SKEWS_S) * 1_000_000
        random = SimRandom(scene.chance)
        executor = NativeExecutor(app.registry, app.converter, NativeOptions(slow_turn_s=0))
        self.host = dress(
            self.machine,
            executor,
            random,
            lambda dressed: Host(self.store, dressed, options, self.clock, random),
        )
        self._operations = RoutedOperations(self.host)
        self.client = Client.of(self._operations, app.registry, app.converter, self.clock, random)
        self.up = self.dead = False
        self.reloads: Counter[int] = Counter()
        self._scene = scene

    @property
    def leases(self) -> dict[int, int]:
        """The epochs of the partitions that it believes to own."""
        return self.host.epochs

    async def stop(self) -> None:
        """Drain, and let go."""
        await self.host.stop()
        self._operations.close()

    def _failed(self, error: BaseException) -> None:
        if not self.dead:
            self._scene.give_up(error)


class Fleet:
    """All hosts, and the processes that call them. Implements `Doors`.

    Args:
        scene: The world.
        hub: What they share.
        app: What they serve.
        options: Of their engines.
        committed: Called with each batch once it is applied.
        dress: Makes its hosts; usually of the functions of the app alone.

    Attributes:
        wanted: How many hosts there should be.
        members: Those that are booting, up, or stopping.
    """

    def __init__(
        self,
        scene: Scene,
        hub: SharedHub,
        app: App,
        options: EngineOptions,
        committed: Callable[[Batch], None],
        *,
        dress: Dress = _bare,
    ) -> None:
        self._dress = dress
        self.wanted = 1
        self.members: list[Member] = []
        self._scene = scene
        self._hub = hub
        self._rates = NetworkRates()
        self._app = app
        self._options = options
        self._committed = committed
        self._booted = 0
        self._gone: list[Member] = []
        self._mending = asyncio.Lock()
        self._outside = MachineLoop(scene.loop, scene.give_up)
        self._outside_store = self._store(self._outside, "outside")
        self._connection = Connection(self._outside_store)
        operations = OutsideOperations(self._connection, scene.clock, SimRandom(scene.chance))
        client = Client.of(operations, app.registry, app.converter, scene.clock, SimRandom(scene.chance))
        self._outside_door = Door(client, self._outside_store)
        self._asked = self._outside

    # --- who calls ---------------------------------------------------------------------------------------------------

    @property
    def door(self) -> Door | None:
        """See `Doors.door`: any host that is up, frozen or not; or no host at all."""
        up = [member for member in self.members if member.up]
        if not up or self._scene.chance.random() < _OUTSIDE:
            self._asked = self._outside
            return self._outside_door
        member = self._scene.chance.choice(up)
        self._asked = member.machine
        return Door(member.client, member.store)

    def begin(self, call: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """See `Doors.begin`."""
        return self._asked.begin(call)

    async def boot_if_down(self) -> None:
        """See `Doors.boot_if_down`: replace what has stopped by itself, and boot until there are as many as are wanted."""
        async with self._mending:
            for member in list(self.members):
                if member.host.failure is not None:
                    self.crash(member)
            while sum(member.up for member in self.members) < self.wanted:
                await self.boot()

    @property
    def running(self) -> Member | None:
        """The host that whatever asks for it runs on; None for one that is dead."""
        loop = asyncio.get_running_loop()
        return next((member for member in self.members if member.machine is loop), None)

    # --- they come and go --------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """The hub comes into being."""
        await self._outside.begin(self._connection.store(create=True))

    async def boot(self) -> Member:
        """Return when one more host is up."""
        while True:
            self._booted += 1
            member = Member(
                f"host-{self._booted}", self._scene, self._app, self._options, self._store, dress=self._dress
            )
            self.members.append(member)
            self._scene.trace.add(member.name, "boots")
            try:
                await member.machine.begin(member.host.start())
            except OperationError as error:
                self._scene.trace.add(member.name, f"could not start: {error}")
                self.crash(member)
                await asyncio.sleep(0.5)
            else:
                member.up = True
                self._scene.trace.add(member.name, f"is up with {sorted(member.leases)}")
                return member

    async def stop(self, member: Member) -> None:
        """Drain a host, and let it go."""
        member.up = False
        self._scene.trace.add(member.name, "is told to stop")
        try:
            await member.machine.begin(member.stop())
        except OperationError as error:
            self._scene.trace.add(member.name, f"stopped with {error}")
            self.crash(member)
        else:
            self._scene.trace.add(member.name, "has stopped")
            self._bury(member)

    def crash(self, member: Member) -> None:
        """A host dies as it stands: nothing leaves it any more."""
        if member.dead:
            return
        self._scene.trace.add(member.name, "dies")
        member.store.die()
        self._bury(member)
        member.machine.thaw()
        member.machine.call_soon(member.host.abandon)
        member.machine.hang_up()

    def _bury(self, member: Member) -> None:
        member.up, member.dead = False, True
        if member in self.members:
            self.members.remove(member)
            self._gone.append(member)

    def heal(self) -> None:
        """Nothing goes wrong any more: hosts that stand still go on."""
        self._rates.stop()
        for member in self.members:
            member.machine.thaw()

    async def end(self) -> None:
        """Stop all hosts."""
        await asyncio.gather(*(self.stop(member) for member in list(self.members)))

    async def vanish(self) -> None:
        """Whatever state it is in: leave nothing that runs."""
        for member in list(self.members):
            self.crash(member)
        self._connection.endings.close()
        self._outside_store.die()
        self._outside.hang_up()
        for machine in [self._outside, *(member.machine for member in self._gone)]:
            await machine.empty()

    def _store(self, machine: MachineLoop, name: str) -> SharedStore:
        return SharedStore(
            self._scene,
            self._hub,
            machine=machine,
            name=name,
            rates=self._rates,
            applied=self._committed,
        )
