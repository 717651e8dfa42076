"""Log records on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping

import click

from durably.cli.settings import LEVELS, settings_of
from durably.errors import UsageError


def one_record(text: str) -> str:
    """A record as it may be printed: what others wrote into it looks like no record of its own, and drives no terminal.

    Lines after the first are indented.
    """
    return "\n  ".join(
        "".join(letter if letter.isprintable() or letter == "\t" else repr(letter)[1:-1] for letter in line)
        for line in text.split("\n")
    )


class _Stderr(logging.Handler):
    """Writes to what `sys.stderr` is at the moment: a live display takes its place while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(one_record(self.format(record)), file=sys.stderr)
        except Exception:  # noqa: BLE001 - a log record must not end the program
            self.handleError(record)


_FORMAT = "%(asctime)s %(levelname)-8s %(name)s: %(message)s"


def _level(given: str | None, variable: str) -> str | None:
    if given is not None and given.strip().lower() not in LEVELS:
        raise UsageError(f"{variable} has {given!r}: expected one of {', '.join(LEVELS)}")
    return None if given is None else given.strip()


def set_up_logging(
    context: click.Context,
    default: str,
    settings: Mapping[str, str],
    formatter: type[logging.Formatter] = logging.Formatter,
) -> None:
    """Print log records on stderr, unless the app has set up logging itself; a level that was given holds anyway.

    Raises:
        UsageError: A setting names no level.
    """
    root = logging.getLogger()
    level = settings_of(context).log_level or _level(settings.get("DURABLY_LOG_LEVEL"), "DURABLY_LOG_LEVEL")
    for part in settings.get("DURABLY_LOG_LEVELS", "").split(","):
        name, _, given = part.partition("=")
        if name.strip():
            logging.getLogger(name.strip()).setLevel(str(_level(given, "DURABLY_LOG_LEVELS")).upper())
    if not root.handlers:
        handler = _Stderr()
        handler.setFormatter(formatter(_FORMAT))
        root.addHandler(handler)
        root.setLevel((level or default).upper())
    elif level is not None:
        root.setLevel(level.upper())
