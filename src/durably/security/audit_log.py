"""Writes an audit log. Records that come while others are being written share the next write, and its fsync."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from durably.errors import OperationError
from durably.security.audit_chain import (
    LINE_BYTES_MAX,
    AuditLine,
    AuditRecord,
    Head,
    files_of,
    hash_of,
    head_path,
    line_after,
    placeholder,
    rotated_path,
)

_log = logging.getLogger("durably.audit")

BYTES_MAX: Final = 64 * 1024 * 1024
"""A file that is longer is put aside, unless somebody says otherwise."""

WAITING_MAX: Final = 10_000
"""Of records that wait for the disk more are dropped: what they were about was refused."""

_HEAD_BYTES: Final = 128
"""A head is written over the one before, within one sector."""


class AuditLog:
    """Appends records to a log; several processes may.

    Args:
        path: The current file. Full ones stay beside it, with the number of their first record.
        bytes_max: A file that is longer is full.
    """

    def __init__(self, path: Path, bytes_max: int) -> None:
        self.path = path
        self._bytes_max = bytes_max
        self._head = Head()
        self._seen: tuple[int, int] | None = None
        """Inode and size of the file when it was written last."""
        self._file: int | None = None
        self._lock: int | None = None
        self._lock_inode = 0
        self._waiting: list[AuditRecord] = []
        self._hopes: list[asyncio.Future[None]] = []
        self._writing: asyncio.Task[None] | None = None
        # A thread of its own: the default pool may be full of what HTTP functions do.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="durably-audit")

    async def append(self, record: AuditRecord) -> None:
        """Write a record; it is on the disk when this returns.

        Raises:
            OperationError: It could not be written. It is kept, and written with the next one.
        """
        self.note(record)
        await self._written()

    def note(self, record: AuditRecord) -> None:
        """Have a record written with the next one, or at the end: nobody waits for an answer."""
        if len(self._waiting) < WAITING_MAX:
            self._waiting.append(record)

    async def check(self) -> None:
        """Let nobody change anything while that cannot be recorded.

        Raises:
            OperationError: Records are left that still cannot be written.
        """
        if self._waiting and self._writing is None:
            await self._written()

    async def close(self) -> None:
        """Write what is left, and end. Idempotent."""
        with contextlib.suppress(OperationError):
            await self.check()
        with contextlib.suppress(RuntimeError):  # it was closed before
            self._thread.submit(self._let_go)
        self._thread.shutdown()

    async def _written(self) -> None:
        """Wait for a write that began after now."""
        hope: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hopes.append(hope)  # one each: whoever is cancelled takes nobody else along
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_for_all(), name="durably-audit")
        await hope

    async def _write_for_all(self) -> None:
        hopes: list[asyncio.Future[None]] = []
        try:
            while self._hopes:
                hopes, self._hopes = self._hopes, []
                why = await self._write_waiting()
                for hope in hopes:
                    if hope.done():
                        continue
                    if why is None:
                        hope.set_result(None)
                    else:
                        hope.set_exception(OperationError(why))
        finally:
            self._writing = None
            for hope in (*hopes, *self._hopes):
                hope.cancel()

    async def _write_waiting(self) -> str | None:
        """Write what waits; why that cannot be, or None."""
        batch = self._waiting[:]
        try:
            if batch:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._write, batch)
                del self._waiting[: len(batch)]
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are told
            known = isinstance(error, OSError)
            why = (error.strerror if isinstance(error, OSError) else None) or str(error)
            _log.error(
                "The audit log %s cannot be written (%s): changes are refused",
                self.path,
                error,
                exc_info=None if known else error,
            )
            return (
                f"The audit log '{self.path}' cannot be written ({why}): nothing may be changed until it "
                "can. Look at the disk and at who owns the file; what was asked for just now may have been done"
            )
        return None

    # --- in the thread -----------------------------------------------------------------------------------------------
    # Whatever asks the system takes a turn of the interpreter away from the loop, and has to wait for the next one: so
    # files stay open, and what is known of them is not asked for.

    def _write(self, batch: Sequence[AuditRecord]) -> None:
        with self._locked() as lock:
            file, size = self._current(lock)
            self._append(file, lock, batch, size)

    def _current(self, lock: int) -> tuple[int, int]:
        """The file to append to and its size: the one of the last time, if nobody has changed anything."""
        found = self._rotated_if_full()
        if self._file is not None and found is not None and self._seen == found:
            return self._file, found[1]
        self._let_go_of_file()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_DSYNC
        file = self._file = os.open(self.path, flags, 0o600)
        self._catch_up(file, lock)
        return file, os.fstat(file).st_size

    def _append(self, file: int, lock: int, batch: Sequence[AuditRecord], before: int) -> None:
        head, lines = self._head, bytearray()
        for record in batch:
            line, head = _line_after(head, record)
            lines += line
        try:
            if os.write(file, lines) != len(lines):  # it is on the disk when that returns: O_DSYNC
                raise OSError("the disk is full")
            if not before:
                _sync_folder(self.path.parent)
        except OSError:
            self._seen = None
            os.ftruncate(file, before)
            raise
        os.pwrite(lock, msgspec.json.encode(head).ljust(_HEAD_BYTES), 0)
        self._head = head
        self._seen = (os.fstat(file).st_ino if self._seen is None else self._seen[0], before + len(lines))

    @contextlib.contextmanager
    def _locked(self) -> Generator[int]:
        """The head file; nobody else appends meanwhile."""
        lock = self._lock if self._lock is not None else self._open_lock()
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            if (
                _inode_at(head_path(self.path)) != self._lock_inode
            ):  # deleted, or another one: others lock that
                os.close(lock)
                lock = self._open_lock()
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)

    def _open_lock(self) -> int:
        lock = self._lock = os.open(head_path(self.path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._lock_inode = os.fstat(lock).st_ino
        return lock

    def _let_go_of_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _let_go(self) -> None:
        self._let_go_of_file()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def _catch_up(self, file: int, lock: int) -> None:
        """Find the end of the log, unless it is where we left it."""
        if self._seen == _identity(file):
            return
        self._seen = None
        _cut_torn_line(file)
        stored = _head_in(lock)
        found = next(
            (head for head in map(_last_of, reversed(files_of(self.path))) if head is not None), Head()
        )
        # A log that ends before its head has lost its last records. Going on from there instead would hide that.
        self._head = max(stored, found, key=lambda head: head.n)

    def _rotated_if_full(self) -> tuple[int, int] | None:
        """Put a full file aside; says what is in its place: its inode and size, or None."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        first = _first_of(self.path) if found.st_size >= self._bytes_max else None
        if first is None:
            return found.st_ino, found.st_size
        self.path.rename(rotated_path(self.path, first))
        self._seen = None
        return None


