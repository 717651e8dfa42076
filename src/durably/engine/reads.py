"""What a partition reads. While it runs, a store that does not answer is asked until it does; nothing else waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from durably.clock import Clock
from durably.core.commit import EntityRow, InboxRow, ParkedMessage, TimerRow
from durably.errors import StoreUnavailableError
from durably.storage.api import Lease, Snapshot, Store, StoredInstance

_log = logging.getLogger("durably.engine")

_DELAY_MAX_US = 2_000_000
"""A store that does not answer is asked every two seconds."""


class Reads:
    """The reads of one partition.

    Args:
        store: Where from.
        lease: By what right.
        clock: For the time between two attempts.
        retry_us: The first of these times; each later one is twice as long, up to two seconds.
        failed: Takes the error of a store that cannot be read.
    """

    def __init__(
        self,
        store: Store,
        lease: Lease,
        clock: Clock,
        retry_us: int,
        failed: Callable[[Exception], None],
    ) -> None:
        self.closed = False
        self._store = store
        self._lease = lease
        self._clock = clock
        self._retry_us = retry_us
        self._failed = failed
        self._under_way: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """True while a read that was begun here is under way."""
        return bool(self._under_way)

    async def snapshot(self, timers_until: int) -> Snapshot:
        """See `Store.load`."""
        return await self._store.load(self._lease, timers_until)

    async def instances(self, instance_ids: list[str]) -> list[StoredInstance | None]:
        """See `Store.read_instances`."""
        return await self._store.read_instances(self._lease, instance_ids)

    async def entities(self, instance_ids: list[str]) -> list[EntityRow | None]:
        """See `Store.read_entities`."""
        return await self._store.read_entities(self._lease, instance_ids)

    async def inbox(self, after: int) -> list[InboxRow]:
        """See `Store.read_inbox`."""
        return await self._store.read_inbox(self._lease, after)

    async def parked(self, message_id: str) -> list[ParkedMessage]:
        """See `Store.read_parked`."""
        return await self._store.read_parked(message_id=message_id)

    async def timers(self, after: int, until: int) -> list[TimerRow]:
        """See `Store.read_timers`."""
        return await self._store.read_timers(self._lease, after, until)

    def begin(self, read: Callable[[], Awaitable[None]]) -> None:
        """Read, again and again until the store answers. Reads overlap with each other and with commits.

        Args:
            read: Reads with the methods above, and deals with what it has read unless `closed` has become true.
        """
        task = asyncio.get_running_loop().create_task(self._patiently(read))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def close(self) -> None:
        """Read nothing more; what is under way is cancelled."""
        self.closed = True
        for task in self._under_way:
            task.cancel()

    async def _patiently(self, read: Callable[[], Awaitable[None]]) -> None:
        delay_us = self._retry_us
        while not self.closed:
            try:
                await read()
            except StoreUnavailableError as error:
                _log.warning("%s could not be read, trying again: %s", self._store.url, error)
                again = asyncio.Event()
                self._clock.call_later(delay_us, again.set)
                await again.wait()
                delay_us = min(2 * delay_us, _DELAY_MAX_US)
            except Exception as error:  # noqa: BLE001 - a store that cannot read cannot be served: the host decides
                if not self.closed:
                    self._failed(error)
                return
            else:
                return
