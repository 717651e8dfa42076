"""What a host in development says of the user's code, as it happens."""

from __future__ import annotations

import click

from durably.cli.output import failure_text
from durably.core.events import ExecutionStarted
from durably.engine.executor import ActivityCall
from durably.errors import FailureDetails, NonDeterminismError
from durably.program.mismatch import without_cure

_NOT_REPEATABLE = (
    "The code decided otherwise when this turn was replayed, as after every restart. Take time, chance and ids from ctx, and "
    "do what depends on the world around in activities"
)
_CHANGED = (
    "The instance was started by other code than that of now, and is blocked at its next turn, until code and history agree. Undo the "
    "change, put it behind ctx.patched(...), or terminate the instance"
)


class Terminal:
    """Implements `durably.executors.rehearsal.Audience` on stderr."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def mismatch(self, started: ExecutionStarted, error: NonDeterminismError, *, rehearsed: bool) -> None:
        """See `Audience.mismatch`. The same difference is told once."""
        diff = without_cure(error.diff)
        if diff in self._told:
            return
        self._told.add(diff)
        head = "NOT DETERMINISTIC" if rehearsed else "CHANGED UNDER A RUNNING INSTANCE"
        _tell(head, f"{diff}\n\n{_NOT_REPEATABLE if rehearsed else _CHANGED}")

    def failed(self, started: ExecutionStarted, failure: FailureDetails) -> None:
        """See `Audience.failed`."""
        what = f"instance '{started.instance_id}' (orchestrator '{started.name}')"
        _tell("FAILED", f"{what}\n{failure_text(failure)}")

    def attempt_failed(self, call: ActivityCall, failure: FailureDetails) -> None:
        """See `Audience.attempt_failed`."""
        what = f"activity '{call.name}', attempt {call.attempt}, of instance '{call.instance_id}'"
        _tell("FAILED", f"{what}\n{failure_text(failure)}")


def _tell(head: str, text: str) -> None:
    click.echo(f"{click.style(head, fg='red', bold=True)} {text}", err=True)