def _line_after(head: Head, record: AuditRecord) -> tuple[bytes, Head]:
    """As `line_after`, also of a record that has no line: it would keep all others out, for ever."""
    try:
        return line_after(head, record)
    except Exception:  # noqa: BLE001 - whatever it is, the log goes on
        _log.exception("A record of the audit log cannot be written as it is: a shorter one is in its place")
        return line_after(head, placeholder(record))


def _sync_folder(folder: Path) -> None:
    """Make the name of a new file as durable as what is in it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _inode_at(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _identity(file: int) -> tuple[int, int]:
    found = os.fstat(file)
    return found.st_ino, found.st_size


def _cut_torn_line(file: int) -> None:
    """Drop what a crash left unfinished: nobody got an answer to it."""
    size = os.fstat(file).st_size
    start = max(0, size - LINE_BYTES_MAX)
    tail = os.pread(file, size - start, start)
    if tail and not tail.endswith(b"\n"):
        os.ftruncate(file, start + tail.rfind(b"\n") + 1)


def _head_in(lock: int) -> Head:
    try:
        return msgspec.json.decode(os.pread(lock, _HEAD_BYTES, 0), type=Head)
    except msgspec.DecodeError:  # new, or written over
        return Head()


def _last_of(path: Path) -> Head | None:
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - LINE_BYTES_MAX))
        lines = stream.read().splitlines()
    try:
        return Head(msgspec.json.decode(lines[-1], type=AuditLine).n, hash_of(lines[-1])) if lines else None
    except msgspec.DecodeError:
        return None


def _first_of(path: Path) -> int | None:
    with path.open("rb") as stream:
        try:
            return msgspec.json.decode(stream.readline(LINE_BYTES_MAX), type=AuditLine).n
        except msgspec.DecodeError:
            return None
