"""One worker process, as its host sees it: start it, call it, end it. For one thread at a time, `hang_up` apart."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from durably.executors.worker_channel import (
    BEAT,
    BEGUN,
    CALL,
    DONE,
    HELLO,
    READY,
    Attempt,
    Channel,
    ChannelClosedError,
    Hello,
    Outcome,
    decode,
)

_BOOT: Final = "import sys; sys.path[:] = sys.argv[2:]; from durably.executors.worker_main import main; main(int(sys.argv[1]))"

_ROOT: Final = str(Path(__file__).resolve().parents[2])
"""Where this package was imported from."""

_PAUSE_MAX_S: Final = 0.02


class WorkerProcess:
    """A Python interpreter of its own, in a process group of its own.

    It imports with the host's ``sys.path``, and prints to where the host prints. It is never forked: threads, loops and
    connections of the host are not in it.

    Attributes:
        ready: It has started, and can be called.
        begun: The last call has reached the code of users.
        leaving: It takes no more calls.
    """

    def __init__(self, grace_s: float) -> None:
        """Start it. Does not wait until it is ready.

        Args:
            grace_s: Time for the code of users to end once nobody wants its result.

        Raises:
            OSError: The system has no room for another process.
        """
        self.ready = self.begun = self.leaving = False
        self._grace_s = grace_s
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
                    [sys.executable, *_flags(), "-c", _BOOT, str(theirs.fileno()), *_path()],
                    stdin=subprocess.DEVNULL,
                    stdout=_descriptor(sys.stdout),
                    stderr=_descriptor(sys.stderr),
                    pass_fds=(theirs.fileno(),),
                    process_group=0,  # Ctrl-C is for the host; and what an activity starts can be ended with it
                )
            except BaseException:
                ours.close()
                raise
        self._channel = Channel(ours)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def is_usable(self) -> bool:
        """True while it can be called. It may die at any moment after that."""
        return not self.leaving and not self._channel.is_closed()

    def call(self, attempt: Attempt, payload: bytes, beat: Callable[[bytes], None]) -> tuple[Outcome, bytes]:
        """Perform an attempt: its outcome, and the result. What it says of itself meanwhile goes to `beat`.

        Raises:
            ChannelClosedError: The process has died, or somebody hung up. `ready` and `begun` say how far it came.
            PayloadError: The input is too large for the channel.
        """
        self.begun = False
        if not self.ready:
            argv = [os.fsencode(one) for one in sys.argv]
            self._channel.send(HELLO, Hello(argv, os.getpid(), self._grace_s))
            self._await(READY)
            self.ready = True
        self._channel.send(CALL, attempt, payload)
        self._await(BEGUN)
        self.begun = True
        head, body = self._await(DONE, beat)
        outcome: Outcome = decode(head, Outcome)
        self.leaving = outcome.leaving
        return outcome, body

    def hang_up(self) -> None:
        """Nobody wants the outcome of the call any more: end the worker. For any thread; `end` has to follow."""
        self._channel.hang_up()

    def end(self, *, interrupt: bool) -> str:
        """End it and wait until it is gone, together with what it has started and left running in its group.

        Args:
            interrupt: Ask with SIGTERM; otherwise a worker without a call ends by itself. After the grace, both are
                killed.

        Returns:
            How it ended, for people.
        """
        self._channel.hang_up()
        if interrupt:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
        ended = self._ends_within(self._grace_s)
        if self._process.returncode is None:
            # Before it is reaped: afterwards its number might be that of another group.
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: nobody is left in it
                os.killpg(self.pid, signal.SIGKILL)
        code = self._process.wait()
        self._channel.close()
        return _ending(code, killed_by_us=not ended)

    def _await(self, kind: int, beat: Callable[[bytes], None] | None = None) -> tuple[bytes, bytes]:
        while (frame := self._channel.receive()).kind == BEAT:
            if beat is not None:  # else it is of a thread that the call before has left behind
                beat(frame.body)
        if frame.kind != kind:  # user code has written to the socket
            raise ChannelClosedError
        return frame.head, frame.body

    def _ends_within(self, timeout_s: float) -> bool:
        """True when the process has ended in time. Where the system can tell so, it is not reaped yet."""
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                return False
            return True
        deadline = time.monotonic() + timeout_s
        pause_s = 0.0005
        while True:
            try:
                if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
                    return True
            except ChildProcessError:  # the program reaps all its children itself
                self._process.wait()
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_MAX_S)


def _flags() -> list[str]:
    """The flags that this interpreter was started with, as far as they change how code runs."""
    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]


def _path() -> list[str]:
    path = [one or str(Path.cwd()) for one in sys.path if isinstance(one, str)]  # pyright: ignore[reportUnnecessaryIsInstance]
    return path if _ROOT in path else [*path, _ROOT]


def _descriptor(stream: Any) -> int | None:
    """Where a stream of the host ends up; None for a stream that is not of the system: then the one inherited."""
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None


def _ending(code: int, *, killed_by_us: bool) -> str:
    if killed_by_us:
        return "it did not end by itself, and was killed"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
