"""The weather over a simulated fleet: hosts die, freeze, drain, come; leases and partition objects are lost; clocks jump."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from durably.testing.sim_fleet import Fleet, Member
from durably.testing.sim_scene import Scene
from durably.testing.sim_shared_hub import SharedHub

LEASE_S: Final = 1.0
_FROZEN_S: Final = (0.2, 0.6, 1.5 * LEASE_S, 2.5 * LEASE_S)
"""Some wake up before their leases have run out, some long after."""


class FleetWeather:
    """What goes wrong, by chance.

    Args:
        scene: The world.
        fleet: Whom it hits.
        hub: Whose leases run out.
    """

    def __init__(self, scene: Scene, fleet: Fleet, hub: SharedHub) -> None:
        self._scene = scene
        self._fleet = fleet
        self._hub = hub
        self._kinds: list[tuple[float, str, Callable[[], Awaitable[None]]]] = [
            (0.16, "crash", self._crash),
            (0.18, "freeze", self._freeze),
            (0.12, "stop", self._stop),
            (0.14, "join", self._join),
            (0.16, "lease", self._expire),
            (0.10, "reload", self._reload),
            (0.07, "drain", self._ask_to_drain),
            (0.07, "clock", self._set_clock),
        ]

    async def rage(self) -> None:
        """Let things go wrong, several at a time, as long as the storm lasts; return when the last of it is over."""
        chance = self._scene.chance
        async with asyncio.TaskGroup() as group:
            while self._scene.storm:
                await asyncio.sleep(chance.uniform(0.03, 0.35))
                left = chance.random()
                for share, kind, strike in self._kinds:
                    left -= share
                    if left < 0:
                        self._scene.report.faults[kind] += 1
                        group.create_task(self._strike(strike))
                        break

    async def _strike(self, strike: Callable[[], Awaitable[None]]) -> None:
        await strike()

    def _anybody(self) -> Member | None:
        members = self._fleet.members
        return self._scene.chance.choice(members) if members else None

    async def _crash(self) -> None:
        member = self._anybody()
        if member is not None:
            self._fleet.crash(member)
            await asyncio.sleep(self._scene.chance.uniform(0.0, LEASE_S))
        await self._fleet.boot_if_down()

    async def _freeze(self) -> None:
        member = self._anybody()
        if member is None or member.machine.frozen:
            return
        self._scene.trace.add(member.name, "is frozen")
        member.machine.freeze()
        await asyncio.sleep(self._scene.chance.choice(_FROZEN_S) * self._scene.chance.uniform(0.7, 1.3))
        if not member.dead:
            self._scene.trace.add(member.name, "goes on")
            member.machine.thaw()

    async def _stop(self) -> None:
        up = [member for member in self._fleet.members if member.up]
        if up:
            await self._fleet.stop(self._scene.chance.choice(up))
            await asyncio.sleep(self._scene.chance.uniform(0.0, 1.0))
        await self._fleet.boot_if_down()

    async def _join(self) -> None:
        """The fleet should be of another size; when it should be smaller, the next one that goes is not replaced."""
        self._fleet.wanted = self._scene.chance.randint(1, 4)
        await self._fleet.boot_if_down()

    async def _expire(self) -> None:
        """A lease runs out, and its owner is not told before it looks."""
        partition = self._scene.chance.choice(self._hub.partitions)
        if partition.lease is not None:
            self._scene.trace.add("hub", f"the lease of p{partition.number} runs out")
            self._hub.expire(partition.number)
            if self._scene.chance.random() < 0.5:
                self._hub.tell()

    async def _reload(self) -> None:
        member = self._anybody()
        if member is None or not member.leases:
            return
        numbers = sorted(member.leases)
        for number in numbers if self._scene.chance.random() < 0.5 else [self._scene.chance.choice(numbers)]:
            self._scene.trace.add(member.name, f"loads p{number} anew")
            member.reloads[number] += 1
            member.machine.call_soon(member.host.reload_partition, "simulated", number)

    async def _ask_to_drain(self) -> None:
        """A host gives everything away, and is stopped later."""
        member = self._anybody()
        if member is None or not member.up:
            return
        self._scene.trace.add(member.name, "is asked to drain")
        survey = self._hub.survey("")
        mine = {partition.host_id for partition in self._hub.partitions if partition.holder is member.store}
        for host in survey.hosts:
            if host.host_id in mine:
                self._hub.hosts[host.host_id].told_to_drain = True
        self._hub.tell()
        await asyncio.sleep(self._scene.chance.uniform(0.5, 2.0))
        if member.up:
            await self._fleet.stop(member)
        await self._fleet.boot_if_down()

    async def _set_clock(self) -> None:
        member = self._anybody()
        if member is not None:
            member.clock.jumped_us += self._scene.chance.choice((-6, -2, 2, 6)) * 1_000_000
