"""The form of an audit log: lines of JSON, each with its number and the hash of the line before, over all files of the log.

What was changed, taken out or put in between shows. What was cut off at the end shows against the head, a small file with
number and hash of the last line; and where that was changed, too, against a head that somebody keeps elsewhere.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from durably.errors import UsageError

NOTHING: Final = "0" * 64
"""What the first line has in the place of the hash before it."""

LINE_BYTES_MAX: Final = 65_536

_TEXT_CHARS_MAX: Final = 500

UNREADABLE: Final = "RecordUnreadable"
"""In the place of an error, in a record that could not be written as it was."""

_encode = msgspec.json.Encoder().encode


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change that somebody asked for, whatever became of it.

    Attributes:
        at: When it was answered, ISO 8601, UTC.
        who: The name of the principal: a key, a link, or the ``sub`` of a token; ``anonymous`` for nobody.
        via: What was shown as a credential, valid or not: ``key``, ``link``, ``token``, or nothing; ``cli`` on the machine.
        origin: The address that it came from.
        hub: The hub.
        action: Method and route; parameters are in `target`.
        target: What it was about: parameters of path and query, without credentials.
        function: The HTTP function of the app that was called.
        did: What it did through its client: verb and id.
        made: The id of the instance that was started.
        reason: As it was given.
        status: Of the answer; 499 when there was none. Of the command line, 200, or 400 when it was refused.
        error: The kind of the refusal.
        request: The id of the request, as it is in the answer.
    """

    at: str
    who: str
    via: str = ""
    origin: str = ""
    hub: str
    action: str
    target: dict[str, str] = {}
    function: str | None = None
    did: tuple[str, ...] = ()
    made: str | None = None
    reason: str | None = None
    status: int
    error: str | None = None
    request: str


class AuditLine(AuditRecord, frozen=True, kw_only=True, omit_defaults=True):
    """A record in its place.

    Attributes:
        n: Its number, from 1 on.
        prev: SHA-256 of the line before, in hexadecimal.
    """

    n: int
    prev: str


class Head(msgspec.Struct, frozen=True):
    """The last line of a log.

    Attributes:
        n: Its number; 0 for none.
        hash: Its SHA-256, in hexadecimal.
    """

    n: int = 0
    hash: str = NOTHING

    @classmethod
    def parse(cls, text: str) -> Head:
        """A head as `durably audit verify` prints it.

        Raises:
            UsageError: It is none.
        """
        match = re.fullmatch(r"(\d{1,15}):([0-9a-f]{64})", text)
        if match is None:
            raise UsageError(
                f"The head is {text!r}: expected NUMBER:HASH, as 'durably audit verify' prints it"
            )
        return cls(int(match[1]), match[2])

    def __str__(self) -> str:
        return f"{self.n}:{self.hash}"


def line_after(head: Head, record: AuditRecord) -> tuple[bytes, Head]:
    """A record as the next line (with its end), and the head that it makes."""
    n = head.n + 1
    line = b'%b,"n":%d,"prev":"%b"}' % (
        _encode(record)[:-1],
        n,
        head.hash.encode(),
    )  # an `AuditLine`, at a third of the price
    return line + b"\n", Head(n, hash_of(line))


def hash_of(line: bytes) -> str:
    """Of a line without its end."""
    return hashlib.sha256(line).hexdigest()


def shortened(text: str) -> str:
    """Text that fits into a record. What UTF-8 has no bytes for (half of a pair, from JSON) is written as an escape."""
    if not text.isascii():
        text = text[: _TEXT_CHARS_MAX + 1].encode(errors="backslashreplace").decode()
    return text if len(text) <= _TEXT_CHARS_MAX else f"{text[:_TEXT_CHARS_MAX]}…"


def placeholder(record: AuditRecord) -> AuditRecord:
    """What is written in the place of a record that has no line: who, what, and what became of it."""
    return AuditRecord(
        at=shortened(str(record.at)),
        who=shortened(str(record.who)),
        hub=shortened(str(record.hub)),
        action=shortened(str(record.action)),
        status=record.status,
        error=UNREADABLE,
        request=shortened(str(record.request)),
    )


# --- files -----------------------------------------------------------------------------------------------------------


def head_path(path: Path) -> Path:
    """Where the head of a log is; whoever writes locks it."""
    return path.with_name(f"{path.name}.head")


def rotated_path(path: Path, first: int) -> Path:
    """Where a file goes that is full."""
    return path.with_name(f"{path.name}.{first:012d}")


def files_of(path: Path) -> list[Path]:
    """The files of a log, oldest first."""
    rotated = (one for one in path.parent.glob(f"{path.name}.*") if re.fullmatch(r"\d{12}", one.suffix[1:]))
    return [*sorted(rotated), *([path] if path.exists() else [])]


class Placed(NamedTuple):
    """A line and where it is."""

    file: Path
    number: int
    raw: bytes

    @property
    def where(self) -> str:
        """For people."""
        return f"{self.file.name}, line {self.number}"


def lines_of(path: Path) -> Generator[Placed]:
    """All complete lines. What a crash left behind the last one is nothing: nobody got an answer to it."""
    for file in files_of(path):
        with file.open("rb") as stream:
            for number, raw in enumerate(stream, 1):
                if raw.endswith(b"\n"):
                    yield Placed(file, number, raw[:-1])


class Verdict(NamedTuple):
    """What a check has found.

    Attributes:
        first: The number of the first record; 0 for none.
        head: The last one that is in order.
        problem: What is wrong, or None.
    """

    first: int
    head: Head
    problem: str | None


def verify(path: Path, *, first: int = 1, kept: Head | None = None) -> Verdict:
    """Check a log from its first line to its last.

    Args:
        path: Its current file.
        first: The number of its first record: other than 1 when older files have been taken away.
        kept: A head of an earlier check, which has to be in it still.
    """
    begun, head = 0, Head()
    wanted = {one for one in (kept, _stored_head(path)) if one is not None and one.n}
    for placed in lines_of(path):
        try:
            line = msgspec.json.decode(placed.raw, type=AuditLine)
        except msgspec.DecodeError:
            return Verdict(begun, head, f"{placed.where} is no record: it was changed")
        if not begun:
            begun, head = line.n, Head(line.n - 1, line.prev)
            if line.n != first:
                return Verdict(begun, head, f"the first record is number {line.n}, expected {first}")
        if line.n != head.n + 1:
            return Verdict(
                begun, head, f"{placed.where} is record {line.n}, expected {head.n + 1}: some are missing"
            )
        if line.prev != head.hash:
            return Verdict(begun, head, f"{placed.where} does not follow from the record before it")
        head = Head(line.n, hash_of(placed.raw))
        if any(one.n == head.n and one != head for one in wanted):
            return Verdict(begun, head, f"{placed.where} is not the record that was written")
    last = max((one.n for one in wanted), default=0)
    if last > head.n:
        return Verdict(
            begun, head, f"it ends with record {head.n}, expected {last}: the last ones are missing"
        )
    if kept is not None and kept.n < begun:
        return Verdict(
            begun, head, f"it begins with record {begun}: the head of record {kept.n} says nothing"
        )
    return Verdict(begun, head, None)


def _stored_head(path: Path) -> Head | None:
    try:
        return msgspec.json.decode(head_path(path).read_bytes(), type=Head)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
