"""Other processes: what they do is named on the command line; they speak by lines on their output."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from durably import ActivityContext, App, OrchestrationContext, OrchestrationFailedError
from durably.core.commit import InboxRow
from durably.core.history import encode_body
from durably.core.messages import RaiseEvent
from durably.storage.open import open_store
from tests.faults.clients import Clients, jobs, options_of, serving
from tests.faults.effects import SideFile
from tests.faults.evidence import Evidence
from tests.faults.plan import Job
from tests.support.waiting import eventually

CAP_MIB = 4_096
"""Address space of a host that starves; threads and the allocator reserve most of it."""

ROOT = Path(__file__).parents[2]

WIDTH = 1_000
"""Activities of the fan-out of scenario 4."""


@contextmanager
def child(command: str, *arguments: object) -> Generator[subprocess.Popen[str]]:
    """Run a command of this file in a process of its own; it is killed when the block ends."""
    with program("tests.faults.children", command, *arguments) as process:
        yield process


@contextmanager
def program(
    module: str, *arguments: object, cwd: Path = ROOT, **environment: str
) -> Generator[subprocess.Popen[str]]:
    """Run a module in a process of its own; it is killed when the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **environment},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line of its output."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str], line: str = "") -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def _say(line: object) -> None:
    os.write(1, f"{line}\n".encode())  # in one piece, and at once


def wide_app(side: SideFile) -> App:
    """A fan-out that says when it begins."""
    app = App()

    @app.activity
    async def same(x: int, ctx: ActivityContext) -> int:
        side.note("start", ctx)
        return x

    @app.orchestrator
    async def wide(ctx: OrchestrationContext, width: int) -> int:
        calls = [ctx.call_activity(same, x) for x in range(width)]
        if not ctx.is_replaying:
            _say("scheduling")
        return sum(await asyncio.gather(*calls))

    return app


async def fan_out(folder: str) -> None:
    """Run a fan-out, until the parent kills this process."""
    evidence = Evidence.in_folder(Path(folder))
    async with wide_app(SideFile(evidence.side, 0)).host(evidence.url) as host:
        handle = await host.client.start("wide", WIDTH, instance_id="wide")
        await handle.result()
        await asyncio.to_thread(sys.stdin.readline)


def hungry_app() -> App:
    """Activities and orchestrators that want much at once."""
    app = App()

    @app.activity
    async def gorge(mebibytes: int) -> int:
        return len(bytearray(mebibytes << 20))

    @app.activity
    async def echo(value: Any) -> Any:
        return value

    @app.orchestrator
    async def once(ctx: OrchestrationContext, mebibytes: int) -> int:
        return await ctx.call_activity(gorge, mebibytes)

    @app.orchestrator
    async def payload(ctx: OrchestrationContext, text: str) -> int:
        return len(await ctx.call_activity(echo, text))

    @app.orchestrator
    async def fan(ctx: OrchestrationContext, width: int) -> int:
        return len(await asyncio.gather(*(ctx.call_activity(echo, n) for n in range(width))))

    @app.orchestrator
    async def long(ctx: OrchestrationContext, steps: int) -> int:
        for n in range(steps):
            await ctx.call_activity(echo, n)
        return steps

    return app


def _peak_mib() -> int:
    """The most memory that this process has had."""
    status = Path("/proc/self/status")
    if status.exists():  # what `getrusage` says is inherited from the parent
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) // 1_024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1_024


def _address_space() -> int:
    """Bytes that this process has reserved."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


async def starve(folder: str) -> None:
    """An activity asks for more memory than there is; jobs run beside it."""
    resource.setrlimit(resource.RLIMIT_AS, (CAP_MIB << 20, resource.RLIM_INFINITY))
    evidence = Evidence.of_journal(Path(folder))
    async with (
        hungry_app().host(evidence.beside("other"), options=options_of(evidence)) as hungry,
        serving(evidence) as host,
    ):
        handle = await hungry.client.start("once", 16 * CAP_MIB)
        work = asyncio.ensure_future(Clients(evidence, jobs(8, first=8)).drive(host))
        try:
            await handle.result()
            _say("it got the memory")
        except OrchestrationFailedError as error:
            inner = error.details.inner
            _say(error.details.type if inner is None else inner.type)
        assert await work
        _say(f"all {len(evidence.results)} ended")


async def overgrown(folder: str, room_mib: str) -> None:
    """Serve jobs beside an instance whose history is far larger than the memory that there is."""
    evidence = Evidence.of_journal(Path(folder))
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + (int(room_mib) << 20), resource.RLIM_INFINITY))
    async with serving(evidence) as host:
        await host.client.raise_event("huge", "more", 1)
        status = await host.client.get_status("huge")
        _say(status.blocked if status is not None else "it is gone")
        assert await Clients(evidence, jobs(8, first=8)).drive(host)
        _say(f"all {len(evidence.results)} ended")


async def burst(folder: str) -> None:
    """The process itself dies while jobs run."""
    evidence = Evidence.of_journal(Path(folder))
    async with serving(evidence) as host:
        work = asyncio.ensure_future(Clients(evidence, jobs(8, first=8)).drive(host))
        await eventually(lambda: evidence.started, "a start")
        _say("began")
        os.kill(os.getpid(), signal.SIGKILL)  # what the kernel does when memory runs out
        await work


async def bulk(folder: str, what: str, cap_mib: str, scale: str) -> None:
    """Something large, under a cap on the memory that it may take."""
    sizes: dict[str, Any] = {
        "payload": "x" * (int(scale) * 6_400_000),
        "fan": int(scale) * 5_000,
        "long": int(scale) * 2_000,
    }
    evidence = Evidence.in_folder(Path(folder))
    async with hungry_app().host(evidence.url, options=options_of(evidence)) as host:
        await (await host.client.start("fan", 10)).result()
        before = _peak_mib()
        size = sizes[what]
        handle = await host.client.start(what, size)
        result = await handle.result()
        assert result == (len(size) if what == "payload" else size)
        grown = _peak_mib() - before
        verdict = "done" if grown <= int(cap_mib) else "too much"
        _say(f"{what}: {verdict}, {result} took {grown} MiB of memory, {cap_mib} allowed")


async def post_many(hub: str, writer: str, posts: str, *jobs: str) -> None:
    """Post events to tallies, one after the other, by the store alone: the owner is another process."""
    store = open_store(f"sqlite:///{hub}")
    await store.open(create=False)
    _say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    for n in range(int(posts)):
        for number in jobs:
            target = Job(int(number)).instance_id
            token = f"{target}/w{writer}.{n}"
            body = encode_body(RaiseEvent("token", json.dumps(token).encode()))
            await store.post([InboxRow(token, target, 0, body)])
    await store.close()
    _say("posted")
    await asyncio.to_thread(sys.stdin.readline)


async def outgrow(folder: str) -> None:
    """Reach a limit on the size of files, and go on when it is lifted, without a restart."""
    evidence = Evidence.in_folder(Path(folder))
    async with serving(evidence, commit_retry_s=0.05) as host:
        assert await Clients(evidence, jobs(8, first=8)).drive(host)
        size = evidence.hub.with_name("hub.db-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        waiting = asyncio.ensure_future(Clients(evidence, jobs(8, first=16)).drive(host))
        await eventually(lambda: host.engine.trouble, "the host to notice")
        _say(host.engine.trouble)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert await waiting
        _say(f"all {len(evidence.results)} ended")


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]](*sys.argv[2:]))
