"""Hours of one load: throughput, latency, memory and the file stay what they were.

``DURABLY_SOAK_S``: how long (an hour). ``DURABLY_SOAK_PER_S``: instances offered a second (as many as the host takes): on
a machine that others use too, only what it can always keep up with shows whether anything creeps.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest

from durably import App, EngineOptions, OrchestrationContext
from durably.cli.hosting import tune_collector

SOAK_S = float(os.environ.get("DURABLY_SOAK_S", "3600"))
PER_S = float(os.environ.get("DURABLY_SOAK_PER_S", "inf"))
pytestmark = [pytest.mark.soak, pytest.mark.timeout(2 * SOAK_S + 120)]

SAMPLES = 60
IN_FLIGHT = 100
KEEP_S = max(1.0, SOAK_S / 60)
"""Finished instances are deleted after a sixtieth of the time: most of the run is in the steady state."""

SLOWER, LARGER = 0.75, 1.15
"""The last third against the second one: medians, on a machine that others use too."""

LATER = 2.0
"""The same for the latency of the typical sample's slowest hundredth."""


class Sample(NamedTuple):
    """What one sixtieth of the run was like."""

    per_s: float
    p99_ms: float
    rss_mb: float
    file_mb: float
    instances: int


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def _app() -> App:
    app = App()

    @app.activity
    async def work(number: int) -> int:
        return number + 1

    @app.orchestrator
    async def chain(ctx: OrchestrationContext, number: int) -> int:
        for _ in range(5):
            number = await ctx.call_activity(work, number)
        return number

    return app


async def _soak(path: Path) -> list[Sample]:
    done = 0
    over = False
    took_s: list[float] = []
    samples: list[Sample] = []
    options = EngineOptions(keep_finished_s=KEEP_S)
    async with _app().host(f"sqlite:///{path}", options=options) as host:

        async def worker(number: int) -> None:
            nonlocal done
            due = time.monotonic() + number / PER_S
            while not over:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                due += IN_FLIGHT / PER_S
                began = time.monotonic()
                assert await (await host.client.start("chain", 1)).result() == 6
                took_s.append(time.monotonic() - began)
                done += 1

        workers = [asyncio.create_task(worker(number)) for number in range(IN_FLIGHT)]
        for _ in range(SAMPLES):
            before, began = done, time.monotonic()
            await asyncio.sleep(SOAK_S / SAMPLES)
            took = time.monotonic() - began
            size = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*")) / (1 << 20)
            kept = (await host.client.bulk("purge", dry_run=True)).matched
            p99_ms = 1_000 * sorted(took_s)[len(took_s) * 99 // 100]
            took_s.clear()
            samples.append(Sample((done - before) / took, p99_ms, _rss_mb(), size, kept))
            print(f"{done:>10,} done", *(f"{value:,.1f}" for value in samples[-1]), flush=True)
        over = True
        await asyncio.gather(*workers)
    return samples


def test_an_hour_of_chains_is_flat(tmp_path: Path) -> None:
    tune_collector()
    samples = asyncio.run(_soak(tmp_path / "hub.db"))
    third = SAMPLES // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]
    speed = [median(one.per_s for one in part) for part in (middle, last)]
    late = [median(one.p99_ms for one in part) for part in (middle, last)]
    memory = [median(one.rss_mb for one in part) for part in (middle, last)]
    # The file is as large as the most instances that it has held, and retention deletes later on a busy machine.
    most = [max(one.instances for one in samples[:until]) for until in (2 * third, 3 * third)]
    file = [
        1_024 * median(one.file_mb for one in part) / kept
        for part, kept in zip((middle, last), most, strict=True)
    ]
    print(f"instances/s {speed}, p99 ms {late}, RSS MB {memory}, hub KB an instance {file}")
    assert speed[1] >= SLOWER * speed[0]
    assert late[1] <= LATER * late[0]
    assert memory[1] <= LARGER * memory[0]
    assert file[1] <= LARGER * file[0]
