"""The programs of the plan: each feature that a fault may meet, and each activity notes what it did in the side file."""

from __future__ import annotations

import asyncio
from typing import Any

from durably import App
from durably.program.activity_context import ActivityContext
from durably.program.context import OrchestrationContext
from durably.program.retry_policy import RetryPolicy
from tests.faults.effects import SideFile


def build_app(side: SideFile) -> App:
    app = App()

    @app.activity
    async def add_one(x: int, ctx: ActivityContext) -> int:
        side.note("start", ctx)
        if x % 4:  # else it ends without ever waiting
            await asyncio.sleep(0.001 * (x % 4))
        side.note("end", ctx)
        return x + 1

    @app.activity
    def third_time_lucky(x: int, ctx: ActivityContext) -> int:
        side.note("start", ctx)
        if ctx.attempt < 3:
            raise ValueError(f"attempt {ctx.attempt}")
        side.note("end", ctx)
        return x

    @app.orchestrator
    async def chain(ctx: OrchestrationContext, n: int) -> int:
        x = 0
        for _ in range(n):
            x = await ctx.call_activity(add_one, x)
        return x

    @app.orchestrator
    async def fan(ctx: OrchestrationContext, n: int) -> int:
        return sum(await asyncio.gather(*(ctx.call_activity(add_one, i) for i in range(4 * n))))

    @app.orchestrator
    async def retried(ctx: OrchestrationContext, x: int) -> int:
        return await ctx.call_activity(third_time_lucky, x, retry=RetryPolicy(0.01, 5, jitter=0.5))

    @app.orchestrator
    async def collector(ctx: OrchestrationContext, n: int) -> list[int]:
        got: list[int] = []
        while len(got) < n:
            got.append(await ctx.wait_for_external_event("item", int))
            ctx.set_custom_status(len(got))
        return got

    @app.orchestrator
    async def ring(ctx: OrchestrationContext, state: dict[str, Any]) -> list[int]:
        got: list[int] = state["got"]
        got.append(await ctx.wait_for_external_event("item", int))
        if len(got) % 3 == 0:
            await ctx.call_activity(add_one, len(got))
        if len(got) < state["n"]:
            ctx.continue_as_new({"n": state["n"], "got": got})
        return got

    @app.orchestrator
    async def parent(ctx: OrchestrationContext, n: int) -> int:
        return sum(await ctx.when_all([ctx.call_sub_orchestrator(chain, i + 1) for i in range(n)]))

    @app.orchestrator
    async def tally(ctx: OrchestrationContext, n: int) -> list[str]:
        got: list[str] = []
        while (token := await ctx.wait_for_external_event("token", str)) != "close":
            got.append(token)
        return got

    @app.orchestrator
    async def naps(ctx: OrchestrationContext, n: int) -> int:
        for _ in range(n):
            if await ctx.wait_for_external_event("nothing", timeout=0.005, default=None) is None:
                await asyncio.sleep(0.005)
        return n

    return app


def build_patient(side: SideFile, seconds: float) -> App:
    """An orchestrator, `patient`, with three activities one after the other that take so long each."""
    app = App()

    @app.activity
    async def slow(ctx: ActivityContext) -> str:
        side.note("start", ctx)
        await asyncio.sleep(seconds)
        side.note("end", ctx)
        return "over"

    @app.orchestrator
    async def patient(ctx: OrchestrationContext) -> list[str]:
        return [await ctx.call_activity(slow) for _ in range(3)]

    return app
