"""A store that is slow, fails and leaves its caller in doubt, by seed; and that looks after every commit."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from durably.core.commit import Batch, TimerRow
from durably.errors import StoreFailedError, StoreUnavailableError
from durably.storage.api import Lease, Snapshot, StoredInstance
from durably.storage.memory import MemoryHub, MemoryStore

T = TypeVar("T")


@dataclass
class FaultRates:
    """How often what goes wrong, as probabilities per call.

    Attributes:
        unavailable: The call fails and nothing was changed.
        doubtful: A commit is applied, and its caller is told that it failed.
        failed: A commit fails, and so does everything after it: the host has to go.
        slow: The call takes up to `slow_s`.
        slow_s: See `slow`.
    """

    unavailable: float = 0.05
    doubtful: float = 0.05
    failed: float = 0.01
    slow: float = 0.1
    slow_s: float = 0.3

    def stop(self) -> None:
        """From now on nothing goes wrong."""
        self.unavailable = self.doubtful = self.failed = self.slow = 0.0


class SimStore(MemoryStore):
    """A memory store with faults.

    Args:
        hub: The data.
        rates: What goes wrong how often; shared, so that it can be changed for all.
        chance: Decides.
        faults: Counts what went wrong, by name; shared.
        applied: Called with each batch once it is applied, before its sender knows.
    """

    def __init__(
        self,
        hub: MemoryHub,
        rates: FaultRates,
        chance: random.Random,
        faults: Counter[str],
        applied: Callable[[Batch], None],
    ) -> None:
        super().__init__(hub)
        self._rates = rates
        self._chance = chance
        self._faults = faults
        self._on_applied = applied
        self._dead = False

    def commit(self, lease: Lease, batch: Batch) -> asyncio.Future[None]:
        """See `Store.commit`."""
        return asyncio.ensure_future(self._commit(lease, batch))

    async def _commit(self, lease: Lease, batch: Batch) -> None:
        await self._delay()
        self._refuse_when_dead()
        if self._happens("unavailable"):
            raise StoreUnavailableError("simulated: nothing was written")
        if self._happens("failed"):
            self._dead = True
            if self._chance.random() < 0.5:
                await self._apply_batch(lease, batch)
            raise StoreFailedError("simulated: the disk is gone")
        await self._apply_batch(lease, batch)
        await self._delay()
        if self._happens("doubtful"):
            raise StoreUnavailableError("simulated: the answer was lost")

    async def _apply_batch(self, lease: Lease, batch: Batch) -> None:
        partition = self.hub.partitions[lease.partition]
        known = partition.batch
        await super().commit(lease, batch)
        if partition.batch != known:
            self._on_applied(batch)

    async def load(self, lease: Lease, timers_until: int) -> Snapshot:
        """See `Store.load`."""
        return await self._with_faults(super().load(lease, timers_until))

    def read_instances(
        self, lease: Lease, instance_ids: Sequence[str]
    ) -> asyncio.Future[list[StoredInstance | None]]:
        """See `Store.read_instances`."""
        return asyncio.ensure_future(self._with_faults(super().read_instances(lease, instance_ids)))

    def read_timers(self, lease: Lease, after: int, until: int) -> asyncio.Future[list[TimerRow]]:
        """See `Store.read_timers`."""
        return asyncio.ensure_future(self._with_faults(super().read_timers(lease, after, until)))

    async def _with_faults(self, call: Awaitable[T]) -> T:
        answer = await call
        await self._delay()
        self._refuse_when_dead()
        if self._happens("unavailable"):
            raise StoreUnavailableError("simulated: the store did not answer")
        return answer

    def _refuse_when_dead(self) -> None:
        if self._dead:
            raise StoreFailedError("simulated: the disk is gone")

    def _happens(self, name: str) -> bool:
        if self._chance.random() >= getattr(self._rates, name):
            return False
        self._faults[name] += 1
        return True

    async def _delay(self) -> None:
        longest_s = 0.002
        if self._happens("slow"):
            longest_s = self._rates.slow_s
        await asyncio.sleep(self._chance.random() * longest_s)
