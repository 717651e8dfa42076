"""Log records on stderr."""

from __future__ import annotations

import logging
import sys

import click

from durably.cli.settings import settings_of


class _Stderr(logging.Handler):
    """Writes to what `sys.stderr` is at the moment: a live display takes its place while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr)
        except Exception:  # noqa: BLE001 - a log record must not end the program
            self.handleError(record)


_FORMAT = "%(asctime)s %(levelname)-8s %(name)s: %(message)s"


def set_up_logging(
    context: click.Context, default: str, formatter: type[logging.Formatter] = logging.Formatter
) -> None:
    """Print log records on stderr, unless the app has set up logging itself; a level that was given holds anyway."""
    root = logging.getLogger()
    level = settings_of(context).log_level
    if not root.handlers:
        handler = _Stderr()
        handler.setFormatter(formatter(_FORMAT))
        root.addHandler(handler)
        root.setLevel((level or default).upper())
    elif level is not None:
        root.setLevel(level.upper())
