"""Stores in memory that fail, or answer late, when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from durably.core.commit import Batch, TimerRow
from durably.storage.api import Lease, StoredInstance
from durably.storage.memory import MemoryHub, MemoryStore


class FaultyStore(MemoryStore):
    """A `MemoryStore` with hooks around its calls.

    Attributes:
        before: Called with the name of each call of the owner; raising fails it, with nothing applied.
        after: As `before`, once the call was applied: raising loses the answer.
        hold: Commits are applied when it is set.
        gate: Commits are answered when it is set.
        commits: Every batch that was applied, in order.
    """

    def __init__(self, hub: MemoryHub | None = None) -> None:
        super().__init__(hub)
        self.before: Callable[[str], None] = lambda call: None
        self.after: Callable[[str], None] = lambda call: None
        self.hold: asyncio.Event | None = None
        self.gate: asyncio.Event | None = None
        self.commits: list[Batch] = []

    def commit(self, lease: Lease, batch: Batch) -> Any:
        async def applied() -> None:
            if self.hold is not None:
                await self.hold.wait()
            await MemoryStore.commit(self, lease, batch)
            self.commits.append(batch)
            if self.gate is not None:
                await self.gate.wait()

        return self._around("commit", applied)

    def read_instances(
        self, lease: Lease, instance_ids: Sequence[str]
    ) -> asyncio.Future[list[StoredInstance | None]]:
        return self._around("read_instances", lambda: MemoryStore.read_instances(self, lease, instance_ids))

    def read_timers(self, lease: Lease, after: int, until: int) -> asyncio.Future[list[TimerRow]]:
        return self._around("read_timers", lambda: MemoryStore.read_timers(self, lease, after, until))

    def _around(self, name: str, call: Callable[[], Awaitable[Any]]) -> asyncio.Future[Any]:
        async def run() -> Any:
            self.before(name)
            answer = await call()
            self.after(name)
            return answer

        return asyncio.ensure_future(run())


def fail_times(count: int, error: Callable[[], Exception], *calls: str) -> Callable[[str], None]:
    """A hook that raises for the first `count` of some calls."""
    left = [count]

    def hook(call: str) -> None:
        if call in calls and left[0]:
            left[0] -= 1
            raise error()

    return hook
