"""Hosts as processes on one hub: they share it, are killed with ``kill -9``, stop, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from durably import Client, RuntimeStatus
from durably.core.hosts import HostStatus
from durably.errors import HubNotFoundError
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.slow_once

LEASE_S = 2.0
PARTITIONS = 8
ORDERS = 120
DEATHS = 4
PATIENCE_S = 90.0

PROGRAM = """
import asyncio, os
from durably import App, EntityContext, OrchestrationContext

app = App()

def note(*words):
    with open("effects.log", "a") as log:
        log.write(" ".join(map(str, words)) + "\\n")

@app.activity
async def pay(order: int) -> int:
    await asyncio.sleep(0.02)
    note("pay", order, os.getpid())
    return order

@app.orchestrator
async def ship(ctx: OrchestrationContext, order: int) -> int:
    await ctx.create_timer(0.3)
    return await ctx.call_activity(pay, order)

@app.entity(name="counter")
def counter(ctx: EntityContext):
    ctx.set_state((ctx.get_state(int) or 0) + ctx.get_input(int))

@app.orchestrator
async def order(ctx: OrchestrationContext, number: int) -> list[int]:
    shipped = await asyncio.gather(*(ctx.call_sub_orchestrator(ship, number * 10 + part) for part in range(3)))
    ctx.signal_entity("@counter@all", "add", 1)
    go = await ctx.wait_for_external_event("go", int)
    return [*shipped, go]
"""


class Hosts:
    """Processes that serve one hub."""

    def __init__(self, folder: Path, url: str) -> None:
        (folder / "app.py").write_text(PROGRAM)
        self.folder = folder
        self.url = url
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        environment = {
            **os.environ,
            "DURABLY_LEASE_S": str(LEASE_S),
            "DURABLY_PARTITIONS": str(PARTITIONS),
            "DURABLY_STATE_DIR": str(self.folder),
        }
        with (self.folder / "hosts.log").open("ab") as log:
            command = [sys.executable, "-m", "durably", "run", "app.py", "--hub", self.url]
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.running.append(process)

    def end(self, process: subprocess.Popen[bytes], how: signal.Signals) -> None:
        self.running.remove(process)
        process.send_signal(how)
        process.wait(30)

    def close(self) -> None:
        for process in list(self.running):
            self.end(process, signal.SIGKILL)


async def shared_by(client: Client, count: int) -> list[HostStatus]:
    """Return when so many hosts have all partitions, in fair shares."""
    least, most = PARTITIONS // count, -(-PARTITIONS // count)
    hosts: list[HostStatus] = []
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(HubNotFoundError):  # the first of them makes it
                hosts = await client.hosts()
            shares = [host.partitions for host in hosts]
            if (
                len(hosts) == count
                and sum(shares) == PARTITIONS
                and least <= min(shares) <= max(shares) <= most
            ):
                return hosts
            await asyncio.sleep(0.05)


@pytest.fixture
def hosts(server: PostgresServer, tmp_path: Path) -> object:
    made = Hosts(tmp_path, server.url(f"hosts_{os.urandom(4).hex()}"))
    yield made
    made.close()


def test_hosts_that_are_killed_lose_nothing_and_double_nothing(hosts: Hosts) -> None:
    chance = random.Random(11)

    async def work() -> None:
        hosts.start()
        async with Client(hosts.url) as client:
            for _ in range(2):
                hosts.start()
            await shared_by(client, 3)
            starting = asyncio.gather(
                *(client.start("order", number, instance_id=f"order-{number}") for number in range(ORDERS))
            )
            for _ in range(DEATHS):
                await asyncio.sleep(chance.uniform(0.2, 0.8))
                hosts.end(chance.choice(hosts.running), signal.SIGKILL)
                hosts.start()
            handles = await starting
            for number, handle in enumerate(handles):
                await handle.raise_event("go", number)
            async with asyncio.timeout(PATIENCE_S):
                results = await asyncio.gather(*(handle.result() for handle in handles))
            assert results == [
                [number * 10, number * 10 + 1, number * 10 + 2, number] for number in range(ORDERS)
            ]
            counted = await client.count_instances(runtime_status=RuntimeStatus.Completed)
            assert counted == ORDERS * 4
            async with asyncio.timeout(PATIENCE_S):
                while await client.read_entity("@counter@all", int) != ORDERS:  # noqa: ASYNC110 - of other processes
                    await asyncio.sleep(0.05)

    asyncio.run(work())
    effects = Counter(line.split()[1] for line in (hosts.folder / "effects.log").read_text().splitlines())
    assert len(effects) == ORDERS * 3
    again = sum(effects.values()) - len(effects)
    print(f"{ORDERS} orders, {DEATHS} hosts killed: {again} of {len(effects)} activities ran again")


def test_a_host_that_stops_hands_over_and_one_that_dies_is_replaced(hosts: Hosts) -> None:
    async def work() -> tuple[float, float]:
        hosts.start()
        async with Client(hosts.url) as client:
            hosts.start()
            await shared_by(client, 2)
            began = time.monotonic()
            await asyncio.to_thread(hosts.end, hosts.running[0], signal.SIGTERM)
            await shared_by(client, 1)
            stopped_s = time.monotonic() - began
            hosts.start()
            await shared_by(client, 2)
            hosts.end(hosts.running[0], signal.SIGKILL)
            began = time.monotonic()
            await shared_by(client, 1)
            died_s = time.monotonic() - began
            handle = await client.start("order", 1)
            await handle.raise_event("go", 5)
            assert await handle.result(timeout=PATIENCE_S) == [10, 11, 12, 5]
        return stopped_s, died_s

    stopped_s, died_s = asyncio.run(work())
    print(
        f"handed over {stopped_s:.2f} s after SIGTERM; taken over {died_s:.2f} s after kill -9, lease {LEASE_S:g} s"
    )
    assert stopped_s < 3 * 1.0 + 1.0  # a process ends in it, too
    assert died_s < 3 * (LEASE_S + 2.0)
