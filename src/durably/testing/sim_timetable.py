"""Schedules of a simulated world: clients make, disturb and end them, and each occurrence is where it belongs, once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from durably.app import App
from durably.core.entities import EntityId, EntityState
from durably.core.status import TERMINAL
from durably.core.timeline import instant
from durably.errors import (
    InvalidScheduleError,
    InvariantError,
    OperationError,
    ScheduleAlreadyExistsError,
    ScheduleNotFoundError,
)
from durably.schedules.runs import occurrence_id
from durably.schedules.spec import SCHEDULE
from durably.schedules.state import ScheduleState, decode_state
from durably.schedules.timing import Timing
from durably.testing.sim_clients import Clients
from durably.testing.sim_doors import Door, Doors
from durably.testing.sim_scene import Scene

_PROGRAMS = (("chain", 1), ("chain", 4), ("retried", 1), ("timed_out", 1), ("saga", 2))
_OVERLAPS = ("allow", "skip", "buffer_one", "buffer_all", "buffer_all", "cancel_other", "terminate_other")
_TIP = "tip"
_UNDO_SUFFIX = ":undo"
"""What is left of a saga that was terminated is undone beside the next occurrence."""


class Timetable(Clients):
    """All clients, and their schedules.

    Args:
        scene: The world.
        doors: Whom they call.

    Attributes:
        made: Schedules that were accepted; True: nobody disturbed it.
        alone: Schedules of which two instances must never run at once.
    """

    def __init__(self, scene: Scene, doors: Doors) -> None:
        super().__init__(scene, doors)
        self.made: dict[str, bool] = {}
        self.alone: set[str] = set()

    async def live(self, name: str) -> None:
        """Be one client, as long as the storm lasts; then see to it that nothing comes due any more."""
        chance, mine = self._scene.chance, list[str]()
        while self._scene.storm:
            if len(mine) < 3:
                mine.append(await self._make(f"{name}-{len(mine)}"))
            if chance.random() < 0.6:
                await self._disturb_schedule(chance.choice(mine))
            await asyncio.sleep(chance.uniform(0.1, 1.5))
        for schedule_id in mine:
            now = instant(self._scene.clock.now())
            await self._ask(
                lambda door, of=schedule_id, now=now: door.client.schedules.update(of, end_at=now)
            )
            await self._ask(lambda door, of=schedule_id: door.client.schedules.resume(of))

    async def _make(self, name: str) -> str:
        chance = self._scene.chance
        overlap = chance.choice(_OVERLAPS)
        catch_up = chance.choice(("all", "all", "latest", "skip"))
        when: dict[str, Any] = {"interval": chance.choice((1, 2, 5.5))}
        if chance.random() < 0.3:
            when = {"cron": chance.choice(("* * * * * *", "*/3 * * * * *")), "time_zone": "Europe/Berlin"}
        program, size = chance.choice(_PROGRAMS)
        schedule_id = f"{program}-{name}"
        action: dict[str, Any] = {"fn": program, "input": size}
        if chance.random() < 0.25:
            action = {"entity": f"@account@{schedule_id}", "operation": _TIP, "input": (schedule_id, 0)}
        elif overlap != "allow":
            self.alone.add(schedule_id)
        jitter = chance.choice((0, 0, 0.7, 3))
        create: dict[str, Any] = {
            "overlap": overlap,
            "catch_up": catch_up,
            "jitter": jitter,
            **when,
            **action,
        }
        await self._ask(lambda door: door.client.schedules.create(schedule_id, **create))
        self.made[schedule_id] = True
        self._scene.report.instances += 1
        return schedule_id

    async def _disturb_schedule(self, schedule_id: str) -> None:
        chance = self._scene.chance
        what = chance.random()
        if what < 0.4:
            return
        self.made[schedule_id] = False
        now = self._scene.clock.now()
        if what < 0.6:
            await self._ask(lambda door: door.client.schedules.pause(schedule_id, "storm"))
            await asyncio.sleep(chance.uniform(0.0, 2.0))
            await self._ask(lambda door: door.client.schedules.resume(schedule_id))
        elif what < 0.8:
            await self._ask(lambda door: door.client.schedules.trigger(schedule_id))
        else:
            start, end = instant(now - 20_000_000), instant(now - chance.choice((1, 400)) * 1_000_000)
            if end > start:
                await self._ask(lambda door: door.client.schedules.backfill(schedule_id, start, end))

    async def _ask(self, call: Callable[[Door], Coroutine[Any, Any, Any]]) -> None:
        """Repeat an order until it is answered; after a doubtful one, an error says that it was accepted."""

        async def ask(door: Door) -> None:
            try:
                await call(door)
            except (ScheduleAlreadyExistsError, InvalidScheduleError):
                pass  # it was done before; or the clock was set back, and the range is to come
            except ScheduleNotFoundError as error:
                raise OperationError(str(error)) from error

        while True:
            door = self._doors.door
            if door is not None and await self._answered(ask(door)):
                return
            await asyncio.sleep(self._scene.chance.uniform(0.05, 0.5))
            await self._boot_if_quiet()

    # --- what must be true -------------------------------------------------------------------------------------------

    def committed(self) -> None:
        """After each commit: nothing of a schedule runs beside another one, unless it may."""
        running: set[str] = set()
        for instance_id, (_, row) in self._scene.hub.instances.items():
            schedule_id = instance_id.partition("@")[0]
            if row.status in TERMINAL or schedule_id not in self.alone or instance_id.endswith(_UNDO_SUFFIX):
                continue
            if schedule_id in running:
                self._scene.give_up(InvariantError("C13", instance_id, "it runs beside another occurrence"))
            running.add(schedule_id)

    @property
    def is_at_rest(self) -> bool:
        """True when nothing is on the way and nothing is due."""
        return not self._scene.hub.inbox and not self._scene.hub.timers

    def judge(self, app: App) -> None:
        """Every occurrence that had to run has run, once, and nothing else has."""
        found: dict[str, list[str]] = {}
        for instance_id, (_, row) in self._scene.hub.instances.items():
            schedule_id, at, _ = instance_id.partition("@")
            if at and not instance_id.endswith(_UNDO_SUFFIX):
                assert row.ordinal == 0, f"{instance_id} began twice"
                found.setdefault(schedule_id, []).append(instance_id)
        for schedule_id, undisturbed in self.made.items():
            state = self._state(schedule_id)
            waits = [*state.running, *state.buffer, *state.backfills]
            assert not waits, f"{schedule_id} is not at rest: {state}"
            ran = found.pop(schedule_id, [])
            if state.spec.action.__struct_config__.tag == "signal":
                tips = self._tips(schedule_id)
                assert tips == state.counts.started, (
                    f"{schedule_id} sent {state.counts.started} signals, {tips} came"
                )
            else:
                assert len(ran) == state.counts.started, (
                    f"{schedule_id} has started {state.counts}, and {ran} ran"
                )
            if state.spec.overlap not in ("cancel_other", "terminate_other"):
                failed = {one: self._status(one) for one in ran if self._status(one) != "Completed"}
                assert not failed, f"{schedule_id}: nobody ended {failed}"
            if undisturbed:
                self._judge_undisturbed(schedule_id, state, ran)
        assert not found, f"of no schedule: {found}"
        assert not self._scene.hub.parked, f"messages were set aside: {self._scene.hub.parked}"

    def _judge_undisturbed(self, schedule_id: str, state: ScheduleState, ran: list[str]) -> None:
        """Each occurrence in its life is accounted for."""
        spec, counts = state.spec, state.counts
        timing = Timing(msgspec.structs.replace(spec, end_at=None), state.anchor)
        assert spec.end_at is not None
        until = max(spec.end_at, state.cursor)  # the clock was set back behind occurrences that had run
        due: list[str] = []
        moment = timing.after(state.created_at)
        while moment is not None and moment <= until:
            due.append(occurrence_id(schedule_id, moment))
            moment = timing.after(moment)
        done = counts.started + counts.skipped + counts.missed + counts.dropped
        assert done == len(due), f"{schedule_id}: {len(due)} were due, {counts} says {done}; {spec}"
        assert set(ran) <= set(due), f"{schedule_id}: {set(ran) - set(due)} were not due"
        if spec.catch_up == "all" and spec.overlap in ("allow", "buffer_all"):
            assert counts.started == len(due), f"{schedule_id}: some of {due} have not run: {counts}"

    def _state(self, schedule_id: str) -> ScheduleState:
        row = self._scene.hub.entities[str(EntityId(SCHEDULE, schedule_id))]
        held = EntityState.of(row).state
        assert held is not None
        return decode_state(held, schedule_id)

    def _tips(self, schedule_id: str) -> int:
        row = self._scene.hub.entities.get(f"@account@{schedule_id}")
        if row is None or row.state is None:
            return 0
        log = msgspec.json.decode(row.state)["log"]
        return sum(who == schedule_id and what == _TIP for who, what, _ in log)
