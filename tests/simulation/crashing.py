"""Hosts that die at a chosen commit or recovery, and the next ones, until the work is done."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from durably.app import App, AppHost
from durably.codec.keys import EncryptionKeys
from durably.codec.wrap import Box
from durably.core.commit import Batch
from durably.core.invariants import check_instance
from durably.core.status import TERMINAL
from durably.engine.options import EngineOptions
from durably.errors import OperationError
from durably.storage.api import Lease, Snapshot, StoredInstance
from durably.storage.memory import MemoryHub, MemoryStore
from durably.storage.wrapped import WrappedStore
from durably.storage.wrapping import Wrapping
from durably.testing.sim_entity_checks import check_entities, check_section
from durably.testing.sim_loop import SimClock, SimLoop, SimRandom

KEYS = EncryptionKeys({"k1": bytes(range(32))})


class CrashError(BaseException):
    """The process is gone."""


class CrashStore(MemoryStore):
    """Dies at the k-th call of one kind."""

    def __init__(self, hub: MemoryHub, reach: Callable[[str], None]) -> None:
        super().__init__(hub)
        self._reach = reach

    def commit(self, lease: Lease, batch: Batch) -> asyncio.Future[None]:
        return asyncio.ensure_future(self._commit(lease, batch))

    async def _commit(self, lease: Lease, batch: Batch) -> None:
        self._reach("before commit")
        await super().commit(lease, batch)
        check_hub(self.hub)
        self._reach("after commit")

    async def load(self, lease: Lease, timers_until: int) -> Snapshot:
        self._reach("before recovery")
        snapshot = await super().load(lease, timers_until)
        self._reach("after recovery")
        return snapshot


def check_hub(hub: MemoryHub) -> None:
    """All that must hold after any commit, of instances, entities and locks."""
    plain = opened(hub)
    for instance_id, (_, row) in plain.instances.items():
        timers = [timer for timer in plain.timers.values() if timer.instance_id == instance_id]
        inbox = [message for message in plain.inbox.values() if message.instance_id == instance_id]
        events = check_instance(row, plain.history_of(row), timers, inbox)
        if row.status not in TERMINAL:
            check_section(plain, instance_id, events)
    check_entities(plain)


def opened(hub: MemoryHub) -> MemoryHub:
    """The same hub as if nothing in it were compressed or encrypted."""
    wrapping = Wrapping(1, Box(KEYS, hub.hub_id, os.urandom) if hub.keys else None)
    plain = MemoryHub()
    plain.timers = hub.timers
    plain.inbox = {key: wrapping.message(message) for key, message in hub.inbox.items()}
    plain.entities = {key: wrapping.entity(row) for key, row in hub.entities.items()}
    for instance_id, (position, row) in hub.instances.items():
        used = wrapping.stored_instance(StoredInstance(row, hub.history_of(row), []))
        plain.instances[instance_id] = (position, used.row)
        plain.history[plain.execution_of(instance_id, row.execution)] = used.history
    return plain


class Scenario:
    """Some work, one crash point, as many hosts as it takes.

    Args:
        loop: The time in which it happens.
        point: Before or after the commit or the recovery; "" for no crash at all.
        k: Which one of them.
        keys: Encrypts the hub.

    Attributes:
        fired: How often the host died there.
    """

    def __init__(self, loop: SimLoop, point: str, k: int, *, keys: EncryptionKeys | None = None) -> None:
        self.keys = keys
        self.point, self.k = point, k
        self.clock = SimClock(loop)
        self.random = SimRandom(random.Random(7))
        self.hub = MemoryHub()
        self.reached: Counter[str] = Counter()
        self.crashed = asyncio.Event()
        self.fired = 0
        self.app = self.build()

    def build(self) -> App:
        """What the hosts serve."""
        raise NotImplementedError

    async def drive(self, host: AppHost) -> Any:
        """Be the client, from the beginning, of each host anew; returns what came of it."""
        raise NotImplementedError

    def reach(self, point: str) -> None:
        """Die at the k-th arrival."""
        self.reached[point] += 1
        if point == self.point and self.reached[point] == self.k:
            self.fired += 1
            self.crashed.set()
            raise CrashError

    async def run(self) -> Any:
        for _ in range(4):
            host = await self._boot()
            if host is None:
                continue
            work = asyncio.create_task(self.drive(host))
            crash = asyncio.create_task(self.crashed.wait())
            await asyncio.wait({work, crash}, return_when=asyncio.FIRST_COMPLETED)
            if work.done() and not self.crashed.is_set():
                crash.cancel()
                result = await work
                await host.stop()
                return result
            self._die(host)
            work.cancel()
            await asyncio.gather(work, crash, return_exceptions=True)
        raise AssertionError("it never came to an end")

    async def _boot(self) -> AppHost | None:
        self.crashed = asyncio.Event()
        options = EngineOptions(turns_per_batch=3, max_resident_instances=3, slow_turn_s=0)
        store = WrappedStore(CrashStore(self.hub, self.reach), self.keys, compress_above=1)
        host = AppHost(self.app, store, options, self.clock, self.random)
        try:
            await host.start()
        except (CrashError, OperationError):
            self._die(host)
            return None
        return host

    @staticmethod
    def _die(host: AppHost) -> None:
        host.engine.abandon()
        store = host.engine.store
        assert isinstance(store, WrappedStore)
        assert isinstance(store.inner, MemoryStore)
        store.inner.abandon()


S = TypeVar("S", bound=Scenario)


def play(make: Callable[[SimLoop], S]) -> tuple[Any, S]:
    """What came of a scenario, and the scenario."""
    loop = SimLoop()
    loop.set_exception_handler(lambda loop, context: None)  # the crash surfaces in callbacks that die with it
    made: list[S] = []

    async def main() -> Any:
        made.append(make(loop))
        return await made[0].run()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(main())
    return result, made[0]
