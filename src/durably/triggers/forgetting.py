"""What was dealt with is kept for a while, so that a message that is sent again is known; then it is deleted.

No timer is involved: what is due goes when the next message comes, and what was left by an earlier host when a host starts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

import msgspec

from durably.clock import Clock
from durably.core.query import FIRST, InstanceQuery, Place
from durably.core.status import RuntimeStatus
from durably.errors import UsageError
from durably.management import Management

_DEALT_WITH: Final = (RuntimeStatus.Completed.value, RuntimeStatus.Terminated.value)

_AT_ONCE: Final = 4
"""Each message that is handed out deletes so many at most: it waits for that, and more would catch up no faster."""

_PAGE: Final = 200


class Forgetting:
    """Deletes messages, runs of timers and notices, some time after they were dealt with.

    Args:
        management: Of the hub.
        clock: Says when they are due.
        keep_us: How long they are kept; 0: for ever, like any other instance.
        name: Of the orchestrator of what is deleted.
    """

    def __init__(self, management: Management, clock: Clock, keep_us: int, name: str) -> None:
        self._management = management
        self._clock = clock
        self._keep_us = keep_us
        self._name = name
        self._done: deque[tuple[int, str]] = deque()

    def note(self, instance_id: str) -> None:
        """A message has been dealt with."""
        if self._keep_us:
            self._done.append((self._clock.now() + self._keep_us, instance_id))

    async def forget_due(self) -> None:
        """Delete a few that are due."""
        due: list[str] = []
        now = self._clock.now()
        while self._done and self._done[0][0] <= now and len(due) < _AT_ONCE:
            due.append(self._done.popleft()[1])
        if due:
            await self._purge(due)

    async def forget_old(self) -> None:
        """Delete all that are due, and note those that will be: what an earlier host has left."""
        if not self._keep_us:
            return
        query = InstanceQuery(name=self._name, statuses=_DEALT_WITH, payloads=False, page_size=_PAGE)
        after: Place | None = FIRST
        while after is not None:
            rows, after = await self._management.query(msgspec.structs.replace(query, after=after))
            limit = self._clock.now() - self._keep_us
            await self._purge([row.instance_id for row in rows if row.updated_at <= limit])
            self._done.extend(
                (row.updated_at + self._keep_us, row.instance_id) for row in rows if row.updated_at > limit
            )

    async def _purge(self, instance_ids: list[str]) -> None:
        await asyncio.gather(*(self._purge_one(instance_id) for instance_id in instance_ids))

    async def _purge_one(self, instance_id: str) -> None:
        try:
            await self._management.purge(instance_id)
        except UsageError:
            pass  # it was sent once more, and is not dealt with yet
