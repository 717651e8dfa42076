"""A worker: ``durably run`` as a control process starts it, by ``python -m durably.cli.processes.worker POST run ...``."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from types import FrameType

import msgspec

from durably.app import AppHost
from durably.cli.main import call
from durably.cli.output import Exit, leave
from durably.cli.processes.post import Post, Ready


class Attached:
    """The worker's end of what ties it to its control process."""

    def __init__(self, post: Post) -> None:
        self._post = post

    def listening(self) -> socket.socket | None:
        """The port, which others serve, too."""
        return None if self._post.listening is None else socket.socket(fileno=self._post.listening)

    def is_ready(self, host: AppHost, lines: list[str]) -> None:
        """Say so to the control process, once."""
        ready = msgspec.json.encode(Ready(host=host.engine.name, lines=lines))
        with open(self._post.report, "wb") as report:  # noqa: PTH123 - a descriptor
            report.write(ready + b"\n")

    def hold(self) -> None:
        """Stop when the control process is gone, as SIGTERM would make it. On a thread: no code is in its way.

        What is printed comes last: where it goes may be gone, too, or stand still.
        """
        os.read(self._post.lifeline, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        insists = threading.Timer(self._post.stop_s, os._exit, (Exit.INTERRUPTED,))
        insists.daemon = True
        insists.start()
        for mine, pipe, behind in zip((1, 2), self._post.pipes, self._post.behind, strict=True):
            os.dup2(behind, mine)
            _pour(pipe, mine)
        with suppress(OSError):
            os.write(2, b"[%d] The control process is gone: stopping\n" % self._post.number)


def _pour(pipe: int, into: int) -> None:
    """Print what the control process did not get to."""
    os.set_blocking(pipe, False)
    try:
        while data := os.read(pipe, 65_536):
            os.write(into, data)
    except OSError:
        return


def _ignore(number: int, frame: FrameType | None) -> None:
    """SIGHUP is for the control process. A handler: what is ignored stays so in programs that are started here."""


def main() -> None:
    """Serve, as the control process wants it."""
    post = msgspec.json.decode(sys.argv[1], type=Post)
    inherited = (post.listening, post.lifeline, post.report, *post.pipes, *post.behind)
    for number in inherited:
        if number is not None:
            os.set_inheritable(number, False)  # noqa: FBT003
    signal.signal(signal.SIGHUP, _ignore)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    attached = Attached(post)
    threading.Thread(target=attached.hold, daemon=True, name="durably-lifeline").start()
    arguments = sys.argv[2:]
    sys.argv[:] = ["durably", *arguments]
    leave(call(arguments, attached))


if __name__ == "__main__":
    main()
