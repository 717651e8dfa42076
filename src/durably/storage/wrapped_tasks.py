"""The queue of activities that all hosts share, around another one: what calls are about is compressed and encrypted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from durably.core.shared_tasks import TaskInfo
from durably.storage.shared_tasks import Claim, SharedTasks, TaskResult
from durably.storage.wrapping import Wrapping


class WrappedTasks:
    """A `SharedTasks` of a `WrappedStore`.

    Args:
        tasks: Where the rows are.
        wrapping: Of the store.
    """

    def __init__(self, tasks: SharedTasks, wrapping: Wrapping) -> None:
        self._tasks = tasks
        self._wrapping = wrapping

    def on_change(self, *, offered: Callable[[], None], withdrawn: Callable[[], None]) -> None:
        """See `SharedTasks.on_change`."""
        self._tasks.on_change(offered=offered, withdrawn=withdrawn)

    async def claim(self, wanted: Mapping[str, int], limit: int) -> list[Claim]:
        """See `SharedTasks.claim`."""
        return self._opened(await self._tasks.claim(wanted, limit))

    async def claim_interrupted(self, names: Sequence[str], rooms: Sequence[int]) -> list[Claim]:
        """See `SharedTasks.claim_interrupted`."""
        return self._opened(await self._tasks.claim_interrupted(names, rooms))

    def _opened(self, claims: Sequence[Claim]) -> list[Claim]:
        return [claim._replace(row=self._wrapping.task(claim.row)) for claim in claims]

    async def lost(self, claims: Sequence[Claim]) -> list[Claim]:
        """See `SharedTasks.lost`."""
        return await self._tasks.lost(claims)

    async def finish(self, results: Sequence[TaskResult]) -> list[bool]:
        """See `SharedTasks.finish`."""
        messages = self._wrapping.messages([result.message for result in results])
        wrapped = [
            result._replace(message=message) for result, message in zip(results, messages, strict=True)
        ]
        return await self._tasks.finish(wrapped)

    async def give_back(self, claims: Sequence[Claim]) -> None:
        """See `SharedTasks.give_back`."""
        await self._tasks.give_back(claims)

    async def keep_only(self, claims: Sequence[Claim]) -> int:
        """See `SharedTasks.keep_only`."""
        return await self._tasks.keep_only(claims)

    async def of_instance(self, instance_id: str) -> list[TaskInfo]:
        """See `SharedTasks.of_instance`."""
        return await self._tasks.of_instance(instance_id)
