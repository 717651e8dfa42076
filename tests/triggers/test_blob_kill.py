"""Many blobs, and a host that is killed with ``kill -9``, again and again: each version is handled, one start each."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from durably import App, Client, OrchestrationContext
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow_once

BLOBS = 160
OVERWRITTEN = 40
DEATHS = 4
PATIENCE_S = 60.0

PROGRAM = """
import asyncio, os
from durably import App, Blob, Client, OrchestrationContext

app = App()

def note(kind, text):
    fd = os.open("effects.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{kind} {text}\\n".encode())
    os.close(fd)

@app.orchestrator
async def flow(ctx: OrchestrationContext, content: str) -> str:
    return content

@app.blob("docs/{name}", interval=0.05, max_tries=100, max_concurrent=8)
async def take(name: str, content: str, blob: Blob, client: Client) -> None:
    note("take", f"{name}={content}")
    await client.start(flow, f"{name}={content}")
    await asyncio.sleep(0.02)

async def main():
    async with app.host("sqlite:///hub.db"):
        print("up", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def wait_until(condition: Callable[[], bool], pause_s: float = 0.005) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(pause_s)


def test_each_version_is_handled_and_starts_one_orchestration(tmp_path: Path) -> None:
    (tmp_path / "host.py").write_text(PROGRAM)
    docs, aside = tmp_path / "blobs" / "docs", tmp_path / "aside"
    docs.mkdir(parents=True)
    chance = random.Random(7)

    def life() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "host.py"],
            cwd=tmp_path,
            env=dict(os.environ),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    def put(number: int, content: str) -> None:
        aside.write_text(content)
        aside.rename(docs / f"{number}")

    def handled() -> int:
        log = tmp_path / "effects.log"
        return log.read_bytes().count(b"\n") if log.exists() else 0

    def is_handled(count: int) -> bool:
        return handled() >= count

    async def flows() -> Counter[str]:
        async with Client(f"sqlite:///{tmp_path / 'hub.db'}") as client:
            found: Counter[str] = Counter()
            token: str | None = None
            while True:
                page = await client.query_instances(
                    name="flow", runtime_status=["Completed"], page_size=1000, continuation_token=token
                )
                found.update(str(one.output) for one in page.instances)
                token = page.continuation_token
                if token is None:
                    return found

    process = life()
    try:
        for death in range(DEATHS):
            share = BLOBS // DEATHS + 1
            for number in range(death * share, min(BLOBS, (death + 1) * share)):
                put(number, "first")
            enough = handled() + chance.randint(1, share - 10)
            wait_until(partial(is_handled, enough))
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]
            process = life()
        wanted = Counter({f"{number}=first": 1 for number in range(BLOBS)})
        wait_until(lambda: asyncio.run(flows()) == wanted, 0.2)
        for number in range(OVERWRITTEN):
            put(number, "second")
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]
        process = life()
        wanted.update({f"{number}=second": 1 for number in range(OVERWRITTEN)})
        wait_until(lambda: asyncio.run(flows()) == wanted, 0.2)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]
    effects = Counter((tmp_path / "effects.log").read_text().splitlines())
    assert set(effects) == {f"take {one}" for one in wanted}
    again = effects.total() - len(effects)
    print(
        f"{len(effects)} versions, {DEATHS + 1} deaths: {again} handed out again, {wanted.total()} orchestrations"
    )
    assert 0 < again <= (DEATHS + 1) * 8 * 3


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_many_blobs_in_a_folder(tmp_path: Path, count: int) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, name: str) -> str:
        return name

    @app.blob("docs/{name}.txt")
    async def take(name: str, text: str, client: Client) -> None:
        await client.start(flow, text)

    docs = tmp_path / "blobs" / "docs"
    for number in range(count):
        path = docs / f"{number % 100:02}"
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{number}.txt").write_text(str(number))

    async def main() -> float:
        async with app.host(f"sqlite:///{tmp_path / 'hub.db'}") as host:
            begun = time.monotonic()

            async def all_finished() -> bool:
                await asyncio.sleep(0.05)
                counts = await host.client.count_instances(by="status")
                return counts == {"Completed": 2 * count}

            await eventually(all_finished)
            return time.monotonic() - begun

    took = asyncio.run(main())
    print(f"{count:,} blobs in a folder: all handled, their orchestrations finished, in {took:.1f} s")
