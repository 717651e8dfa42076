"""Runs the program as people do: a child process in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

PATIENCE_S = 60

APP = """
import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path

from durably import App, OrchestrationContext

app = App()


@dataclass
class Order:
    sku: str
    count: int = 1


@app.activity
def work(name: str) -> str:
    with open("work.log", "a") as log:
        log.write(name + "\\n")
    print(f"working on {name}")
    while name in os.environ.get("HOLD", "").split(",") and not Path("release").exists():
        time.sleep(0.01)
    return name.upper()


@app.activity
async def declined(order: Order) -> None:
    raise ValueError(f"no {order.sku}")


@app.orchestrator
async def steps(ctx: OrchestrationContext, names: list[str]) -> list[str]:
    ctx.set_custom_status({"total": len(names)})
    return [await ctx.call_activity(work, name) for name in names]


@app.orchestrator
async def buy(ctx: OrchestrationContext, order: Order) -> int:
    try:
        await ctx.call_activity(declined, order)
    except Exception as error:
        raise LookupError("out of stock") from error
    return order.count


@app.orchestrator
async def wait(ctx: OrchestrationContext) -> str:
    return await ctx.wait_for_external_event("Go", str)
"""


class Done(NamedTuple):
    """How a program ended."""

    code: int
    out: str
    err: str


Run: TypeAlias = Callable[..., Done]
"""Calls the program in this process: as good, and faster, where no signals and crashes are about."""


class Folder:
    """Where programs run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("DURABLY_", "NO_COLOR"))
        } | {"DURABLY_HTTP": "off"}
        self.write("shop.py", APP)

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text, encoding="utf-8")

    def worked(self) -> list[str]:
        """What the activity has done, in order."""
        log = self.path / "work.log"
        return log.read_text(encoding="utf-8").split() if log.exists() else []

    @contextlib.contextmanager
    def started(self, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """A program that runs; killed if it still does at the end."""
        process = subprocess.Popen(
            [sys.executable, "-m", "durably", *arguments],
            cwd=self.path,
            env=self.environment | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def run(self, *arguments: str, stdin: str = "", **environment: str) -> Done:
        """A program from its start to its end."""
        with self.started(*arguments, **environment) as process:
            out, err = process.communicate(stdin, timeout=PATIENCE_S)
        return Done(process.returncode, out, err)

    def until_working_on(self, name: str, process: subprocess.Popen[str]) -> None:
        """Return when the activity has begun to work on something."""
        deadline = time.monotonic() + PATIENCE_S
        while name not in self.worked():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)


def until_says(process: subprocess.Popen[str], words: str) -> str:
    """Return what has been on stderr, when a line with these words is."""
    assert process.stderr is not None
    seen = ""
    while words not in seen:
        line = process.stderr.readline()
        assert line, f"it ended without {words!r}: {seen}"
        seen += line
    return seen


def interrupted(process: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> Done:
    """Signal a program and wait for its end."""
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    return Done(process.returncode, out, err)
