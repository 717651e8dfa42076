"""Opening a hub file: which file, which SQLite, which settings."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import apsw

from durably.errors import HubNotFoundError, StoreUnavailableError, UsageError
from durably.storage.sqlite import schema
from durably.storage.sqlite.calls import one_moment, pragma
from durably.storage.sqlite.files import check_file_system

_SQLITE_VERSION_MIN = (3, 51, 3)
"""SQLite 3.7.0 to 3.51.2 can corrupt a database in WAL mode when a checkpoint meets a restart of the log."""

_BUSY_MS = 5_000
"""How long a lock of another process is waited for. They hold it for one short insert; this is far beyond."""

_RETRY_S = 0.005

_STATEMENTS = 512
"""Statements kept prepared: one per kind of row and size of chunk, see `statements`; with room for queries."""

WRITER_CACHE_KIB = 32_768
"""Page cache of the writer: the live part of a large hub."""

READER_CACHE_KIB = 8_192
"""Page cache of a reader: the upper floors of the trees; leaves come from the page cache of the kernel."""


def check_sqlite() -> None:
    """Refuse a SQLite that can lose data.

    Raises:
        UsageError: APSW was built with such a version.
    """
    version = apsw.sqlite_lib_version()
    if tuple(int(part) for part in version.split(".")) < _SQLITE_VERSION_MIN:
        raise UsageError(
            f"SQLite {version} can corrupt a hub; expected 3.51.3 or newer. Install apsw from its wheel: it brings its own"
        )


def prepare(path: Path, *, create: bool, vfs: str | None) -> bool:
    """Make sure that the file is a hub of this version, creating or migrating it where allowed.

    Returns:
        True when there was none, and an empty one has been made.

    Raises:
        HubNotFoundError: There is no hub, or the file is something else.
        HubVersionError: It was written by a newer version.
        StoreUnavailableError: This process may not read and write it.
    """
    _check_file(path, create=create)
    try:
        connection = connect(path, create=create, vfs=vfs, cache_kib=READER_CACHE_KIB)
    except apsw.NotADBError:
        raise HubNotFoundError(
            f"File '{path}' is not a hub: it is not a SQLite database; name another file"
        ) from None
    try:
        with one_moment(connection):
            version = schema.inspect(connection, str(path))
        if version == 0 and not create:
            raise HubNotFoundError(f"File '{path}' is empty; open it with create=True to make it a hub")
        if version < schema.VERSION:
            _keep_a_log(connection)
            schema.migrate(connection, str(path))
        return version == 0
    finally:
        connection.close()


def _keep_a_log(connection: apsw.Connection) -> None:
    """Switch to a log. Whoever meets somebody else who does the same is refused at once, however patient: it is tried again.

    SQLite reads first and writes then, and two who read and want to write would wait for each other.
    """
    patient_until = time.monotonic() + _BUSY_MS / 1_000
    while True:
        try:
            pragma(connection, "journal_mode", "wal")
        except apsw.BusyError:
            if time.monotonic() > patient_until:
                raise
            time.sleep(_RETRY_S)
        else:
            return


def check_place(path: Path) -> bool:
    """Whether the hub file exists. Says in words of the file system what SQLite would call "unable to open database file".

    Raises:
        HubNotFoundError: There can be no file.
        StoreUnavailableError: This process may not look, or write there, or it is a network file system.
    """
    if path.is_dir():
        raise HubNotFoundError(f"'{path}' is a directory; name a file in it, for example '{path / 'hub.db'}'")
    try:
        exists = path.exists()
        folder = path.parent.is_dir()
    except OSError as error:
        raise _unusable(path.parent, "directory", error) from None
    if not folder:
        missing = next(one for one in reversed([path, *path.parents]) if not one.is_dir())
        raise HubNotFoundError(
            f"Hub file '{path}' cannot exist: there is no folder '{missing}'; check the path, or make the folder first"
        )
    return exists


def check_folder(path: Path) -> None:
    """Raise `StoreUnavailableError` when no files can be made beside the hub file, or SQLite is not safe there."""
    check_file_system(path)
    if not os.access(path.parent, os.W_OK | os.X_OK):  # the log lies beside the file
        raise _unusable(path.parent, "directory", PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def _check_file(path: Path, *, create: bool) -> None:
    exists = check_place(path)
    if not exists and not create:
        raise HubNotFoundError(
            f"Hub file '{path}' does not exist; check the URL. A host creates it, and so does a client that starts an instance"
        )
    log = Path(f"{path}-wal")
    if (not exists or not path.stat().st_size) and log.exists() and log.stat().st_size:
        # SQLite would delete the log, and with it the only trace of what was acknowledged.
        raise HubNotFoundError(
            f"Hub file '{path}' is gone, but its log '{log}' is there: the file was deleted or moved. Put it back, "
            "restore a backup, or delete the log too to begin with an empty hub"
        )
    if exists and not os.access(path, os.R_OK | os.W_OK):
        check_file_system(path)
        raise _unusable(path, "hub file", PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    check_folder(path)
    if not exists:
        _make_private(path)


def _make_private(path: Path) -> None:
    """Make an empty file that only its owner may use: payloads may be secrets. SQLite gives log and index the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise _unusable(path, "hub file", error) from None


def _unusable(path: Path, what: str, error: OSError) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"The {what} '{path}' cannot be used: {error.strerror}; let the user of this process read and write it"
    )


@contextmanager
def in_a_hurry(connection: apsw.Connection, patience_ms: int) -> Generator[None, None, None]:
    """Wait for locks of others no longer than this."""
    connection.set_busy_timeout(patience_ms)
    try:
        yield
    finally:
        connection.set_busy_timeout(_BUSY_MS)


def connect(
    path: Path, *, cache_kib: int, create: bool = False, read_only: bool = False, vfs: str | None = None
) -> apsw.Connection:
    """Open a connection. It is used by one thread at a time.

    Args:
        path: The file.
        cache_kib: Size of the page cache.
        create: Make the file when it is missing.
        read_only: Refuse statements that write. (A reader in WAL mode still needs to write the shared index.)
        vfs: Name of the APSW VFS to use; tests inject faults there.
    """
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    connection = apsw.Connection(str(path), flags=flags, vfs=vfs, statementcachesize=_STATEMENTS)
    connection.set_busy_timeout(_BUSY_MS)
    # Checkpoints are the owner's alone, at moments of its choice.
    connection.wal_autocheckpoint(0)
    for name, value in (
        ("synchronous", "full"),
        ("fullfsync", 1),  # macOS: an fsync that reaches the platters; no meaning elsewhere
        ("checkpoint_fullfsync", 1),
        ("temp_store", "memory"),
        ("cache_size", -cache_kib),
        ("trusted_schema", 0),
        ("query_only", int(read_only)),
    ):
        pragma(connection, name, value)
    return connection
