"""The orchestrations that are measured. Activities do nothing, so that what is left is the runtime."""

from __future__ import annotations

import asyncio
import os
from functools import cache
from time import perf_counter
from typing import Any, TypedDict

from durably import App, Client, OrchestrationContext

Order = dict[str, Any]

app = App()

STAMPS: list[float] = []
"""When each `stamped` ran; the distances are the steps of a long orchestration."""


class ChainJob(TypedDict):
    """Input of `chain`: the payload of each activity, how many, and whether they record their time."""

    data: Order
    steps: int
    stamped: bool


class FanJob(TypedDict):
    """Input of `fan`: the payload of each activity, and how many."""

    data: Order
    width: int


class NotedJob(TypedDict):
    """Input of `noted_waiter`: a payload, and the file to write its own id to at the end."""

    data: Order
    log: str


def order(number: int = 0) -> Order:
    """About 100 bytes of JSON; the same object that the peers get."""
    return {
        "order": f"o-{number:08d}",
        "customer": "c-000042",
        "amount": 129.5,
        "currency": "EUR",
        "note": "bench payload",
    }


@app.activity
async def work(data: Order) -> dict[str, Any]:
    return {"ok": True, "n": 1}


@app.activity
async def stamped(data: Order) -> dict[str, Any]:
    STAMPS.append(perf_counter())
    return {"ok": True, "n": 1}


@app.activity
async def note(job: dict[str, str]) -> dict[str, Any]:
    """Append a line to a file: a side effect that can be counted after a crash."""
    os.write(_log(job["log"]), f"{job['id']}\n".encode())
    return {"ok": True, "n": 1}


@cache
def _log(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


@app.orchestrator
async def chain(ctx: OrchestrationContext, job: ChainJob) -> int:
    """One activity after the other."""
    activity = stamped if job["stamped"] else work
    done = 0
    for _ in range(job["steps"]):
        done += (await ctx.call_activity(activity, job["data"]))["ok"]
    return done


@app.orchestrator
async def fan(ctx: OrchestrationContext, job: FanJob) -> int:
    """All activities at once."""
    calls = [ctx.call_activity(work, job["data"]) for _ in range(job["width"])]
    return sum(result["ok"] for result in await asyncio.gather(*calls))


@app.orchestrator
async def waiter(ctx: OrchestrationContext, data: Order) -> Any:
    """Waits for one event and ends with it."""
    return await ctx.wait_for_external_event("go")


@app.orchestrator
async def noted_waiter(ctx: OrchestrationContext, job: NotedJob) -> Any:
    """Waits for one event, then leaves a trace outside."""
    await ctx.wait_for_external_event("go")
    return await ctx.call_activity(note, {"log": job["log"], "id": ctx.instance_id})


@app.queue("bench")
async def take(data: Order, client: Client) -> None:
    """Each message starts one orchestration."""
    await client.start(chain, {"data": data, "steps": 1, "stamped": False})


@app.entity(name="counter")
class Counter:
    """Adds up what it is sent."""

    value: int = 0

    def add(self, by: int) -> None:
        self.value += by
