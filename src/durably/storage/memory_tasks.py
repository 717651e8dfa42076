"""The queue of activities that hosts on a hub in memory share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from durably.core.shared_tasks import TaskInfo
from durably.storage.memory_hub import MemoryHub
from durably.storage.memory_parts import MemoryTask
from durably.storage.shared_tasks import Claim, TaskResult

T = TypeVar("T")


class Later(Protocol):
    """Does some work in a later callback of the loop."""

    def __call__(self, work: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        """See `MemoryStore`."""
        ...


class MemoryTasks:
    """A `SharedTasks` on a `MemoryHub`.

    Args:
        hub: The data.
        me: The id of the store object.
        later: Of the store object.
        keep: Asks for `keep` in time.
    """

    def __init__(self, hub: MemoryHub, me: str, later: Later, keep: Callable[[], None]) -> None:
        self._hub = hub
        self._me = me
        self._later = later
        self._keep = keep
        self._offered: list[tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = []
        self._withdrawn: list[tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = []

    def on_change(self, *, offered: Callable[[], None], withdrawn: Callable[[], None]) -> None:
        """See `SharedTasks.on_change`."""
        loop = asyncio.get_running_loop()
        self._offered.append((loop, offered))
        self._withdrawn.append((loop, withdrawn))

    def tell(self, *, offered: bool, withdrawn: bool) -> None:
        """Somebody has changed the queue."""
        told = (self._offered if offered else []) + (self._withdrawn if withdrawn else [])
        for loop, callback in told:
            loop.call_soon_threadsafe(callback)

    def close(self) -> None:
        """Tell nobody any more."""
        self._offered.clear()
        self._withdrawn.clear()

    async def claim(self, wanted: Mapping[str, int], limit: int) -> list[Claim]:
        """See `SharedTasks.claim`."""
        return await self._later(self._claim, dict(wanted), limit)

    def _claim(self, wanted: dict[str, int], limit: int) -> list[Claim]:
        found: list[MemoryTask] = []
        for name, most in wanted.items():
            free = [one for one in self._hub.tasks.values() if one.row.name == name and not one.deliveries]
            found += free[: min(most, limit - len(found))]
        return [self._take(task) for task in found]

    async def claim_interrupted(self, names: Sequence[str], rooms: Sequence[int]) -> list[Claim]:
        """See `SharedTasks.claim_interrupted`."""
        return await self._later(self._claim_interrupted, frozenset(names), list(rooms))

    def _claim_interrupted(self, names: frozenset[str], rooms: list[int]) -> list[Claim]:
        now = self._hub.clock.now()
        found = [
            task
            for task in self._hub.tasks.values()
            if task.row.name in names
            and task.deliveries
            and (not task.claimer or (task.until is not None and task.until < now))
            and task.claimer != self._me
        ]
        most = max((task.deliveries for task in found), default=0)
        room = rooms[min(most, len(rooms)) - 1]
        return [self._take(task) for task in [one for one in found if one.deliveries == most][:room]]

    def _take(self, task: MemoryTask) -> Claim:
        self._keep()
        task.claimer, task.until = self._me, self._hub.ends()
        task.token += 1
        task.deliveries += 1
        return Claim(task.row, task.deliveries, task.token)

    async def lost(self, claims: Sequence[Claim]) -> list[Claim]:
        """See `SharedTasks.lost`."""
        return await self._later(lambda: [claim for claim in claims if self._mine(claim) is None])

    def _mine(self, claim: Claim) -> MemoryTask | None:
        task = self._hub.tasks.get(claim.row.task_id)
        return task if task is not None and (task.claimer, task.token) == (self._me, claim.token) else None

    async def finish(self, results: Sequence[TaskResult]) -> list[bool]:
        """See `SharedTasks.finish`."""
        return await self._later(self._finish, list(results))

    def _finish(self, results: list[TaskResult]) -> list[bool]:
        mine = [self._mine(result.claim) is not None for result in results]
        done = [result for result, is_mine in zip(results, mine, strict=True) if is_mine]
        for result in done:
            del self._hub.tasks[result.claim.row.task_id]
        if done:
            self._hub.post([result.message for result in done])
        return mine

    async def give_back(self, claims: Sequence[Claim]) -> None:
        """See `SharedTasks.give_back`."""
        await self._later(self._give_back, list(claims))

    def _give_back(self, claims: list[Claim]) -> None:
        self._free([task for claim in claims if (task := self._mine(claim)) is not None])

    def _free(self, held: list[MemoryTask]) -> int:
        for task in held:
            task.let_go()
        if held:
            self._hub.tell_tasks(offered=True, withdrawn=False)
        return len(held)

    async def keep_only(self, claims: Sequence[Claim]) -> int:
        """See `SharedTasks.keep_only`."""
        return await self._later(self._keep_only, {(claim.row.task_id, claim.token) for claim in claims})

    def _keep_only(self, kept: set[tuple[str, int]]) -> int:
        return self._free([task for task in self._held() if (task.row.task_id, task.token) not in kept])

    def _held(self) -> list[MemoryTask]:
        return [task for task in self._hub.tasks.values() if task.claimer == self._me]

    async def of_instance(self, instance_id: str) -> list[TaskInfo]:
        """See `SharedTasks.of_instance`."""
        return await self._later(self._of_instance, instance_id)

    def _of_instance(self, instance_id: str) -> list[TaskInfo]:
        rows = [task for task in self._hub.tasks.values() if task.row.instance_id == instance_id]
        rows.sort(key=lambda task: (task.row.at, task.row.task_id))
        return [TaskInfo(task.row.task_id, task.row.name, task.row.at, task.claimer or None) for task in rows]

    # --- of the store object -----------------------------------------------------------------------------------------

    def keep(self) -> None:
        """Renew what it has claimed."""
        for task in self._held():
            task.until = self._hub.ends()

    def let_go(self) -> None:
        """Give everything back."""
        self._free(self._held())
