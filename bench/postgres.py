"""What a step costs one PostgreSQL, by its own counters; and what a look at the load of a large hub costs.

On a private server with ``fsync`` on.

python -m bench.postgres [--instances 2000] [--large 100000]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from durably import App, EngineOptions, OrchestrationContext
from durably.storage.api import Store
from durably.storage.open import open_store
from durably.storage.postgres.workload import WORKLOAD
from tests.support.postgres import PostgresServer

app = App()

AT_ONCE = 500
STEPS = (2, 12)
"""Activities of an instance in two runs: the difference is what steps cost, and what is left is the instance."""


@app.activity
async def echo(number: int) -> int:
    return number


@app.orchestrator
async def chain(ctx: OrchestrationContext, steps: int) -> int:
    for number in range(steps):
        await ctx.call_activity(echo, number)
    return steps


_COUNTED = {
    "rows inserted": "SELECT sum(n_tup_ins) FROM pg_stat_user_tables WHERE schemaname = $1",
    "rows updated": "SELECT sum(n_tup_upd) FROM pg_stat_user_tables WHERE schemaname = $1",
    "rows deleted": "SELECT sum(n_tup_del) FROM pg_stat_user_tables WHERE schemaname = $1",
    "bytes kept": "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = $1 AND c.relkind = 'r'",
    "bytes of log": "SELECT wal_bytes FROM pg_stat_wal WHERE $1 <> ''",
    "syncs": "SELECT wal_sync FROM pg_stat_wal WHERE $1 <> ''",
    "commits": "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database() AND $1 <> ''",
}


CPU = "us of CPU"


def cpu_of_server(postmaster: int) -> int:
    """Microseconds that the processes of the server have had, those that have ended included; where there is /proc."""
    ticks = 0
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[1]) == postmaster:
            ticks += int(fields[11]) + int(fields[12])
        elif entry.parent.name == str(postmaster):
            ticks += sum(map(int, fields[11:15]))
    return ticks * 1_000_000 // os.sysconf("SC_CLK_TCK")


async def counters(connection: Any, schema: str, postmaster: int) -> Counter[str]:
    """What the server has counted so far. Backends tell it once a second, or when they are idle."""
    await asyncio.sleep(1.2)
    await connection.fetch("SELECT pg_stat_force_next_flush()")
    found = {name: int(await connection.fetchval(text, schema) or 0) for name, text in _COUNTED.items()}
    return Counter({**found, CPU: cpu_of_server(postmaster)})


async def run(url: str, instances: int, steps: int) -> float:
    """Seconds for so many instances of so many steps."""
    gate = asyncio.Semaphore(AT_ONCE)

    async with app.host(url, options=EngineOptions.from_environment()) as host:

        async def one(number: int) -> None:
            async with gate:
                handle = await host.client.start(chain, steps, instance_id=f"{steps}-{number}")
                await handle.result(timeout=600)

        began = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(instances)))
        return time.perf_counter() - began


async def costs(server: PostgresServer, instances: int) -> None:
    """Print what steps and instances cost."""
    found: dict[int, Counter[str]] = {}
    postmaster = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
    for steps in STEPS:
        url = server.url(f"costs_{steps}")
        await run(url, 10, 1)  # makes the hub, and warms up
        connection = await asyncpg.connect(server.url("x").partition("?")[0])
        before = await counters(connection, f"costs_{steps}", postmaster)
        took = await run(url, instances, steps)
        found[steps] = await counters(connection, f"costs_{steps}", postmaster)
        found[steps].subtract(before)
        await connection.close()
        print(
            f"{instances:,} instances of {steps} steps in {took:.1f} s: {instances * steps / took:,.0f} steps/s"
        )
    few, many = STEPS
    print(f"\n{'':14} {'a step':>10} {'an instance':>12}")
    for name in (*_COUNTED, CPU):
        step = (found[many][name] - found[few][name]) / instances / (many - few)
        instance = found[few][name] / instances - few * step
        print(f"{name:14} {step:10,.2f} {instance:12,.2f}")


IDLE_S = 30


async def idle(server: PostgresServer) -> None:
    """Print what a host costs that has nothing to do."""
    postmaster = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
    connection = await asyncpg.connect(server.url("x").partition("?")[0])
    url = server.url("idle")
    async with app.host(url):
        await asyncio.sleep(2)
        before = await counters(connection, "idle", postmaster)
        await asyncio.sleep(IDLE_S)
        after = await counters(connection, "idle", postmaster)
    after.subtract(before)
    print(
        "\nAn idle host, a minute: " + ", ".join(f"{after[name] * 60 / IDLE_S:,.0f} {name}" for name in after)
    )
    await connection.close()


async def look(server: PostgresServer, large: int) -> None:
    """Print how the load of a large hub is read."""
    url = server.url("large")
    await run(url, 10, 1)
    connection = await asyncpg.connect(server.url("x").partition("?")[0])
    await connection.execute(FILL.replace("{large}", str(large)))
    plan = await connection.fetch(
        f"EXPLAIN (ANALYZE, COSTS OFF, BUFFERS) {WORKLOAD.replace('{s}', 'large')}", 10**15
    )
    print(f"\nThe load of a hub with {large:,} instances, {large:,} messages, {large:,} due timers:")
    print("\n".join(row[0] for row in plan))
    await connection.close()
    store = open_store(url)
    await store.open()
    print(f"{await looks(store):.1f} ms a look, as a host asks")
    connection = await asyncpg.connect(server.url("x").partition("?")[0])
    await connection.execute(
        "TRUNCATE large.inbox, large.timers; UPDATE large.instances SET in_flight = false"
    )
    await connection.execute("VACUUM ANALYZE large.instances")
    await connection.close()
    print(f"{await looks(store):.1f} ms when nothing waits")
    await store.close()


async def looks(store: Store) -> float:
    """Milliseconds that one takes."""
    began = time.perf_counter()
    for _ in range(20):
        await store.workload(10**15)
    return (time.perf_counter() - began) / 20 * 1_000


FILL = """
INSERT INTO large.instances (instance_id, partition, execution, ordinal, execution_id, name, status, created_at, updated_at, in_flight)
SELECT convert_to('i' || n, 'UTF8'), n % 32, 1000 + n, 0, ''::bytea, 'chain'::bytea, CASE WHEN n % 2 = 0 THEN 'Completed' ELSE 'Running' END::bytea,
    n, n, n % 2 = 1 FROM generate_series(1, {large}) n;
INSERT INTO large.inbox (message_id, partition, instance_id, at, body, absent)
SELECT convert_to('m' || n, 'UTF8'), n % 32, convert_to('i' || n, 'UTF8'), n, ''::bytea, false FROM generate_series(1, {large}) n;
INSERT INTO large.timers (partition, execution, seq, kind, due_at, instance_id)
SELECT n % 32, 1000 + n, 1, 0, n, convert_to('i' || n, 'UTF8') FROM generate_series(1, {large}) n;
"""


@contextmanager
def private_server() -> Iterator[PostgresServer]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DURABLY_STATE_DIR"] = folder
        server = PostgresServer(Path(folder) / "postgres")
        server.start()
        try:
            yield server
        finally:
            server.stop()


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--instances", type=int, default=2_000)
    given.add_argument("--large", type=int, default=100_000)
    arguments = given.parse_args()
    with private_server() as server:
        asyncio.run(costs(server, arguments.instances))
        asyncio.run(idle(server))
        asyncio.run(look(server, arguments.large))


if __name__ == "__main__":
    main()
