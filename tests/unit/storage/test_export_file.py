"""Exports as bytes: read back as they were written, and refused when they are not."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence

import msgspec
import pytest

from durably.core.commit import InboxRow, InstanceRow, ParkedMessage, TimerRow, Tombstone
from durably.core.dump import DumpChunk, DumpHead, DumpRows, OwnedHistory, PlacedInstance, Positions
from durably.errors import ExportFileError
from durably.storage.export_file import ExportReader, ExportWriter
from durably.testing.store_scene import entity_row, history_row, instance_row

HEAD = DumpHead(b"\0" * 16, {"k1": b"\xff"}, 3, 4, [5, (1 << 48) + 6], Positions(7, 8, 9))
FULL = instance_row(
    "é\0", 2**62, input=b"\xc1\x00", version="1", in_flight=True, start_at=-1, tags=b"{}", bases=b"[1]"
)
CHUNKS: list[DumpChunk] = [
    HEAD,
    DumpRows("instances", [PlacedInstance(1, instance_row("a")), PlacedInstance(3, FULL)]),
    DumpRows("instances", [PlacedInstance(4, instance_row("b", input=b"x" * 3_000_000))]),
    DumpRows("history", [OwnedHistory("a", history_row(1, n)) for n in range(500)]),
    DumpRows("timers", [TimerRow(1, 2, 3, 4, "a")]),
    DumpRows("entities", [entity_row("@a@b", state=None)]),
    DumpRows("inbox", [InboxRow("m", "a", 1, b"", 9)]),
    DumpRows("parked", [ParkedMessage("p", "a", 1, b"\0", "why", 2, 5)]),
    DumpRows("tombstones", [Tombstone("t", 1, b"v")]),
]
_MAGIC = b"durably hub export 1\n"


def written(chunks: Sequence[DumpChunk] = CHUNKS) -> bytes:
    file = io.BytesIO()
    writer = ExportWriter(file.write, 17, "0.1")
    for chunk in chunks:
        writer.add(chunk)
    writer.end()
    return file.getvalue()


def read(file: bytes) -> list[DumpChunk]:
    return list(ExportReader(io.BytesIO(file).read, "File 'x.hub'").chunks())


def frames(file: bytes) -> list[bytes]:
    plain, found = zlib.decompress(file[len(_MAGIC) :]), []
    while plain:
        size = 4 + int.from_bytes(plain[:4], "big")
        found.append(plain[:size])
        plain = plain[size:]
    return found


def of_frames(*parts: bytes) -> bytes:
    return _MAGIC + zlib.compress(b"".join(parts))


def frame(what: str, content: object) -> bytes:
    body = msgspec.msgpack.encode((what, content))
    return len(body).to_bytes(4, "big") + body


def test_what_is_read_is_what_was_written() -> None:
    found = read(written())
    assert found == CHUNKS
    instances = found[1]
    assert isinstance(instances, DumpRows)
    assert type(instances.rows[0]) is PlacedInstance
    assert type(instances.rows[0].row) is InstanceRow


def test_an_empty_hub_is_an_export_too() -> None:
    assert read(written([HEAD])) == [HEAD]


def test_what_comes_in_drops_is_read_alike() -> None:
    file = io.BytesIO(written())
    assert list(ExportReader(lambda most: file.read(min(most, 7)), "x").chunks()) == CHUNKS


def test_the_file_says_when_and_by_whom_it_was_written() -> None:
    reader = ExportReader(io.BytesIO(written([HEAD])).read, "x")
    list(reader.chunks())
    assert reader.head is not None
    assert (reader.head.exported_at, reader.head.version) == (17, "0.1")


def test_a_file_that_is_cut_off_anywhere_is_refused() -> None:
    file = written()
    for end in [*range(80), *range(80, len(file), 97), *range(len(file) - 20, len(file))]:
        with pytest.raises(ExportFileError, match=r"is cut off|is no export") as caught:
            read(file[:end])
        assert "'x.hub'" in str(caught.value)


def test_how_far_it_goes_is_said() -> None:
    whole = frames(written())
    with pytest.raises(ExportFileError, match=r"cut off behind 3 instances, 500 history: its end is missing"):
        read(of_frames(*whole[:4]))


def test_a_byte_that_was_changed_is_found_wherever_it_is() -> None:
    file, found = written(), 0
    for at in [*range(60), *range(60, len(file), 61), *range(len(file) - 20, len(file))]:
        changed = bytearray(file)
        changed[at] ^= 0x10
        try:
            assert read(bytes(changed)) == CHUNKS, "one of several ways to compress the same"
        except ExportFileError:
            found += 1
    assert found > 100


def test_rows_that_were_changed_in_good_form_are_found() -> None:
    whole = frames(written())
    for changed in (
        [*whole[:-2], whole[-1]],  # one kind is missing
        [*whole[:4], whole[3], *whole[4:]],  # rows twice
        [*whole[:-2], frame("tombstones", [["t", 1, b"w"]]), whole[-1]],
    ):
        with pytest.raises(ExportFileError, match=r"altered or damaged .*: its checksum is another one"):
            read(of_frames(*changed))


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([frame("instances", [])], "'instances' where one of head was expected"),
        ([frame("head", {"dump": 1})], "at its beginning: Expected"),
        ([frame("head", [])], "at its beginning"),
        ([b"\0\0\0\3abc"], "at its beginning"),
    ],
)
def test_frames_of_something_else_are_refused(parts: list[bytes], why: str) -> None:
    with pytest.raises(ExportFileError, match=why):
        read(of_frames(*parts))


def test_rows_of_another_form_are_refused() -> None:
    head = frames(written())[0]
    for what, rows in (("timers", [[1, 2, 3, "4", "a"]]), ("timers", [[1]])):
        with pytest.raises(ExportFileError, match="altered or damaged at its beginning"):
            read(of_frames(head, frame(what, rows)))
    with pytest.raises(ExportFileError, match="'instances' where one of timers"):
        read(of_frames(head, frame("timers", []), frame("instances", [])))
    with pytest.raises(ExportFileError, match="'secrets' where one of"):
        read(of_frames(head, frame("secrets", [])))


def test_what_stands_behind_the_end_is_refused() -> None:
    whole = written()
    for file in (whole + b"x", of_frames(*frames(whole), b"\0\0\0\0")):
        with pytest.raises(ExportFileError, match="more behind its end"):
            read(file)


@pytest.mark.parametrize(
    "file", [b"", b"\n", b"PK\3\4" + b"x" * 99, b"durably hub export x\n", b"SQLite format 3\0" * 9]
)
def test_something_else_is_no_export(file: bytes) -> None:
    with pytest.raises(
        ExportFileError, match=r"File 'x\.hub' is no export of a hub: expected a file that 'durably hub"
    ):
        read(file)


def test_a_newer_format_names_itself() -> None:
    with pytest.raises(ExportFileError, match="has format 2, this durably knows format 1"):
        read(written().replace(b"export 1\n", b"export 2\n", 1))


def test_a_row_too_large_for_the_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("durably.storage.export_file._FRAME_MAX", 1_000)
    with pytest.raises(ExportFileError, match=r"instances.*1,000 at most"):
        written()
