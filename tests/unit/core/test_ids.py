"""Ids: what is refused and why, and ids that follow from others."""

from __future__ import annotations

from typing import Any

import pytest

from durably.core.ids import attempt_id, check_instance_id, child_id, derived_execution_id, task_key
from durably.errors import InvalidIdError


@pytest.mark.parametrize(
    "instance_id", ["a", "order-7", "Größe 3", "日本", "a@b", "p:0:0001~2", "x" * 256, ".", "🙂"]
)
def test_usual_ids_are_accepted(instance_id: str) -> None:
    assert check_instance_id(instance_id) == instance_id


@pytest.mark.parametrize(
    ("instance_id", "why"),
    [
        ("", "empty"),
        ("x" * 257, "257 characters"),
        ("@counter", "'@'"),
        *((f"a{char}b", "holds") for char in "/\\#?\n\0\x7f\x85\ud800"),
        (5, "string"),
        (None, "string"),
        (b"bytes", "string"),
    ],
)
def test_ids_that_a_hub_cannot_hold_are_refused_with_the_reason(instance_id: Any, why: str) -> None:
    with pytest.raises(InvalidIdError, match=why):
        check_instance_id(instance_id)


def test_a_child_is_named_by_parent_execution_and_call() -> None:
    assert child_id("order", 2, 31) == "order:2:001f"
    assert child_id("order", 0, 70_000) == "order:0:11170"


def test_the_first_attempt_of_a_child_has_the_plain_id() -> None:
    assert [attempt_id("c", number) for number in (1, 2, 3)] == ["c", "c~2", "c~3"]


def test_a_derived_execution_id_is_always_the_same_and_never_that_of_another_cause() -> None:
    assert derived_execution_id("e", "next") == derived_execution_id("e", "next")
    found = {
        derived_execution_id(execution, what) for execution in ("e", "f") for what in ("next", "child:1:1")
    }
    assert len(found) == 4
    assert all(len(text) == 32 for text in found)


def test_a_derived_execution_id_takes_ids_of_any_length() -> None:
    assert len(derived_execution_id("e" * 500, "next")) == 32


def test_the_key_of_a_call_tells_instance_execution_and_task() -> None:
    assert task_key("i", "e", 7) == "i:e:7"
