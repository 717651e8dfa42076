"""One host of an environment, from its start to its end or its death, and the store between it and the hub."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Callable
from typing import Any, Protocol, cast

from durably.app import App
from durably.bindings.blobs.accounts import BlobAccounts
from durably.bindings.connections import Connections
from durably.bindings.outlets import Outlets
from durably.client import Client
from durably.client.declaring import declare
from durably.core.commit import Batch
from durably.core.messages import ActivityDone
from durably.engine.host import Host
from durably.engine.operations import Operations
from durably.engine.options import EngineOptions
from durably.engine.residents import Delivery
from durably.errors import NonDeterminismError
from durably.executors.native import NativeExecutor, NativeOptions
from durably.program.run import ProgramOptions
from durably.storage.api import Lease, Store
from durably.storage.memory import MemoryHub, MemoryStore
from durably.storage.open import open_store
from durably.testing.clock import VirtualClock
from durably.testing.sim_loop import SimRandom
from durably.testing.stage import Plot, StagedExecutor
from durably.triggers.trigger_host import TriggerHost

_ROUNDS = 4
"""Rounds of the event loop in which an acknowledgement reaches its caller."""

_PATIENCE_S = 2.0
"""Real seconds after which what a stopping host waits for is over."""


class Hub(Protocol):
    """Something that outlives its hosts."""

    def store(self) -> Store:
        """A new store object on it, not open."""
        ...


class HubInMemory:
    """A hub that lives as long as its environment."""

    def __init__(self) -> None:
        self._hub = MemoryHub()

    def store(self) -> Store:
        """See `Hub.store`."""
        return MemoryStore(self._hub)


class HubAtUrl:
    """A hub in a file."""

    def __init__(self, url: str) -> None:
        self._url = url

    def store(self) -> Store:
        """See `Hub.store`."""
        return open_store(self._url)


class Surroundings(Protocol):
    """What a life tells its environment."""

    def dies(self, life: Life) -> None:
        """The process is to end where it stands."""
        ...

    def mismatch(self, error: NonDeterminismError) -> None:
        """Code and history differ."""
        ...


class Life:
    """A host, and what stands between it and the functions of the app, and between it and its hub."""

    def __init__(
        self,
        app: App,
        hub: Hub,
        around: Surroundings,
        *,
        options: EngineOptions,
        clock: VirtualClock,
        chance: random.Random,
        plot: Plot,
    ) -> None:
        # A test must not find the blobs that lie on the machine.
        triggers = self._triggers = TriggerHost(
            app, app.converter, options.function_timeout_s, None, looks=False
        )
        native = NativeExecutor(
            app.registry,
            app.converter,
            NativeOptions(
                threads=options.activity_threads,
                processes=options.activity_processes,
                slow_turn_s=options.slow_turn_s,
                program=ProgramOptions(actions_max=options.max_actions),
            ),
            triggers.builtins,
        )
        self.executor = StagedExecutor(
            native, plot, clock, die=self.dies, redeliver=self._redeliver, mismatch=around.mismatch
        )
        self._gate = _Gate(hub.store(), self._committed)
        self._around = around
        self._plot = plot
        self._clock = clock
        self.engine = Host(cast("Store", self._gate), self.executor, options, clock, SimRandom(chance))
        self.operations = Operations(self.engine)
        client = Client.of(self.operations, app.registry, app.converter, clock, self.engine.random)
        self._connections, self._blobs = Connections(clock), BlobAccounts(self.engine.store.url)
        outlets = Outlets(client, self._connections, self._blobs, app.converter)
        triggers.connect(
            client, self.operations, clock, self.engine.random, options.queue_keep_s, outlets=outlets
        )
        self._schedules = app.schedules
        self._death = asyncio.Event()
        self.is_over = False
        """Whoever called it has to turn to the next one."""

    def _redeliver(self, instance_id: str, done: ActivityDone) -> None:
        if self.engine.partition is not None:
            self.engine.partition.deliver(Delivery(instance_id, done))

    def _committed(self) -> None:
        if not self.is_over and self._plot.faults.strikes("commit"):
            self.dies()

    def dies(self) -> None:
        """From now on no user code begins, and nothing becomes durable; the environment does the rest."""
        if not (self.is_dying or self.is_over):
            self._gate.frozen = self.executor.frozen = True
            self._death.set()
            self._around.dies(self)

    @property
    def is_dying(self) -> bool:
        """True from the moment when it was told to die."""
        return self._gate.frozen

    @property
    def is_idle(self) -> bool:
        """True when it has nothing to do before the clock moves."""
        partition = self.engine.partition
        gate = self._gate
        if partition is None or gate.frozen:
            return False
        return partition.quiet and not (self.executor.busy or gate.asked)

    async def start(self) -> None:
        """Open the hub and go on with what is in flight."""
        self._triggers.check()
        await self.engine.start()
        self._triggers.start()
        declaring = asyncio.get_running_loop().create_task(declare(self.operations, self._schedules))
        death = asyncio.get_running_loop().create_task(self._death.wait())
        try:
            await asyncio.wait([declaring, death], return_when=asyncio.FIRST_COMPLETED)
            if not self.is_dying:
                await declaring
        finally:
            declaring.cancel()
            death.cancel()

    async def stop(self) -> None:
        """End in order. What runs is cancelled, and runs again when the hub is served next."""
        self.is_over = True
        await self._triggers.stop()
        loop = asyncio.get_running_loop()
        stopping = loop.create_task(self.engine.stop(0))
        while not stopping.done():
            await asyncio.wait([stopping], timeout=_PATIENCE_S)
            if not stopping.done():
                self._clock.advance(60)
        stopping.result()
        await self._let_go()

    async def die(self) -> None:
        """End as a killed process does: callers learn of what is durable, and of nothing else; no activity ends."""
        await self._gate.lands()
        for _ in range(_ROUNDS):
            await asyncio.sleep(0)
        self.is_over = True
        await self._triggers.stop()
        self.engine.abandon()
        await asyncio.sleep(0)
        await self.engine.executor.close()
        await self._gate.vanish()
        await self._let_go()

    async def _let_go(self) -> None:
        await self._connections.close()
        await self._blobs.close()


class _Gate:
    """A store that lets no batch through any more once it is frozen, and knows how many questions are open."""

    def __init__(self, store: Store, committed: Callable[[], None]) -> None:
        self.frozen = False
        self._store = store
        self._committed = committed
        self._on_its_way: asyncio.Future[None] | None = None
        self.asked = 0
        """Questions that the store has not answered yet: whoever asks does not wait for time to pass."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def ask(*arguments: Any, **named: Any) -> Any:
            self.asked += 1
            try:
                return await found(*arguments, **named)
            finally:
                self.asked -= 1

        return ask

    def commit(self, lease: Lease, batch: Batch) -> asyncio.Future[None]:
        """See `Store.commit`."""
        if self.frozen:
            return asyncio.get_running_loop().create_future()
        sent = self._on_its_way = asyncio.ensure_future(self._store.commit(lease, batch))
        sent.add_done_callback(self._sent)
        return sent

    def _sent(self, sent: asyncio.Future[None]) -> None:
        """Called before whoever sent it knows: he goes on at once."""
        self._on_its_way = None
        if not self.frozen and not sent.cancelled() and sent.exception() is None:
            self._committed()

    async def lands(self) -> None:
        """Return when no batch is on its way."""
        if self._on_its_way is not None:
            await asyncio.wait([self._on_its_way])

    async def vanish(self) -> None:
        """Let go without a word, as a process does that dies."""
        if isinstance(self._store, MemoryStore):
            self._store.abandon()
        else:
            await self._store.close()
