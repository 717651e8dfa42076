"""Lines of a tree as a picture for a terminal, and as text for a log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from durably.cli.rows import Bar, Row
from durably.cli.spans import span
from durably.cli.steps import OPEN, State

FRAMES_PER_S = 10

_BAR_WIDTH = 24
_STYLES: dict[State, str] = {
    "running": "cyan",
    "waiting": "yellow",
    "retrying": "yellow",
    "done": "green",
    "failed": "red",
    "canceled": "dim",
}


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters that a terminal can show."""

    marks: dict[State, str]
    frames: str
    branch: str
    last: str
    through: str
    blank: str
    full: str
    empty: str


UNICODE = Glyphs(
    {"running": "●", "waiting": "◌", "retrying": "↻", "done": "✓", "failed": "✗", "canceled": "−"},
    "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏",
    "├─ ",
    "└─ ",
    "│  ",
    "   ",
    "━",
    "╌",
)
ASCII = Glyphs(
    {"running": "*", "waiting": ".", "retrying": "~", "done": "+", "failed": "x", "canceled": "-"},
    "|/-\\",
    "|- ",
    "`- ",
    "|  ",
    "   ",
    "#",
    "-",
)


def render(rows: Iterable[Row], seconds: float | None = None, glyphs: Glyphs = UNICODE) -> Table:
    """The picture.

    Args:
        rows: What to show.
        seconds: Any time, for the spinner; None for a picture that stays.
        glyphs: What to draw with.
    """
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True, overflow="ellipsis")
    for row in rows:
        mark = glyphs.marks[row.state]
        if row.state == "running" and seconds is not None:
            mark = glyphs.frames[int(seconds * FRAMES_PER_S) % len(glyphs.frames)]
        table.add_row(_label(row, mark, glyphs), _time(row), _notes(row, glyphs))
    return table


def _label(row: Row, mark: str, glyphs: Glyphs) -> Text:
    text = Text()
    if row.guides:
        for ends in row.guides[:-1]:
            text.append(glyphs.blank if ends else glyphs.through, "dim")
        text.append(glyphs.last if row.guides[-1] else glyphs.branch, "dim")
    if row.key[:1] == ("…",):
        return text.append(row.label, "dim")
    text.append(f"{mark} ", _STYLES[row.state])
    return text.append(row.label, "bold" if not row.guides else "dim" if row.state == "canceled" else "")


def _time(row: Row) -> Text:
    return Text("" if row.seconds is None else span(row.seconds), "dim" if row.state not in OPEN else "")


def _notes(row: Row, glyphs: Glyphs) -> Text:
    parts: list[Text] = []
    if row.word and (not row.guides or row.state == "canceled"):
        parts.append(Text(row.word, _STYLES[row.state]))
    if row.bar is not None:
        parts.append(_bar(row.bar, row.state, glyphs))
    if row.note:
        parts.append(
            Text(row.note, "dim" if row.state not in OPEN else "yellow" if row.state != "running" else "")
        )
    if row.failure is not None:
        parts.append(Text(one_line(row.failure), "red"))
    return Text(" · ", "dim").join(parts)


def _bar(bar: Bar, state: State, glyphs: Glyphs) -> Text:
    done = bar.done * _BAR_WIDTH // bar.total
    failed = min(done, -(-bar.failed * _BAR_WIDTH // bar.total))
    text = Text(glyphs.full * (done - failed), "green" if bar.done == bar.total else "cyan")
    text.append(glyphs.full * failed, "red")
    text.append(glyphs.empty * (_BAR_WIDTH - done), "dim")
    if state in OPEN:
        text.append(f" {bar.done:,}/{bar.total:,}")
    return text


def one_line(text: str) -> str:
    """Text of several lines in one."""
    return " ".join(text.split())


# --- for a log -------------------------------------------------------------------------------------------------------


def changes(before: Sequence[Row], after: Sequence[Row]) -> list[str]:
    """What a log says of the difference between two readings: one line for each step that has come further."""
    stages = {row.key: row.stage for row in before}
    news = [row for row in after if stages.get(row.key) != row.stage]
    if (
        news and not news[0].guides and news[0].state not in OPEN
    ):  # the end of the instance comes after all else
        news.append(news.pop(0))
    return [line(row) for row in news]


def line(row: Row) -> str:
    """A row as one line of a log."""
    parts: list[str] = []
    if row.bar is not None:
        parts.append(f"{row.bar.done:,} of {row.bar.total:,} done")
    if row.seconds is not None and row.state not in OPEN:
        parts.append(span(row.seconds))
    if row.note and row.note != row.word:
        parts.append(row.note)
    if row.failure is not None:
        parts.append(one_line(row.failure))
    label = " > ".join((*row.where, row.label))
    return f"{row.word:9} {label}" + (f"  {', '.join(parts)}" if parts else "")
