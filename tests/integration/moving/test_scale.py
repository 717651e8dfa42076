"""Large hubs move at a steady pace in little memory: the figures are printed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from durably.core.dump import DumpChunk, DumpHead, DumpRows, OwnedHistory, PlacedInstance, Positions
from durably.storage.moving import Counted
from durably.storage.open import moved_store
from durably.testing.store_scene import history_row, instance_row, timer_row

COUNT = 100_000 if os.environ.get("DURABLY_SOAK") else 10_000
EVENTS = b"TaskScheduled charge amount 12 EUR of a customer somewhere" * 4

RSS_MAX_MB = 280
"""More than half of it is the cache of a SQLite file that is being made; however large the hub is."""


async def large() -> AsyncGenerator[DumpChunk]:
    yield DumpHead(bytes(16), {}, 1, 1, [COUNT], Positions(COUNT, 0, 0))
    for first in range(1, COUNT, 500):
        rows = [
            instance_row(f"order-{n * 7919 % 1_000_003:07}", n, input=b'{"sku": "%d"}' % n, created_at=n)
            for n in range(first, first + 500)
        ]
        yield DumpRows("instances", [PlacedInstance(row.execution, row) for row in rows])
    for first in range(1, COUNT, 250):
        yield DumpRows(
            "history",
            [
                OwnedHistory(
                    f"order-{n * 7919 % 1_000_003:07}", history_row(n, seq, n, os.urandom(40) + EVENTS)
                )
                for n in range(first, first + 250)
                for seq in range(3)
            ],
        )
    for first in range(1, COUNT, 500):
        numbers = range(first, first + 500)
        yield DumpRows(
            "timers", [timer_row(n, 1, n, instance_id=f"order-{n * 7919 % 1_000_003:07}") for n in numbers]
        )


_MEASURE = """
import resource, subprocess, sys, time
started = time.monotonic()
done = subprocess.run([sys.executable, "-m", "durably", "hub", *sys.argv[1:]])
seconds = time.monotonic() - started
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(done.returncode, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss)
"""
"""In a small process of its own: a child begins with the memory of its parent."""


def measured(*arguments: str) -> str:
    """Run a command of ``durably hub``; how fast it was, and what it needed."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *arguments], capture_output=True, text=True, check=True
    )
    code, seconds, worked, most = map(float, done.stdout.split())
    assert code == 0, done.stderr
    assert f"{COUNT:,} instances, {3 * COUNT:,} history rows, {COUNT:,} timers" in done.stderr
    megabytes = most / (1_024 if sys.platform == "linux" else 1_048_576)
    assert megabytes < RSS_MAX_MB
    return f"{seconds:.1f} s, {COUNT / seconds:,.0f} instances/s, {worked:.1f} s of CPU, {megabytes:.0f} MB"


@pytest.mark.slow_once
def test_a_large_hub_goes_round(
    sqlite_url: Callable[[], str], postgres_url: Callable[[], str], tmp_path: Path
) -> None:
    source, there, back = sqlite_url(), postgres_url(), sqlite_url()
    first, second = str(tmp_path / "first.hub"), str(tmp_path / "second.hub")
    asyncio.run(moved_store(source).restore(large()))
    for name, arguments in {
        "SQLite to a file": ("export", source, first),
        "a file to PostgreSQL": ("import", first, there),
        "PostgreSQL to a file": ("export", there, second),
        "a file to SQLite": ("import", second, back),
        "SQLite to PostgreSQL": ("copy", back, postgres_url()),
    }.items():
        print(f"{name}, {COUNT:,} instances: {measured(*arguments)}")
    assert asyncio.run(counts(back)) == asyncio.run(counts(source))


async def counts(url: str) -> dict[str, int]:
    store, counted = moved_store(url), Counted()
    await store.open(create=False)
    async for chunk in store.dump():
        counted.note(chunk)
    await store.close()
    return counted.rows
