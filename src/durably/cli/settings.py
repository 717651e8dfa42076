"""Options that all commands share. Each may stand before or behind the command, or in its environment variable."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
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
        key: Of a host that is asked over HTTP, or None.
    """

    debug: bool = False
    color: bool | None = None
    log_level: str | None = None
    key: str | None = None


class Commands(click.Group):
    """A group that suggests what may have been meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            known = self.list_commands(ctx)
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean '{close[0]}'?" if close else f"expected one of {', '.join(known)}"
            raise click.UsageError(f"No such command '{name}': {hint}", ctx)
        return super().resolve_command(ctx, args)


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


def reach_options(command: C) -> C:
    """Add ``--hub``, which may be a host that serves HTTP, and ``--key`` for it; `durably.cli.connecting` takes both."""
    command = key_option(command)
    return click.option(
        "--hub",
        metavar="URL",
        envvar="DURABLY_HUB",
        default=DEFAULT_HUB,
        show_default=True,
        show_envvar=True,
        help="The hub: sqlite:///file.db (relative), sqlite:////dir/file.db (absolute), or a host of it that serves HTTP: "
        "http://127.0.0.1:7071.",
    )(command)


def key_option(command: C) -> C:
    """Add ``--key``."""
    return click.option(
        "--key",
        metavar="KEY",
        envvar="DURABLY_KEY",
        show_envvar=True,
        expose_value=False,
        callback=_key,
        help="A key of the host, for HTTP. In the variable nobody else sees it.",
    )(command)


def _key(context: click.Context, _: click.Parameter, given: str | None) -> None:
    if given:
        settings_of(context).key = given


def output_option(command: C) -> C:
    """Add ``--output`` of a command that prints one thing."""
    return format_option("table", "json", help_text="For people, or one JSON object on stdout for programs.")(
        command
    )


def format_option(*formats: str, help_text: str) -> Callable[[C], C]:
    """Add ``--output`` with a choice of formats; the first is the default."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(formats),
        default=formats[0],
        envvar="DURABLY_OUTPUT",
        show_default=True,
        show_envvar=True,
        help=help_text,
    )


def timeout_option(help_text: str) -> Callable[[C], C]:
    """Add ``--timeout``."""
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        callback=_finite,
        metavar="SECONDS",
        show_envvar=True,
        help=help_text,
    )


def _finite(_: click.Context, __: click.Parameter, given: float | None) -> float | None:
    if given is not None and not isfinite(given):
        raise click.BadParameter(f"{given} is not a number of seconds; leave it out to wait for ever")
    return given


def quiet_option(command: C) -> C:
    """Add ``--quiet``."""
    return click.option(
        "-q", "--quiet", is_flag=True, envvar="DURABLY_QUIET", show_envvar=True, help="No progress."
    )(command)
