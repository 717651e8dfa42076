"""Rows on stdout, one after the other: a table for people; JSON, lines of JSON, CSV or ids for programs.

Nothing is collected but the first page of a table, which decides how wide its columns are: any number of rows may come.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TextIO, TypeAlias

import click

FORMATS = ("table", "json", "jsonl", "csv", "ids")

_SAMPLE = 100
"""Rows that decide on the widths; later cells that are wider stick out, or are cut on a terminal."""

_GAP = "  "
_NARROWEST = 6

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet may take for the beginning of a formula."""

_STYLES: dict[str, dict[str, Any]] = {
    "Completed": {"fg": "green"},
    "Failed": {"fg": "red"},
    "Running": {"fg": "cyan"},
    "Pending": {"fg": "yellow"},
    "Suspended": {"fg": "yellow"},
    "Terminated": {"dim": True},
    "Canceled": {"dim": True},
}

Row: TypeAlias = Mapping[str, Any]
"""What is printed, under the names of its parts."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: Its head.
        text: The cell of a row.
        elastic: Cut when a terminal is too narrow.
        optional: Left out when a terminal is too narrow, the last one first.
        right: Aligned to the right.
        style: Colour of a row's cell; see `click.style`.
    """

    title: str
    text: Callable[[Row], str]
    elastic: bool = False
    optional: bool = False
    right: bool = False
    style: Callable[[Row], Mapping[str, Any]] | None = None


class Printer(Protocol):
    """Takes rows as they come."""

    def row(self, row: Row) -> None:
        """Print a row, now or soon."""
        ...

    def flush(self) -> None:
        """Print what has been taken."""
        ...

    def close(self) -> None:
        """The last row was printed. Without any, an empty result is printed in its form."""
        ...


def printer(
    output: str,
    file: TextIO,
    *,
    columns: Sequence[Column],
    keys: Sequence[str],
    color: bool | None = None,
) -> Printer:
    """What prints rows in a format.

    Args:
        output: One of `FORMATS`.
        file: Where to.
        columns: Of the table.
        keys: The columns of CSV: keys of a row, in an order that stays.
        color: False for none; by the terminal otherwise.
    """
    reconfigure = getattr(file, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")  # a terminal or locale that does not know a character
    match output:
        case "json":
            return _Json(file)
        case "jsonl":
            return _JsonLines(file)
        case "csv":
            return _Csv(file, keys)
        case "ids":
            return _Ids(file)
        case _:
            return Table(columns, file, width=terminal_width(file), color=colored(file, color=color))


def colored(file: TextIO, *, color: bool | None) -> bool:
    """Whether colours may be used."""
    if color is False or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return file.isatty()


def terminal_width(file: TextIO) -> int | None:
    """The width of the terminal, or None when it is none: then nothing is cut."""
    return shutil.get_terminal_size().columns if file.isatty() else None


def status_style(row: Row) -> Mapping[str, Any]:
    """The colour of a row with a status."""
    if row.get("blocked"):
        return {"fg": "magenta"}
    return _STYLES.get(str(row.get("status")), {})


def printable(text: str) -> str:
    """Text that a terminal cannot take for a command: what is no character is written as an escape."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape", "backslashreplace").decode()
        for one in text
    )


def plain(value: Any) -> str:
    """A value in one cell: text as it is, nothing for None, all else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# --- for programs ----------------------------------------------------------------------------------------------------


class _Lines:
    def __init__(self, file: TextIO) -> None:
        self._file = file

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.flush()


class _JsonLines(_Lines):
    def row(self, row: Row) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")


class _Json(_Lines):
    """One array; a row is a line of it."""

    def __init__(self, file: TextIO) -> None:
        super().__init__(file)
        self._before = "[\n "

    def row(self, row: Row) -> None:
        self._file.write(f"{self._before}{json.dumps(row, ensure_ascii=False)}")
        self._before = ",\n "

    def close(self) -> None:
        self._file.write("\n]\n" if self._before.startswith(",") else "[]\n")
        super().close()


class _Csv(_Lines):
    def __init__(self, file: TextIO, keys: Sequence[str]) -> None:
        super().__init__(file)
        self._keys = keys
        self._write(keys)

    def row(self, row: Row) -> None:
        self._write([_cell(row.get(key)) for key in self._keys])

    def _write(self, texts: Sequence[str]) -> None:
        line = io.StringIO(newline="")
        csv.writer(line, lineterminator="\r\n").writerow(texts)  # before 3.13 only what ends lines is quoted
        self._file.write(line.getvalue().removesuffix("\r\n") + "\n")


def _cell(value: Any) -> str:
    text = plain(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


class _Ids(_Lines):
    def row(self, row: Row) -> None:
        self._file.write(f"{row['instance_id']}\n")


# --- for people ------------------------------------------------------------------------------------------------------


class Table:
    """Columns that are as wide as those of the first rows need."""

    def __init__(self, columns: Sequence[Column], file: TextIO, *, width: int | None, color: bool) -> None:
        self._columns = list(columns)
        self._file = file
        self._width = width
        self._color = color
        self._sample: list[Row] = []
        self._widths: list[int] | None = None

    def row(self, row: Row) -> None:
        """See `Printer.row`."""
        if self._widths is None:
            self._sample.append(row)
            if len(self._sample) >= _SAMPLE:
                self.flush()
        else:
            self._print(row)

    def flush(self) -> None:
        """See `Printer.flush`."""
        if self._widths is None and self._sample:
            self._widths = self._layout()
            self._write([column.title for column in self._columns], {})
            for row in self._sample:
                self._print(row)
            self._sample.clear()
        self._file.flush()

    def close(self) -> None:
        """See `Printer.close`."""
        self.flush()

    def _layout(self) -> list[int]:
        """Leave out columns and narrow others until the table fits; return the widths."""
        while True:
            widths = [
                max(cells(column.title), *(cells(printable(column.text(row))) for row in self._sample))
                for column in self._columns
            ]
            too_wide = 0 if self._width is None else sum(widths) + len(_GAP) * (len(widths) - 1) - self._width
            optional = [column for column in self._columns if column.optional]
            if too_wide <= 0:
                return widths
            if not optional:
                break
            self._columns.remove(optional[-1])
        elastic = [at for at, column in enumerate(self._columns) if column.elastic]
        while too_wide > 0 and any(widths[at] > _NARROWEST for at in elastic):
            widest = max(elastic, key=widths.__getitem__)
            widths[widest] -= 1
            too_wide -= 1
        return widths

    def _print(self, row: Row) -> None:
        self._write([printable(column.text(row)) for column in self._columns], row)

    def _write(self, texts: Sequence[str], row: Row) -> None:
        parts: list[str] = []
        for at, (text, column, width) in enumerate(
            zip(texts, self._columns, self._widths or [], strict=True)
        ):
            shown = cut(text, width) if self._width is not None else text
            blank = " " * max(0, width - cells(shown))
            if self._color and not row:
                shown = click.style(shown, bold=True)
            elif self._color and column.style is not None:
                style = column.style(row)
                shown = click.style(shown, **style) if style else shown
            last = at == len(texts) - 1
            parts.append(f"{blank}{shown}" if column.right else shown if last else f"{shown}{blank}")
        self._file.write(_GAP.join(parts).rstrip() + "\n")


def cells(text: str) -> int:
    """The width of text on a terminal: some characters take two places."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def cut(text: str, width: int) -> str:
    """Text that takes so many places at most; what is cut off is marked."""
    if cells(text) <= width:
        return text
    while text and cells(text) > width - 1:
        text = text[:-1]
    return f"{text}…"
