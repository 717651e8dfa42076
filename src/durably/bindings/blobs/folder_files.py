"""What a folder of blobs does with the files in it: each is looked at and written relative to a folder that is open."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from durably.bindings.blobs.names import NAME_CHARS_MAX, OWN, PARTS_MAX, is_blob, is_file_part
from durably.bindings.blobs.store import BlobEntry

FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_LEFT_OVER_NS: Final = 3_600_000_000_000

ABSENT: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Nothing there, a file where a folder should be, or a link."""

_TOO_MANY: Final = (errno.EMFILE, errno.ENFILE)
"""Says nothing of what is to be opened."""

Refused = Callable[[str, OSError], None]
"""Is told of a folder that is left out, as it is not ours to look into."""


def files(fd: int, path: str, prefix: str, after: str, refused: Refused) -> Iterator[BlobEntry]:
    """The files below a folder that is open, in the order of their names; closes it."""
    try:
        with os.scandir(fd) as folder:
            # A folder counts as its name with a slash, so that the order is that of whole names.
            names = sorted(
                f"{one.name}/" if one.is_dir(follow_symlinks=False) else one.name
                for one in folder
                if is_file_part(one.name)
            )
        for part in names:
            name = f"{path}{part}"
            if part[-1] == "/":
                if _may_hold(name, prefix, after):
                    inner = _opened(part[:-1], fd, name, refused)
                    if inner is not None:
                        yield from files(inner, name, prefix, after, refused)
            elif name > after and name.startswith(prefix) and is_blob(name):
                found = status(part, fd)
                if found is not None:
                    yield entry(name, found)
    except PermissionError as error:
        if not path:
            raise
        refused(path, error)  # it can be listed, and its files cannot be looked at
    finally:
        os.close(fd)


def _may_hold(folder: str, prefix: str, after: str) -> bool:
    """True for a folder in which a name can be that is asked for. Each one is open while it is looked into."""
    if len(folder) >= NAME_CHARS_MAX or folder.count("/") >= PARTS_MAX:
        return False
    asked = prefix.startswith(folder) or folder.startswith(prefix)
    return asked and (folder > after or after.startswith(folder))


def _opened(part: str, fd: int, path: str, refused: Refused) -> int | None:
    try:
        return os.open(part, FOLDER, dir_fd=fd)
    except OSError as error:
        if error.errno in _TOO_MANY:
            raise
        if error.errno not in ABSENT:
            refused(path, error)
        return None  # gone, or a link by now, or not ours to read


def status(part: str, fd: int) -> os.stat_result | None:
    """Of a file in a folder; None when there is none, or it is something else."""
    try:
        found = os.stat(part, dir_fd=fd, follow_symlinks=False)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise
    return found if stat.S_ISREG(found.st_mode) else None


def descend(fd: int, part: str, *, make: bool = False) -> int:
    """The folder in a folder; closes the outer one, whatever happens. One that was made is there after a power cut, too."""
    try:
        if make:
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=fd)
                os.fsync(fd)
        return os.open(part, FOLDER, dir_fd=fd)
    finally:
        os.close(fd)


def make_folder(path: Path) -> None:
    """Make a folder, and those that it is in; durable on return.

    Raises:
        OSError: It cannot be, or is something else.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    outer = os.open(path.parent, FOLDER & ~os.O_NOFOLLOW)
    try:
        os.fsync(outer)
    finally:
        os.close(outer)


def entry(name: str, found: os.stat_result) -> BlobEntry:
    """A file as a blob. Its version is what changes with each write: time, size, and which file it is.

    A rename, or another change from outside, behind the last write says that the writer is done: `st_ctime` shows it.
    """
    version = f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"
    whole = found.st_ctime_ns > found.st_mtime_ns and found.st_size > 0
    return BlobEntry(name, version, found.st_size, found.st_mtime_ns // 1_000, whole)


def put(data: bytes, root: int, parent: int, last: str) -> os.stat_result:
    """Write a file aside, and rename it into its place."""
    aside = f"{OWN}{secrets.token_hex(8)}"
    with os.fdopen(os.open(aside, _NEW, 0o666, dir_fd=root), "wb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.rename(aside, last, src_dir_fd=root, dst_dir_fd=parent)
        except BaseException:
            os.unlink(aside, dir_fd=root)
            raise
        os.fsync(parent)
        return os.fstat(file.fileno())


def sweep(root: int, now_ns: int) -> None:
    """Delete what processes that died were about to write."""
    with os.scandir(root) as folder:
        left = [one.name for one in folder if one.name.startswith(OWN)]
    for part in left:
        found = status(part, root)
        if found is not None and now_ns - found.st_mtime_ns > _LEFT_OVER_NS:
            with suppress(FileNotFoundError):
                os.unlink(part, dir_fd=root)
