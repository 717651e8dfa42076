"""W1 to W4 and W7: what a client can see of an engine in its own process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

from bench.figures import Load, Record, check, closed_loop, latency, percentile
from bench.hub import check_durable, hub_options, hub_url
from bench.programs import STAMPS, ChainJob, FanJob, app, chain, fan, order, waiter
from durably import Client, RuntimeStatus

Workload = Callable[[Load], Awaitable[Record]]
"""Does one repetition and returns its part of the line."""

HostedWorkload = Callable[[Client, Load], Awaitable[Record]]

SINGLE_LIMIT_S = 120.0
"""How long one orchestration may take (W2, W7), unless the cap is higher."""

ENDS = 1_000
"""How many steps at either end of a long orchestration are looked at on their own."""


@asynccontextmanager
async def hosted(
    variant: str, directory: Path, workload: HostedWorkload, warm_up: HostedWorkload | None, c: int
) -> AsyncGenerator[Workload]:
    """Serve a hub in this process, warm up, and hand out the workload."""
    async with app.host(hub_url(variant, directory), options=hub_options(variant)) as host:
        check_durable(variant, host.engine.store)
        client = host.client
        if warm_up is not None:
            await warm_up(client, Load(max(20, min(2 * c, 200)), min(c, 50), f"warm-{time.time_ns()}", 60))

        async def repetition(load: Load) -> Record:
            return await workload(client, load)

        yield repetition


# --- chains ----------------------------------------------------------------------------------------------------------


async def run_chains(
    client: Client, load: Load, steps: int, *, named: bool = True
) -> tuple[list[float], float]:
    """Chains of `steps` activities in a closed loop; the time of each, and of all together. Unnamed: the hub gives ids."""
    job: ChainJob = {"data": order(), "steps": steps, "stamped": False}

    async def one(key: str) -> int:
        handle = await client.start(chain, job, instance_id=key if named else None)
        return await handle.result()

    began = perf_counter()
    timings = await closed_loop(load.keys(), one, load.c, began + load.cap_s)
    wall = perf_counter() - began
    for timing in timings:
        check(timing.result, steps)
    return [timing.seconds for timing in timings], wall


async def chains(client: Client, load: Load, steps: int) -> Record:
    seconds, wall = await run_chains(client, load, steps)
    return {
        "done": len(seconds),
        "wall_s": round(wall, 4),
        "inst_per_s": round(len(seconds) / wall, 2),
        "act_per_s": round(len(seconds) * steps / wall, 2),
        **latency(seconds),
        "step_p50_ms": round(percentile(seconds, 0.5) * 1000 / steps, 4),
    }


async def w1(client: Client, load: Load) -> Record:
    return await chains(client, load, 5)


async def w3(client: Client, load: Load) -> Record:
    return await chains(client, load, 1)


# --- one instance ----------------------------------------------------------------------------------------------------


async def w2(client: Client, load: Load) -> Record:
    job: FanJob = {"data": order(), "width": load.n}
    began = perf_counter()
    handle = await client.start(fan, job, instance_id=load.tag)
    check(await handle.result(timeout=max(SINGLE_LIMIT_S, load.cap_s)), load.n)
    wall = perf_counter() - began
    return {"done": 1, "wall_s": round(wall, 4), "act_per_s": round(load.n / wall, 2)}


async def w7(client: Client, load: Load) -> Record:
    job: ChainJob = {"data": order(), "steps": load.n, "stamped": True}
    STAMPS.clear()
    began = perf_counter()
    handle = await client.start(chain, job, instance_id=load.tag)
    check(await handle.result(timeout=max(SINGLE_LIMIT_S, load.cap_s)), load.n)
    wall = perf_counter() - began
    check(len(STAMPS), load.n)
    steps = [later - earlier for earlier, later in zip([began, *STAMPS], STAMPS, strict=False)]
    return {
        "done": 1,
        "wall_s": round(wall, 4),
        "ms_per_step": round(wall * 1000 / load.n, 4),
        "act_per_s": round(load.n / wall, 2),
        **latency(steps, "step_"),
        "first_step_p50_ms": round(percentile(steps[:ENDS], 0.5) * 1000, 4),
        "last_step_p50_ms": round(percentile(steps[-ENDS:], 0.5) * 1000, 4),
    }


# --- events ----------------------------------------------------------------------------------------------------------


async def w4(client: Client, load: Load) -> Record:
    keys = load.keys()

    async def start(key: str) -> None:
        await client.start(waiter, order(), instance_id=key)

    await closed_loop(keys, start, 50)
    for key in keys:
        await _running(client, key)
    deadline = perf_counter() + load.cap_s
    seconds: list[float] = []
    for key in keys:
        began = perf_counter()
        if began > deadline:
            break
        await client.raise_event(key, "go", {"go": True})
        result = await client.handle(key).result(timeout=SINGLE_LIMIT_S)
        seconds.append(perf_counter() - began)
        check(result, {"go": True})
    return {"done": len(seconds), "wall_s": round(sum(seconds), 4), **latency(seconds)}


async def _running(client: Client, key: str) -> None:
    """Return once it waits: `start` promises only that it will."""
    while True:
        status = await client.get_status(key)
        if status is not None and status.runtime_status == RuntimeStatus.Running:
            return
        await asyncio.sleep(0.01)


# --- warming up ------------------------------------------------------------------------------------------------------


async def warm_chains(client: Client, load: Load) -> Record:
    await run_chains(client, load, 5)
    return {}


async def warm_fan(client: Client, load: Load) -> Record:
    await run_chains(client, load, 5)
    return await w2(client, load._replace(n=100))


async def warm_events(client: Client, load: Load) -> Record:
    return await w4(client, load._replace(n=3))
