"""The app that the tests of the kit run."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta

from durably import App, OrchestrationContext, RetryPolicy

app = App()

MONTH = timedelta(days=30)


@app.activity
async def double(number: int) -> int:
    return 2 * number


@app.activity
def in_a_thread(seconds: float) -> bool:
    time.sleep(seconds)
    return threading.current_thread() is not threading.main_thread()


@app.activity
async def pay(amount: int) -> str:
    raise ConnectionError("no bank in a test")


@app.orchestrator
async def simple(ctx: OrchestrationContext, number: int) -> int:
    return await ctx.call_activity(double, number)


@app.orchestrator
async def chain(ctx: OrchestrationContext, length: int) -> int:
    number = 1
    for _ in range(length):
        number = await ctx.call_activity(double, number)
    return number


@app.orchestrator
async def fan(ctx: OrchestrationContext, width: int) -> list[int]:
    """The results in the order in which they came."""
    calls = [ctx.call_activity(double, number) for number in range(width)]
    return [await done async for done in ctx.as_completed(calls)]


@app.orchestrator
async def month(ctx: OrchestrationContext) -> str:
    await ctx.create_timer(MONTH)
    return ctx.current_utc_datetime.date().isoformat()


@app.orchestrator
async def days(ctx: OrchestrationContext, count: int) -> int:
    for day in range(count):
        ctx.set_custom_status(day)
        await asyncio.sleep(86_400)
    return count


@app.orchestrator
async def approval(ctx: OrchestrationContext, patience_s: float | None = None) -> str:
    timeout = None if patience_s is None else timedelta(seconds=patience_s)
    return await ctx.wait_for_external_event("Approved", str, timeout=timeout, default="expired")


@app.orchestrator
async def approvals(ctx: OrchestrationContext, count: int) -> list[int]:
    return [await ctx.wait_for_external_event("Approved", int) for _ in range(count)]


@app.orchestrator
async def payment(ctx: OrchestrationContext, amount: int) -> str:
    policy = RetryPolicy(timedelta(minutes=1), max_number_of_attempts=4, backoff_coefficient=2)
    return await ctx.call_activity(pay, amount, retry=policy, timeout=timedelta(hours=1))


@app.orchestrator
async def threaded(ctx: OrchestrationContext, seconds: float) -> bool:
    return await ctx.call_activity(in_a_thread, seconds)


@app.orchestrator
async def parent(ctx: OrchestrationContext, number: int) -> int:
    return await ctx.call_sub_orchestrator(chain, number)


@app.orchestrator
async def eternal(ctx: OrchestrationContext, number: int) -> None:
    await ctx.create_timer(timedelta(hours=1))
    ctx.continue_as_new(number + 1)
