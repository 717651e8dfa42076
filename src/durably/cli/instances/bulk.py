"""The same for many instances: at the pace of `client.bulk`, on after failures, each failure told with its id."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import click

from durably.cli.formats import printable
from durably.cli.output import Exit, console, exit_code

if TYPE_CHECKING:
    from rich.progress import Progress


SHARE = 0.2
"""As in `durably.client.pacing`, which is slow to import for a help page."""


@dataclass(slots=True)
class Tally:
    """How far the work is.

    Attributes:
        done: How many succeeded.
        failed: How many did not.
        codes: The exit codes of the failures.
    """

    done: int = 0
    failed: int = 0
    codes: set[int] = field(default_factory=set[int])

    @property
    def code(self) -> int:
        """0 when all succeeded; what all failures have in common; else 1."""
        if not self.codes:
            return Exit.OK
        return next(iter(self.codes)) if len(self.codes) == 1 else Exit.FAILED


class Meter(Protocol):
    """Shows progress on stderr."""

    def advance(self) -> None:
        """One more has been dealt with."""
        ...

    def complain(self, text: str) -> None:
        """A line about a failure."""
        ...


async def for_all(
    ids: AsyncIterator[str],
    act: Callable[[str], Awaitable[dict[str, Any]]],
    tell: Callable[[dict[str, Any]], None],
    meter: Meter,
    *,
    tally: Tally,
    share: float,
) -> None:
    """Act on each id; failures are counted and told, and the others go on.

    Args:
        ids: Taken as they are needed.
        act: What to do; returns what to tell of it.
        tell: Called for each id with an object for programs.
        meter: Gets progress and failures.
        tally: Counts. It is up to date at any time, also when the work is cancelled.
        share: Of the time, so much at most; see `durably.client.pacing`.

    Raises:
        OperationError: The hub as a whole cannot be used: going on would only repeat it.
    """
    from durably.client.pacing import Pace
    from durably.errors import HubSilentError, OperationError

    async def one(instance_id: str) -> None:
        try:
            answer = await act(instance_id)
        except HubSilentError as error:
            failed(instance_id, error)
        except OperationError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told with the id, and the others go on
            failed(instance_id, error)
        else:
            tally.done += 1
            tell({"instance_id": instance_id, "ok": True, "error": None} | answer)
        meter.advance()

    def failed(instance_id: str, error: Exception) -> None:
        tally.failed += 1
        tally.codes.add(exit_code(error))
        meter.complain(f"{instance_id}: {error}")
        tell({"instance_id": instance_id, "ok": False, "error": f"{type(error).__name__}: {error}"})

    pace = Pace(share=share)
    chunk: list[str] = []
    async for instance_id in ids:
        chunk.append(instance_id)
        if len(chunk) == pace.max_in_flight:
            await pace.work(chunk, one)
            chunk = []
    await pace.work(chunk, one)


# --- progress --------------------------------------------------------------------------------------------------------


class _Lines:
    """No terminal: nothing moves."""

    def __init__(self, *, color: bool | None) -> None:
        self._color = color

    def advance(self) -> None:
        """See `Meter.advance`."""

    def complain(self, text: str) -> None:
        """See `Meter.complain`."""
        click.echo(
            f"{click.style('Error:', fg='red', bold=True)} {printable(text)}", err=True, color=self._color
        )


class _Bar:
    """A bar that moves, and failures above it."""

    def __init__(self, progress: Progress, what: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=total)

    def advance(self) -> None:
        """See `Meter.advance`."""
        self._progress.advance(self._task)

    def complain(self, text: str) -> None:
        """See `Meter.complain`."""
        from rich.text import Text

        self._progress.console.print(Text.assemble(("Error: ", "bold red"), printable(text)), soft_wrap=True)


def metered(what: str, total: int | None, *, quiet: bool, color: bool | None) -> tuple[Any, Meter]:
    """A context in which progress is shown, and its meter.

    Args:
        what: What is being done, for people.
        total: How many it is for, or None.
        quiet: Show no bar.
        color: False for none.
    """
    on_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    if quiet or not on_terminal or (total is not None and total <= 1):
        return nullcontext(), _Lines(color=color)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        console=console(color=color),
        transient=True,
    )
    return progress, _Bar(progress, what, total)
