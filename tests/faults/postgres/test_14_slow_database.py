"""Scenario 14: the way to the database is slow, by turns more and less. Leases stay where they are, and callers wait."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import asyncpg  # pyright: ignore[reportMissingTypeStubs]
import httpx
import pytest

from tests.faults.postgres.conftest import Report
from tests.support.postgres import PostgresServer, free_port
from tests.support.tcp_proxy import TcpProxy

PARTITIONS = 4
OUTSTANDING = 8
CALLERS = 3 * OUTSTANDING

APP = """
from durably import App, Client, OrchestrationContext

app = App()

@app.activity
async def add(x: int) -> int:
    return x + 1

@app.orchestrator
async def chain(ctx: OrchestrationContext) -> int:
    return await ctx.call_activity(add, await ctx.call_activity(add, 0))

@app.route("start/{name}", methods=["POST"], auth_level="anonymous")
async def start(name: str, client: Client) -> str:
    await client.start(chain, instance_id=name)
    return name
"""


@contextmanager
def served(folder: Path, url: str, lease_s: float) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A host in a process of its own, and where it serves."""
    (folder / "app.py").write_text(APP)
    port = free_port()
    environment = {
        **os.environ,
        "DURABLY_HTTP": "on",
        "DURABLY_LEASE_S": str(lease_s),
        "DURABLY_PARTITIONS": str(PARTITIONS),
        "DURABLY_HTTP_MAX_OUTSTANDING_REQUESTS": str(OUTSTANDING),
    }
    command = [sys.executable, "-m", "durably", "run", "app.py", "--hub", url, "--port", str(port)]
    with (folder / "host.log").open("wb") as log:
        host = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield f"http://127.0.0.1:{port}", host
    finally:
        host.send_signal(signal.SIGTERM)
        host.wait(120)


async def owners(server: PostgresServer, hub: str) -> list[tuple[int, int]]:
    """The epoch of each partition: it grows with each change of the owner."""
    connection = await asyncpg.connect(server.url(hub).split("?")[0])
    found = await connection.fetch(f'SELECT id, epoch FROM "{hub}".partitions ORDER BY id')
    await connection.close()
    return [tuple(row) for row in found]


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


@pytest.mark.slow_once
def test_a_slow_database_costs_no_lease_and_callers_are_told_to_wait(
    shared_server: PostgresServer, hub_name: str, tmp_path: Path, report: Report
) -> None:
    asyncio.run(slow(shared_server, hub_name, tmp_path, (0.02, 0.16), lease_s=2, report=report))


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_a_database_that_takes_five_seconds(
    shared_server: PostgresServer, hub_name: str, tmp_path: Path, report: Report
) -> None:
    asyncio.run(slow(shared_server, hub_name, tmp_path, (0.5, 5), lease_s=60, report=report))


async def slow(
    server: PostgresServer,
    hub: str,
    folder: Path,
    between: tuple[float, float],
    *,
    lease_s: float,
    report: Report,
) -> None:
    """Two leases long each answer of the server takes a while; a new connection, ten of them, just fits into a lease."""
    chance, told, number = random.Random(14), Counter[int](), count()
    loop = asyncio.get_running_loop()
    with TcpProxy(server.port) as proxy, served(folder, proxy.url(hub), lease_s) as (url, host):
        async with httpx.AsyncClient(base_url=url, timeout=600) as http:
            await serves(http, host)
            assert (await http.post("/api/start/first")).status_code == 200
            await finished(http, "first")
            epochs, before_mb = await owners(server, hub), resident_mb(host.pid)
            proxy.slowness = lambda: chance.uniform(*between)
            over = loop.time() + 2 * lease_s

            async def call() -> int:
                started = 0
                while loop.time() < over:
                    name = f"i-{next(number)}"
                    await start(http, name, told)
                    await finished(http, name)
                    started += 1
                return started

            started = sum(await asyncio.gather(*(call() for _ in range(CALLERS))))
            after_mb = resident_mb(host.pid)
            proxy.slowness = lambda: 0.0
        after = await owners(server, hub)
    report(answered=dict(told), memory_mb=f"{before_mb:.0f} to {after_mb:.0f}")
    assert after == epochs, "no partition was taken anew"
    assert len(epochs) == PARTITIONS
    assert told[200] == started >= CALLERS
    assert told[429] + told[503] > 0
    assert after_mb < before_mb + 30


async def serves(http: httpx.AsyncClient, host: subprocess.Popen[bytes]) -> None:
    """Return when it answers."""
    while host.poll() is None:
        with suppress(httpx.ConnectError):
            await http.get("/api/v1/hub")
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"the host has ended: {host.returncode}")


async def start(http: httpx.AsyncClient, name: str, told: Counter[int]) -> None:
    """Until it is accepted, as the answers say."""
    while True:
        answer = await http.post(f"/api/start/{name}")
        told[answer.status_code] += 1
        if answer.status_code == 200:
            return
        await later(answer)


async def finished(http: httpx.AsyncClient, name: str) -> None:
    """Return when the instance has completed."""
    while True:
        answer = await http.get(f"/api/v1/instances/{name}")
        if answer.status_code != 200:
            await later(answer)
        elif answer.json()["status"] == "Completed":
            return
        else:
            await asyncio.sleep(0.2)


async def later(answer: httpx.Response) -> None:
    """The host has more to do than it can, and says when to come again."""
    assert answer.status_code in {429, 503}, answer.text
    await asyncio.sleep(int(answer.headers["retry-after"]))
