"""How the owner learns that another process has posted: a datagram on a socket beside the hub, or else by looking."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

_PATH_BYTES_MAX = 100
"""Limit for the path of a unix socket: 107 on Linux, 103 on macOS."""

_LOOK_S = 0.05
"""Datagrams get lost when the owner starts or the file system has no sockets; then a message waits so long at most."""


def send(path: str) -> bool:
    """Wake the owner that listens there. False when nobody does. A full queue is as good: it is going to look."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
            wire.settimeout(0)
            wire.sendto(b"!", path)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


class Bell:
    """The owner's end. The content of a datagram means nothing: it is a reason to read the inbox, no more."""

    def __init__(self, path: Path) -> None:
        self._preferred = path
        self._folder: Path | None = None
        self._path: Path | None = None
        self._wire: socket.socket | None = None

    def hang(self) -> str | None:
        """Listen; returns the path to send to, None where that is not possible. The host lock must be held."""
        if self._wire is None:
            try:
                self._listen()
            except (
                OSError
            ):  # no sockets on this file system, or no room for the fallback: `Arrivals` looks by itself
                self.take_down()
        return None if self._path is None else str(self._path)

    def _listen(self) -> None:
        path = self._preferred
        if len(os.fsencode(path)) > _PATH_BYTES_MAX:
            self._folder = Path(tempfile.mkdtemp(prefix="durably-"))
            path = self._folder / "sock"
        path.unlink(missing_ok=True)  # of an owner that died
        self._wire = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._wire.settimeout(0)
        self._wire.bind(str(path))
        self._path = path
        path.chmod(0o600)

    def fileno(self) -> int | None:
        """What a loop watches."""
        return None if self._wire is None else self._wire.fileno()

    def silence(self) -> None:
        """Take in what has arrived."""
        with contextlib.suppress(OSError):
            while self._wire is not None and self._wire.recv(16):
                pass

    def take_down(self) -> None:
        """Stop listening. Idempotent."""
        if self._wire is not None:
            self._wire.close()
        with contextlib.suppress(OSError):
            if self._path is not None:
                self._path.unlink(missing_ok=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._wire = self._path = self._folder = None


class Arrivals:
    """Calls back on the host loop when somebody has posted."""

    def __init__(self, bell: Bell, look: Callable[[], asyncio.Future[int]]) -> None:
        """Set nothing in motion yet.

        Args:
            bell: Rung by other processes.
            look: Reads a number that is another one when somebody else has written.
        """
        self._bell = bell
        self._look = look
        self._callbacks: list[Callable[[], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._seen: int | None = None

    def add(self, callback: Callable[[], None]) -> None:
        """Call this back from now on, on the running loop."""
        self._callbacks.append(callback)
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._look_now(self._loop)
        self.watch()

    def watch(self) -> None:
        """Listen to the bell, once both it and a callback are there."""
        file = self._bell.fileno()
        if self._loop is None or file is None or self._watched is not None:
            return
        with contextlib.suppress(NotImplementedError):  # a loop that watches no files
            self._loop.add_reader(file, self._rung)
            self._watched = file

    def unwatch(self) -> None:
        """Stop listening to the bell, which is about to be taken down."""
        if self._loop is not None and self._watched is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._watched)
        self._watched = None

    def announce(self) -> None:
        """Call everybody back, soon."""
        if self._loop is not None:
            for callback in self._callbacks:
                self._loop.call_soon(callback)

    def stop(self) -> None:
        """Call nobody back any more. Idempotent."""
        self.unwatch()
        self._callbacks.clear()
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()

    def _rung(self) -> None:
        self._bell.silence()
        self.announce()

    def _look_now(self, loop: asyncio.AbstractEventLoop) -> None:
        self._look().add_done_callback(lambda answer: self._looked(loop, answer))

    def _looked(self, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[int]) -> None:
        if self._loop is not loop:  # stopped meanwhile
            return
        if not answer.cancelled() and answer.exception() is None and answer.result() != self._seen:
            self._seen = answer.result()
            self.announce()
        self._timer = loop.call_later(_LOOK_S, self._look_now, loop)
