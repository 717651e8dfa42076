"""Options that all commands share. Each may stand before or behind the command, or in its environment variable."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

C = TypeVar("C", bound=Callable[..., Any])

DEFAULT_HUB = "sqlite:///durably.db"
LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass(slots=True)
class Settings:
    """What the shared options say.

    Attributes:
        debug: Print tracebacks of durably's own errors.
        color: False for none at all, None to decide by the terminal.
        log_level: One of `LEVELS`, or None for the default of the command.
    """

    debug: bool = False
    color: bool | None = None
    log_level: str | None = None


def settings_of(context: click.Context) -> Settings:
    """The settings of this call of the program."""
    return context.find_root().ensure_object(Settings)


def _debug(context: click.Context, _: click.Parameter, given: Any) -> None:
    settings_of(context).debug |= given


def _no_color(context: click.Context, _: click.Parameter, given: Any) -> None:
    if given or os.environ.get("NO_COLOR"):
        settings_of(context).color = context.color = False


def _log_level(context: click.Context, _: click.Parameter, given: str | None) -> None:
    if given is not None:
        settings_of(context).log_level = given


def shared(command: C) -> C:
    """Add the shared options."""
    for option in (
        click.option(
            "--log-level",
            type=click.Choice(LEVELS, case_sensitive=False),
            envvar="DURABLY_LOG_LEVEL",
            show_envvar=True,
            expose_value=False,
            callback=_log_level,
            help="Least severe log records that are printed.",
        ),
        click.option(
            "--no-color",
            is_flag=True,
            envvar="DURABLY_NO_COLOR",
            show_envvar=True,
            expose_value=False,
            callback=_no_color,
            help="No colours; NO_COLOR says the same.",
        ),
        click.option(
            "--debug",
            is_flag=True,
            envvar="DURABLY_DEBUG",
            show_envvar=True,
            expose_value=False,
            callback=_debug,
            help="Print tracebacks of errors of durably itself.",
        ),
    ):
        command = option(command)
    return command


def hub_option(command: C) -> C:
    """Add ``--hub``."""
    return click.option(
        "--hub",
        metavar="URL",
        envvar="DURABLY_HUB",
        default=DEFAULT_HUB,
        show_default=True,
        show_envvar=True,
        help="The hub: sqlite:///file.db (relative), sqlite:////dir/file.db (absolute) or memory://.",
    )(command)


def output_option(command: C) -> C:
    """Add ``--output``."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(("table", "json")),
        default="table",
        envvar="DURABLY_OUTPUT",
        show_default=True,
        show_envvar=True,
        help="For people, or one JSON object on stdout for programs.",
    )(command)
