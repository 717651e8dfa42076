"""``durably run --processes`` in a folder of its own, and what a test wants to know of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.postgres import free_port

PATIENCE_S = 60.0

LEASE_S = 2.0

PROGRAM = """
import asyncio, json, logging, os, sys
from durably import App, OrchestrationContext

app = App()
REVISION = 1

@app.activity
async def step(number: int) -> int:
    await asyncio.sleep(0.01)
    return number

@app.orchestrator
async def chain(ctx: OrchestrationContext, number: int) -> int:
    for _ in range(3):
        number = await ctx.call_activity(step, number + 1)
    return number

@app.orchestrator
async def later(ctx: OrchestrationContext, seconds: float) -> int:
    await ctx.create_timer(seconds)
    return REVISION

@app.activity
def note(text: str) -> None:
    print(text)
    print(json.dumps({"level": "info", "text": text}), file=sys.stderr)

@app.orchestrator
async def talk(ctx: OrchestrationContext, text: str) -> None:
    await ctx.call_activity(note, text)

@app.route("who")
async def who(request) -> str:
    return f"{REVISION} {os.getpid()}"
"""


def gone(pid: int) -> bool:
    """True when the process has ended, also when nobody has waited for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for something.

    Raises:
        AssertionError: It is not so in time.
    """
    ends = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < ends, what
        time.sleep(0.02)


class Controlled:
    """A control process and its workers."""

    def __init__(self, folder: Path, hub: str, program: str = PROGRAM) -> None:
        self.folder = folder
        self.hub = hub
        self.port = free_port()
        self.log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.write(program)

    def write(self, program: str) -> None:
        (self.folder / "app.py").write_text(program)

    @contextmanager
    def run(
        self, processes: str, *arguments: str, into: int | None = None, **environment: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run it; what it prints goes into the log, or into a descriptor."""
        command = [
            sys.executable,
            "-m",
            "durably",
            "run",
            "app.py",
            "--hub",
            self.hub,
            "--processes",
            processes,
        ]
        given = (
            {key: value for key, value in os.environ.items() if not key.startswith("DURABLY_")}
            | {
                "DURABLY_LEASE_S": str(LEASE_S),
                "DURABLY_PARTITIONS": "8",
                "DURABLY_STATE_DIR": str(self.folder),
                "DURABLY_HTTP_INSECURE": "1",
                "DURABLY_HTTP_PORT": str(self.port),
                "PYTHONDONTWRITEBYTECODE": "1",  # a file that is written twice a second may have the cache of the first
            }
        )
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [*command, *arguments],
                cwd=self.folder,
                env=given | environment,
                stdin=subprocess.DEVNULL,
                stdout=log if into is None else into,
                stderr=log if into is None else into,
                start_new_session=True,
            )
        self._process = process
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(30)
                finally:
                    process.kill()

    @property
    def said(self) -> str:
        return self.log.read_text()

    def ready(self) -> dict[int, int]:
        """Of all workers that have ever been ready: their processes."""
        return {
            int(number): int(pid)
            for number, pid in re.findall(r"Process (\d+) is ready \(pid (\d+)\)", self.said)
        }

    def wait_for(self, text: str, times: int = 1) -> None:
        assert self._process is not None
        control = self._process

        def is_said() -> bool:
            ended = control.poll() is not None
            said = self.said.count(text) >= times
            assert said or not ended, f"it has ended:\n{self.said[-4000:]}"
            return said

        until(is_said, f"{text!r} is not in the log {self.log}")

    def ask(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=30) as answer:
            return answer.read().decode()
