"""The host lock: one live host on a hub file, which names itself to the others."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import weakref
from pathlib import Path

from durably.errors import HubLockedError, StoreUnavailableError


class HostLock:
    """An exclusive `flock` on a file beside the hub.

    The kernel drops it with the process, however that ends; nothing has to be guessed from pids or ages. The file stays:
    if it were deleted while another process waits for it, two hosts could hold two files of the same name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        _locks.add(self)

    @property
    def held(self) -> bool:
        """True between `take` and `drop`."""
        return self._file is not None

    def take(self, hub: str, owner: str, since: str) -> None:
        """Take the lock, or keep it; never waits.

        Args:
            hub: URL of the hub, for the message.
            owner: Who asks, for people.
            since: When, for people.

        Raises:
            HubLockedError: Another live process, or another store object of this one, has it.
            StoreUnavailableError: The file cannot be opened.
        """
        if self._file is not None:
            return
        while True:
            file = self._open()
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _describe(os.pread(file, 4_096, 0))
                os.close(file)
                raise HubLockedError(
                    f"Hub {hub} is served by {holder}; stop that host first, or use a client to talk to it"
                ) from None
            if self._is_current(file):
                break
            os.close(file)  # deleted, with its hub, between open and lock
        self._file = file
        about = {"pid": os.getpid(), "host": socket.gethostname(), "owner": owner, "since": since}
        text = json.dumps(about).encode()
        with contextlib.suppress(OSError):  # a full disk: the lock is ours all the same
            os.pwrite(file, text, 0)
            os.ftruncate(file, len(text))

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailableError(
                f"The lock file '{self._path}' cannot be opened: {error.strerror}; "
                "let the user of this process read and write it"
            ) from None

    def _is_current(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self._path.stat())
        except FileNotFoundError:
            return False

    def drop(self) -> None:
        """Let go of the lock. Idempotent."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def _describe(content: bytes) -> str:
    """The holder in words. Its line may be half written or from another version: whatever is missing is left out."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        holder = json.loads(content)
        return f"'{holder['owner']}' (process {holder['pid']} on {holder['host']}, since {holder['since']})"
    return "another host"


_locks: weakref.WeakSet[HostLock] = weakref.WeakSet()


def _after_fork() -> None:
    """A forked child must not keep the lock of a parent that dies."""
    for lock in list(_locks):
        lock.drop()


os.register_at_fork(after_in_child=_after_fork)
