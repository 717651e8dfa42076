"""What the hosts of `test_everything` run: something of each kind. Its effects are lines of a file."""

from __future__ import annotations

import asyncio
import os

from durably import App, Client, OrchestrationContext, TimerRequest

app = App()


def note(*words: object) -> None:
    file = os.open("effects.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, (" ".join(map(str, words)) + "\n").encode())
    os.close(file)


@app.activity
async def work(what: str) -> str:
    await asyncio.sleep(0.02)
    note("work", what)
    return what


@app.orchestrator
async def run(ctx: OrchestrationContext, what: str = "") -> str:
    return await ctx.call_activity(work, what or ctx.instance_id)


app.schedule("each-second", run, cron="* * * * * *", overlap="allow", catch_up="all")


@app.timer("* * * * * *")
async def tick(timer: TimerRequest, client: Client) -> None:
    """An occurrence that two hosts fire starts two instances: the id is chosen anew each time."""
    await client.start(run, f"tick {timer.due:%H:%M:%S}")


@app.queue("jobs", max_dequeue_count=100)
async def take(number: int, client: Client) -> None:
    note("take", number)
    await client.start(run, f"job {number}")


@app.blob("incoming/{name}", interval=0.1)
async def arrived(name: str, client: Client) -> None:
    note("arrived", name)
    await client.start(run, f"blob {name}")


@app.entity
class Account:
    balance: int = 100

    def add(self, amount: int) -> int:
        self.balance += amount
        return self.balance


@app.orchestrator
async def transfer(ctx: OrchestrationContext, accounts: list[str]) -> None:
    source, target = (f"@account@{name}" for name in accounts)
    async with ctx.lock_entities(source, target):
        await ctx.call_entity(source, "add", -1)
        await ctx.call_activity(work, f"between {ctx.instance_id}")
        await ctx.call_entity(target, "add", 1)


@app.orchestrator
async def later(ctx: OrchestrationContext, seconds: float) -> str:
    await ctx.create_timer(seconds)
    return await ctx.wait_for_external_event("go")
