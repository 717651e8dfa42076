"""What is printed: errors and failures on stderr, results on stdout; and which exit code says what."""

from __future__ import annotations

import os
import sys
import threading
import time
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

    from durably.errors import FailureDetails


class Exit(IntEnum):
    """Exit codes."""

    OK = 0
    FAILED = 1
    USAGE = 2
    AUTH = 3
    NOT_FOUND = 4
    CONFLICT = 5
    TIMEOUT = 6
    INSTANCE_FAILED = 7
    STALLED = 75  # by `durably.executors.stalls`
    INTERRUPTED = 130


def exit_code(error: BaseException) -> Exit:
    """The exit code for an error."""
    from durably import errors

    match error:
        case errors.InstanceNotFoundError() | errors.HubNotFoundError() | errors.ScheduleNotFoundError():
            return Exit.NOT_FOUND
        case (
            errors.InstanceAlreadyExistsError()
            | errors.InstanceStateError()
            | errors.ScheduleAlreadyExistsError()
        ):
            return Exit.CONFLICT
        case errors.EncryptionKeyError() | errors.AccessDeniedError():
            return Exit.AUTH
        case errors.HubLockedError() | errors.HubNotEmptyError() | errors.LeaseLostError():
            return Exit.CONFLICT
        case errors.OrchestrationFailedError():
            return Exit.INSTANCE_FAILED
        case errors.NonDeterminismError():
            return Exit.FAILED
        case errors.UsageError():
            return Exit.USAGE
        case TimeoutError():
            return Exit.TIMEOUT
        case KeyboardInterrupt():
            return Exit.INTERRUPTED
        case _:
            return Exit.FAILED


def say(text: str) -> None:
    """A line for people, on stderr."""
    click.echo(text, err=True)


def complain(text: str, *, color: bool | None = None) -> None:
    """An error, on stderr."""
    click.echo(f"{click.style('Error:', fg='red', bold=True)} {text}", err=True, color=color)


def warn(text: str) -> None:
    """What does not stop the work, and should be known; on stderr."""
    click.echo(f"{click.style('Warning:', fg='yellow', bold=True)} {text}", err=True)


# --- results ---------------------------------------------------------------------------------------------------------


def console(*, color: bool | None) -> Console:
    """A rich console on stderr; colour only on a terminal."""
    from rich.console import Console

    return Console(stderr=True, no_color=True if color is False else None, highlight=False)


def print_json(value: Any, file: TextIO, *, pretty: bool, color: bool | None) -> None:
    """JSON for stdout: indented and, on a terminal, coloured; or in one line."""
    import json

    indent = 2 if pretty else None
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if pretty and file.isatty() and color is not False and not os.environ.get("NO_COLOR"):
        from rich.console import Console
        from rich.json import JSON

        Console(file=file).print(JSON(text), soft_wrap=True)
        return
    try:
        click.echo(text, file=file)
    except UnicodeEncodeError:  # a terminal or locale that does not know the characters
        click.echo(json.dumps(value, indent=indent), file=file)


# --- failures --------------------------------------------------------------------------------------------------------


def failure_text(failure: FailureDetails) -> str:
    """A failure for people: type and message, the frames of user code, and the causes in the same way."""
    parts: list[str] = []
    one: FailureDetails | None = failure
    while one is not None:
        head = click.style(f"{one.type}: {one.message}" if one.message else one.type, fg="red")
        parts.append(f"{'caused by ' if parts else ''}{head}")
        parts += _frames(one.stack_trace)
        one = one.inner
    return "\n".join(parts)


def _frames(stack_trace: str | None) -> list[str]:
    """The lines of the frames, without the head and the repeated message."""
    lines = (stack_trace or "").splitlines()
    if not any(
        line.startswith("Traceback ") for line in lines
    ):  # cut at its beginning, or of an exception group
        return [f"  {line}" for line in lines]
    start = next(at for at, line in enumerate(lines) if line.startswith("Traceback ")) + 1
    end = next((at for at in range(start, len(lines)) if not lines[at].startswith(" ")), len(lines))
    return lines[start:end]


# --- the end ---------------------------------------------------------------------------------------------------------


def leave(code: int) -> NoReturn:
    """End the program with an exit code, also when threads of user code still run: their work is redone by a host."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # nobody reads any more
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if threads_left():
        os._exit(code)
    sys.exit(code)


def threads_left() -> bool:
    """True when threads of user code go on; those that are about to end are given a moment."""
    deadline = time.monotonic() + 0.2
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                return True
    return False
