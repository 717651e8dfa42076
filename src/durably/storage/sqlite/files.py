"""The files of a hub while it is in use: still the same ones, on a file system that SQLite can work with."""

from __future__ import annotations

import os
from pathlib import Path

from durably.errors import StoreFailedError, StoreUnavailableError

_NETWORK = frozenset(("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "fuse.sshfs"))
"""Types of file systems on which the shared index of two machines is not the same memory, or locks are only asked for."""

ALLOW_NETWORK = "DURABLY_ALLOW_NETWORK_FILES"
"""Environment variable that, when it is 1, lets a hub lie on one of these all the same."""


class Identity:
    """Notices that a file of a hub has been deleted, moved or replaced: SQLite goes on writing where nobody looks.

    Args:
        path: The hub file.
    """

    def __init__(self, path: Path) -> None:
        self._files = {name: f"{path}{suffix}" for name, suffix in _SUFFIXES.items()}
        self._known: dict[str, tuple[int, int]] = {}

    def changed(self) -> str | None:
        """The first file that is not the one that was there when it was seen first; None when all is well."""
        for name, path in self._files.items():
            try:
                found = os.stat(path)  # noqa: PTH116 - twenty times a second
            except OSError:
                if name in self._known:
                    return name
                continue
            if self._known.setdefault(name, (found.st_dev, found.st_ino)) != (found.st_dev, found.st_ino):
                return name
        return None

    def gone(self, name: str) -> StoreFailedError:
        """What to say about a file that has changed."""
        return StoreFailedError(
            f"The {name} '{self._files[name]}' was deleted, moved or replaced while the hub was in use: nothing more can "
            "be kept there. Put the file back, or restore a backup, and start the host again"
        )


HUB, LOG, INDEX = "hub file", "log", "shared index"
_SUFFIXES = {HUB: "", LOG: "-wal", INDEX: "-shm"}


def check_file_system(path: Path) -> None:
    """Refuse a network file system.

    Raises:
        StoreUnavailableError: The hub would lie on one, and nobody has said that this is meant.
    """
    if os.environ.get(ALLOW_NETWORK) == "1":
        return
    mounts = Path("/proc/self/mountinfo")
    try:
        text = mounts.read_text()
    except OSError:  # not Linux: nobody to ask
        return
    kind = file_system_of(path, text)
    if kind in _NETWORK:
        raise StoreUnavailableError(
            f"Hub file '{path}' would lie on a network file system ({kind}), where SQLite can corrupt it: expected a local "
            f"disk. Choose another place, or set {ALLOW_NETWORK}=1 if one machine alone ever opens it"
        )


def file_system_of(path: Path, mounts: str) -> str | None:
    """The type of the file system under a path, from the text of ``/proc/self/mountinfo``; None when it does not say."""
    kinds: dict[str, str] = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) > 4 and after:
            kinds[fields[4].replace("\\040", " ")] = after.split(" ")[
                0
            ]  # of two mounts on one place the later is seen
    real = path.resolve()
    for place in (real, *real.parents):
        if str(place) in kinds:
            return kinds[str(place)]
    return None
