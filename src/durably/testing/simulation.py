"""Deterministic simulation: the real engine and the real executor on virtual time, with faults by seed.

One seed is one history of the world: clients start and disturb instances, the store fails in every way it may, hosts
crash and come back, the clock jumps. After every commit all invariants of every instance it touched are checked. Then
the faults stop, and everything that was acknowledged must come to its foretold end.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Final

from durably.app import App
from durably.core.commit import Batch
from durably.core.status import TERMINAL
from durably.engine.options import EngineOptions
from durably.errors import InvariantError
from durably.testing.sim_bank import Bank
from durably.testing.sim_bank_programs import Alarm, build_bank
from durably.testing.sim_checks import Checks, Runs
from durably.testing.sim_clients import Clients
from durably.testing.sim_hosts import Hosts
from durably.testing.sim_loop import SimLoop
from durably.testing.sim_overdue import TIME_LIMIT_S, Overdue, build_overdue
from durably.testing.sim_programs import IsBroken, build_app
from durably.testing.sim_scene import Report, Scene
from durably.testing.sim_timetable import Timetable
from durably.testing.sim_wheels import Wheels, build_wheels

_FAULTS_MIN = 10
"""A storm goes on until this much has gone wrong."""

_END_S = 100_000.0
"""Virtual seconds after which a world that has not come to rest counts as stuck."""


SMALL: Final = EngineOptions(
    max_concurrent_activities=8,
    max_resident_instances=6,
    max_resident_entities=3,
    entity_operations_per_batch=3,
    turns_per_batch=4,
    batch_bytes=2_000,
    timer_horizon_s=4.0,
    commit_retry_s=0.1,
    drain_timeout_s=1.0,
    slow_turn_s=0,
    max_deliveries=1_000_000,  # the storm kills hosts far more often than any work item does
)
"""Limits so small that each of them is met."""


def everything(runs: Runs, is_broken: IsBroken, alarm: Alarm) -> App:
    """The app of a world: all programs of all casts."""
    app = build_bank(build_app(runs.run, is_broken), alarm, is_broken)
    build_overdue(app, runs.run)
    return build_wheels(app)


class World:
    """One seed.

    Args:
        seed: Decides everything.
        loop: Its time.
        storm_s: How long things go wrong.
        options: Of the engine; by default `SMALL`.
        cast: Who lives in it.
    """

    def __init__(
        self,
        seed: int,
        loop: SimLoop,
        *,
        storm_s: float = 6.0,
        options: EngineOptions | None = None,
        cast: type[Clients] = Clients,
    ) -> None:
        scene = self._scene = Scene(seed, loop)
        self._storm_s = storm_s
        self._runs = Runs(scene)
        self._app = everything(self._runs, self._is_broken, self._alarm)
        self._checks = Checks(scene, self._app)
        if options is None:
            limit_s = TIME_LIMIT_S if issubclass(cast, Overdue) else 0.0
            options = replace(SMALL, function_timeout_s=limit_s)
        self._hosts = Hosts(scene, self._app, options, self._committed)
        self._clients = cast(scene, self._hosts)

    async def run(self) -> Report:
        """Live through it.

        Raises:
            InvariantError: A rule of the engine is broken.
            AssertionError: Something acknowledged was lost, doubled, or did not end.
        """
        await self._hosts.boot()
        async with asyncio.TaskGroup() as group:
            clients = [
                group.create_task(self._clients.live(f"{self._scene.report.seed}-{n}")) for n in range(3)
            ]
            weather = group.create_task(self._hosts.weather())
            await asyncio.sleep(self._storm_s)
            while self._scene.report.faults.total() < _FAULTS_MIN:  # noqa: ASYNC110 - faults are counted in many places
                await asyncio.sleep(0.5)
            self._scene.storm = False
            self._scene.rates.stop()
            await weather
            await asyncio.gather(*clients)
        await self._hosts.boot_if_down()
        await self._settle()
        if self._hosts.host is not None:
            await self._hosts.host.stop()
        self._judge_results()
        self._scene.report.virtual_s = self._scene.loop.elapsed_s
        self._scene.report.fingerprint = hash(
            tuple(sorted(self._scene.hub.instances.items(), key=lambda item: item[1][0]))
        )
        return self._scene.report

    def _committed(self, batch: Batch) -> None:
        self._checks.committed(batch)
        self._clients.committed()

    def _is_broken(self, instance_id: str) -> bool:
        return instance_id.partition(":")[0].partition("~")[0] in self._scene.broken

    def _alarm(self, instance_id: str, what: str) -> None:
        self._scene.give_up(InvariantError("I5", instance_id, what))

    async def _settle(self) -> None:
        """C10: without faults, everything ends by itself."""
        until = self._scene.loop.elapsed_s + _END_S
        while self._scene.loop.elapsed_s < until:
            if self._scene.trouble is not None:
                raise self._scene.trouble
            await self._hosts.boot_if_down()
            self._checks.check_residents(self._hosts.partitions)
            alive = [i for i, (_, row) in self._scene.hub.instances.items() if row.status not in TERMINAL]
            if not alive and self._clients.is_at_rest:
                return
            await asyncio.sleep(5.0)
        states = {
            i: row.status for i, (_, row) in self._scene.hub.instances.items() if row.status not in TERMINAL
        }
        inbox = [message.message_id for message in self._scene.hub.inbox.values()]
        raise AssertionError(f"seed {self._scene.report.seed}: not ended: {states}, inbox {inbox}")

    def _judge_results(self) -> None:
        if self._scene.trouble is not None:
            raise self._scene.trouble
        self._clients.judge(self._app)
        self._runs.judge()


def simulate_bank(seed: int) -> Report:
    """Run one seed of a bank, see `durably.testing.sim_bank`; otherwise as `simulate`."""
    return simulate(seed, cast=Bank)


def simulate_timetable(seed: int) -> Report:
    """Run one seed of schedules, see `durably.testing.sim_timetable`; otherwise as `simulate`."""
    return simulate(seed, cast=Timetable)


def simulate_overdue(seed: int) -> Report:
    """Run one seed of activities that hang, see `durably.testing.sim_overdue`; otherwise as `simulate`."""
    return simulate(seed, cast=Overdue)


def simulate_wheels(seed: int) -> Report:
    """Run one seed of instances that never rest, see `durably.testing.sim_wheels`; otherwise as `simulate`."""
    return simulate(seed, cast=Wheels)


def simulate(
    seed: int,
    *,
    storm_s: float = 6.0,
    options: EngineOptions | None = None,
    cast: type[Clients] = Clients,
) -> Report:
    """Run one seed from beginning to end.

    Raises:
        InvariantError, AssertionError: See `World.run`; run the same seed again to see the same failure again.
    """
    log = logging.getLogger("durably")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)  # what goes wrong is meant to
    loop = SimLoop()
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(World(seed, loop, storm_s=storm_s, options=options, cast=cast).run())
    finally:
        log.setLevel(level)
