# ruff: noqa: S608 - statements are put together from constants of this file
"""A hub file as a whole: see `HubState`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import apsw

from durably.errors import HubNotFoundError
from durably.storage.hub_state import HubState, PartitionState, SchemaStep
from durably.storage.sqlite import connection as opening
from durably.storage.sqlite import schema
from durably.storage.sqlite.calls import Execute, executor, one_moment
from durably.storage.sqlite.failures import as_store_error
from durably.storage.sqlite.lock import holder_of

_ROWS: Final = {
    "messages": "inbox",
    "timers": "timers",
    "entities": "entities",
    "parked messages": "parked_messages",
}


def hub_state(name: str) -> HubState:
    """Look at a hub file, of any version.

    Raises:
        HubNotFoundError: There is none.
        HubVersionError: It was written by a newer version.
    """
    file = Path(name).absolute()
    if not file.is_file():
        raise HubNotFoundError(
            f"Hub file '{file}' does not exist: start a host, or run durably hub migrate, to make it"
        )
    try:
        connection = opening.connect(file, cache_kib=opening.READER_CACHE_KIB, read_only=True)
    except apsw.Error as error:
        raise as_store_error(error, str(file)) from error
    try:
        with one_moment(connection):
            version = schema.inspect(connection, str(file))
            if version == 0:
                raise HubNotFoundError(f"Hub file '{file}' is empty: start a host to make a hub of it")
            return _state(executor(connection), name, file, version)
    except apsw.Error as error:
        raise as_store_error(error, str(file)) from error
    finally:
        connection.close()


def _state(execute: Execute, name: str, file: Path, version: int) -> HubState:
    holder = holder_of(Path(f"{file}.lock"))
    epoch, batch = execute("SELECT epoch, batch FROM partition").fetchall()[0]
    known = {row[0] for row in execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    hub_id: bytes = execute("SELECT hub_id FROM partition").fetchall()[0][0] if version >= _WITH_ID else b""
    log = Path(f"{file}-wal")
    return HubState(
        url=f"sqlite:///{name}",
        hub_id=hub_id.hex(),
        server=f"SQLite {apsw.sqlite_lib_version()}",
        version=version,
        known=schema.VERSION,
        pending=pending(version),
        partitions=[PartitionState(0, holder.text if holder else None, epoch, batch, None)],
        instances=dict(execute("SELECT status, count(*) FROM instances GROUP BY status ORDER BY status")),
        rows={
            title: execute(f"SELECT count(*) FROM {table}").fetchall()[0][0] if table in known else 0
            for title, table in _ROWS.items()
        },
        sizes={"file": file.stat().st_size, "log": log.stat().st_size if log.exists() else 0},
    )


_WITH_ID: Final = 6
"""The version since which a hub has an id."""


def pending(version: int) -> list[SchemaStep]:
    """What the next host does to a file of a version: all of it at once, alone with the file."""
    return [
        SchemaStep(number, number, "pre", "tables" if number == 1 else f"version {number}")
        for number in range(version + 1, schema.VERSION + 1)
    ]


def script(version: int) -> str:
    """The SQL that brings a file of a version to this one."""
    texts = schema.scripts(version)
    end = [f"PRAGMA application_id = {schema.APPLICATION_ID};", f"PRAGMA user_version = {schema.VERSION};"]
    return "\n".join(["BEGIN IMMEDIATE;", *(text.strip() for text in texts), *end, "COMMIT;"])
