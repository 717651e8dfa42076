"""The process that poison kills: serves a hub until nothing but parked work is left.

Started with the hub file and the kind of poison. For each line on stdin it forks a process that serves the hub, as a
supervisor would; `cured` on the line is a deployment that survives. It answers with the exit code of that process.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable

from durably.app import App, AppHost
from durably.core.entities import EntityId
from durably.engine.options import EngineOptions
from durably.program.context import OrchestrationContext

LONG_S = 0.5
STALL_LIMIT_S = 0.7
ALIVE = "alive"
LEDGERS = ("@ledger@shared", "@ledger@locked")


def bite(kind: str) -> None:
    """End this process in the way of its kind."""
    match kind:
        case "segfault":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            while True:
                time.sleep(0.01)
        case _:
            os._exit(3)


def build_app(kind: str, *, cured: bool) -> App:
    app = App()

    def taste() -> None:
        if not cured:
            bite(kind)

    @app.activity
    async def step(x: int) -> int:
        await asyncio.sleep(0.001 * (x % 3))
        return x + 1

    @app.activity
    async def takes_long() -> str:
        await asyncio.sleep(LONG_S)
        return "long"

    @app.activity
    async def on_loop() -> str:
        taste()
        return ALIVE

    @app.activity
    def in_thread() -> str:
        threading.Event().wait(0.01)  # let the loop do something else
        taste()
        return ALIVE

    @app.orchestrator
    async def innocent(ctx: OrchestrationContext, x: int) -> int:
        for _ in range(2):
            x = await ctx.call_activity(step, x)
        return x

    @app.orchestrator
    async def innocent_long(ctx: OrchestrationContext) -> str:
        return await ctx.call_activity(takes_long)

    @app.orchestrator
    async def poison(ctx: OrchestrationContext) -> str:
        if kind == "turn":
            taste()
            return ALIVE
        return await ctx.call_activity(in_thread if kind == "thread" else on_loop)

    build_entities(app, taste)
    return app


def build_entities(app: App, taste: Callable[[], None]) -> None:
    """A ledger that many write to, and operations of it that kill."""

    @app.entity
    class Ledger:
        entries: tuple[int, ...] = ()

        def write(self, number: int) -> int:
            self.entries = (*self.entries, number)
            return len(self.entries)

        def bite(self) -> str:
            taste()
            return ALIVE

        async def bite_slowly(self) -> str:
            await asyncio.sleep(0.01)
            taste()
            return ALIVE

    @app.orchestrator
    async def waits_for(ctx: OrchestrationContext, operation: str) -> str:
        async with ctx.lock_entities(EntityId("ledger", "locked")):
            return await ctx.call_entity(EntityId("ledger", "locked"), operation)

    del Ledger, waits_for


async def serve(hub: str, kind: str, *, cured: bool) -> None:
    options = EngineOptions(stall_limit_s=STALL_LIMIT_S, slow_turn_s=0)
    async with build_app(kind, cured=cured).host(f"sqlite:///{hub}", options=options) as host:
        while await is_busy(host):  # noqa: ASYNC110 - it also waits for what other processes see
            await asyncio.sleep(0.02)


async def is_busy(host: AppHost) -> bool:
    """True while anything lives that is not parked nor waits for it, or messages wait or are being read."""
    page = await host.client.query_instances(runtime_status=("Running", "Pending"))
    if any(found.blocked is None and found.name != "waits_for" for found in page.instances):
        return True
    partition = host.engine.partition
    if partition is None or not partition.still:
        return True
    return any([await host.engine.store.read_messages(ledger) for ledger in LEDGERS])


def main() -> None:
    hub, kind = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            asyncio.run(serve(hub, kind, cured="cured" in line))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
