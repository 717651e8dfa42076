"""The host lock: one live host on a hub file, which names itself to the others."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
import weakref
from pathlib import Path
from typing import Any, NamedTuple

from durably.errors import HubLockedError, StoreUnavailableError

_PROBE_S = 0.001
"""How long somebody who only looks holds the lock, generously."""


class Holder(NamedTuple):
    """Who holds a lock.

    Attributes:
        text: Owner, process and since when, for people; "another host" when it did not say.
        pid: Its process, or None.
        since: When it took the lock, or None.
        owner: Who it is, as it called itself; "" when it did not say.
        name: Its process, for people.
        host_id: The store object that took it; "" when it did not say.
        version: Of durably; "" when it did not say.
    """

    text: str
    pid: int | None
    since: str | None
    owner: str = ""
    name: str = ""
    host_id: str = ""
    version: str = ""


def holder_of(path: Path) -> Holder | None:
    """Who holds the lock at this moment, or None when nobody does. Creates nothing, and keeps no host from starting.

    The kernel knows only who gets the lock: it is asked for a shared one, which is given back at once; `HostLock.take`
    tells such a look from a host.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # never served, or not for this user to know
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(os.pread(file, 4_096, 0))
    finally:
        os.close(file)
    return None


class HostLock:
    """An exclusive `flock` on a file beside the hub.

    The kernel drops it with the process, however that ends; nothing has to be guessed from pids or ages. The file stays:
    if it were deleted while another process waits for it, two hosts could hold two files of the same name.
    """

    def __init__(self, path: Path, host_id: str = "") -> None:
        self.path = path
        self._host_id = host_id
        self._file: int | None = None
        self._about: dict[str, Any] = {}
        self.epoch_before = 0
        """The epoch that the owner before had reached, 0 when nobody knows. Read by `take`."""
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
                holder = _holder(os.pread(file, 4_096, 0))
                looked_at = _is_looked_at(file)
                os.close(file)
                if looked_at:
                    time.sleep(_PROBE_S)
                    continue
                raise HubLockedError(
                    f"Hub {hub} is served by {holder.text}; stop that host first, or use a client to talk to it"
                ) from None
            if self._is_current(file):
                break
            os.close(file)  # deleted, with its hub, between open and lock
        from importlib.metadata import version

        self._file = file
        self.epoch_before = _epoch(os.pread(file, 4_096, 0))
        self._about = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "owner": owner,
            "since": since,
            "host_id": self._host_id,
            "version": version("durably"),
        }
        self.write(self.epoch_before)

    def write(self, epoch: int) -> None:
        """Say who has the lock, and which epoch it has reached: a hub file that is behind it is not the newest one."""
        if self._file is None:
            return
        text = json.dumps({**self._about, "epoch": epoch}).encode()
        with contextlib.suppress(OSError):  # a full disk: the lock is ours all the same
            os.pwrite(self._file, text, 0)
            os.ftruncate(self._file, len(text))

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailableError(
                f"The lock file '{self.path}' cannot be opened: {error.strerror}; "
                "let the user of this process read and write it"
            ) from None

    def _is_current(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self.path.stat())
        except FileNotFoundError:
            return False

    def drop(self) -> None:
        """Let go of the lock. Idempotent."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def _is_looked_at(file: int) -> bool:
    """True when those who hold the lock hold it shared: `holder_of`, for a moment. Hosts hold it alone."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(content: bytes) -> Holder:
    """The holder. Its line may be half written or from another version: then it has no name."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        holder = json.loads(content)
        text = f"'{holder['owner']}' (process {holder['pid']} on {holder['host']}, since {holder['since']})"
        return Holder(
            text,
            holder["pid"],
            holder["since"],
            holder["owner"],
            f"pid {holder['pid']} on {holder['host']}",
            holder.get("host_id", ""),
            holder.get("version", ""),
        )
    return Holder("another host", None, None)


def _epoch(content: bytes) -> int:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return int(json.loads(content)["epoch"])
    return 0


_locks: weakref.WeakSet[HostLock] = weakref.WeakSet()


def _after_fork() -> None:
    """A forked child must not keep the lock of a parent that dies."""
    for lock in list(_locks):
        lock.drop()


os.register_at_fork(after_in_child=_after_fork)
