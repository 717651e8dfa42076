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
    """Where the events of a row of the history of an instance lie in a hub file whose log is empty.

    The same bytes may lie elsewhere too, where no page counts them: SQLite does not clear what it has no use for.
    """
    data = _read_row(hub, instance_id, row)
    content = hub.read_bytes()
    place = content.find(data)
    while place >= 0:
        flip(hub, place)
        counts = _read_row(hub, instance_id, row) != data
        flip(hub, place)
        if counts:
            return range(place, place + len(data))
        place = content.find(data, place + 1)
    raise AssertionError(f"row {row} of the history of '{instance_id}' is not in one piece")


def _read_row(hub: Path, instance_id: str, row: int) -> bytes:
    with contextlib.closing(apsw.Connection(str(hub), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        ((data,),) = connection.execute(
            "SELECT data FROM history JOIN instances USING (execution) WHERE instance_id = ? AND seq = ?",
            (instance_id, row),
        ).fetchall()
        return data
