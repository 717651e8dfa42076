"""Rows in each format: what fits, what is escaped, what streams."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.cli.formats import FORMATS, Column, Table, cells, cut, plain, printable, printer

COLUMNS = (
    Column("ID", lambda row: row["instance_id"], elastic=True),
    Column("COUNT", lambda row: plain(row["count"]), right=True),
    Column("NOTE", lambda row: row["note"], optional=True),
)
KEYS = ("instance_id", "count", "note")


def row(instance_id: str, count: Any = 1, note: str = "n") -> dict[str, Any]:
    return {"instance_id": instance_id, "count": count, "note": note}


def printed(output: str, *rows: dict[str, Any]) -> str:
    file = io.StringIO()
    shown = printer(output, file, columns=COLUMNS, keys=KEYS)
    for one in rows:
        shown.row(one)
    shown.close()
    return file.getvalue()


def table(width: int | None, *rows: dict[str, Any], columns: Sequence[Column] = COLUMNS) -> list[str]:
    file = io.StringIO()
    shown = Table(columns, file, width=width, color=False)
    for one in rows:
        shown.row(one)
    shown.close()
    return file.getvalue().splitlines()


def test_columns_are_as_wide_as_they_have_to_be() -> None:
    assert table(None, row("a", 5), row("a-longer-id", 1_000, "x")) == [
        "ID           COUNT  NOTE",
        "a                5  n",
        "a-longer-id   1000  x",
    ]


def test_a_terminal_that_is_too_narrow_loses_a_column_and_then_the_ends_of_texts() -> None:
    rows = row("a" * 20, 1, "note"), row("b")
    assert table(33, *rows)[1] == f"{'a' * 20}      1  note"
    assert table(32, *rows)[:2] == [f"ID{' ' * 20}COUNT", f"{'a' * 20}      1"]
    assert table(20, *rows)[1] == f"{'a' * 12}…      1"
    assert table(5, *rows)[1] == f"{'a' * 5}…      1"  # no column becomes unreadable


def test_later_rows_stick_out_in_a_file_and_are_cut_on_a_terminal() -> None:
    rows = [row("a")] * 100 + [row("a" * 30)]
    assert table(None, *rows)[-1].startswith("a" * 30 + "  ")
    assert table(80, *rows)[-1].startswith("a…  ")


def test_a_table_holds_no_more_than_its_first_rows() -> None:
    file = io.StringIO()
    shown = Table(COLUMNS, file, width=None, color=False)
    for _ in range(100):
        shown.row(row("a"))
    assert file.getvalue().count("\n") == 101
    shown.row(row("b"))
    assert file.getvalue().count("\n") == 102


def test_nothing_at_all_is_still_valid() -> None:
    assert {output: printed(output) for output in FORMATS} == {
        "table": "",
        "json": "[]\n",
        "jsonl": "",
        "csv": "instance_id,count,note\n",
        "ids": "",
    }


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_of_csv_is_a_formula(start: str) -> None:
    text = printed("csv", row(f"{start}cmd", -1, f'a"b,c{start}'))
    assert list(csv.reader(io.StringIO(text, newline="")))[1] == [f"'{start}cmd", "-1", f'a"b,c{start}']


@given(
    st.lists(st.builds(row, st.text(min_size=1), st.none() | st.integers() | st.lists(st.text()), st.text()))
)
def test_json_can_be_read_back(rows: list[dict[str, Any]]) -> None:
    assert json.loads(printed("json", *rows)) == rows
    assert [json.loads(line) for line in printed("jsonl", *rows).split("\n")[:-1]] == rows


@given(st.text(), st.integers(1, 30))
def test_what_is_cut_fits(text: str, width: int) -> None:
    text = printable(text)
    assert text.isprintable()
    assert cells(cut(text, width)) <= width
    assert cut(text, cells(text)) == text


def test_escapes_instead_of_commands_to_the_terminal() -> None:
    assert printable("a\x1b[31m\n\u202eb\ud800") == "a\\x1b[31m\\n\\u202eb\\ud800"
    assert printable("größe 日本") == "größe 日本"
    assert cells("日本") == 4
    assert cut("日本語", 5) == "日本…"


def test_a_stream_that_does_not_know_a_character_gets_its_escape() -> None:
    octets = io.BytesIO()
    file = io.TextIOWrapper(octets, encoding="ascii")
    shown = printer("ids", file, columns=(), keys=())
    shown.row(row("größe"))
    shown.close()
    assert octets.getvalue() == b"gr\\xf6\\xdfe\n"
