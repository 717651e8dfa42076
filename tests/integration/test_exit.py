"""A program that leaves its host ends, whatever its activities do."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio, sys, threading
from durably import App, EngineOptions

app = App()
running = threading.Event()

@app.activity
def wait_for_ever() -> None:
    running.set()
    threading.Event().wait()

@app.orchestrator
async def stuck(ctx) -> None:
    await ctx.call_activity(wait_for_ever)

async def main() -> None:
    async with app.host(sys.argv[1], options=EngineOptions(drain_timeout_s=0)) as host:
        await host.client.start(stuck, instance_id="stuck")
        await asyncio.to_thread(running.wait)
    print("left the host", flush=True)

asyncio.run(main())
print("at its end", flush=True)
"""


def test_a_thread_that_never_returns_does_not_keep_the_program_alive(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"sqlite:///{tmp_path / 'hub.db'}"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "left the host\nat its end\n", "")
