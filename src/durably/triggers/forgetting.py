"""What was dealt with is kept for a while, so that a message that is sent again is known; then it is deleted.

No timer is involved: what is due goes when the next message comes, and what was left by an earlier host when a host starts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final

import msgspec

from durably.clock import Clock
from durably.core.query import FIRST, PAGE_SIZE_MAX, InstanceQuery, Place
from durably.core.queues import QUEUE, is_of_broker
from durably.core.status import RuntimeStatus
from durably.errors import OperationError, UsageError
from durably.management import Management

_DEALT_WITH: Final = (RuntimeStatus.Completed.value, RuntimeStatus.Terminated.value)

_AT_ONCE: Final = 4
"""Each message that is handed out deletes so many at most: it waits for that, and more would catch up no faster."""

_PAGE: Final = 200

_NOTED_MAX: Final = 50_000
"""So many are kept in mind; those beyond it are looked up when these are gone."""


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
        self._since = clock.now()
        self._done: deque[tuple[int, str]] = deque()
        self._more = False

    def note(self, instance_id: str) -> None:
        """A message has been dealt with."""
        if not self._keep_us:
            return
        if len(self._done) < _NOTED_MAX:
            self._done.append((self._due(instance_id, self._clock.now()), instance_id))
        else:
            self._more = True

    async def forget_due(self) -> None:
        """Delete a few that are due. A hub that takes nothing now keeps them: it is asked again."""
        with suppress(OperationError):
            if self._more and not self._done:
                await self._look_up()
            now, due = self._clock.now(), list[str]()
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
        while after is not None and not self._more:
            rows, after = await self._management.query(msgspec.structs.replace(query, after=after))
            now = self._clock.now()
            dues = [(self._due(row.instance_id, row.updated_at), row.instance_id) for row in rows]
            await self._purge([instance_id for due, instance_id in dues if due <= now])
            self._done.extend(one for one in dues if one[0] > now)
            self._more = len(self._done) >= _NOTED_MAX

    def _due(self, instance_id: str, done_at: int) -> int:
        """While no host ran, brokers delivered nothing: what they may deliver again is kept for as long once one runs."""
        if self._name == QUEUE and is_of_broker(instance_id):
            done_at = max(done_at, self._since)
        return done_at + self._keep_us

    async def _look_up(self) -> None:
        """Note those that are due and were too many to be kept in mind."""
        query = InstanceQuery(
            name=self._name,
            statuses=_DEALT_WITH,
            updated_to=self._clock.now() - self._keep_us,
            payloads=False,
            page_size=PAGE_SIZE_MAX,
        )
        found = await self._management.query(query)
        self._done.extend((self._due(row.instance_id, row.updated_at), row.instance_id) for row in found.rows)
        self._more = bool(self._done)

    async def _purge(self, instance_ids: list[str]) -> None:
        await asyncio.gather(*(self._purge_one(instance_id) for instance_id in instance_ids))

    async def _purge_one(self, instance_id: str) -> None:
        try:
            await self._management.purge(instance_id)
        except UsageError:
            pass  # it was sent once more, and is not dealt with yet
