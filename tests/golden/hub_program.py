"""The app of the hubs in the corpus. Never change what is here: instances of it are in files that were written long ago.

A new shape gets a function of its own, and is in the files from then on.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from durably import App, OrchestrationContext, RetryPolicy

app = App()

HANGING = Path("hang")
"""While this file is in the working directory, `slow` does not return: a kill finds it running."""


def _hangs() -> bool:
    return HANGING.exists()


@app.activity
async def double(number: int) -> int:
    return 2 * number


@app.activity
async def slow(number: int) -> int:
    while _hangs():  # noqa: ASYNC110 - what it waits for is in another process
        await asyncio.sleep(0.01)
    return number + 1


@app.activity
async def flaky(number: int) -> int:
    if _hangs():
        raise ConnectionError("not yet")
    return number


@app.orchestrator
async def chain(ctx: OrchestrationContext, number: int) -> int:
    for _ in range(3):
        number = await ctx.call_activity(double, number)
    return number


@app.orchestrator
async def fails(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(double, 1)
    raise ValueError("told to")


@app.orchestrator
async def waits(ctx: OrchestrationContext, greeting: str) -> str:
    ctx.set_custom_status({"waiting": True})
    return greeting + await ctx.wait_for_external_event("Name", str)


@app.orchestrator
async def in_flight(ctx: OrchestrationContext) -> list[int]:
    return await asyncio.gather(*(ctx.call_activity(slow, number) for number in range(3)))


@app.orchestrator
async def retries(ctx: OrchestrationContext) -> int:
    return await ctx.call_activity(flaky, 7, retry=RetryPolicy(2, 100))


@app.orchestrator
async def sleeps(ctx: OrchestrationContext) -> str:
    async with asyncio.timeout(3_600):
        await asyncio.sleep(2)
    return str(ctx.new_uuid())


@app.orchestrator
async def parent(ctx: OrchestrationContext) -> str:
    return await ctx.call_sub_orchestrator(waits, "child ")


@app.orchestrator
async def eternal(ctx: OrchestrationContext, round_: int) -> int:
    if round_ == 3:
        return round_ + await ctx.wait_for_external_event("More", int)
    ctx.continue_as_new(round_ + 1)
    return 0


@app.entity
class Tally:
    value: int = 0

    def add(self, amount: int) -> None:
        self.value += amount
