"""KIT: simple orchestrations in an environment of the test kit, every turn replayed, as a user's tests run them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

from bench.figures import Load, Record, check, closed_loop, latency
from bench.hub import hub_url
from bench.programs import ChainJob, app, chain, order
from bench.workloads import Workload
from durably.testing import DurableEnvironment


@asynccontextmanager
async def kit(variant: str, directory: Path) -> AsyncGenerator[Workload]:
    """Hand out the workload: chains of one activity in a closed loop, in an environment of their own."""
    job: ChainJob = {"data": order(), "steps": 1, "stamped": False}

    async def repetition(load: Load) -> Record:
        async with DurableEnvironment(app, hub=hub_url(variant, directory)) as env:

            async def one(key: str) -> int:
                return await env.run(chain, job, instance_id=key)

            began = perf_counter()
            timings = await closed_loop(load.keys(), one, load.c, began + load.cap_s)
            wall = perf_counter() - began
        for timing in timings:
            check(timing.result, 1)
        seconds = [timing.seconds for timing in timings]
        return {
            "done": len(seconds),
            "wall_s": round(wall, 4),
            "inst_per_s": round(len(seconds) / wall, 2),
            **latency(seconds),
        }

    yield repetition
