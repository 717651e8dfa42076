"""The app of the hubs with entities in the corpus. Never change what is here: files that were written long ago have it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from durably import App, EntityContext, EntityId, OrchestrationContext

HANGING = Path("hang")
"""While this file is in the working directory, what is slow does not end and what may fail fails."""

A, B = EntityId("vault", "a"), EntityId("vault", "b")
LEDGER = EntityId("ledger", "2026")


def _hangs() -> bool:
    return HANGING.exists()


def build(ledger_version: int = 1) -> App:
    """The app; of the ledger, as it was recorded (1) or in a later form (2)."""
    app = App()
    app.entity(name="vault", read_only=["look"])(Vault)
    if ledger_version == 1:
        app.entity(name="ledger", state_version=1)(Ledger)
    else:
        app.entity(name="ledger", state_version=2, migrate=_to_pages)(PagedLedger)
    app.activity(audit)
    for orchestrator in (keeper, second, asks, audited):
        app.orchestrator(orchestrator)
    return app


class Vault:
    """Writes down who put something in."""

    held: list[str] = []  # noqa: RUF012 - each vault begins with a list of its own

    def put(self, what: str) -> int:
        self.held.append(what)
        return len(self.held)

    def look(self) -> list[str]:
        return self.held

    async def slow(self, what: str) -> int:
        while _hangs():  # noqa: ASYNC110 - what it waits for is in another process
            await asyncio.sleep(0.01)
        return self.put(what)

    def pass_on(self, what: str, ctx: EntityContext) -> int:
        ctx.signal_entity(B, "put", f"{what} passed on")
        return self.put(what)


class Ledger:
    """Version 1: lines."""

    lines: list[str] = []  # noqa: RUF012 - as above

    def write(self, line: str) -> int:
        self.lines.append(line)
        return len(self.lines)


class PagedLedger:
    """Version 2: pages of lines."""

    pages: list[list[str]] = []  # noqa: RUF012 - as above

    def write(self, line: str) -> int:
        self.pages.append([line])
        return len(self.pages)


def _to_pages(state: Any, version: int) -> Any:
    assert version == 1
    return {"pages": [state["lines"]]}


async def audit() -> str:
    if _hangs():
        raise ConnectionError("not yet")
    return "audited"


async def keeper(ctx: OrchestrationContext) -> int:
    async with ctx.lock_entities(A, B):
        await ctx.call_entity(A, "put", "keeper's first")
        ctx.set_custom_status("locked")
        await ctx.wait_for_external_event("go")
        await ctx.call_entity(B, "put", "keeper's second")
        return await ctx.call_entity(A, "put", "keeper's third")


async def second(ctx: OrchestrationContext) -> list[str]:
    async with ctx.lock_entities(B, A):
        await ctx.call_entity(A, "put", "second's")
        return await ctx.call_entity(A, "look", returns=list[str])


async def asks(ctx: OrchestrationContext) -> int:
    ctx.signal_entity(A, "put", "signal of asks")
    return await ctx.call_entity(A, "pass_on", "call of asks")


async def audited(ctx: OrchestrationContext) -> list[Any]:
    call = ctx.call_entity(EntityId("vault", "slow"), "slow", "audited")
    return [await ctx.call_activity("audit"), await call]
