"""How progress is shown: live on a terminal, line by line in a log, or not at all."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from rich.console import Console
from rich.live import Live

from durably.cli.output import say
from durably.cli.progress import ASCII, FRAMES_PER_S, UNICODE, changes, line, render
from durably.cli.rows import Row, fit, rows_of
from durably.cli.steps import OPEN, Tree

_FINAL_LINES_MAX = 100


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
