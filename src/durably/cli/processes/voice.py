"""What the control process itself says: workers go on also when nobody can hear it any more."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

from durably.cli import output
from durably.cli.processes.printer import Printer

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def tell(text: str) -> None:
    """A line on stdout."""
    with suppress(OSError):
        click.echo(text)


def say(text: str) -> None:
    """See `durably.cli.output.say`."""
    with suppress(OSError):
        output.say(text)


def warn(text: str) -> None:
    """See `durably.cli.output.warn`."""
    with suppress(OSError):
        output.warn(text)


def complain(text: str) -> None:
    """See `durably.cli.output.complain`."""
    with suppress(OSError):
        output.complain(text)


@contextmanager
def through(out: Printer, err: Printer) -> Generator[None]:
    """Meanwhile all that this process says is printed by these: what is said here, and also logs and tracebacks.

    When a printer has far too much to print already, it is dropped.
    """
    with (
        redirect_stdout(_text(_Through(out), sys.stdout)),
        redirect_stderr(_text(_Through(err), sys.stderr)),
    ):
        yield


def _text(through: _Through, like: TextIO) -> TextIO:
    # Each write is passed on at once and in one piece.
    return io.TextIOWrapper(cast("Any", through), like.encoding, like.errors, write_through=True)


class _Through(io.BufferedIOBase):
    """A file that is a printer."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._printer.target)

    def fileno(self) -> int:
        return self._printer.target

    def write(self, data: ReadableBuffer, /) -> int:
        text = bytes(data)
        self._printer.put(text)
        return len(text)
