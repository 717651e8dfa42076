"""Lines of a tree as a picture for a terminal, which moves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from durably.cli.rows import Bar, Row, fit, one_line, rows_of
from durably.cli.steps import OPEN, State, Tree
from durably.core.spans import span

FRAMES_PER_S = 10

_BAR_WIDTH = 24
_FINAL_LINES_MAX = 100
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
    instead: dict[int, str]


UNICODE = Glyphs(
    {"running": "●", "waiting": "◌", "retrying": "↻", "done": "✓", "failed": "✗", "canceled": "−"},
    "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏",
    "├─ ",
    "└─ ",
    "│  ",
    "   ",
    "━",
    "╌",
    {},
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
    str.maketrans({"×": "x", "·": "-", "…": "..."}),
)


def render(rows: Iterable[Row], seconds: float | None = None, glyphs: Glyphs = UNICODE) -> Table:
    """The picture.

    Args:
        rows: What to show.
        seconds: Any time, for the spinner; None for a picture that stays.
        glyphs: What to draw with.
    """
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(no_wrap=True, justify="right")  # the other two give way; their text is cut, not wrapped
    table.add_column()
    for row in rows:
        mark = glyphs.marks[row.state]
        if row.state == "running" and seconds is not None:
            mark = glyphs.frames[int(seconds * FRAMES_PER_S) % len(glyphs.frames)]
        table.add_row(_label(row, mark, glyphs), _time(row), _notes(row, glyphs))
    return table


def _label(row: Row, mark: str, glyphs: Glyphs) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    if row.guides:
        for ends in row.guides[:-1]:
            text.append(glyphs.blank if ends else glyphs.through, "dim")
        text.append(glyphs.last if row.guides[-1] else glyphs.branch, "dim")
    if row.key[:1] == ("…",):
        return text.append(row.label.translate(glyphs.instead), "dim")
    text.append(f"{mark} ", _STYLES[row.state])
    label = row.label.translate(glyphs.instead)
    return text.append(label, "bold" if not row.guides else "dim" if row.state == "canceled" else "")


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
            Text(
                row.note.translate(glyphs.instead),
                "dim" if row.state not in OPEN else "yellow" if row.state != "running" else "",
            )
        )
    if row.failure is not None:
        parts.append(Text(one_line(row.failure), "red"))
    text = Text(" · ".translate(glyphs.instead), "dim").join(parts)
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _bar(bar: Bar, state: State, glyphs: Glyphs) -> Text:
    done = bar.done * _BAR_WIDTH // bar.total
    failed = min(done, -(-bar.failed * _BAR_WIDTH // bar.total))
    text = Text(glyphs.full * (done - failed), "green" if bar.done == bar.total else "cyan")
    text.append(glyphs.full * failed, "red")
    text.append(glyphs.empty * (_BAR_WIDTH - done), "dim")
    if state in OPEN:
        text.append(f" {bar.done:,}/{bar.total:,}")
    return text


class LiveView:
    """A tree that moves.

    Args:
        console: Of stderr.
    """

    pause_s = 1 / FRAMES_PER_S

    def __init__(self, console: Console) -> None:
        self._console = console
        self._glyphs = UNICODE if (console.encoding or "").lower().startswith("utf") else ASCII
        # Started, it stands in for sys.stdout and sys.stderr: what others print appears above it.
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")
        self._live.start()

    def show(self, tree: Tree, now: datetime, *, final: bool) -> None:
        """See `View.show`."""
        rows = rows_of(tree, now)
        # Two lines less than the terminal has: one for the cursor, one for what is printed above.
        rows = fit(rows, _FINAL_LINES_MAX if final else max(5, self._console.size.height - 2))
        self._live.update(render(rows, None if final else now.timestamp(), self._glyphs), refresh=True)

    def close(self) -> None:
        """See `View.close`."""
        self._live.stop()
