"""W6, and W8, which is W6 at size: instances wait, their engine is killed and started again, then all are raised."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.figures import Load, MeasurementError, Record
from bench.hub import hub_url
from bench.machine import cpu_s, resident_mb
from bench.workloads import Workload

LIMIT_S = 100.0
"""What is not complete this long after the restart is lost."""

_ROOT = Path(__file__).parents[1]
_LINE_BYTES_MAX = 64 << 20


class EngineProcess:
    """The other end of `bench.engine_process`."""

    def __init__(self, url: str, loop: str) -> None:
        self._url = url
        self._loop = loop
        self._process: asyncio.subprocess.Process | None = None

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The one that runs."""
        if self._process is None:
            raise MeasurementError("the engine process is not running")
        return self._process

    async def launch(self) -> None:
        """Start it and return once it serves the hub."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "bench.engine_process", self._url, self._loop),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=_ROOT,
            limit=_LINE_BYTES_MAX,
        )
        await self._answer()

    async def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and return its answer."""
        if self.process.stdin is None:
            raise MeasurementError("the engine process was started without a stdin")
        self.process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        await self.process.stdin.drain()
        return await self._answer()

    async def kill(self) -> None:
        """End it as a power cut would, as far as it can tell."""
        self.process.kill()
        await self.process.wait()
        self._process = None

    async def end(self) -> None:
        """Let it end in good order; kill it when it takes too long. Idempotent."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(20):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        self._process = None

    async def _answer(self) -> dict[str, Any]:
        if self.process.stdout is None:
            raise MeasurementError("the engine process was started without a stdout")
        line = await self.process.stdout.readline()
        if not line:
            raise MeasurementError(f"the engine process ended by itself: {await self.process.wait()}")
        return json.loads(line)


@asynccontextmanager
async def recovering(directory: Path, loop: str) -> AsyncGenerator[Workload]:
    """Hand out W6 and W8; every repetition has a process of its own, all have one hub."""
    engine = EngineProcess(hub_url("sqlite", directory), loop)

    async def repetition(load: Load) -> Record:
        log = directory / f"{load.tag}.log"
        try:
            return await w6(engine, load, log)
        finally:
            await engine.end()

    yield repetition


async def w6(engine: EngineProcess, load: Load, log: Path) -> Record:
    keys = load.keys()
    await engine.launch()
    began = perf_counter()
    await engine.ask("start", keys=keys, log=str(log))
    start_s = perf_counter() - began
    waiting_mb = resident_mb(engine.process.pid)
    await engine.kill()

    began = perf_counter()
    await engine.launch()
    up_s = perf_counter() - began
    await engine.ask("raise", keys=keys)
    raised_s = perf_counter() - began
    done = (await engine.ask("wait", keys=keys, prefix=f"{load.tag}-", limit_s=LIMIT_S))["completed"]
    wall = perf_counter() - began

    pid = engine.process.pid
    spent, resident = round(cpu_s(pid), 2), round(resident_mb(pid), 1)
    traces = Counter(await asyncio.to_thread(_lines, log))
    missing = load.n - len(traces)
    return {
        "engine_cpu_s": {"engine": spent},
        "engine_rss_mb": {"engine": resident},
        "engine_procs": 1,
        "done": done,
        "lost": max(load.n - done, missing),
        "doubled": traces.total() - len(traces),
        "waiting_rss_mb": round(waiting_mb, 1),
        "start_s": round(start_s, 3),
        "up_s": round(up_s, 3),
        "raised_s": round(raised_s, 3),
        "raise_to_done_s": round(wall - up_s, 3),
        "wall_s": round(wall, 3),
        "inst_per_s": round(done / wall, 2),
    }


def _lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8").split() if log.exists() else []
