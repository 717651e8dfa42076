"""Scenarios 29 and 30: the server is killed again and again, and its backends are terminated, under a load of commits."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from durably.storage.postgres.store import PostgresStore
from tests.faults.postgres.conftest import Report
from tests.faults.postgres.ledger import Ledger, Verdict
from tests.faults.postgres.owners import Owner
from tests.support.postgres import PostgresServer

PARTITIONS = 8


@asynccontextmanager
async def two_owners(url: str, ledger: Ledger) -> AsyncGenerator[list[Owner]]:
    """Two store objects, each with half of the partitions."""
    owners: list[Owner] = []
    for number in range(2):
        store = PostgresStore(url, partitions=PARTITIONS)
        await store.open()
        owners.append(Owner(store, ledger, f"owner {number}"))
    for mine in range(PARTITIONS):
        await owners[mine % 2].take(mine)
    try:
        yield owners
    finally:
        await asyncio.gather(*(owner.store.close() for owner in owners))


async def load_with(
    server: PostgresServer, hub: str, seed: int, fault: Callable[[Random], Awaitable[None]], times: int
) -> tuple[Verdict, Counter[str], float]:
    """Commit to all partitions while a fault strikes so many times; returns also the longest recovery, in seconds."""
    ledger, random, over, longest = Ledger(PARTITIONS, seed), Random(seed), False, 0.0
    async with two_owners(server.url(hub), ledger) as owners:
        counts = [owner.counts for owner in owners]
        tasks = [asyncio.create_task(owners[mine % 2].work(mine, lambda: over)) for mine in range(PARTITIONS)]
        for _ in range(times):
            await fault(random)
            since, before = time.monotonic(), list(ledger.batches)
            while not all(now > then for now, then in zip(ledger.batches, before, strict=True)):
                await asyncio.sleep(0.005)
                assert not any(task.done() for task in tasks), [task for task in tasks if task.done()]
            longest = max(longest, time.monotonic() - since)
        over = True
        await asyncio.gather(*tasks)
    return await ledger.compare(server.dsn, hub), sum(counts, Counter()), longest


def check(server: PostgresServer, hub: str, report: Report, strike: tuple[str, int], outcome: object) -> None:
    what, times = strike
    verdict, counts, longest = outcome  # type: ignore[misc]
    report(
        **{what: times},
        commits=counts["acknowledged"],
        retries=counts["unavailable"],
        longest_recovery=f"{longest:.2f} s",
        lost=verdict.lost,
        doubled=verdict.doubled,
    )
    assert verdict.is_right, verdict.details
    assert counts["acknowledged"] >= times * PARTITIONS
    assert counts["taken"] == PARTITIONS, "nobody lost a partition by it"


def kills(server: PostgresServer, hub: str, seed: int, times: int, report: Report) -> None:
    async def kill(random: Random) -> None:
        await asyncio.sleep(random.uniform(0.05, 0.4))
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(random.uniform(0, 0.2))
        await asyncio.to_thread(server.start)

    outcome = asyncio.run(load_with(server, hub, seed, kill, times))
    check(server, hub, report, ("kills", times), outcome)


def terminations(server: PostgresServer, hub: str, seed: int, times: int, report: Report) -> None:
    async def terminate(random: Random) -> None:
        await asyncio.sleep(random.uniform(0, 0.02))
        await server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'durably%'"
            f" AND random() < {random.uniform(0.3, 1.0)}"
        )

    outcome = asyncio.run(load_with(server, hub, seed, terminate, times))
    check(server, hub, report, ("terminations", times), outcome)


@pytest.mark.slow_once
def test_the_server_is_killed_under_load(tmp_path: Path, hub_name: str, report: Report) -> None:
    server = PostgresServer(tmp_path / "server")
    server.start()
    try:
        kills(server, hub_name, 29, 4, report)
    finally:
        server.kill()


@pytest.mark.slow_once
def test_backends_are_terminated_under_load(
    shared_server: PostgresServer, hub_name: str, report: Report
) -> None:
    terminations(shared_server, hub_name, 30, 25, report)


@pytest.mark.soak
def test_the_server_is_killed_for_long(tmp_path: Path, hub_name: str, report: Report) -> None:
    server = PostgresServer(tmp_path / "server")
    server.start()
    try:
        kills(server, hub_name, 290, 300, report)
    finally:
        server.kill()


@pytest.mark.soak
def test_backends_are_terminated_for_long(
    shared_server: PostgresServer, hub_name: str, report: Report
) -> None:
    terminations(shared_server, hub_name, 300, 5000, report)
