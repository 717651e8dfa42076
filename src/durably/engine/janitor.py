"""Deletes finished instances that have been kept long enough: a few at a time, so that nobody notices."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from durably.clock import Clock
from durably.core.messages import MessageBody, Purge
from durably.core.query import FIRST, InstanceQuery, Place
from durably.core.status import TERMINAL
from durably.errors import (
    HubClosedError,
    InstanceNotFoundError,
    InstanceStateError,
    NotServedHereError,
    OperationError,
)
from durably.storage.api import Store

_log = logging.getLogger("durably.engine")

_FINISHED = tuple(sorted(TERMINAL))

PAGE = 200
"""Instances looked up at once."""

REST = 4
"""After each page it rests four times as long as the page took: at most a fifth of the time is spent on it.

Where that is not enough, because more ends than is deleted, it rests less and less: a hub must not grow for ever.
"""

REST_MIN_US, REST_MAX_US = 2_000, 1_000_000
"""The clock may jump in between."""

_INTERVAL_MAX_US = 60_000_000
_INTERVAL_MIN_US = 100_000


class Janitor:
    """Retention: sees to it that a hub does not grow for ever.

    Args:
        store: Where finished instances are looked up.
        submit: Sends a message to an instance and returns when what it did is durable.
        pause: Sleeps for some microseconds by the engine's clock.
        clock: Says how old an instance is.
        keep_us: How long a finished instance is kept, from its end.
        serves: Whether an instance is this host's to delete.
    """

    def __init__(
        self,
        store: Store,
        submit: Callable[[str, MessageBody], Awaitable[object]],
        pause: Callable[[int], Awaitable[None]],
        clock: Clock,
        keep_us: int,
        *,
        serves: Callable[[str], bool],
    ) -> None:
        self._store = store
        self._submit = submit
        self._pause = pause
        self._clock = clock
        self._keep_us = keep_us
        self._serves = serves
        self._interval_us = max(_INTERVAL_MIN_US, min(_INTERVAL_MAX_US, keep_us // 10))

    async def work(self) -> None:
        """Look for what is due, now and then, until cancelled."""
        while True:
            try:
                deleted = await self._sweep()
            except HubClosedError:
                return
            except OperationError as error:  # the host deals with a store in trouble
                _log.warning("retention of %s waits: %s", self._store.url, error)
            except Exception:  # noqa: BLE001 - a task that nobody awaits must not end unseen
                _log.exception("retention of %s failed inside the engine, trying again", self._store.url)
            else:
                if deleted:
                    _log.info("retention of %s: %d finished instances deleted", self._store.url, deleted)
            await self._pause(self._interval_us)

    async def _sweep(self) -> int:
        """Delete all that is due. Oldest first; what was created later than the limit cannot be due."""
        deleted = 0
        after: Place | None = FIRST
        while after is not None:
            began = self._clock.now()
            limit = began - self._keep_us
            query = InstanceQuery(
                statuses=_FINISHED,
                created_to=limit,
                updated_to=limit,
                payloads=False,
                page_size=PAGE,
                after=after,
            )
            found, after = await self._store.query(query)
            rows = [row for row in found if self._serves(row.instance_id)]
            # All at once: they become durable together.
            deleted += sum(await asyncio.gather(*(self._purge(row.instance_id) for row in rows)))
            overdue_us = max((limit - row.updated_at for row in rows), default=0)
            await self._pause(self._rest_us(self._clock.now() - began, overdue_us))
        return deleted

    def _rest_us(self, took_us: int, overdue_us: int) -> int:
        """How long to rest after a page whose oldest instance has been due for some time."""
        behind = min(1.0, overdue_us / (self._keep_us + self._interval_us))
        return max(REST_MIN_US, min(int(REST * took_us * (1 - behind)), REST_MAX_US))

    async def _purge(self, instance_id: str) -> int:
        try:
            await self._submit(instance_id, Purge())
        except (InstanceNotFoundError, InstanceStateError, NotServedHereError):
            return 0  # somebody was quicker, or started it again, or its partition has just gone
        return 1
