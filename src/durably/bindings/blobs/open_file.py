"""A file or folder that is open while threads work with it, and others close it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager


class OpenFile:
    """A file or folder that is open, until nobody can use it any more: a thread may, behind the one who waited for it.

    Nobody waits for what another thread does with it, which on a network disk can take for ever: who closes it only
    says so, and the last one who uses it does it.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._users = 0
        self._closed = False
        self._lock = threading.Lock()

    def read(self, most: int) -> bytes:
        """The next bytes; none behind the end."""
        with self._used() as fd:
            return os.read(fd, most)

    def status(self) -> os.stat_result:
        """What the system knows of it."""
        with self._used() as fd:
            return os.fstat(fd)

    def again(self) -> int:
        """One more number for it, which is the caller's to close."""
        with self._used() as fd:
            return os.dup(fd)

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            was, self._closed = self._closed, True
            last = not was and self._users == 0
        if last:
            os.close(self._fd)

    __del__ = close

    @contextmanager
    def _used(self) -> Generator[int]:
        """Its number, which stays its own meanwhile."""
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, "It was closed")
            self._users += 1
        try:
            yield self._fd
        finally:
            with self._lock:
                self._users -= 1
                last = self._closed and self._users == 0
            if last:
                os.close(self._fd)
