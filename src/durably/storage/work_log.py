"""What the owner does right now, in a file beside the hub that is mapped into memory.

The kernel keeps the pages of a process that dies, however it dies, so nothing has to be synced. A machine that dies takes
them along; then nobody is suspected. Entries lie in places of one size, behind a head of epoch and length; the length is
written last and wiped first, so that an entry is there wholly or not at all.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from pathlib import Path

from durably.errors import StoreUnavailableError

_HEAD = struct.Struct("<QI")
_LENGTH = struct.Struct("<I")
_LENGTH_AT = 8

_PLACE_BYTES = 1_280
"""Room for an entry with the longest instance id, 256 characters of 4 bytes, and some."""

_PLACES = 1_024
"""As many as activities run at once by default; the file grows by so many."""

_PLACES_MAX = 65_536
"""80 MB; work beyond that is not noted."""


class FileWorkLog:
    """Implements `durably.storage.api.WorkLog` in a file. Opened on one thread, used on another one after that."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: mmap.mmap | None = None
        self._file = -1
        self._epoch = 0
        self._places = 0
        self._free: list[int] = []
        self._left: dict[int, bytes] = {}

    def open(self, epoch: int) -> None:
        """Open or create the file, for entries of this epoch. Blocks are taken now: a full disk must not fault later.

        Raises:
            StoreUnavailableError: There is no room for it, or it cannot be opened.
        """
        self.close()
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            size = os.fstat(self._file).st_size
            self._epoch = epoch
            self._take(max(_PLACES, min(size // _PLACE_BYTES, _PLACES_MAX)))
        except OSError as error:
            self.close()
            raise StoreUnavailableError(
                f"The file '{self._path}' for what is running cannot be used: {error.strerror}; make room for "
                f"{_PLACES * _PLACE_BYTES:,} bytes, and let the user of this process write it"
            ) from None
        self._read()

    def _take(self, places: int) -> None:
        _reserve(self._file, places * _PLACE_BYTES)
        before, self._map = self._map, mmap.mmap(self._file, places * _PLACE_BYTES)
        if before is not None:
            before.close()
        self._free.extend(range(places - 1, self._places - 1, -1))
        self._places = places

    def _read(self) -> None:
        if self._map is None:
            return
        self._left = {}
        for place in range(self._places):
            at = place * _PLACE_BYTES
            epoch, length = _HEAD.unpack_from(self._map, at)
            if length and epoch != self._epoch and length <= _PLACE_BYTES - _HEAD.size:
                self._left[place] = self._map[at + _HEAD.size : at + _HEAD.size + length]
            elif length:
                _LENGTH.pack_into(self._map, at + _LENGTH_AT, 0)
        self._free = [place for place in self._free if place not in self._left]

    @property
    def left(self) -> list[bytes]:
        """See `WorkLog.left`."""
        return list(self._left.values())

    def put(self, entry: bytes) -> int:
        """See `WorkLog.put`."""
        if self._map is None or len(entry) > _PLACE_BYTES - _HEAD.size:
            return -1
        if not self._free and not self._grow():
            return -1
        place = self._free.pop()
        at = place * _PLACE_BYTES
        self._map[at + _HEAD.size : at + _HEAD.size + len(entry)] = entry
        _HEAD.pack_into(self._map, at, self._epoch, 0)
        _LENGTH.pack_into(self._map, at + _LENGTH_AT, len(entry))
        return place

    def _grow(self) -> bool:
        if self._places >= _PLACES_MAX:
            return False
        try:
            self._take(self._places + _PLACES)
        except OSError:  # a full disk: what does not fit is not noted
            return False
        return True

    def drop(self, place: int) -> None:
        """See `WorkLog.drop`."""
        if self._map is not None and place >= 0:
            _LENGTH.pack_into(self._map, place * _PLACE_BYTES + _LENGTH_AT, 0)
            self._free.append(place)

    def settle(self) -> None:
        """See `WorkLog.settle`."""
        if self._map is not None:
            places, self._left = list(self._left), {}
            for place in places:
                self.drop(place)

    def close(self) -> None:
        """Leave the file as it is; nothing is noted any more. Idempotent."""
        if self._map is not None:
            self._map.close()
        if self._file >= 0:
            os.close(self._file)
        self._map, self._file, self._places = None, -1, 0
        self._free, self._left = [], {}

    def delete(self) -> None:
        """Close, and delete the file: nothing was left undone."""
        self.close()
        with contextlib.suppress(OSError):  # an empty one is as good
            self._path.unlink(missing_ok=True)


def _reserve(file: int, size: int) -> None:
    """Make the file at least so large, with blocks behind it where the system can do that."""
    if os.fstat(file).st_size >= size:
        return
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:  # macOS
        os.truncate(file, size)
