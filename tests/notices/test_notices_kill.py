"""A host that is killed with ``kill -9``, again and again: every end is told at least once."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from durably import Client
from tests.http.scene import until
from tests.notices.receiver import SECRET, Receiver, Told, receiving

pytestmark = pytest.mark.slow_once

INSTANCES = 300
DEATHS = 4
PATIENCE_S = 90.0

PROGRAM = """
import asyncio
from durably import App, HttpPolicy, OrchestrationContext

app = App(http=HttpPolicy(allow_networks=("127.0.0.1",)))

@app.activity
async def work(number: int) -> int:
    return number

@app.orchestrator
async def flow(ctx: OrchestrationContext, number: int) -> int:
    if await ctx.call_activity(work, number) % 3 == 0:
        raise ValueError("no")
    return number

async def main():
    async with app.host("sqlite:///hub.db") as host:
        print("up", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_every_end_is_told_at_least_once(tmp_path: Path) -> None:
    with receiving() as receiver:
        told = lived(tmp_path, receiver)
    ends = Counter(one.body["data"]["instanceId"] for one in told)
    assert set(ends) == {f"f{number}" for number in range(INSTANCES)}
    for one in told:
        number = int(one.body["data"]["instanceId"][1:])
        assert one.body["type"] == ("instance.completed" if number % 3 else "instance.failed")
        assert one.is_signed
    assert (
        len({one.headers["webhook-id"] for one in told}) == INSTANCES
    )  # a repeat can be told from a second end
    print(f"{INSTANCES} ends, {DEATHS} deaths: {len(told) - INSTANCES} told again")
    assert len(told) > INSTANCES  # else no death came in between


def slowly(_: Told) -> int:
    time.sleep(0.02)
    return 200


def lived(folder: Path, receiver: Receiver) -> list[Told]:
    (folder / "host.py").write_text(PROGRAM)
    hub = f"sqlite:///{folder / 'hub.db'}"
    receiver.answer = slowly
    settings = {"DURABLY_WEBHOOK_URL": f"{receiver.url}/hook", "DURABLY_WEBHOOK_SECRET": SECRET}

    def life() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "host.py"],
            cwd=folder,
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    async def start() -> None:
        async with Client(hub) as client:
            for number in range(INSTANCES):
                await client.start("flow", number, instance_id=f"f{number}")

    async def finished() -> None:
        async with Client(hub) as client, asyncio.timeout(PATIENCE_S):
            for number in range(INSTANCES):
                await client.wait_for_completion(f"f{number}", timeout=PATIENCE_S)

            async def left() -> int:
                return await client.count_instances(
                    name="durably:notice", runtime_status=["Pending", "Running"]
                )

            await until(left, 0)

    process = life()
    starting = threading.Thread(target=lambda: asyncio.run(start()))
    starting.start()
    for death in range(1, DEATHS + 1):
        while len(receiver.told) < death * INSTANCES // (DEATHS + 2):  # some are being told just now
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]
        process = life()
    starting.join(PATIENCE_S)
    assert not starting.is_alive()
    asyncio.run(finished())
    process.kill()
    process.wait()
    process.stdout.close()  # type: ignore[union-attr]
    return receiver.told
