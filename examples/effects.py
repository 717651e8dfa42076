"""Effects that are there completely or not at all: a transaction of SQLite, and a file.

When an activity returns, the runtime records that it is done and never runs it again. Its effect must be on the disk
by then: SQLite sees to that with its default, `synchronous=FULL`; a file needs `fsync`.
"""

import os
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def transaction(database: Path) -> Generator[sqlite3.Connection]:
    """All that is done in it becomes durable, or, if it raises, nothing. One at a time, over threads and processes."""
    # No isolation level: transactions begin where the code says so, not where sqlite3 guesses.
    with closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        with db:
            yield db


def query(database: Path, sql: str, *values: object) -> list[Any]:
    """Read rows."""
    with closing(sqlite3.connect(database, timeout=30)) as db:
        return db.execute(sql, values).fetchall()


def create(database: Path, schema: str) -> None:
    """Make a database, or leave it as it is: the schema says `IF NOT EXISTS`."""
    with closing(sqlite3.connect(database, timeout=30)) as db:
        db.execute("PRAGMA journal_mode = WAL")  # readers need not wait for a writer
        db.executescript(schema)


def write_file(path: Path, content: bytes) -> None:
    """Write a file, or replace it. Whoever reads it sees the old content or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, because a rename is atomic only within a file system; hidden, so that no reader takes it. A
    # crash may leave it behind: the next run has the same name for it and overwrites it.
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)  # the new name, too


def move(path: Path, target: Path) -> None:
    """Move a file or a folder within a file system. Where it has been moved already, nothing happens."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.rename(target)
    for folder in (path.parent, target.parent):
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
