"""A disk that is full and gets room again while its users go on."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

_MEBIBYTES = 4


class SmallDisk(Protocol):
    """A folder whose room can be taken and given back.

    Attributes:
        folder: Where the files lie.
    """

    folder: Path

    def fill(self) -> None:
        """No file can grow from now on."""
        ...

    def free(self) -> None:
        """They can again."""
        ...


class _Tmpfs:
    """A file system of its own, which somebody else fills."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        found = os.statvfs(self.folder)
        self._ballast.write_bytes(bytes(found.f_bavail * found.f_frsize))

    def free(self) -> None:
        self._ballast.unlink()


class _Limit:
    """A limit on the size of files of this process, for those who may not mount."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        _limit_files(sum(log.stat().st_size for log in self.folder.glob("*-wal")))  # 0 when nobody serves

    def free(self) -> None:
        _limit_files(resource.RLIM_INFINITY)


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    folder.mkdir()
    if os.geteuid() != 0:
        limit = _Limit(folder)
        try:
            yield limit
        finally:
            limit.free()
        return
    _run("mount", "-t", "tmpfs", "-o", f"size={_MEBIBYTES}m", "tmpfs", str(folder))
    try:
        yield _Tmpfs(folder)
    finally:
        _run("umount", "-l", str(folder))


def _limit_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
