"""Owners of partitions at the level of the store contract: they commit as an engine does, and keep the books."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from durably.core.commit import Batch
from durably.errors import DurablyError, HubLockedError, LeaseLostError, StoreUnavailableError
from durably.storage.api import Lease
from durably.storage.postgres.store import PostgresStore
from tests.faults.postgres.ledger import Ledger

_AGAIN_S = 0.02
"""A store that is away is asked again so often."""

_FOREVER = 2**62


class Owner:
    """A store object that wants partitions, and commits to those it has.

    Args:
        store: Opened.
        ledger: Shared by all owners of the hub.
        name: For people.

    Attributes:
        counts: "acknowledged", "unavailable", "fenced", "taken", "renewals missed".
        leases: By partition: those that it has, as far as it knows.
    """

    def __init__(self, store: PostgresStore, ledger: Ledger, name: str) -> None:
        self.store = store
        self.name = name
        self.counts: Counter[str] = Counter()
        self.leases: dict[int, Lease] = {}
        self._ledger = ledger

    async def take(self, mine: int) -> Lease:
        """Own a partition, however long that takes. A batch whose outcome was unknown is known then."""
        while True:
            try:
                lease = await self.store.acquire(mine, self.name)
                snapshot = await self.store.load(lease, _FOREVER)
            except (HubLockedError, StoreUnavailableError):
                await asyncio.sleep(_AGAIN_S)
                continue
            self.counts["taken"] += 1
            self.leases[mine] = lease
            self._ledger.loaded(mine, lease.epoch, snapshot.batch)
            return lease

    async def commit(self, mine: int, batch: Batch) -> bool:
        """Send a batch until its outcome is known; False when it was refused, and the partition is not ours any more."""
        lease = self.leases[mine]
        self._ledger.sent(mine, lease.epoch, batch)
        while True:
            try:
                await self.store.commit(lease, batch)
            except StoreUnavailableError:
                self.counts["unavailable"] += 1
                await asyncio.sleep(_AGAIN_S)
                continue
            except LeaseLostError:
                self.counts["fenced"] += 1
                if self.leases.get(mine) == lease:
                    del self.leases[mine]
                return False
            self.counts["acknowledged"] += 1
            self._ledger.acknowledged(mine, lease.epoch)
            return True

    async def work(self, mine: int, is_over: Callable[[], bool], pause_s: float = 0.0) -> None:
        """Commit to one partition whenever it is ours, until it is over."""
        while not is_over():
            if mine not in self.leases:
                await self.take(mine)
            await self.commit(mine, self._ledger.batch(mine))
            await asyncio.sleep(pause_s)

    async def renew(self, every_s: float) -> None:
        """Renew what we have, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            for mine, lease in list(self.leases.items()):
                try:
                    await self.store.renew(lease)
                except LeaseLostError:
                    self.leases.pop(mine, None)
                except DurablyError:
                    self.counts["renewals missed"] += 1
