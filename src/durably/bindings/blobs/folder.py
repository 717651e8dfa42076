"""A folder as a store of blobs: a folder in it is a container, a file below that is a blob.

The folder is opened once, and each part of a name is opened relative to the one before without following links
(`openat` with ``O_NOFOLLOW``). So whatever a name says, and whatever is put in the place of a folder meanwhile, nothing
outside of the folder is read, written or listed. Links inside of it are no blobs.

A folder may be on a network disk that hangs. So it has threads of its own, and nobody but them waits for the disk.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from durably.bindings.blobs.folder_files import (
    ABSENT,
    FOLDER,
    descend,
    entry,
    files,
    make_folder,
    put,
    status,
    sweep,
)
from durably.bindings.blobs.names import check_container, check_file
from durably.bindings.blobs.open_file import OpenFile
from durably.bindings.blobs.store import BlobEntry
from durably.errors import BlobNotFoundError, BrokerError

T = TypeVar("T")

_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe would wait for its writer

_PAGE: Final = 1_000
_PIECE: Final = 1 << 18

_THREADS: Final = 8
"""Of one folder, at most."""

_log = logging.getLogger("durably.blob")


class FolderStore:
    """Implements `BlobStore` on a folder of this machine.

    Args:
        root: The folder; made when something is written.
    """

    interval_s = 1.0

    def __init__(self, root: Path) -> None:
        self._path = root.absolute()
        self._root: OpenFile | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._refused: set[str] = set()
        self._swept = False

    # --- the contract ------------------------------------------------------------------------------------------------

    async def list(self, container: str, prefix: str = "", after: str = "") -> AsyncIterator[list[BlobEntry]]:
        """See `BlobStore.list`. Folders that cannot hold a name that is asked for are not looked into."""
        check_container(container)
        walk = self._walk(container, prefix, after)
        while page := await self._aside(lambda: list(islice(walk, _PAGE))):
            yield page

    async def head(self, container: str, name: str) -> BlobEntry | None:
        """See `BlobStore.head`. Without the folder or the container nobody knows: a disk may not be mounted."""
        return await self._aside(lambda: self._head(container, name))

    async def stream(
        self, container: str, name: str, *, version: str | None = None, limit: int | None = None
    ) -> AsyncIterator[bytes]:
        """See `BlobStore.stream`. The file that is open stays the one, whatever is renamed into its place."""
        left = sys.maxsize if limit is None else limit
        file, piece = await self._aside(lambda: self._begin(container, name, version, min(_PIECE, left)))
        try:
            while piece:
                yield piece
                left -= len(piece)
                # Less than asked for is all that there was.
                more = min(_PIECE, left) if len(piece) == _PIECE else 0
                piece = await self._aside(partial(file.read, more)) if more else b""
            if version is not None and entry(name, file.status()).version != version:
                raise BlobNotFoundError(container, name, version)  # it was written while it was read
        finally:
            self._let_go(file)

    async def write(self, container: str, name: str, data: bytes) -> BlobEntry:
        """See `BlobStore.write`: the file is written aside, and renamed into its place."""
        return await self._aside(lambda: self._write(container, name, data))

    async def delete(self, container: str, name: str) -> bool:
        """See `BlobStore.delete`. Folders stay."""
        return await self._aside(lambda: self._delete(container, name))

    async def close(self) -> None:
        """See `BlobStore.close`."""
        root, self._root = self._root, None
        if root is not None:
            self._let_go(root)
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)

    async def _aside(self, work: Callable[[], T]) -> T:
        """Do it in a thread, and say what the system refuses in words of ours."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, "durably-folder")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except OSError as error:
            raise BrokerError(f"The folder of blobs refuses: {error}") from error

    def _let_go(self, file: OpenFile) -> None:
        """Close it, and do not wait for that."""
        if self._threads is None:
            file.close()
        else:
            self._threads.submit(file.close)

    # --- in a thread -------------------------------------------------------------------------------------------------

    def _opened_root(self, *, make: bool = False) -> int:
        """The folder, opened once; one more number for it. If it is a link, that is followed.

        One that was deleted and made again is opened again. Two threads may both do that: one of the two stays.
        """
        root = self._root
        if root is None or not self._is_in_place(root):
            if make:
                make_folder(self._path)
            root = self._root = OpenFile(os.open(self._path, FOLDER & ~os.O_NOFOLLOW))
        return root.again()

    def _is_in_place(self, root: OpenFile) -> bool:
        try:
            return os.path.samestat(self._path.stat(), root.status())
        except FileNotFoundError:
            return False

    def _head(self, container: str, name: str) -> BlobEntry | None:
        with self._parent(container, name, surely=True) as (parent, last):
            found = None if parent is None else status(last, parent)
            return None if found is None else entry(name, found)

    def _open(self, container: str, name: str, version: str | None) -> OpenFile:
        with self._parent(container, name) as (parent, last):
            try:
                fd = -1 if parent is None else os.open(last, _FILE, dir_fd=parent)
            except OSError as error:
                if error.errno not in (*ABSENT, errno.ENXIO):
                    raise
                fd = -1
        if fd < 0:
            raise BlobNotFoundError(container, name, version)
        file = OpenFile(fd)
        found = file.status()
        if not stat.S_ISREG(found.st_mode) or version not in (None, entry(name, found).version):
            file.close()
            raise BlobNotFoundError(container, name, version)
        return file

    def _begin(self, container: str, name: str, version: str | None, most: int) -> tuple[OpenFile, bytes]:
        file = self._open(container, name, version)
        return file, file.read(most)

    def _write(self, container: str, name: str, data: bytes) -> BlobEntry:
        with self._parent(container, name, make=True) as (parent, last):
            assert parent is not None  # noqa: S101 - it was made
            root = self._opened_root()
            try:
                written = put(data, root, parent, last)
                if not self._swept:
                    self._swept = True
                    sweep(root, written.st_mtime_ns)
            finally:
                os.close(root)
            return entry(name, written)

    def _delete(self, container: str, name: str) -> bool:
        with self._parent(container, name) as (parent, last):
            if parent is None or status(last, parent) is None:
                return False
            try:
                os.unlink(last, dir_fd=parent)
            except FileNotFoundError:
                return False
            return True

    @contextmanager
    def _parent(
        self, container: str, name: str, *, make: bool = False, surely: bool = False
    ) -> Generator[tuple[int | None, str]]:
        """The folder that a blob is in, None where there is none; and the last part of its name.

        Args:
            container: The container.
            name: The blob.
            make: Make what is not there.
            surely: Raise when it is the container that is not there.
        """
        check_container(container)
        *folders, last = check_file(name)
        fd: int | None = None
        try:
            fd = descend(self._opened_root(make=make), container, make=make)
            for part in folders:
                fd = descend(fd, part, make=make)
        except OSError as error:
            if make or error.errno not in ABSENT or (surely and fd is None):
                raise
            fd = None
        try:
            yield fd, last
        finally:
            if fd is not None:
                os.close(fd)

    def _walk(self, container: str, prefix: str, after: str) -> Iterator[BlobEntry]:
        try:
            fd = descend(self._opened_root(), container)
        except OSError as error:
            if error.errno in ABSENT:
                return
            raise

        def refused(path: str, error: OSError) -> None:
            where = f"{container}/{path}"
            if where not in self._refused:
                self._refused.add(where)
                _log.warning("the folder '%s' of blobs is left out: %s", where.rstrip("/"), error)

        yield from files(fd, "", prefix, after, refused)
