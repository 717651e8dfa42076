"""Paths with parts, and receipts: what they say, case by case."""

import time
from typing import Any

import msgspec
import pytest

from durably import RegistrationError
from durably.core.blobs import BlobItem, blob_instance
from durably.core.entities import EntityId
from durably.core.ids import check_instance_id
from durably.core.messages import StartInstance
from durably.core.operations import KEEP_ALARM, NO_ALARM, Operation
from durably.triggers.blob_pattern import BlobPattern
from durably.triggers.blob_receipts import KEEP_US, ReceiptCode, decode_receipt


@pytest.mark.parametrize(
    ("path", "name", "parts"),
    [
        ("docs", "anything/at.all", {}),
        ("docs/", "a", {}),
        ("docs/a.txt", "a.txt", {}),
        ("docs/a.txt", "b/a.txt", None),
        ("docs/{name}", "a/b.txt", {"name": "a/b.txt"}),
        ("docs/{name}.{ext}", "a.tar.gz", {"name": "a.tar", "ext": "gz"}),
        ("docs/{name}.{ext}", "a", None),
        ("docs/{name}.{ext}", ".gz", None),
        ("docs/{name}.{ext}", "a.", None),
        ("docs/{name}.txt", "a.txt", {"name": "a"}),
        ("docs/{name}.txt", ".txt", None),
        ("docs/in/{name}", "in/a", {"name": "a"}),
        ("docs/in/{name}", "out/a", None),
        ("docs/in/{name}", "in/", None),
        ("docs/{a}/{b}/{c}.x", "1/2/3/4.x", {"a": "1/2", "b": "3", "c": "4"}),
        ("docs/{a}-{b}", "--", None),
        ("docs/{a}-{b}", "---", {"a": "-", "b": "-"}),
        ("docs/{{20140101}}-{name}", "{20140101}-soundfile.mp3", {"name": "soundfile.mp3"}),
        ("docs/{a}aa{b}", "xaaay", {"a": "xa", "b": "y"}),
        ("docs/ab{name}bc", "abc", None),
        ("docs/{name}", "ü\nö", {"name": "ü\nö"}),
    ],
)
def test_paths(path: str, name: str, parts: dict[str, str] | None) -> None:
    pattern = BlobPattern(path, "It")
    assert pattern.match(name) == parts
    assert pattern.container == "docs"
    assert parts is None or name.startswith(pattern.prefix)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/docs",
        "Docs/{name}",
        "{container}/{name}",
        "docs/{name",
        "docs/name}",
        "docs/{a}{b}",
        "docs/{a}-{a}",
        "docs/{}",
        "docs/{a b}",
        "docs/{1}",
        7,
    ],
)
def test_paths_that_are_none(path: Any) -> None:
    with pytest.raises(RegistrationError, match="It has the path"):
        BlobPattern(path, "It")


def test_no_name_takes_long() -> None:
    pattern = BlobPattern("docs/{a}-{b}-{c}-{d}-{e}-{f}x", "It")
    begun = time.perf_counter()
    for _ in range(100):
        assert pattern.match("-" * 1024) is None
        assert pattern.match("-" * 1023 + "x") is not None
    assert time.perf_counter() - begun < 1.0


def item(version: str, name: str = "in/a.txt") -> bytes:
    return msgspec.json.encode(BlobItem("take", "docs", name, version, 3, 7))


def test_a_receipt_starts_a_version_once_and_is_kept_for_a_week_when_the_blob_is_gone() -> None:
    code = ReceiptCode(EntityId("durably.blob", "take:x"))

    def operate(state: bytes | None, name: str, payload: bytes | None = None, now: int = 1_000) -> Any:
        return code.operate(state, 1, Operation(name, payload, None, now, "token"))

    first = operate(None, "found", item("v1"))
    ((instance_id, start),) = first.messages
    assert isinstance(start, StartInstance)
    assert start.name == "durably:blob"
    assert check_instance_id(instance_id).startswith("blob:take:docs:in-a.txt:")
    again = operate(first.state, "found", item("v1"))
    assert (again.messages, again.alarm, again.state) == ([], KEEP_ALARM, first.state)
    second = operate(first.state, "found", item("v2"))
    assert second.messages[0][0] != instance_id
    # Another host may have begun its look before the second version was written.
    late = operate(second.state, "found", item("v1"))
    assert late.messages == []
    back = operate(late.state, "found", item("v2"))
    assert back.messages == []

    gone = operate(back.state, "gone")
    assert (gone.messages, gone.alarm) == ([], 1_000 + KEEP_US)
    assert operate(gone.state, "gone", now=5_000).alarm == KEEP_ALARM
    there = operate(gone.state, "found", item("v2"))
    assert (there.messages, there.alarm) == ([], NO_ALARM)
    assert not decode_receipt(there.state).gone
    assert operate(there.state, "alarm").state == there.state  # it rang too late
    anew = operate(gone.state, "found", item("v3"))
    assert len(anew.messages) == 1
    assert not decode_receipt(anew.state).gone
    over = operate(gone.state, "alarm")
    assert (over.state, over.messages) == (None, [])
    assert operate(None, "gone").state is None
    assert operate(first.state, "peek").failure is not None


def test_a_version_that_was_given_up_starts_anew_and_those_before_are_remembered_for_a_while() -> None:
    code = ReceiptCode(EntityId("durably.blob", "take:x"))

    def operate(state: bytes | None, name: str, payload: bytes | None = None) -> Any:
        return code.operate(state, 1, Operation(name, payload, None, 1_000, "token"))

    def lost(version: str) -> bytes:
        return msgspec.json.encode(version)

    assert operate(None, "lost", lost("v1")).state is None
    state, ids = None, set[str]()
    for version in ("v1", "v2"):
        found = operate(state, "found", item(version))
        state = found.state
        ids.add(found.messages[0][0])
    state = operate(state, "lost", lost("v1")).state  # it was overwritten before its turn
    assert operate(state, "found", item("v2")).messages == []
    found = operate(state, "found", item("v1"))
    ids.add(found.messages[0][0])
    state = operate(found.state, "lost", lost("v1")).state
    assert decode_receipt(state).version == ""
    assert operate(state, "lost", lost("v1")).state == state
    gone = operate(state, "gone")
    lost_behind = operate(gone.state, "lost", lost("v2"))
    assert lost_behind.alarm == KEEP_ALARM
    assert decode_receipt(lost_behind.state).gone
    found = operate(gone.state, "found", item("v1"))
    ids.add(found.messages[0][0])
    assert len(ids) == 4

    state = None
    for number in range(20):
        found = operate(state, "found", item(f"v{number}"))
        assert len(found.messages) == 1
        state = found.state
    for number in range(12, 20):
        assert operate(state, "found", item(f"v{number}")).messages == []
    assert len(operate(state, "found", item("v11")).messages) == 1
    assert len(decode_receipt(state).earlier) == 7


def test_ids_of_any_name_are_usable_and_differ() -> None:
    names = ["a/b", "a-b", "a\\b", "a#b?", "x" * 1024, "x" * 1023 + "y", "ü/ö", "a/b ", "@", "\u200b"]
    ids = {blob_instance(BlobItem("f" * 100, "c" * 63, name, "v", 1, 1)) for name in names}
    assert len(ids) == len(names)
    for one in ids:
        check_instance_id(one)
        check_instance_id(one.removeprefix("blob:") + ":1000")
