"""A consumer that is killed with ``kill -9``, again and again: every message is handled, none is lost, one start each."""

import asyncio
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from durably import Client

pytestmark = pytest.mark.slow_once

MESSAGES = 600
DEATHS = 6
PATIENCE_S = 90.0

PROGRAM = """
import asyncio, os, sys
from durably import App, Client, OrchestrationContext

app = App()

def note(kind, number):
    fd = os.open("effects.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{kind} {number}\\n".encode())
    os.close(fd)

@app.activity
async def work(number: int) -> int:
    note("work", number)
    return number

@app.orchestrator
async def flow(ctx: OrchestrationContext, number: int) -> int:
    return await ctx.call_activity(work, number)

@app.queue("orders", max_dequeue_count=100, max_concurrent=8)
async def take(number: int, client: Client) -> None:
    note("take", number)
    await client.start(flow, number)
    await asyncio.sleep(0.02)

async def main():
    async with app.host("sqlite:///hub.db") as host:
        print("up", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_every_message_is_handled_and_starts_one_orchestration(tmp_path: Path) -> None:
    (tmp_path / "consumer.py").write_text(PROGRAM)
    hub = f"sqlite:///{tmp_path / 'hub.db'}"
    chance = random.Random(7)

    def life() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "consumer.py"],
            cwd=tmp_path,
            env=dict(os.environ),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        if process.stdout.readline() != "up\n":
            death(process)
            pytest.fail("the consumer did not come up")
        return process

    async def send() -> None:
        async with Client(hub) as client:
            queue = client.queue("orders")
            for number in range(MESSAGES):
                await queue.send(number, message_id=f"m{number}")
                if number % 7 == 0:
                    await queue.send(number, message_id=f"m{number}")  # its sender was not sure

    def death(process: subprocess.Popen[str]) -> None:
        with process:
            process.kill()

    async def finished() -> dict[str, int]:
        async with Client(hub) as client, asyncio.timeout(PATIENCE_S):
            for number in range(MESSAGES):
                await client.wait_for_completion(f"queue:orders:m{number}", timeout=PATIENCE_S)
                assert await client.handle(f"orders:m{number}").result(timeout=PATIENCE_S) == number
            return {
                "flows": await client.count_instances(name="flow"),
                "poison": await client.queue("orders-poison").count(),
            }

    process = life()
    try:
        sending = threading.Thread(target=lambda: asyncio.run(send()), daemon=True)
        sending.start()
        for _ in range(DEATHS):
            time.sleep(chance.uniform(0.02, 0.2))
            death(process)
            process = life()
        sending.join(PATIENCE_S)
        assert not sending.is_alive()
        counts = asyncio.run(finished())
    finally:
        death(process)
    assert counts == {"flows": MESSAGES, "poison": 0}
    effects = Counter(tuple(line.split()) for line in (tmp_path / "effects.log").read_text().splitlines())
    assert all(effects["take", str(number)] >= 1 for number in range(MESSAGES))
    assert all(effects["work", str(number)] >= 1 for number in range(MESSAGES))
    again = sum(count - 1 for (kind, _), count in effects.items() if kind == "take")
    print(f"{MESSAGES} messages, {DEATHS} deaths: {again} handed out again, {counts['flows']} orchestrations")
    # Beside those that were in the function, those whose end was not durable yet.
    assert 0 < again <= DEATHS * 8 * 3
