"""The management protocol of whoever is alive: calls outlive the host that they were made to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from durably.clock import Random
from durably.errors import HubClosedError
from durably.testing.life import Life
from durably.testing.pace import Pace

_FOLLOWING = frozenset(("wait", "outcome", "call_entity"))
"""Calls that are over when an instance is: whoever makes them wants time to pass. All others need none."""


class _Pending:
    __slots__ = ("error", "follows", "task")

    def __init__(self, task: asyncio.Task[Any], *, follows: bool) -> None:
        self.task = task
        self.follows = follows
        self.error: Exception | None = None


class Gateway:
    """Implements `durably.management.Management` by way of the host that lives now.

    A call that a death interrupts is made again to the next host. That is exact: what the dead host had made durable it had
    acknowledged (see `Life.die`), so what was not answered was not applied.

    Args:
        alive: Returns the host, once there is one.
        pace: Skips idle time for those who follow an instance.
        random: Source of the ids of instances.
        auto_skip: That they do.
    """

    def __init__(
        self, alive: Callable[[], Awaitable[Life]], pace: Pace, random: Random, *, auto_skip: bool
    ) -> None:
        self._alive = alive
        self._random = random
        self._pace = pace
        self._auto_skip = auto_skip
        self._pending: set[_Pending] = set()
        self._trouble: Exception | None = None
        self.commands = 0
        """Calls under way that are no waits."""
        self.told = False
        """Somebody has learned of what failed for good."""

    def new_instance_id(self) -> str:
        """See `Management.new_instance_id`."""
        return self._random.token()

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        if name.startswith("_"):
            raise AttributeError(name)

        async def call(*arguments: Any, **named: Any) -> Any:
            if name not in _FOLLOWING:
                self.commands += 1
                try:
                    return await self._call(name, arguments, named)
                finally:
                    self.commands -= 1
            if not self._auto_skip:
                return await self._call(name, arguments, named)
            with self._pace.waiting():
                return await self._call(name, arguments, named)

        return call

    async def _call(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        while True:
            life = await self._alive()
            if self._trouble is not None and name in _FOLLOWING:
                self.told = True
                raise self._trouble
            work = getattr(life.operations, name)(*arguments, **named)
            task = asyncio.get_running_loop().create_task(work)
            pending = _Pending(task, follows=name in _FOLLOWING)
            self._pending.add(pending)
            try:
                return await task
            except asyncio.CancelledError:
                if pending.error is not None:
                    self.told |= pending.error is self._trouble
                    raise pending.error from None
                if not life.is_over or _is_cancelled():
                    raise
            except HubClosedError:
                if not life.is_over:
                    raise
            finally:
                self._pending.discard(pending)

    def lost(self) -> None:
        """The host has died: whoever waits for it turns to the next one."""
        for pending in list(self._pending):
            pending.task.cancel()

    def fail(self, error: Exception, *, for_good: bool = True) -> None:
        """Tell all who follow an instance, from now on too if it is for good."""
        if for_good and self._trouble is None:
            self._trouble = error
        for pending in list(self._pending):
            if pending.follows and not pending.task.done():
                pending.error = error
                pending.task.cancel()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and bool(task.cancelling())
