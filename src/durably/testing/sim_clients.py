"""The clients of a simulated world: they start and disturb instances, and remember what they were promised."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from durably.app import App
from durably.core.commit import InboxRow
from durably.core.history import encode_body
from durably.core.messages import RaiseEvent
from durably.core.status import TERMINAL
from durably.errors import HubClosedError, InstanceNotFoundError, InstanceStateError, OperationError
from durably.testing.sim_doors import Door, Doors
from durably.testing.sim_programs import expected
from durably.testing.sim_scene import Scene

_PROGRAMS = (
    ("chain", 6),
    ("fan", 12),
    ("patched", 5),
    ("retried", 3),
    ("saga", 3),
    ("timed_out", 1),
    ("race", 1),
    ("collector", 5),
    ("ring", 7),
    ("patient", 3),
    ("parent", 4),
    ("unlucky_parent", 1),
    ("ping", 4),
    ("mended", 5),
    ("line", 2),
)
_BREAKABLE = frozenset(("mended", "line"))
_REPEATABLE = frozenset(("chain", "fan", "retried", "race"))
"""Programs that come to the same end however often they are restarted."""


class Clients:
    """All clients.

    Args:
        scene: The world.
        doors: Whom they call.

    Attributes:
        programs: What they start, and of which size.
        acknowledged: Instances that must come to the end that is foretold for their program and size.
        ordered_to_end: Instances that must have been ended.
        purged: Instances of which nothing may be left, nor of their descendants.
    """

    programs: tuple[tuple[str, int], ...] = _PROGRAMS

    def __init__(self, scene: Scene, doors: Doors) -> None:
        self._scene = scene
        self._doors = doors
        self.acknowledged: dict[str, tuple[str, int]] = {}
        self.ordered_to_end: set[str] = set()
        self.purged: set[str] = set()
        self._calls: set[asyncio.Future[Any]] = set()

    @property
    def is_at_rest(self) -> bool:
        """True when the world may end as soon as all instances have."""
        return True

    def committed(self) -> None:
        """A batch was applied."""

    async def live(self, name: str) -> None:
        """Be one client, as long as the storm lasts."""
        count = 0
        while self._scene.storm:
            count += 1
            program, size = self._scene.chance.choice(self.programs)
            instance_id = f"{program}-{name}-{count}"
            if program in _BREAKABLE and self._scene.chance.random() < 0.8:
                self._scene.broken.add(instance_id)
            if await self._started(instance_id, program, size):
                await self._disturb(instance_id, program, size)
            self._scene.broken.discard(instance_id)
            await asyncio.sleep(self._scene.chance.uniform(0.05, 1.0))
            if self._scene.chance.random() < 0.15:
                await self._end_by_order(f"long-{name}-{count}")
            if self._scene.chance.random() < 0.1:
                await self._end_dynasty(f"dynasty-{name}-{count}")

    async def _started(self, instance_id: str, program: str, size: int) -> bool:
        given: Any = {"n": size, "got": []} if program == "ring" else size
        delay = self._scene.chance.choice((None, None, None, 2.0))
        for _ in range(50):
            door = self._doors.door
            if door is not None and await self._answered(
                door.client.start(
                    program, given, instance_id=instance_id, start_at=delay, on_existing="attach"
                )
            ):
                self.acknowledged[instance_id] = (program, size)
                self._scene.report.instances += 1
                return True
            await asyncio.sleep(self._scene.chance.uniform(0.05, 1.0))
        return False

    async def _disturb(self, instance_id: str, program: str, size: int) -> None:
        if program in {"collector", "ring"}:
            for n in range(size):
                await self._insist(lambda door, n=n: door.store.post([self._event_row(instance_id, n)]))
                await asyncio.sleep(self._scene.chance.choice((0.0, 0.0, 0.3)))
        if instance_id in self._scene.broken:
            await self._mend(instance_id)
        elif program in _REPEATABLE and self._scene.chance.random() < 0.3:
            await asyncio.sleep(self._scene.chance.uniform(0.0, 4.0))
            await self._insist(lambda door: door.client.restart(instance_id, reason="again"))
        elif self._scene.chance.random() < 0.2:  # refused, unless it has failed
            await self._insist(lambda door: door.client.rewind(instance_id, "nothing is broken"))
        if self._scene.chance.random() < 0.25:
            await self._insist(lambda door: door.client.suspend(instance_id, "storm"))
            await asyncio.sleep(self._scene.chance.uniform(0.0, 3.0))
            await self._insist(lambda door: door.client.resume(instance_id))

    async def _mend(self, instance_id: str) -> None:
        """Rewind something broken a few times, in vain or not; then mend it, and rewind it until that is accepted."""
        for _ in range(self._scene.chance.randrange(4)):
            await asyncio.sleep(self._scene.chance.uniform(0.0, 3.0))
            await self._insist(lambda door: door.client.rewind(instance_id, "in vain"))
        self._scene.broken.discard(instance_id)
        while self._status(instance_id) != "Completed":
            if self._status(instance_id) == "Failed":
                await self._insist(lambda door: door.client.rewind(instance_id, "mended"))
            await asyncio.sleep(self._scene.chance.uniform(0.1, 2.0))
            await self._boot_if_quiet()

    def _status(self, instance_id: str) -> str | None:
        found = self._scene.hub.instances.get(instance_id)
        return None if found is None else found[1].status

    async def _boot_if_quiet(self) -> None:
        """Behind the storm nobody else looks after the host."""
        if not self._scene.storm:
            await self._doors.boot_if_down()

    async def _end_dynasty(self, instance_id: str) -> None:
        """Start generations and end them all; later on delete them all."""
        while not await self._started(instance_id, "dynasty", 2):
            pass
        del self.acknowledged[instance_id]
        await asyncio.sleep(self._scene.chance.uniform(0.0, 1.5))
        await self._insist(lambda door: door.client.terminate(instance_id, "ordered", recursive=True))
        self.ordered_to_end.add(instance_id)
        if self._scene.chance.random() < 0.6:
            while not self._has_ended(instance_id):
                await asyncio.sleep(0.5)
                await self._boot_if_quiet()
            await self._insist(lambda door: door.client.purge(instance_id, recursive=True))
            self.ordered_to_end.discard(instance_id)
            self.purged.add(instance_id)

    def _has_ended(self, instance_id: str) -> bool:
        """True once it and all its descendants have; False also while its start waits for an owner."""
        family = self.family(instance_id)
        return bool(family) and all(self._status(one) in TERMINAL for one in family)

    def family(self, instance_id: str) -> list[str]:
        """What is there of an instance and its descendants."""
        return [one for one in self._scene.hub.instances if one.partition(":")[0] == instance_id]

    def _event_row(self, instance_id: str, n: int) -> InboxRow:
        """A message with an id: however often it is posted, it counts once."""
        body = encode_body(RaiseEvent("Item", str(n).encode()))
        return InboxRow(f"{instance_id}/{n}", instance_id, self._scene.clock.now(), body)

    async def _end_by_order(self, instance_id: str) -> None:
        """Start something endless and end it; whatever else happens, it must end."""
        while not await self._started(instance_id, "long_wait", 0):
            pass  # perhaps it was started: what nobody orders to end never ends
        del self.acknowledged[instance_id]
        self.ordered_to_end.add(instance_id)
        if self._scene.chance.random() < 0.5:
            await self._insist(lambda door: door.client.terminate(instance_id, "ordered"))
        else:
            await self._insist(lambda door: door.client.cancel(instance_id, "ordered"))

    async def _insist(self, call: Callable[[Door], Coroutine[Any, Any, Any]]) -> None:
        """Repeat a call until it is answered, as a client that must get through does."""
        while True:
            door = self._doors.door
            if door is not None and await self._answered(call(door)):
                return
            await asyncio.sleep(self._scene.chance.uniform(0.05, 0.5))

    async def _answered(self, call: Coroutine[Any, Any, Any]) -> bool:
        """True when the hub took it or refused it; False when nobody knows."""
        task = self._doors.begin(call)
        self._calls.add(task)
        try:
            done, _ = await asyncio.wait({task}, timeout=5.0)
            if not done:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                return False
            task.result()
        except InstanceStateError:
            return True
        except (OperationError, HubClosedError, InstanceNotFoundError):
            return False
        finally:
            self._calls.discard(task)
        return True

    def judge(self, app: App) -> None:
        """What was acknowledged came to its end, once.

        Raises:
            AssertionError: It did not.
        """
        for instance_id, (program, size) in self.acknowledged.items():
            found = self._scene.hub.instances.get(instance_id)
            assert found is not None, f"{instance_id} was acknowledged and is lost (C1)"
            row = found[1]
            got = None if row.output is None else app.converter.decode(row.output, Any)
            want = expected(program, size)
            assert (row.status, got) == ("Completed", want), (
                f"seed {self._scene.report.seed}: {instance_id} is {row.status} with {got}, expected {want}; {row.failure}"
            )
        for instance_id in self.ordered_to_end:
            status = self._scene.hub.instances[instance_id][1].status
            assert status in {"Terminated", "Canceled"}, f"{instance_id} was ordered to end and is {status}"
        for instance_id in self.purged:
            assert not self.family(instance_id), f"{self.family(instance_id)} outlived the purge (C11)"
        assert not self._scene.hub.inbox, f"messages are left: {list(self._scene.hub.inbox)}"
