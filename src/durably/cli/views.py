"""How progress is shown: as a log, or not at all. On a terminal it is a `durably.cli.progress.LiveView`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from durably.cli.output import say
from durably.cli.rows import Row, one_line, rows_of
from durably.cli.steps import OPEN, Tree
from durably.core.spans import span


class View(Protocol):
    """Shows an instance.

    Attributes:
        pause_s: How long to wait between two readings.
    """

    pause_s: float

    def show(self, tree: Tree, now: datetime, *, final: bool) -> None:
        """Show a reading; `final` is the last one."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was found."""
        ...


class NoView:
    """Shows nothing."""

    pause_s = 1.0

    def show(self, tree: Tree, now: datetime, *, final: bool) -> None:
        """See `View.show`."""

    def close(self) -> None:
        """See `View.close`."""


class LogView:
    """One line on stderr for each change.

    Args:
        resumed: The instance was there before: what it has done is summed up.
    """

    pause_s = 0.2

    def __init__(self, *, resumed: bool) -> None:
        self._resumed = resumed
        self._before: list[Row] | None = None

    def show(self, tree: Tree, now: datetime, *, final: bool) -> None:
        """See `View.show`."""
        rows = rows_of(tree, now)
        if self._before is None and self._resumed:
            lines = [line(rows[0]), f"done before: {_done(tree):,} of {len(tree.steps):,} steps"]
            lines += [line(row) for row in rows[1:] if row.state in OPEN]
        else:
            lines = changes(self._before or [], rows)
        self._before = rows
        for text in lines:
            say(f"{now.astimezone():%H:%M:%S} {text}")

    def close(self) -> None:
        """See `View.close`."""


def _done(tree: Tree) -> int:
    return sum(step.state not in OPEN for step in tree.steps)


def changes(before: Sequence[Row], after: Sequence[Row]) -> list[str]:
    """What a log says of the difference between two readings: one line for each step that has come further."""
    stages = {row.key: row.stage for row in before}
    news = [row for row in after if stages.get(row.key) != row.stage]
    ended = bool(news) and not news[0].guides and news[0].state not in OPEN
    if ended:  # the end of the instance comes after all else
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
