"""What the hosts of `test_spread` run: fan-outs, whose activities note which process ran them."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from durably import App, OrchestrationContext

app = App()
KNOWS = frozenset(os.environ.get("KNOWS", "fan work wait slow").split())
LOG = os.open("effects.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
"""Opened once: what is measured should not be the disk."""

GATE = Path("gate")
"""Activities that wait go on when it exists."""


def note(*words: object) -> None:
    os.write(LOG, (" ".join(map(str, words)) + "\n").encode())


if "fan" in KNOWS:

    @app.orchestrator
    async def fan(ctx: OrchestrationContext, name: str) -> int:
        which, _, count = name.partition(" ")
        results = await asyncio.gather(*(ctx.call_activity(which, number) for number in range(int(count))))
        return sum(int(str(one)) for one in results)


if "work" in KNOWS:

    @app.activity
    async def work(number: int) -> int:
        """Two milliseconds of a processor."""
        until = time.process_time() + 0.002
        while time.process_time() < until:
            pass
        note("work", number, os.getpid())
        return 1


if "wait" in KNOWS:

    @app.activity
    async def wait(number: int) -> int:
        note("begun", number, os.getpid())
        try:
            while not GATE.exists():  # noqa: ASYNC110, ASYNC240 - of another process
                await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            note("cancelled", number, os.getpid())
            raise
        note("wait", number, os.getpid())
        return 1
