"""`python -m bench.hosts`: what many hosts on one PostgreSQL do together, each in a process of its own.

pair     W1 by one host, then by two, each with half of the load; in turns
idle     statements a second that hosts cost a server while there is nothing to do
waiting  a host starts on a hub in which instances wait: how long until it serves, and its memory
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from bench.figures import Load, MeasurementError, Record, latency
from bench.hub import hub_url, server
from bench.machine import calibrate
from bench.workloads import run_chains
from durably import Client

VARIANT = "postgres"
_BALANCE_S = 60.0
_CHUNK = 20_000
_CATCH_UP_S = 20.0
"""Hosts have settled, and what they do then they do for ever."""


Drive = Callable[[int, int], Awaitable[tuple[list[float], float]]]
"""Runs so many chains, so many in flight; the seconds of each, and of all together."""


class Process:
    """A host in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.start_s = 0.0

    async def ask(self, **command: Any) -> Record:
        """Have it do something; returns what it answers."""
        stdin = self._process.stdin
        if stdin is None:
            raise MeasurementError("a host was started without a stdin")
        stdin.write(json.dumps(command).encode() + b"\n")
        await stdin.drain()
        return await self.answer()

    async def answer(self) -> Record:
        """Its next line."""
        line = b"" if self._process.stdout is None else await self._process.stdout.readline()
        if not line:
            raise MeasurementError(f"a host ended by itself: {await self._process.wait()}")
        return json.loads(line)


@asynccontextmanager
async def hosting(url: str) -> AsyncGenerator[Process]:
    """A host, until the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.hosts_process",
        url,
        VARIANT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    found = Process(process)
    try:
        found.start_s = (await found.answer())["start_s"]
        yield found
    finally:
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()


@asynccontextmanager
async def fleet(url: str, hosts: int) -> AsyncGenerator[list[Process]]:
    """Hosts that have shared the partitions out."""
    async with AsyncExitStack() as stack:
        found = [await stack.enter_async_context(hosting(url)) for _ in range(hosts)]
        deadline = time.monotonic() + _BALANCE_S
        while True:
            owned = [(await host.ask(do="owns"))["owns"] for host in found]
            if sum(owned) == 32 and max(owned) - min(owned) <= 1:
                break
            if time.monotonic() > deadline:
                raise MeasurementError(f"the partitions are shared out unfairly: {owned}")
            await asyncio.sleep(0.2)
        yield found


async def pair(n: int, c: int, reps: int, *, inside: bool) -> AsyncGenerator[Record]:
    """Activities a second by one host and by two; the load is a client in this process, or one within each host."""
    for rep in range(reps):
        for hosts in (1, 2):
            url = hub_url(VARIANT, Path())
            async with fleet(url, hosts) as members:
                drive = _from_within(members) if inside else _from_here(url)
                await drive(200, c)
                seconds, wall = await drive(n, c)
            yield {
                "load": "within" if inside else "outside",
                "hosts": hosts,
                "rep": rep,
                "done": len(seconds),
                "act_per_s": round(5 * len(seconds) / wall, 1),
                **latency(seconds),
            }


def _from_here(url: str) -> Drive:
    async def drive(n: int, c: int) -> tuple[list[float], float]:
        async with Client(url) as client:
            return await run_chains(client, Load(n, c, f"w-{time.time_ns()}", 600), 5)

    return drive


def _from_within(members: Sequence[Process]) -> Drive:
    """Each host starts an equal part, and instances have the ids that it gives them."""

    async def drive(n: int, c: int) -> tuple[list[float], float]:
        began = perf_counter()
        parts = [member.ask(do="chains", n=n // len(members), c=c // len(members)) for member in members]
        done = await asyncio.gather(*parts)
        wall = perf_counter() - began
        return [seconds for part in done for seconds in part["seconds"]], wall

    return drive


async def idle(hosts: int, seconds: float) -> AsyncGenerator[Record]:
    """Transactions a second, each of which is a statement while nothing is done."""
    async with fleet(hub_url(VARIANT, Path()), hosts):
        await asyncio.sleep(_CATCH_UP_S)
        before = await _transactions()
        await asyncio.sleep(seconds)
        after = await _transactions()
    yield {"hosts": hosts, "seconds": seconds, "statements_per_s": round((after - before) / seconds, 2)}


async def _transactions() -> int:
    connection: Any = await cast("Any", asyncpg).connect(server())
    try:
        return await connection.fetchval(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        )
    finally:
        await connection.close()


async def waiting(n: int) -> AsyncGenerator[Record]:
    """Instances wait; their host ends and another one starts."""
    url, tag = hub_url(VARIANT, Path()), "waiting"
    async with hosting(url) as host:
        began = perf_counter()
        for first in range(0, n, _CHUNK):
            await host.ask(do="start", first=first, n=min(_CHUNK, n - first), tag=tag)
        started_s = perf_counter() - began
        filled = await host.ask(do="owns")
    began = perf_counter()
    async with hosting(url) as host:
        await host.ask(do="raise", tag=tag, number=n // 2)
        served_s = perf_counter() - began
        for number in range(0, n, max(1, n // 1_000)):
            if number != n // 2:
                await host.ask(do="raise", tag=tag, number=number)
        restarted = await host.ask(do="owns")
    yield {
        "n": n,
        "started_per_s": round(n / started_s),
        "rss_mb_after_starts": filled["rss_mb"],
        "start_of_host_s": host.start_s,
        "restart_to_first_result_s": round(served_s, 2),
        "rss_mb": restarted["rss_mb"],
    }


async def measure(given: argparse.Namespace) -> None:
    """Print a line for each result."""
    match given.what:
        case "pair":
            found = pair(given.n or 4_000, given.c, given.reps, inside=given.load == "within")
        case "idle":
            found = idle(given.hosts, given.seconds)
        case _:
            found = waiting(given.n or 1_000_000)
    with tempfile.TemporaryDirectory(prefix="durably-bench-") as directory:
        async for record in found:
            print(json.dumps({"what": given.what, **record, "calib": calibrate(Path(directory))}), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(
        "python -m bench.hosts", description="Measure many hosts; see bench/README.md."
    )
    parser.add_argument("what", choices=("pair", "idle", "waiting"))
    parser.add_argument("--n", type=int, help="pair: instances (4,000); waiting: instances (1,000,000)")
    parser.add_argument("--c", type=int, default=100, help="pair: in flight at once (default: %(default)s)")
    parser.add_argument("--reps", type=int, default=3, help="pair: repetitions (default: %(default)s)")
    parser.add_argument(
        "--load",
        choices=("within", "outside"),
        default="within",
        help="pair: who starts (default: %(default)s)",
    )
    parser.add_argument("--hosts", type=int, default=4, help="idle: how many (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="idle: for how long (default: %(default)s)")
    try:
        asyncio.run(measure(parser.parse_args(argv)))
    except MeasurementError as error:
        print(f"it cannot be measured: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
