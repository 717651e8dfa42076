"""The process that stays: it holds the port, watches the code, and replaces the child that serves it.

A child is forked, not started: what takes most of a second to import is imported here, once. So this process has no threads,
no event loop and no code of users. A reload lets go of the hub in order (nothing is suspected of having killed a host), and
the next child goes on with all instances. Connections wait in the port meanwhile.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import click

from durably.cli.dev.child import Plan, live
from durably.cli.dev.watch import Watch
from durably.cli.output import Exit, say, warn

_TICK_S = 0.03
_WORK_SHARE = 0.2
"""Of the time, so much at most is spent with looking at files."""

_PATIENCE_S = 2.0
"""A child that has not let go of the hub by then hangs."""

_STOPPING = (signal.SIGINT, signal.SIGTERM)


class Supervisor:
    """Replaces the child when the code changes.

    Args:
        context: Of the command.
        plan: What a child does.
    """

    def __init__(self, context: click.Context, plan: Plan) -> None:
        self._context = context
        self._plan = plan
        self._watch = Watch([str(Path.cwd()), *(_folder(app) for app in plan.apps if _folder(app))])
        self._pid: int | None = None
        self._lifeline = -1
        self._report: int | None = None
        self._asked = False

    def run(self) -> int:
        """Go on until SIGINT or SIGTERM; return the exit code."""
        for number in _STOPPING:
            signal.signal(number, self._received)
        self._fork(None)
        pause = _TICK_S
        while not self._asked:
            time.sleep(pause)
            began = time.monotonic()
            self._listen_to_child()
            if files := self._watch.changed():
                self._replace(files)
            pause = max(_TICK_S, (time.monotonic() - began) / _WORK_SHARE) if not files else _TICK_S
        if self._pid is None:
            say("Stopped")
            return Exit.OK
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return Exit.INTERRUPTED if code < 0 else code

    def _received(self, number: int, frame: FrameType | None) -> None:
        """What the terminal sends to both arrives twice at the child, which knows that it is the same."""
        self._asked = True
        if self._pid is not None:
            os.kill(self._pid, number)

    # --- children ----------------------------------------------------------------------------------------------------

    def _fork(self, since: float | None) -> None:
        lifeline, self._lifeline = os.pipe()
        self._report, report = os.pipe()
        os.set_blocking(self._report, False)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)  # none may reach a child that has our handlers
        pid = os.fork()
        if pid == 0:
            os.close(self._lifeline)
            os.close(self._report)
            live(self._context, self._plan, lifeline, report, since)
        self._pid = pid
        os.close(lifeline)
        os.close(report)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)

    def _listen_to_child(self) -> None:
        if self._report is not None:
            self._read_report(self._report)
        if self._pid is None:
            self._refuse()
            return
        if self._asked:
            return  # its exit code is that of this process: who waits for it is the one who asked
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if pid:
            self._forget_child()
            code = os.waitstatus_to_exitcode(status)
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            say(f"Nothing is served ({how}); the next save starts it again, Ctrl-C stops")

    def _read_report(self, report: int) -> None:
        try:
            text = os.read(report, 1 << 20)
        except BlockingIOError:
            return
        os.close(report)
        self._report = None
        self._watch.add(text.decode().split("\n") if text else [])

    def _replace(self, files: list[str]) -> None:
        since = time.monotonic()
        names = ", ".join(os.path.relpath(file) for file in files[:3])
        say(f"{names}{' …' if len(files) > 3 else ''} changed")
        self._stop_child()
        time.sleep(_TICK_S)
        self._watch.changed()  # what an editor has written in between is loaded, too
        if not self._asked:
            self._fork(since)

    def _stop_child(self) -> None:
        if self._pid is None:
            return
        os.close(self._lifeline)
        deadline = time.monotonic() + _PATIENCE_S
        while os.waitpid(self._pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                warn("The code holds up its process, which is killed")
                os.kill(self._pid, signal.SIGKILL)
                deadline = float("inf")
            time.sleep(0.002)
        self._pid = None
        self._forget_report()

    def _forget_child(self) -> None:
        self._pid = None
        os.close(self._lifeline)
        self._forget_report()

    def _forget_report(self) -> None:
        if self._report is not None:
            self._read_report(self._report)
        if self._report is not None:
            os.close(self._report)
            self._report = None

    # --- the port ----------------------------------------------------------------------------------------------------

    def _refuse(self) -> None:
        """While nothing is served, say so to whoever asks over HTTP."""
        listening = self._plan.listening
        if listening is None:
            return
        try:
            while True:
                connection, _ = listening.accept()
                with connection:
                    if self._plan.http is not None and not self._plan.http.tls_certificate:
                        connection.settimeout(_TICK_S)
                        connection.recv(1 << 16)
                        connection.sendall(_NOTHING)
        except OSError:  # nobody asks, or not any more
            return


_TEXT = b"The code cannot be loaded: the terminal of durably run says why. It is served again after the next save.\n"

_NOTHING = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_TEXT), _TEXT)
)


def _folder(app: str) -> str:
    """The folder of an app that is a file, or ""."""
    place = app.rpartition(":")[0] if not app.endswith(".py") else app
    return str(Path(place).resolve().parent) if place.endswith(".py") else ""
