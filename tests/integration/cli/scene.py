"""A hub file with an instance of each kind, the same each time: made by a real host whose clock and chance stand still."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

from durably import App, AppHost, EntityId, OrchestrationContext, RetryPolicy
from tests.support.clock import ManualClock
from tests.support.waiting import has_event, is_quiet, reaches

HUB = "durably.db"

app = App()


@app.activity
async def charge(amount: int) -> str:
    if amount < 0:
        raise ValueError(f"no {amount}")
    return f"paid {amount}"


@app.orchestrator
async def pay(ctx: OrchestrationContext, amount: int) -> str:
    ctx.set_custom_status({"amount": amount})
    return await ctx.call_activity(charge, amount)


@app.orchestrator
async def retry(ctx: OrchestrationContext) -> str:
    policy = RetryPolicy(first_retry_interval=timedelta(minutes=5), max_number_of_attempts=3)
    return await ctx.call_activity(charge, -1, retry=policy)


@app.orchestrator
async def approve(ctx: OrchestrationContext) -> str:
    return await ctx.wait_for_external_event("Approved", str)


@app.orchestrator
async def parent(ctx: OrchestrationContext) -> str:
    return await ctx.call_sub_orchestrator(approve)


@app.entity
class Account:
    euros: int = 0

    def deposit(self, euros: int) -> int:
        self.euros += euros
        return self.euros

    def withdraw(self, euros: int) -> int:
        if euros > self.euros:
            raise ValueError(f"{self.euros} are not enough")
        self.euros -= euros
        return self.euros


@app.orchestrator
async def audit(ctx: OrchestrationContext, account: str) -> str:
    async with ctx.lock_entities(EntityId("account", account)):
        return await ctx.wait_for_external_event("Done", str)


class Counting:
    """Ids that are counted instead of drawn."""

    def __init__(self) -> None:
        self._count = itertools.count(1)

    def token(self) -> str:
        return f"{next(self._count):032x}"


def build(folder: Path, work: Callable[[AppHost, ManualClock], Coroutine[Any, Any, None]]) -> None:
    """Host the hub of a folder while the work is done."""

    async def run() -> None:
        clock = ManualClock()
        async with app.host(f"sqlite:///{folder / HUB}", clock=clock, random=Counting()) as host:
            await work(host, clock)

    asyncio.run(run())


async def one_of_each(host: AppHost, clock: ManualClock) -> None:
    """Ended in each way, waiting in several."""
    client = host.client
    await (await client.start(pay, 7, instance_id="paid-1", tags={"region": "eu", "k": "=1"})).result()
    clock.advance(1)
    await (await client.start(pay, -7, instance_id="failed-1", version="2")).wait_for_completion()
    clock.advance(1)
    await client.start(approve, instance_id="=wait+1")
    await reaches(host, "=wait+1", "Running")
    clock.advance(1)
    await client.start(approve, instance_id="suspended-1")
    await reaches(host, "suspended-1", "Running")
    await client.suspend("suspended-1", "audit")
    clock.advance(1)
    await client.start(approve, instance_id="stopped-1")
    await client.terminate("stopped-1", "ordered twice")
    clock.advance(1)
    await client.start(parent, instance_id="parent-1")
    await reaches(host, "parent-1:0:0000", "Running")
    clock.advance(1)
    await client.start(retry, instance_id="retry-1")
    await has_event(host, "retry-1", "TaskAttemptFailed")
    clock.advance(1)
    await client.start(pay, 1, instance_id="later-1", start_at=timedelta(days=3650))
    await is_quiet(host)


async def with_entities(host: AppHost, clock: ManualClock) -> None:
    """Accounts: one at rest, one that is locked and waited for, one that only has a signal that is due later."""
    client = host.client
    for key, euros in (("ann", 5), ("bob", 7), ("=cmd", 1)):
        await client.call_entity(EntityId("account", key), "deposit", euros)
        clock.advance(1)
    await client.start(audit, "bob", instance_id="audit-1")
    await has_event(host, "audit-1", "EventAwaited")
    clock.advance(1)
    for number in (2, 3):
        await client.start(audit, "bob", instance_id=f"audit-{number}")
        await has_event(host, f"audit-{number}", "EntityLockRequested")
    await client.signal_entity("@account@bob", "deposit", 1)
    await client.signal_entity("@account@later", "deposit", 1, at=timedelta(days=3650))
    await is_quiet(host)


def many(count: int) -> Callable[[AppHost, ManualClock], Coroutine[Any, Any, None]]:
    """So many instances that wait, half of them tagged."""

    async def work(host: AppHost, clock: ManualClock) -> None:
        for start in range(0, count, 1_000):
            await asyncio.gather(
                *(
                    host.client.start(
                        approve, instance_id=f"wait-{at:06}", tags={"half": "yes"} if at % 2 else None
                    )
                    for at in range(start, min(count, start + 1_000))
                )
            )
        await is_quiet(host)

    return work
