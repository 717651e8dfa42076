"""Power loss: every write, truncation and sync of a host is recorded, and any moment of it can be made into files again.

What was synced is on the disk. Of what was written after the last sync of its file any part may be there, in any order,
and each write may be torn at a sector.
"""

from __future__ import annotations

import random
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import apsw

SECTOR = 512

_names = count()


class Operation(NamedTuple):
    """What was done to a file: bytes at an offset, or a new size (`data` is None), or a sync (both are None)."""

    file: str
    offset: int | None
    data: bytes | None


class RecordingDisk(apsw.VFS):
    """Records the hub file and its log; the shared index does not survive a power cut and is left alone.

    Attributes:
        name: For `SqliteStore(vfs=...)`.
        log: Everything that was done, in order.
        witnessed: How large another file was when each of it was done: what else had happened by then.
    """

    def __init__(self, witness: Path) -> None:
        self.name = f"recording-{next(_names)}"
        self.log: list[Operation] = []
        self.witnessed: list[int] = []
        self._witness = witness
        self._deleted: set[str] = set()
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - named by SQLite
        return _File(self, name, flags)

    def note(self, operation: Operation) -> None:
        self.witnessed.append(self._witness.stat().st_size if self._witness.exists() else 0)
        self.log.append(operation)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 - named by SQLite
        super().xDelete(filename, syncdir)
        self.note(Operation(Path(filename).name, 0, None))
        self._deleted.add(Path(filename).name)
        if syncdir:
            self.sync_folder()

    def sync_folder(self) -> None:
        """What was deleted stays so from now on."""
        for name in self._deleted:
            self.note(Operation(name, None, None))
        self._deleted.clear()


class _File(apsw.VFSFile):
    def __init__(self, disk: RecordingDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._file = Path(path).name if path is not None else ""
        # SQLite syncs the folder together with the first sync of a log or journal.
        self._folder_too = bool(flags[0] & (apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL))
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - named by SQLite
        self._disk.note(Operation(self._file, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - named by SQLite
        self._disk.note(Operation(self._file, newsize, None))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802 - named by SQLite
        super().xSync(flags)
        if self._folder_too:
            self._folder_too = False
            self._disk.sync_folder()
        self._disk.note(Operation(self._file, None, None))


def image(log: list[Operation], moment: int, chance: random.Random, folder: Path) -> None:
    """Write the files as a power cut after `moment` operations may leave them.

    What was not synced is kept whole, dropped whole, or kept in part and torn, as chance has it.
    """
    synced = {one.file: place for place, one in enumerate(log[:moment]) if one.offset is None}
    fate = chance.choice(("all", "none", "some", "some", "prefix"))
    last = chance.randrange(moment + 1)
    files: dict[str, bytearray] = {}
    for place, one in enumerate(log[:moment]):
        content = files.setdefault(one.file, bytearray())
        if place < synced.get(one.file, -1):
            _apply(content, one)
        elif _survives(fate, place, last, chance):
            _apply(content, _torn(one, chance) if fate == "some" and chance.random() < 0.3 else one)
    for name, content in files.items():
        if name:
            (folder / name).write_bytes(content)


def _torn(one: Operation, chance: random.Random) -> Operation:
    """The front or the back of a write, in whole sectors."""
    if one.data is None or one.offset is None:
        return one
    cut = chance.randrange(len(one.data) // SECTOR + 1) * SECTOR
    if chance.random() < 0.5:
        return one._replace(data=one.data[:cut])
    return one._replace(offset=one.offset + cut, data=one.data[cut:])


def _survives(fate: str, place: int, last: int, chance: random.Random) -> bool:
    if fate == "some":
        return chance.random() < 0.5
    return fate == "all" or (fate == "prefix" and place < last)


def _apply(content: bytearray, one: Operation) -> None:
    if one.offset is None:
        return
    if one.data is None:
        _resize(content, one.offset)
        return
    if len(content) < one.offset:
        _resize(content, one.offset)
    content[one.offset : one.offset + len(one.data)] = one.data


def _resize(content: bytearray, size: int) -> None:
    if len(content) > size:
        del content[size:]
    else:
        content.extend(bytes(size - len(content)))
