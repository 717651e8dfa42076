"""CPU: what a step and an instance cost. BARE: what one commit costs without an engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter, process_time

from bench.figures import Load, Record, latency
from bench.hub import check_durable, hub_url
from bench.programs import ChainJob, app, chain, order
from bench.workloads import Workload, run_chains
from durably import Client
from durably.core.commit import Batch, HistoryRow
from durably.storage.api import Store
from durably.storage.memory import MemoryStore
from durably.storage.open import open_store

FEW, MANY = 1, 10
"""The two points of the fit, in steps."""

_WARM_COMMITS = 50
_STEP_ROW = 2
"""Row 0 of a chain holds its start, the last one its end; each one between them is a step."""


async def cpu(client: Client, load: Load) -> Record:
    """Chains of one length and of another: what they differ by is steps, what is left is instances.

    CPU of the whole process, the measuring client included.
    """
    spent: dict[int, float] = {}
    done = 0
    began = perf_counter()
    for steps in (FEW, MANY):
        cpu_before = process_time()
        seconds, _ = await run_chains(client, load._replace(tag=f"{load.tag}-{steps}"), steps)
        spent[steps] = (process_time() - cpu_before) * 1e6 / len(seconds)
        done += len(seconds)
    wall = perf_counter() - began
    us_per_step = (spent[MANY] - spent[FEW]) / (MANY - FEW)
    return {
        "done": done,
        "wall_s": round(wall, 4),
        "us_per_step": round(us_per_step, 2),
        "us_per_instance": round(spent[FEW] - FEW * us_per_step, 2),
        f"us_with_{FEW}_step": round(spent[FEW], 2),
        f"us_with_{MANY}_steps": round(spent[MANY], 2),
    }


@asynccontextmanager
async def bare(variant: str, directory: Path) -> AsyncGenerator[Workload]:
    """Open a store with nothing on top, and hand out: one history row a commit, one commit after the other."""
    template = await _step_row()
    store = open_store(hub_url(variant, directory))
    await store.open()
    try:
        check_durable(variant, store)
        lease = await store.acquire(0, "bench")
        snapshot = await store.load(lease, 0)
        number, execution = snapshot.batch, snapshot.execution

        async def commits(count: int) -> list[float]:
            nonlocal number, execution
            execution += 1
            seconds: list[float] = []
            for seq in range(count):
                number += 1
                batch = Batch(number, history=[template._replace(execution=execution, seq=seq)])
                began = perf_counter()
                await store.commit(lease, batch)
                seconds.append(perf_counter() - began)
            return seconds

        async def repetition(load: Load) -> Record:
            began = perf_counter()
            seconds = await commits(load.n)
            wall = perf_counter() - began
            return {
                "done": len(seconds),
                "wall_s": round(wall, 4),
                "ms_per_step": round(wall * 1000 / load.n, 4),
                "act_per_s": round(load.n / wall, 2),
                "row_bytes": len(template.data),
                **latency(seconds),
                **latency(seconds, "step_"),
            }

        await commits(_WARM_COMMITS)
        yield repetition
        await store.release(lease)
    finally:
        await store.close()


async def _step_row() -> HistoryRow:
    """The row that a step of W7 writes, taken from a real one."""
    store: Store = MemoryStore()
    job: ChainJob = {"data": order(), "steps": 5, "stamped": True}
    async with app.host(store) as host:
        handle = await host.client.start(chain, job, instance_id="sample")
        await handle.result()
        return (await store.read_history("sample"))[_STEP_ROW]
