"""Bit rot: bytes of files that nobody has open change."""

from __future__ import annotations

import contextlib
from pathlib import Path

import apsw


def flip(path: Path, offset: int, mask: int = 0x01) -> None:
    """Invert bits of one byte."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ mask]))


def history_places(hub: Path, instance_id: str, row: int) -> range:
    """Where the events of a row of the history of an instance lie in a hub file whose log is empty."""
    with contextlib.closing(apsw.Connection(str(hub), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
        connection.execute("VACUUM")  # what a page held before is still in it
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        found = connection.execute(
            "SELECT data FROM history JOIN instances USING (execution) WHERE instance_id = ? AND seq = ?",
            (instance_id, row),
        ).fetchall()
    ((data,),) = found
    content = hub.read_bytes()
    assert content.count(data) == 1, f"{content.count(data)} copies of the {len(data)} bytes are in one piece"
    start = content.index(data)
    return range(start, start + len(data))
