"""A host that serves HTTP on a real socket, and a client of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from durably import App, AppHost, OrchestrationContext
from durably.http_api.links import BASE
from durably.http_api.options import HttpOptions
from durably.http_api.server import HttpServer
from durably.security.access_keys import MANAGEMENT
from durably.security.key_file import KeyFile

PATIENCE_S = 30.0


def flows() -> App:
    """Orchestrators that end in each way, and an entity."""
    app = App()

    @app.activity
    async def upper(text: str) -> str:
        return text.upper()

    @app.orchestrator
    async def shout(ctx: OrchestrationContext, text: str) -> str:
        return await ctx.call_activity(upper, text)

    @app.orchestrator
    async def waits(ctx: OrchestrationContext, data: Any = None) -> Any:
        ctx.set_custom_status({"waits": True})
        return await ctx.wait_for_external_event("go")

    @app.orchestrator
    async def fails(ctx: OrchestrationContext, data: Any = None) -> None:
        raise ValueError("out of paper")

    @app.orchestrator
    async def complains(ctx: OrchestrationContext, text: str) -> None:
        ctx.set_custom_status(text)
        raise ValueError(text)

    @app.entity
    class Counter:
        value: int = 0

        def add(self, by: int) -> None:
            self.value += by

        def note(self, text: str) -> None:
            self.value = len(text)

    @app.entity
    class Note:
        word: str = ""

        def keep(self, text: str) -> str:
            self.word = text
            return text

    return app


@dataclass
class Scene:
    """What tests of the HTTP face work with."""

    host: AppHost
    http: httpx.AsyncClient
    keys: KeyFile
    key: str
    master: str
    url: str
    server: HttpServer

    async def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        """A call of the management API with the system key."""
        headers = {"x-functions-key": self.key, **more.pop("headers", {})}
        return await self.http.request(method, f"{BASE}{path}", headers=headers, **more)

    async def until(self, path: str, status: int = 200) -> httpx.Response:
        """Ask until the answer has a status code."""
        return await asked(lambda: self.call("GET", path), status)

    async def start(self, name: str, instance_id: str, **more: Any) -> httpx.Response:
        """Start an instance."""
        answer = await self.call("POST", f"/orchestrators/{name}/{instance_id}", **more)
        assert answer.status_code == 202, answer.text
        return answer


async def asked(ask: Callable[[], Awaitable[httpx.Response]], status: int) -> httpx.Response:
    """Ask until the answer has a status code, or nobody has patience any more."""
    answer = await ask()
    async with asyncio.timeout(PATIENCE_S):
        while answer.status_code != status:
            await asyncio.sleep(0.005)
            answer = await ask()
    return answer


async def until(ask: Callable[[], Awaitable[Any]], expected: Any) -> None:
    """Ask until this is the answer."""
    answer = await ask()
    async with asyncio.timeout(PATIENCE_S):
        while answer != expected:
            await asyncio.sleep(0.005)
            answer = await ask()


@asynccontextmanager
async def serving(app: App, folder: Path, hub: str = "orders", **options: Any) -> AsyncGenerator[Scene]:
    """Serve an app on a free port, on a hub in a folder."""
    given = HttpOptions(port=0, **{"max_failures_per_minute": 100_000, **options})
    async with app.host(f"sqlite:///{folder}/{hub}.db") as host:
        keys = KeyFile(given.keys_at(host.engine.store.url), host.engine.clock.now)
        key, master = keys.renew("system", MANAGEMENT), keys.renew("master", "_master")
        async with (
            host.serve_http(given) as server,
            httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http,
        ):
            yield Scene(host, http, keys, key, master, server.url, server)
