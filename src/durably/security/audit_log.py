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
    rotated_path,
)

_log = logging.getLogger("durably.audit")

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
        self._waiting: list[AuditRecord] = []
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
        self._thread.shutdown()

    async def _written(self) -> None:
        """Wait for a write that began after now."""
        under_way = self._writing
        if under_way is not None:
            await asyncio.wait({under_way})
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_waiting(), name="durably-audit")
        await asyncio.shield(self._writing)

    async def _write_waiting(self) -> None:
        batch = self._waiting[:]
        try:
            if batch:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._write, batch)
                del self._waiting[: len(batch)]
        except OSError as error:
            _log.error("The audit log %s cannot be written (%s): changes are refused", self.path, error)
            raise OperationError(
                f"The audit log '{self.path}' cannot be written ({error.strerror or error}): nothing may be changed until it "
                "can. Look at the disk and at who owns the file; what was asked for just now may have been done"
            ) from None
        finally:
            self._writing = None

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _write(self, batch: Sequence[AuditRecord]) -> None:
        with self._locked() as lock:
            self._rotate_if_full()
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                self._catch_up(file, lock)
                self._append(file, lock, batch)
            finally:
                os.close(file)

    def _append(self, file: int, lock: int, batch: Sequence[AuditRecord]) -> None:
        head, lines = self._head, bytearray()
        for record in batch:
            line, head = line_after(head, record)
            lines += line
        before = os.fstat(file).st_size
        try:
            if os.write(file, lines) != len(lines):
                raise OSError("the disk is full")
            os.fsync(file)
            if not before:
                _sync_folder(self.path.parent)
        except OSError:
            self._seen = None
            os.ftruncate(file, before)
            raise
        os.pwrite(lock, msgspec.json.encode(head).ljust(_HEAD_BYTES), 0)
        self._head = head
        self._seen = _identity(file)

    @contextlib.contextmanager
    def _locked(self) -> Generator[int]:
        """The head file; nobody else appends meanwhile."""
        lock = os.open(head_path(self.path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock
        finally:
            os.close(lock)

    def _catch_up(self, file: int, lock: int) -> None:
        """Find the end of the log, unless it is where we left it."""
        if self._seen == _identity(file):
            return
        _cut_torn_line(file)
        stored = _head_in(lock)
        found = next(
            (head for head in map(_last_of, reversed(files_of(self.path))) if head is not None), Head()
        )
        # A log that ends before its head has lost its last records. Going on from there instead would hide that.
        self._head = max(stored, found, key=lambda head: head.n)

    def _rotate_if_full(self) -> None:
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return
        first = _first_of(self.path) if size >= self._bytes_max else None
        if first is not None:
            self.path.rename(rotated_path(self.path, first))
            self._seen = None


def _sync_folder(folder: Path) -> None:
    """Make the name of a new file as durable as what is in it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
