"""A simulated world in which activities hang, and their host ends them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from durably.app import App
from durably.errors import FunctionTimeoutError, TaskFailedError
from durably.program.activity_context import ActivityContext
from durably.program.context import OrchestrationContext
from durably.program.retry_policy import RetryPolicy
from durably.testing.sim_clients import Clients
from durably.testing.sim_programs import Pause

TIME_LIMIT_S: Final = 5.0
"""Longer than any pause of the simulation; what hangs, hangs for ever."""


class Overdue(Clients):
    """Clients of the program below, and of some that are never late."""

    programs = (("overdue", 3), ("overdue", 2), ("chain", 4), ("retried", 3))


def build_overdue(app: App, pause: Pause) -> App:
    """Add a program whose activities hang; its result is twice its size."""

    @app.activity
    async def hangs_twice(x: int, ctx: ActivityContext) -> int:
        await pause(ctx.idempotency_key)
        if ctx.attempt < 3:
            await asyncio.Event().wait()
        return x

    @app.activity
    async def hangs(x: int, ctx: ActivityContext) -> int:
        await pause(ctx.idempotency_key)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if x % 2:  # and takes its time to clean up: nobody waits for that
                await asyncio.sleep(1.0)
            raise
        return x

    @app.orchestrator
    async def overdue(ctx: OrchestrationContext, n: int) -> int:
        policy = RetryPolicy(timedelta(seconds=1), 3)
        right = late = 0
        for number in range(n):
            right += await ctx.call_activity("hangs_twice", 1, retry=policy, returns=int)
            try:
                await ctx.call_activity("hangs", number)
            except TaskFailedError as error:
                late += error.details.is_caused_by(FunctionTimeoutError)
        return right + late

    del hangs_twice, hangs, overdue
    return app
