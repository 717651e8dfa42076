r"""A dump as a file: what `durably hub export` writes and `durably hub import` reads.

FORMAT 1: the line ``durably hub export 1\n``, then one stream of zlib. In it are frames: their length (4 bytes, big endian),
then msgpack, a pair of what it is and what is in it.

- ``["head", FileHead]``, the first frame.
- ``[kind, rows]``, in the order of `durably.core.dump.KINDS`; a row is an array of its fields.
- ``["end", FileEnd]``, the last frame, with the number of rows of each kind and a checksum of all frames before it.

Payloads are bytes, which JSON cannot hold as they are; msgpack has the types of the rows and nothing else, is read back
with a check of each field, and costs less than the compression does. One stream compresses ids that repeat from frame to
frame. The checksum finds what was damaged or changed by mistake; it is no signature.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from durably.core.dump import KINDS, DumpChunk, DumpHead, DumpRows
from durably.errors import ExportFileError

FORMAT: Final = 1
_MAGIC: Final = b"durably hub export "
_LEVEL: Final = 1
"""Of zlib: what is large is compressed or encrypted already."""

_READ_BYTES: Final = 1 << 20
_FRAME_MAX: Final = (1 << 32) - 1
_CHECKSUM_BYTES: Final = 16


class FileHead(msgspec.Struct, frozen=True):
    """The first frame.

    Attributes:
        dump: See there.
        exported_at: In microseconds since 1970 UTC.
        version: Of the durably that wrote it.
    """

    dump: DumpHead
    exported_at: int
    version: str


class FileEnd(msgspec.Struct, frozen=True):
    """The last frame."""

    rows: dict[str, int]
    checksum: bytes


_encode = msgspec.msgpack.Encoder().encode
_frame = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw])
_head = msgspec.msgpack.Decoder(FileHead)
_end = msgspec.msgpack.Decoder(FileEnd)
_rows: Final[dict[str, msgspec.msgpack.Decoder[Any]]] = {
    kind: msgspec.msgpack.Decoder(list[row]) for kind, row in KINDS.items()
}


class ExportWriter:
    """Makes the file.

    Args:
        write: Takes its bytes, in order.
        now: The time, in microseconds since 1970 UTC.
        version: Of this durably.
    """

    def __init__(self, write: Callable[[bytes], object], now: int, version: str) -> None:
        self._write = write
        self._now = now
        self._version = version
        self._deflate = zlib.compressobj(_LEVEL)
        self._checksum = hashlib.blake2b(digest_size=_CHECKSUM_BYTES)
        self._counts = dict.fromkeys(KINDS, 0)

    def add(self, chunk: DumpChunk) -> None:
        """Write what comes next.

        Raises:
            ExportFileError: A row is larger than the format allows.
        """
        if isinstance(chunk, DumpHead):
            self._write(b"%b%d\n" % (_MAGIC, FORMAT))
            self._put("head", FileHead(chunk, self._now, self._version))
        else:
            self._counts[chunk.kind] += len(chunk.rows)
            self._put(chunk.kind, chunk.rows)

    def end(self) -> None:
        """Write the end, without which the file is refused."""
        self._put("end", FileEnd(self._counts, self._checksum.digest()))
        self._write(self._deflate.flush())

    def _put(self, what: str, content: Any) -> None:
        body = _encode((what, content))
        if len(body) > _FRAME_MAX:
            raise ExportFileError(
                f"A part of {len(body):,} bytes ({what}) does not fit into an export: expected {_FRAME_MAX:,} at most"
            )
        frame = len(body).to_bytes(4, "big") + body
        self._checksum.update(frame)
        packed = self._deflate.compress(frame)
        if packed:
            self._write(packed)


class ExportReader:
    """Reads the file.

    Args:
        read: Gives so many bytes of it at most, none at its end.
        name: Of the file, for messages.
    """

    def __init__(self, read: Callable[[int], bytes], name: str) -> None:
        self._read = read
        self._name = name
        self._inflate = zlib.decompressobj()
        self._buffer = bytearray()
        self._checksum = hashlib.blake2b(digest_size=_CHECKSUM_BYTES)
        self._counts = dict.fromkeys(KINDS, 0)
        self._kinds = list(KINDS)
        self._packed = b""
        self.head: FileHead | None = None
        """What the file says about itself, once that was read."""

    def chunks(self) -> Iterator[DumpChunk]:
        """What is in it.

        Raises:
            ExportFileError: It is no export, is cut off or was altered, or a newer version wrote it. Part of it may have
                been given out by then.
        """
        self._read_magic()
        head: FileHead = self._decoded(_head, self._next("head")[1])
        self.head = head
        yield head.dump
        while True:
            before = self._checksum.digest()
            kind, content = self._next(*self._kinds, "end")
            if kind == "end":
                self._check_end(self._decoded(_end, content), before)
                return
            del self._kinds[: self._kinds.index(kind)]
            rows = self._decoded(_rows[kind], content)
            self._counts[kind] += len(rows)
            yield DumpRows(kind, rows)

    def _read_magic(self) -> None:
        line = b""
        while len(line) < 40 and b"\n" not in line:
            some = self._read(40 - len(line))
            if not some:
                break
            line += some
        line, newline, self._packed = line.partition(b"\n")
        number = line.removeprefix(_MAGIC)
        if not newline or number == line or not number.isdigit():
            raise ExportFileError(
                f"{self._name} is no export of a hub: expected a file that 'durably hub export' wrote"
            )
        if int(number) != FORMAT:
            raise ExportFileError(
                f"{self._name} has format {number.decode()}, this durably knows format {FORMAT}: import it with the version "
                "of durably that wrote it, or a newer one"
            )

    def _next(self, *expected: str) -> tuple[str, msgspec.Raw]:
        length = self._take(4)
        body = self._take(int.from_bytes(length, "big"))
        what, content = self._decoded(_frame, body)
        if what not in expected:
            raise self._altered(f"'{what[:20]}' where one of {', '.join(expected)} was expected")
        self._checksum.update(length)
        self._checksum.update(body)
        return what, content

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if not self._fill():
                raise ExportFileError(
                    f"{self._name} is cut off {self._place()}: its end is missing. Copy it again, or export again"
                )
        taken = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        return taken

    def _fill(self) -> bool:
        """Have more bytes of frames; False at the end."""
        if self._inflate.eof:
            return False
        packed = self._packed or self._read(_READ_BYTES)
        try:
            more = self._inflate.decompress(packed, _READ_BYTES)
        except zlib.error as error:
            raise self._altered(str(error)) from None
        self._packed = self._inflate.unconsumed_tail
        self._buffer += more
        return bool(packed or more)

    def _check_end(self, end: FileEnd, checksum: bytes) -> None:
        if end.checksum != checksum or end.rows != self._counts:
            raise self._altered("its checksum is another one")
        while self._fill():
            pass
        if not self._inflate.eof:
            raise ExportFileError(
                f"{self._name} is cut off {self._place()}: its last bytes are missing. Copy it again, or export again"
            )
        if self._buffer or self._inflate.unused_data or self._read(1):
            raise self._altered("there is more behind its end")

    def _decoded(self, decoder: msgspec.msgpack.Decoder[Any], body: Any) -> Any:
        try:
            return decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise self._altered(str(error)) from None

    def _altered(self, why: str) -> ExportFileError:
        return ExportFileError(
            f"{self._name} was altered or damaged {self._place()}: {why}. Copy it again, or export again"
        )

    def _place(self) -> str:
        found = ", ".join(f"{count:,} {kind}" for kind, count in self._counts.items() if count)
        return f"behind {found}" if found else "at its beginning"
