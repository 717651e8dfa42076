"""Records a hub with instances in every state, as a kill leaves it: ``python -m tests.golden.record_hub NAME``.

Each schema version has its file, recorded by the code of its time; later versions open, migrate and finish it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HUBS = Path(__file__).parent / "hubs"
ROOT = Path(__file__).parents[2]


async def fill() -> None:
    """Runs in the process that is killed."""
    from tests.golden.hub_program import HANGING, app

    HANGING.touch()
    async with app.host("sqlite:///hub.db") as host:
        client = host.client
        for number in range(5):
            await client.start("chain", number, instance_id=f"chain-{number}", tags={"number": f"{number}"})
            await client.wait_for_completion(f"chain-{number}")
        await client.start("fails", instance_id="fails")
        await client.wait_for_completion("fails")
        await client.start("waits", "hello ", instance_id="waits")
        await client.start("waits", "early ", instance_id="early")
        await client.raise_event("early", "name", "bird")
        await client.wait_for_completion("early")
        await client.start("waits", "held ", instance_id="suspended")
        await client.suspend("suspended", "pause")
        await client.raise_event("suspended", "Name", "event")
        await client.start("waits", "x", instance_id="terminated")
        await client.terminate("terminated", "enough")
        await client.start("in_flight", instance_id="in-flight")
        await client.start("retries", instance_id="retries")
        await client.start("sleeps", instance_id="sleeps")
        await client.start("parent", instance_id="parent")
        await client.start("eternal", 0, instance_id="eternal")
        await client.raise_event("eternal", "Other", "carried")
        await client.start("chain", 1, instance_id="later", start_at=3)
        await client.signal_entity("@tally@a", "add", 5)
        await client.signal_entity("@tally@a", "add", 2, at=3)
        await asyncio.sleep(0.5)  # the first attempts have failed, the children wait
        os.kill(os.getpid(), signal.SIGKILL)


def record(path: Path, module: str) -> None:
    """Run `fill` of a module in a process that kills itself, and keep the hub that it leaves."""
    with tempfile.TemporaryDirectory() as folder:
        code = f"import asyncio; from {module} import fill; asyncio.run(fill())"
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-c", code], check=False, cwd=folder, env={**os.environ, "PYTHONPATH": paths}
        )
        if done.returncode != -signal.SIGKILL:
            raise SystemExit(
                f"the process that fills the hub ended with {done.returncode}, not by its own hand"
            )
        path.parent.mkdir(exist_ok=True)
        with tarfile.open(path, "w:xz") as archive:
            for part in sorted(Path(folder).glob("hub.db*")):
                if part.suffix not in {".lock", ".sock"}:
                    archive.add(part, arcname=part.name)


if __name__ == "__main__":
    record(HUBS / f"{sys.argv[1]}.tar.xz", "tests.golden.record_hub")
