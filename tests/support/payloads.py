"""Large payloads in a SQLite hub: each is referred to, and each reference has one."""

from __future__ import annotations

from pathlib import Path

import apsw

from durably.storage.sqlite.payloads import FIELDS

_REFERRED = " UNION ALL ".join(
    f"SELECT position, '{field}', {field} FROM instances WHERE typeof({field}) = 'integer'"
    for field in FIELDS
)


def payloads_aside(path: Path | str) -> int:
    """How many payloads lie outside of their rows. Fails when one is missing, left over, or of another size."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        referred = sorted(connection.execute(_REFERRED))
        stored = sorted(connection.execute("SELECT position, field, length(data) FROM payloads"))
    finally:
        connection.close()
    assert referred == stored
    return len(stored)
