"""No field of a batch is forgotten: what is new is encrypted, or is named here as readable."""

from __future__ import annotations

import os
from typing import Any, get_args, get_type_hints

import pytest

from durably.codec.keys import EncryptionKeys
from durably.codec.wrap import Box
from durably.core import commit
from durably.core.commit import (
    Batch,
    HistoryRow,
    InboxRow,
    InstanceRow,
    ParkedMessage,
    TaskRow,
    Tombstone,
    Unreadable,
)
from durably.storage.wrapping import Wrapping

CANARY = "canary"
READABLE = {
    "instance_id", "execution_id", "name", "version", "status", "parent_instance_id", "tags", "bases", "message_id",
    "locked_by", "task_id",
    # lists of ids
    "inbox_consumed", "unparked", "parked_dropped", "tasks_withdrawn",
}  # fmt: skip


def filled(kind: Any) -> Any:
    """A value of a type of the rows, with a canary in whatever could hold one."""
    if kind is str or str in get_args(kind):
        return CANARY
    if kind is bytes or bytes in get_args(kind):
        return CANARY.encode()
    if getattr(kind, "__origin__", None) is list:
        return [filled(get_args(kind)[0])]
    if hasattr(kind, "_fields"):
        return kind(**{field: filled(hint) for field, hint in get_type_hints(kind).items()})
    return 1


def open_fields(value: Any, field: str = "") -> set[str]:
    """The fields in which a canary can be read."""
    if isinstance(value, str | bytes):
        held = value if isinstance(value, str) else value.decode("latin-1")
        return {field} if CANARY in held else set()
    if isinstance(value, list):
        return set().union(*(open_fields(one, field) for one in value))
    if hasattr(value, "_fields"):
        return set().union(*(open_fields(getattr(value, name), name) for name in value._fields))
    return set()


@pytest.fixture
def wrapping() -> Wrapping:
    return Wrapping(0, Box(EncryptionKeys({"k1": bytes(32)}), b"h" * 16, os.urandom))


def whole_batch() -> Batch:
    hints = get_type_hints(Batch, vars(commit))
    return Batch(**{field: filled(hint) for field, hint in hints.items()})


def test_each_field_of_each_row_is_encrypted_or_known_to_be_readable(wrapping: Wrapping) -> None:
    wrapped = wrapping.batch(whole_batch())
    found = set().union(*(open_fields(getattr(wrapped, field), field) for field in Batch.__struct_fields__))
    assert found == READABLE


def test_rows_come_back_as_they_were_and_the_batch_is_left_alone(wrapping: Wrapping) -> None:
    batch = whole_batch()
    wrapped = wrapping.batch(batch)
    assert batch == whole_batch()
    assert [wrapping.history(row) for row in wrapped.history] == batch.history
    assert [wrapping.instance(row) for row in wrapped.instances] == batch.instances
    assert [wrapping.entity(row) for row in wrapped.entities] == batch.entities
    assert [wrapping.message(row) for row in wrapped.inbox_put] == batch.inbox_put
    assert [wrapping.parked(row) for row in wrapped.parked] == batch.parked
    (tombstone,) = wrapped.tombstones
    assert wrapping.verdict(tombstone.message_id, tombstone.verdict) == batch.tombstones[0].verdict


def test_a_redriven_message_opens_as_a_message(wrapping: Wrapping) -> None:
    parked = ParkedMessage("m", "a", 1, b"body", "cause", 2)
    (stored,) = wrapping.batch(Batch(1, parked=[parked])).parked
    assert wrapping.message(InboxRow("m", "a", 1, stored.body)).body == b"body"


def test_what_cannot_be_read_is_written_back_as_it_was(wrapping: Wrapping) -> None:
    other = Wrapping(0, Box(EncryptionKeys({"k2": bytes(32)}), b"h" * 16, os.urandom))
    row = filled(InstanceRow)
    (stored,) = wrapping.batch(Batch(1, instances=[row])).instances
    unreadable = other.instance(stored)
    assert type(unreadable.input) is Unreadable
    (again,) = other.batch(Batch(1, instances=[unreadable])).instances
    assert (again.input, again.output) == (stored.input, stored.output)
    assert wrapping.instance(again).input == row.input


def test_an_empty_verdict_stays_empty(wrapping: Wrapping) -> None:
    (stored,) = wrapping.batch(Batch(1, tombstones=[Tombstone("m", 1)])).tombstones
    assert stored.verdict == b""


def test_without_keys_small_rows_pass_untouched() -> None:
    batch = whole_batch()
    assert Wrapping(4_096).batch(batch) is batch
    large = Batch(1, history=[HistoryRow(1, 0, 1, b"[" + b"1," * 4_000 + b"1]", b"sum")])
    (stored,) = Wrapping(4_096).batch(large).history
    assert len(stored.data) < 200
    assert stored.checksum == b"sum"


def test_a_shared_activity_opens_in_its_own_row_only(wrapping: Wrapping) -> None:
    row = TaskRow("e:1:1", "order", "ship", 5, b"a call")
    (stored,) = wrapping.batch(Batch(1, tasks_offered=[row])).tasks_offered
    assert b"a call" not in stored.body
    assert wrapping.task(stored) == row
    elsewhere = wrapping.task(stored._replace(task_id="e:2:1"))
    assert isinstance(elsewhere.body, Unreadable)
