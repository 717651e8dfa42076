"""A simulated fleet: one to four hosts share a hub of one to eight partitions, and everything goes wrong by seed.

Each host has its own machine: it is frozen, killed, drained, loses leases without a notice, and what it sends to the hub is
slow, doubtful, late or repeated. After every commit all invariants of every instance it touched are checked. Then the faults
stop, and everything that was acknowledged must come to its foretold end, once, on hosts that own fair shares.

``python -m durably.testing.fleet_simulation SEED`` repeats a seed.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Final, cast

from durably.core.commit import Batch
from durably.core.status import TERMINAL, RuntimeStatus
from durably.engine.options import EngineOptions
from durably.errors import InvariantError, OperationError, UsageError
from durably.testing.sim_checks import Checks
from durably.testing.sim_couriers import Couriers, Travellers, build_couriers
from durably.testing.sim_fleet import Fleet
from durably.testing.sim_fleet_checks import FleetRuns, misowned
from durably.testing.sim_fleet_faults import LEASE_S, FleetWeather
from durably.testing.sim_loop import SimLoop
from durably.testing.sim_scene import Report, Scene
from durably.testing.sim_shared_hub import SharedHub
from durably.testing.simulation import SMALL, everything

HOSTS_MAX: Final = 4
PARTITIONS_MAX: Final = 8
_CLIENTS: Final = 2
_STORM_S: Final = 2.0
_END_S: Final = 300.0
"""Virtual seconds after which a fleet that has not come to rest counts as stuck."""

OPTIONS: Final = replace(SMALL, lease_s=LEASE_S, inbox_poll_s=0.7)


class FleetFailedError(AssertionError):
    """A seed has failed: what is wrong, how to repeat it, and what happened last."""


class FleetWorld:
    """One seed.

    Args:
        seed: Decides everything.
        loop: Its time.
        options: Of the engines.
    """

    def __init__(self, seed: int, loop: SimLoop, options: EngineOptions = OPTIONS) -> None:
        scene = self._scene = Scene(seed, loop)
        partitions = scene.chance.randint(1, PARTITIONS_MAX)
        hub = self._hub = SharedHub(partitions, scene.clock, int(LEASE_S * 1_000_000))
        scene.hub = hub
        self._runs = FleetRuns(scene, hub)
        self._app = build_couriers(everything(self._runs, self._is_broken, self._alarm))
        self._checks = Checks(scene, self._app)
        fleet = self._fleet = self._runs.fleet = Fleet(scene, hub, self._app, options, self._committed)
        fleet.wanted = scene.chance.randint(1, HOSTS_MAX)
        cast = Couriers if scene.chance.random() < 0.5 else Travellers
        self._clients = cast(scene, fleet)
        scene.trace.add("world", f"{cast.__name__}, {partitions} partitions, {fleet.wanted} hosts")

    @property
    def scene(self) -> Scene:
        """What its parts share."""
        return self._scene

    async def run(self) -> Report:
        """Live through it.

        Raises:
            InvariantError: A rule of the engine is broken.
            AssertionError: Something acknowledged was lost, doubled, or did not end.
        """
        try:
            return await self._run()
        finally:
            await self._fleet.vanish()

    async def _run(self) -> Report:
        scene, fleet = self._scene, self._fleet
        await fleet.open()
        await fleet.boot_if_down()
        async with asyncio.TaskGroup() as group:
            clients = [
                group.create_task(self._clients.live(f"{scene.report.seed}-{n}")) for n in range(_CLIENTS)
            ]
            weather = group.create_task(FleetWeather(scene, fleet, self._hub).rage())
            await asyncio.sleep(_STORM_S)
            scene.storm = False
            fleet.heal()
            over, _ = await asyncio.wait([weather], timeout=_END_S)
            assert over, "a host does not come, or go"
            fleet.heal()
            scene.trace.add("world", "the storm is over")
            await self._supervise(clients)
        fleet.wanted = scene.chance.randint(1, HOSTS_MAX)
        await self._settle()
        await fleet.end()
        await asyncio.sleep(
            2 * LEASE_S
        )  # what was on its way to the hub has arrived, and leases have run out
        self._judge()
        scene.report.virtual_s = scene.loop.elapsed_s
        scene.report.epochs = sum(partition.epoch for partition in self._hub.partitions)
        scene.report.digest = scene.trace.digest
        return scene.report

    async def _supervise(self, clients: list[asyncio.Task[None]]) -> None:
        """Replace hosts that have stopped by themselves, until all clients are content."""
        until = self._scene.loop.elapsed_s + _END_S
        while waiting := [client for client in clients if not client.done()]:
            assert self._scene.loop.elapsed_s < until, f"{len(waiting)} clients have no answer"
            await self._fleet.boot_if_down()
            await asyncio.wait(waiting, timeout=0.5)

    def _committed(self, batch: Batch) -> None:
        self._checks.committed(batch)
        self._clients.committed()

    def _is_broken(self, instance_id: str) -> bool:
        return instance_id.partition(":")[0].partition("~")[0] in self._scene.broken

    def _alarm(self, instance_id: str, what: str) -> None:
        """Of a host that lost its partition it is none: it may know of half of what came after, and commits nothing."""
        partition = self._hub.partitions[self._hub.partition_of(instance_id)]
        running = self._fleet.running
        if running is not None and running.leases.get(partition.number) == partition.epoch:
            self._scene.give_up(InvariantError("I5", instance_id, what))

    async def _settle(self) -> None:
        """C10: without faults everything ends by itself, and every partition finds its owner."""
        scene, until = self._scene, self._scene.loop.elapsed_s + _END_S
        while scene.loop.elapsed_s < until:
            if scene.trouble is not None:
                raise scene.trouble
            await self._fleet.boot_if_down()
            if misowned(self._fleet, self._hub) is None:
                for member in self._fleet.members:
                    self._checks.check_residents(member.host.partitions)
                if not self._open() and self._clients.is_at_rest:
                    return
            await self._resume()
            await asyncio.sleep(0.5)
        inbox = [(row.message_id, row.instance_id) for row in scene.hub.inbox.values()]
        wrong = misowned(self._fleet, self._hub)
        raise AssertionError(
            f"it did not come to rest: open {self._open()}, inbox {inbox}, timers {scene.hub.timers}, owners {wrong}"
        )

    async def _resume(self) -> None:
        """An order that its sender gave up in doubt may come behind the next one: who was resumed is suspended again."""
        for instance_id, status in self._open().items():
            door = self._fleet.door
            if status == RuntimeStatus.Suspended.value and door is not None:
                with suppress(OperationError, UsageError):
                    await self._fleet.begin(door.client.resume(instance_id))

    def _open(self) -> dict[str, str]:
        rows = [row for _, row in self._scene.hub.instances.values()]
        return {row.instance_id: row.status for row in rows if row.status not in TERMINAL}

    def _judge(self) -> None:
        if self._scene.trouble is not None:
            raise self._scene.trouble
        self._clients.judge(self._app)
        self._runs.judge()
        self._hub.survey("")  # forgets those that have said nothing for a while
        held = [partition.number for partition in self._hub.partitions if partition.held]
        assert not held, f"all hosts have stopped, and did not let go of {held}"
        assert not self._hub.hosts, f"all hosts have stopped, and these are there: {self._hub.hosts}"
        assert not self._hub.parked, f"messages were set aside: {self._hub.parked}"


def simulate_fleet(seed: int, options: EngineOptions = OPTIONS) -> Report:
    """Run one seed from beginning to end.

    Raises:
        FleetFailedError: A rule is broken. Run the same seed again to see the same failure again.
    """
    log = logging.getLogger("durably")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)  # what goes wrong is meant to
    loop = SimLoop()
    world: FleetWorld | None = None

    async def live() -> Report:
        nonlocal world
        world = FleetWorld(seed, loop, options)
        return await world.run()

    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(live())
    except Exception as error:
        told = "" if world is None else world.scene.trace.last()
        first = _innermost(error)
        raise FleetFailedError(
            f"seed {seed}: {type(first).__name__}: {first}\n"
            f"repeat it: python -m durably.testing.fleet_simulation {seed}\n{told}"
        ) from error
    finally:
        log.setLevel(level)


def _innermost(error: BaseException) -> BaseException:
    """What went wrong, of a group of tasks that ended with it."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        sys.stdout.write(f"{simulate_fleet(int(argument))}\n")
