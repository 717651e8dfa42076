"""A worker, as its control process sees it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from typing import Final, NamedTuple

import msgspec

from durably.cli.processes.lines import Lines
from durably.cli.processes.post import Post, Ready
from durably.cli.processes.printer import Printer

_REPORT_MAX: Final = 1_048_576


class Plan(NamedTuple):
    """What all workers are started with.

    Attributes:
        arguments: Of the command line, as they were given to the control process.
        hub: URL of the hub: it stays, whatever the files say by the time a worker is started.
        listening: See `Post.listening`.
        start_s: One that is not ready by then hangs.
        stop_s: One that has not stopped by then hangs.
    """

    arguments: tuple[str, ...]
    hub: str
    listening: socket.socket | None
    start_s: float
    stop_s: float


class Lifeline:
    """A pipe that ends when this process does, however that happens.

    Attributes:
        held: The end that workers read.
    """

    def __init__(self) -> None:
        self.held, self._kept = os.pipe()

    def close(self) -> None:
        """Let go of it."""
        os.close(self._kept)
        os.close(self.held)


class Child:
    """A process that is a worker. `start` makes it.

    Attributes:
        number: Counts all workers of this control process.
        ready: What it says when it serves; cancelled when it ends before.
        over: Its exit code, when it has ended; negative: it was killed by this signal.
        leaving: It was told to stop.
        since: When it was started (monotonic seconds).
    """

    def __init__(
        self, number: int, process: asyncio.subprocess.Process, lines: list[Lines], plan: Plan
    ) -> None:
        self.number = number
        self.ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self.leaving = False
        self.since = time.monotonic()
        self._process = process
        self._lines = lines
        self._plan = plan
        self._overdue: asyncio.TimerHandle | None = None
        self._report: int | None = None
        self.over = asyncio.ensure_future(self._ends())
        self._expect(plan.start_s)

    @classmethod
    async def start(
        cls, number: int, plan: Plan, lifeline: Lifeline, printers: tuple[Printer, Printer]
    ) -> Child:
        """Start one.

        Args:
            number: Its number.
            plan: What all are started with.
            lifeline: Ends with this process.
            printers: Of what it prints to stdout and stderr.

        Raises:
            OSError: The system has no room for it.
        """
        port = None if plan.listening is None else plan.listening.fileno()
        with ExitStack() as ours, ExitStack() as theirs:
            out, err, report = _pipe(ours, theirs), _pipe(ours, theirs), _pipe(ours, theirs)
            behind = _again(1, theirs), _again(2, theirs)
            post = Post(
                number=number,
                listening=port,
                lifeline=lifeline.held,
                report=report[1],
                pipes=(out[0], err[0]),
                behind=behind,
                stop_s=plan.stop_s,
            )
            passed = [lifeline.held, report[1], out[0], err[0], *behind, *(() if port is None else (port,))]
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *_flags(),
                "-m",
                "durably.cli.processes.worker",
                msgspec.json.encode(post).decode(),
                *plan.arguments,
                env={**os.environ, "DURABLY_HUB": plan.hub},  # not as an argument, which anybody may read
                stdin=subprocess.DEVNULL,
                stdout=out[1],
                stderr=err[1],
                pass_fds=passed,
                process_group=0,  # Ctrl-C is for the control process, which tells workers what to do
            )
            ours.pop_all()
        lines = [
            Lines(source, printer, number) for source, printer in zip((out[0], err[0]), printers, strict=True)
        ]
        child = cls(number, process, lines, plan)
        child.listen(report[0])
        return child

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def serves(self) -> bool:
        """True from when it is ready until it is told to stop, or ends."""
        return self.is_ready and not self.leaving and not self.over.done()

    @property
    def is_ready(self) -> bool:
        """True once it was ready."""
        return self.ready.done() and not self.ready.cancelled()

    def listen(self, report: int) -> None:
        """Wait for what it says when it is ready."""
        said = bytearray()
        os.set_blocking(report, False)

        def read() -> None:
            data = os.read(report, 65_536)
            said.extend(data)
            if data and not data.endswith(b"\n") and len(said) < _REPORT_MAX:
                return
            self._hear_no_more()
            with suppress(msgspec.DecodeError):  # it died before, or while it said so
                ready = msgspec.json.decode(said, type=Ready)
                if not self.ready.done():
                    self._relax()
                    self.ready.set_result(ready)

        self._report = report
        asyncio.get_running_loop().add_reader(report, read)

    def _hear_no_more(self) -> None:
        if self._report is not None:
            asyncio.get_running_loop().remove_reader(self._report)
            os.close(self._report)
            self._report = None

    async def _ends(self) -> int:
        code = await self._process.wait()
        self._relax()
        for one in self._lines:
            one.close()
        self._hear_no_more()
        self.ready.cancel()
        return code

    def stop(self) -> None:
        """Ask it to drain and end. One that does not is killed. Idempotent."""
        if not self.leaving:
            self.leaving = True
            self._relax()
            self._expect(self._plan.stop_s)
            self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, with all that it has started."""
        self._send(signal.SIGKILL)

    def _send(self, what: signal.Signals) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                if what == signal.SIGKILL:
                    os.killpg(self.pid, what)
                else:
                    os.kill(self.pid, what)

    def _expect(self, seconds: float) -> None:
        self._overdue = asyncio.get_running_loop().call_later(seconds, self.kill)

    def _relax(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None


def _pipe(ours: ExitStack, theirs: ExitStack) -> tuple[int, int]:
    """A pipe: we read, they write."""
    read, write = os.pipe()
    ours.callback(os.close, read)
    theirs.callback(os.close, write)
    return read, write


def _again(number: int, closing: ExitStack) -> int:
    """The same file under one more number."""
    copy = os.dup(number)
    closing.callback(os.close, copy)
    return copy


def _flags() -> list[str]:
    """The flags that this interpreter was started with, as far as they change how code runs."""
    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
