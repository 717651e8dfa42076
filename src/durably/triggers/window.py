"""How much of a broker's queue a host takes over before it gets round to it: no more than it can do soon."""

from __future__ import annotations

import asyncio

from durably.clock import Clock
from durably.core.status import RuntimeStatus
from durably.errors import OperationError
from durably.management import Management

_PATIENCE_US = 5_000_000
"""A full window that does not move for so long is looked through; then twice as long, and so on."""

_PATIENCE_MAX_US = 300_000_000

_COMING = (RuntimeStatus.Pending.value, RuntimeStatus.Running.value)


class Window:
    """Messages that were taken over and have not had their first try yet.

    Those that are tried again leave it: however many wait for their next try, what comes is taken.

    Args:
        limit: So many at most.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open: set[str] = set()
        self._moved = asyncio.Event()

    def __len__(self) -> int:
        return len(self._open)

    def enter(self, instance_id: str) -> None:
        """A message is being taken over."""
        self._open.add(instance_id)

    def leave(self, instance_id: str) -> None:
        """It was tried, or is not taken over after all. Harmless for one that is not in it."""
        self._open.discard(instance_id)
        self._moved.set()

    async def room(self, management: Management, clock: Clock) -> int:
        """Wait until there is room; how many may enter."""
        patience_us = _PATIENCE_US
        while len(self._open) >= self.limit:
            self._moved.clear()
            wakeup = clock.call_later(patience_us, self._moved.set)
            try:
                await self._moved.wait()
            finally:
                wakeup.cancel()
            if len(self._open) >= self.limit:
                await self._drop_gone(management)
                patience_us = min(2 * patience_us, _PATIENCE_MAX_US)
        return self.limit - len(self._open)

    async def _drop_gone(self, management: Management) -> None:
        """Somebody deleted, suspended or parked messages before their first try: nobody says so."""
        for instance_id in list(self._open):
            try:
                row = await management.get(instance_id, payloads=False)
            except OperationError:
                return
            if row is None or row.status not in _COMING or row.parked or row.blocked:
                self.leave(instance_id)
