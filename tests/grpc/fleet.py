"""A host that the command line started, and workers of the SDK, each a process that may be killed."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from durabletask.client import TaskHubGrpcClient

PATIENCE_S = 60.0

WORKER = (sys.executable, str(Path(__file__).with_name("worker_program.py")))
"""The program of a worker, which takes the place of the host and the file of effects."""

logging.getLogger("durabletask-client").setLevel(logging.ERROR)

APP = """
from durably import App, OrchestrationContext

app = App()

@app.activity
async def upper(text: str) -> str:
    return text.upper()

@app.orchestrator
async def native_child(ctx: OrchestrationContext, text: str) -> str:
    return await ctx.call_activity("echo", text + "!")

@app.orchestrator
async def native_parent(ctx: OrchestrationContext, number: int) -> int:
    return await ctx.call_sub_orchestrator("chain", number)
"""


class Fleet:
    """Processes on one hub.

    Attributes:
        effects: The file in which workers note what they have run.
        place: Address and port of the host, the same after each restart.
        client: Of the SDK.
    """

    def __init__(self, folder: Path, hub: str) -> None:
        self.folder = folder
        self.hub = hub
        self.effects = folder / "effects.txt"
        self.effects.touch()
        self.place = "127.0.0.1:0"
        (folder / "app.py").write_text(APP)
        self._host: subprocess.Popen[str] | None = None
        self._workers: list[subprocess.Popen[str]] = []
        self.start_host()
        self.client = TaskHubGrpcClient(host_address=self.place)

    # --- processes ---------------------------------------------------------------------------------------------------

    def start_host(self) -> None:
        """Start the host, under the address that it had before."""
        environment = {**os.environ, "DURABLY_LEASE_S": "1", "DURABLY_PARTITIONS": "4"}
        command = [sys.executable, "-m", "durably", "run", "app.py", "--hub", self.hub]
        self._host = subprocess.Popen(
            [*command, "--no-http", "--grpc", self.place],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._host.stdout is not None
        said: list[str] = []
        for line in self._host.stdout:
            said.append(line)
            found = re.search(r"grpc://(\S+)", line)
            if found is not None:
                self.place = found[1]
                return
        raise AssertionError("".join(said))

    def kill_host(self) -> None:
        """Kill -9."""
        assert self._host is not None
        _end(self._host)

    def start_worker(self, *more: str, program: Sequence[str] = WORKER) -> subprocess.Popen[str]:
        """Start a worker; return when it is connected, or tries to."""
        command = [*program, self.place, str(self.effects), *more]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._workers.append(worker)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        return worker

    def kill_worker(self, worker: subprocess.Popen[str]) -> None:
        """Kill -9."""
        self._workers.remove(worker)
        _end(worker)

    def close(self) -> None:
        """End all."""
        self.client.close()
        for process in [*self._workers, self._host]:
            if process is not None:
                _end(process)

    # --- work --------------------------------------------------------------------------------------------------------

    def start(self, name: str, input: Any = None, **more: Any) -> str:
        """Start an instance; returns its id."""
        return self.client.schedule_new_orchestration(name, input=input, **more)

    def ended(self, instance_id: str) -> Any:
        """Its state once it has ended."""
        state = self.client.wait_for_orchestration_completion(instance_id, timeout=PATIENCE_S)
        assert state is not None
        return state

    def result(self, name: str, input: Any = None, **more: Any) -> Any:
        """The result of a new instance."""
        state = self.ended(self.start(name, input, **more))
        assert state.runtime_status.name == "COMPLETED", state
        return state.get_output()

    def status(self, instance_id: str) -> str:
        """The name of its status."""
        state = self.client.get_orchestration_state(instance_id)
        assert state is not None
        return state.runtime_status.name

    def until(self, instance_id: str, status: str) -> None:
        """Return when it has this status."""
        deadline = time.monotonic() + PATIENCE_S
        while self.status(instance_id) != status:
            assert time.monotonic() < deadline, self.status(instance_id)
            time.sleep(0.01)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextmanager
def fleet(folder: Path, hub: str) -> Iterator[Fleet]:
    """A host, and whatever is started, until the end of the block."""
    found = Fleet(folder, hub)
    try:
        yield found
    finally:
        found.close()
