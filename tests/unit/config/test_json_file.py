"""JSON with comments: what is in it, in which line, and what is wrong."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.config.json_file import leaves_of, read_leaves
from durably.errors import UsageError


def read(text: str) -> dict[str, tuple[Any, int]]:
    return {leaf.key: (leaf.value, leaf.line) for leaf in leaves_of(text, "host.json")}


def test_values_have_their_lines_and_comments_and_last_commas_are_ignored() -> None:
    text = """{
  // of one line
  "version": "2.0", /* of
  two */ "a": {"b": [1, {"x": null},], "c": true},
  "url": "http://x//y",
  "empty": {},
}
"""
    assert read(text) == {
        "version": ("2.0", 3),
        "a.b": ([1, {"x": None}], 4),
        "a.c": (True, 4),
        "url": ("http://x//y", 5),
        "empty": ({}, 6),
    }


def test_of_a_key_that_is_there_twice_the_last_one_counts() -> None:
    assert read('{"a": {"B": 1}, "A": {"b": 2}}') == {"A.b": (2, 1)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "host.json, line 1: expected '{', the file ends"),
        ("[]", "host.json, line 1: expected '{', found '['"),
        ('{\n"a" 1}', "host.json, line 2: expected ':', found '1'"),
        ('{"a": 1\n\n "b": 2}', "host.json, line 3: expected ',' or '}', found '\"b\"'"),
        ('{"a": tru}', "host.json, line 1: expected a value, found 'tru'"),
        ('{"a": ', "host.json, line 1: expected a value, the file ends"),
        ('{"a": "x\n"}', "host.json, line 1: expected JSON, found '\"'"),
        ("{a: 1}", "host.json, line 1: expected a key in quotes, found 'a'"),
        ('{"a": 1} x', "host.json, line 1: expected the end of the file, found 'x'"),
        ('{"a": ' * 60, "host.json, line 1: expected 50 levels at most, found '{'"),
    ],
)
def test_what_is_no_json_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        leaves_of(text, "host.json")
    assert str(caught.value) == message


def test_a_file_may_be_missing_and_may_have_a_mark_of_its_encoding(tmp_path: Path) -> None:
    assert read_leaves(tmp_path / "host.json") is None
    (tmp_path / "host.json").write_bytes(b'\xef\xbb\xbf{"version": "2.0"}')
    assert [leaf.value for leaf in read_leaves(tmp_path / "host.json") or ()] == ["2.0"]
    (tmp_path / "host.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"host\.json cannot be read .*: expected a JSON file in UTF-8"):
        read_leaves(tmp_path / "host.json")


plain = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers(), max_size=3)


@given(st.dictionaries(st.text(min_size=1).filter(lambda key: key == key.lower()), plain, max_size=5))
def test_it_reads_what_json_reads(value: dict[str, Any]) -> None:
    assert {leaf.path[0]: leaf.value for leaf in leaves_of(json.dumps(value, indent=1), "x")} == value


@given(st.text(alphabet='{}[]:,"ab1/* \n\\', max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(UsageError):
        leaves_of(text, "x")
