"""A disk that fails at the k-th write, or loses its power there: an APSW VFS below the store."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import apsw

_names = count()


class FaultyDisk(apsw.VFS):
    """Counts writes, truncations and syncs of the hub and its log, and fails at one of them.

    Attributes:
        name: For `SqliteStore(vfs=...)`.
        fail_at: Number of the operation that fails, counted from `arm`.
        error: What it fails with.
        dead: Everything fails after the first failure, as when the power is gone.
        done: Operations since `arm`.
        failed: True once an operation failed.
        synced: Content of each file when it was last synced: what a power cut leaves.
    """

    def __init__(self, *, error: type[apsw.Error], dead: bool) -> None:
        self.name = f"faulty-{next(_names)}"
        self.fail_at = 0
        self.error = error
        self.dead = dead
        self.done = 0
        self.failed = False
        self.synced: dict[str, bytes] = {}
        super().__init__(self.name, "")

    def arm(self, fail_at: int) -> None:
        self.fail_at = fail_at
        self.done = 0

    def check(self) -> None:
        if not self.fail_at:
            return
        self.done += 1
        if self.done == self.fail_at or (self.failed and self.dead):
            self.failed = True
            raise self.error("simulated")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - named by SQLite
        return _File(self, name, flags)

    def cut_power(self, path: Path) -> None:
        """Leave on the disk what was synced, and nothing that was not."""
        for suffix in ("", "-wal"):
            file = Path(f"{path}{suffix}")
            if file.exists():
                file.write_bytes(self.synced.get(str(file), b""))
        Path(f"{path}-shm").unlink(missing_ok=True)


class _File(apsw.VFSFile):
    def __init__(self, disk: FaultyDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._name = name.filename() if isinstance(name, apsw.URIFilename) else name
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - named by SQLite
        try:
            self._disk.check()
        except apsw.Error:
            super().xWrite(data[: len(data) // 2], offset)  # a torn write
            raise
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - named by SQLite
        self._disk.check()
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802 - named by SQLite
        self._disk.check()
        super().xSync(flags)
        if self._name is not None:
            self._disk.synced[self._name] = Path(self._name).read_bytes()
