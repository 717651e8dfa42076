"""CPU: what a step and an instance cost. BARE: what one commit costs without an engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import perf_counter, process_time, time_ns
from typing import Any, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from bench.figures import Load, Record, latency
from bench.hub import POSTGRES, check_durable, hub_url, server
from bench.programs import ChainJob, app, chain, order
from bench.workloads import Workload, run_chains
from durably import Client
from durably.core.commit import Batch, HistoryRow
from durably.storage.api import Store
from durably.storage.memory import MemoryStore
from durably.storage.open import open_store

FEW, MANY = 1, 10
"""The two points of the fit, in steps."""

WARM_COMMITS = 50

BETWEEN_S = 0.000_15
"""What an engine computes between two commits of W7: a server and a disk that have rested so long take longer to answer."""

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
    """One history row a commit, one commit after the other: what nothing that is durable can be faster than.

    On SQLite and in memory by a store with nothing on top, on PostgreSQL by the driver alone.
    """
    template = await _step_row()
    if variant in POSTGRES:
        async with plain_commits(template) as repetition:
            yield repetition
        return
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

        await commits(WARM_COMMITS)
        yield partial(repetition_of, commits, len(template.data))
        await store.release(lease)
    finally:
        await store.close()


async def repetition_of(
    commits: Callable[[int], Awaitable[list[float]]], row_bytes: int, load: Load
) -> Record:
    """The figures of one repetition."""
    began = perf_counter()
    seconds = await commits(load.n)
    wall = perf_counter() - began
    return {
        "done": len(seconds),
        "wall_s": round(wall, 4),
        "ms_per_step": round(wall * 1000 / load.n, 4),
        "act_per_s": round(load.n / wall, 2),
        "row_bytes": row_bytes,
        **latency(seconds),
        **latency(seconds, "step_"),
    }


@asynccontextmanager
async def plain_commits(row: HistoryRow) -> AsyncGenerator[Workload]:
    """The same row into a table of its own, by the driver, each insert a transaction: one after the other, and paced."""
    connection: Any = await cast("Any", asyncpg).connect(server())
    table = f"bench_{time_ns()}"
    try:
        await connection.execute(
            f"CREATE TABLE {table} (execution bigint, seq int, at bigint, data bytea, checksum bytea,"
            " PRIMARY KEY (execution, seq))"
        )
        insert = await connection.prepare(f"INSERT INTO {table} VALUES ($1, $2, $3, $4, $5)")  # noqa: S608 - a name of ours
        execution = 0

        async def commits(count: int, pause_s: float = 0) -> list[float]:
            nonlocal execution
            execution += 1
            seconds: list[float] = []
            for seq in range(count):
                over = perf_counter() + pause_s
                while perf_counter() < over:
                    pass
                began = perf_counter()
                await insert.fetch(execution, seq, row.at, row.data, row.checksum)
                seconds.append(perf_counter() - began)
            return seconds

        async def repetition(load: Load) -> Record:
            figures = await repetition_of(commits, len(row.data), load)
            return figures | latency(await commits(load.n, BETWEEN_S), "paced_")

        await commits(WARM_COMMITS)
        yield repetition
        await connection.execute(f"DROP TABLE {table}")
    finally:
        await connection.close()


async def _step_row() -> HistoryRow:
    """The row that a step of W7 writes, taken from a real one."""
    store: Store = MemoryStore()
    job: ChainJob = {"data": order(), "steps": 5, "stamped": True}
    async with app.host(store) as host:
        handle = await host.client.start(chain, job, instance_id="sample")
        await handle.result()
        return (await store.read_history("sample"))[_STEP_ROW]
