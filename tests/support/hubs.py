"""One hub that several hosts open one after the other: deployments, crashes, downtime."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from durably.client import Client
from durably.client.connection import Connection
from durably.client.outside import OutsideOperations
from durably.errors import HubClosedError
from durably.storage.api import Store
from durably.storage.memory import MemoryHub, MemoryStore
from durably.storage.open import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from durably import App, AppHost


class Hub(Protocol):
    """Something that outlives its hosts."""

    def store(self) -> Store:
        """A new store object on it, not open."""
        ...


class MemoryHubOfTest:
    """A hub in memory; a host that crashes on it leaves nothing behind but what was committed."""

    def __init__(self, *, exclusive: bool = True) -> None:
        self.hub = MemoryHub(exclusive=exclusive)

    def store(self) -> MemoryStore:
        return MemoryStore(self.hub)


class FileHub:
    """A hub in a SQLite file."""

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}"

    def store(self) -> Store:
        return open_store(self.url)


class Deployment:
    """Starts hosts on one hub, and sees to it that none outlives its test.

    Args:
        hub: What they open.
        outside: `host.client` is that of another process: it has a store object of its own, and the inbox between.
    """

    def __init__(self, hub: Hub, *, outside: bool = False) -> None:
        self.hub = hub
        self.outside = outside
        self._live: list[AppHost] = []
        self._connections: list[Connection] = []

    async def start(self, app: App, **options: Any) -> AppHost:
        """A running host of the app; `options` are those of `App.host`, and `store` to use instead of a new one."""
        store = options.pop("store", None) or self.hub.store()
        host = app.host(store, **options)
        await host.start()
        self._live.append(host)
        if self.outside:
            self._put_outside(host, app)
        return host

    def _put_outside(self, host: AppHost, app: App) -> None:
        connection = Connection(self.hub.store())
        clock, random = host.engine.clock, host.engine.random
        operations = OutsideOperations(connection, clock, random)
        host.client = Client.of(operations, app.registry, app.converter, clock, random)
        self._connections.append(connection)

    async def stop(self, host: AppHost) -> None:
        """An orderly end."""
        self._live.remove(host)
        await host.stop()

    async def crash(self, host: AppHost) -> None:
        """The process dies: no drain, no commit, no result of what is running."""
        if host in self._live:
            self._live.remove(host)
        await crash(host)

    async def restart(self, host: AppHost, app: App, **options: Any) -> AppHost:
        """Stop in order, and start the app (another one is a new deployment)."""
        await self.stop(host)
        return await self.start(app, **options)

    async def recover(self, host: AppHost, app: App, **options: Any) -> AppHost:
        """Crash, and start again."""
        await self.crash(host)
        return await self.start(app, **options)

    @asynccontextmanager
    async def host(self, app: App, **options: Any) -> AsyncIterator[AppHost]:
        """A host that is stopped at the end of the block, unless it crashed meanwhile. A test that fails crashes it."""
        host = await self.start(app, **options)
        try:
            yield host
        except BaseException:
            await self.close()
            raise
        if host in self._live:
            await self.stop(host)

    async def close(self) -> None:
        """Crash what is left."""
        for connection in self._connections:
            await connection.close()
        for host in list(self._live):
            await self.crash(host)


async def crash(host: AppHost) -> None:
    """Drop a host as it stands. On a store that cannot be killed alone, what it already took is still written."""
    engine = host.engine
    engine.failure = HubClosedError("the process died")
    if isinstance(engine.store, MemoryStore):
        engine.store.abandon()
    engine.abandon()
    engine._refuse_all(engine.failure)  # in a process that died, nobody would wait any more
    await asyncio.sleep(0)
    await engine.executor.close()
    await engine.store.close()
