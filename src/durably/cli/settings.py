"""Options that all commands share. Each may stand before or behind the command, or in its environment variable."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from durably.cli.processes.worker import Attached

C = TypeVar("C", bound=Callable[..., Any])

DEFAULT_HUB = "sqlite:///durably.db"
COMPLETE_VAR = "_DURABLY_COMPLETE"
"""Set by the scripts of ``durably completion``: the program answers with what may follow."""

LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass(slots=True)
class Settings:
    """What the shared options say.

    Attributes:
        debug: Print tracebacks of durably's own errors.
        color: False for none at all, None to decide by the terminal.
        log_level: One of `LEVELS`, or None for the default of the command.
        key: Of a host that is asked over HTTP, or None.
        token: In the place of a key, or None.
        ca: A file with the authorities that may vouch for that host, or None for the usual ones.
        arguments: Of the command line, from the command on.
        attached: To the control process that has started this one, or None.
    """

    debug: bool = False
    color: bool | None = None
    log_level: str | None = None
    key: str | None = None
    token: str | None = None
    ca: str | None = None
    arguments: tuple[str, ...] = ()
    attached: Attached | None = None


class Commands(click.Group):
    """A group that suggests what may have been meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            import difflib

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
    """Add ``--hub`` of a command that works in this process, on the hub itself."""
    return _local_hub_option(_hub_here)(command)


def app_hub_option(command: C) -> C:
    """Add ``--hub`` of a command with an APP: what the files beside that say is found with it, see `left_to_files`."""
    return _local_hub_option(DEFAULT_HUB)(command)


def _local_hub_option(default: str | Callable[[], str]) -> Callable[[C], C]:
    return click.option(
        "--hub",
        metavar="URL",
        envvar="DURABLY_HUB",
        default=default,
        show_default=DEFAULT_HUB,
        show_envvar=True,
        callback=_local_hub,
        help="The hub: sqlite:///file.db (relative), sqlite:////dir/file.db (absolute), postgresql://host/database?hub=name "
        "or memory://.",
    )


def settings_here() -> Mapping[str, str]:
    """What the files in the current folder say, where there are any, and the environment above them.

    Raises:
        UsageError: A file cannot be read, or a value is none.
    """
    if not any(os.path.isfile(name) for name in ("host.json", "local.settings.json")):  # noqa: PTH113 - most calls end here
        return os.environ
    from durably.config.settings import Settings as Files

    files = Files.read()
    files.check()
    return files


def _hub_here() -> str:
    return settings_here().get("DURABLY_HUB", DEFAULT_HUB)


def _filled_hub(context: click.Context, _: click.Parameter, given: str) -> str:
    if "%" not in given:
        return given
    from durably.config.names import filled

    return filled(given, "The URL of the hub")


def _local_hub(context: click.Context, parameter: click.Parameter, given: str) -> str:
    hub = _filled_hub(context, parameter, given)
    if is_http(hub):
        raise click.UsageError(
            f"'{context.command_path}' works in this process, on the hub itself, and cannot be asked of a host over HTTP "
            f"({hub}): expected the URL of the hub, such as --hub sqlite:///hub.db",
            context,
        )
    return hub


def hub_argument(name: str) -> Callable[[C], C]:
    """Add an argument that is the URL of a hub, for a command that works in this process, on the hub itself."""
    return click.argument(name, metavar=name.upper(), callback=_local_hub)


def is_http(hub: str) -> bool:
    """True for the URL of a host, not of a hub."""
    return hub.lower().startswith(("http://", "https://"))


def serving_options(command: C) -> C:
    """Add what says how a host is served over HTTP."""
    for option in (
        click.option(
            "--insecure",
            is_flag=True,
            default=None,
            envvar="DURABLY_HTTP_INSECURE",
            show_envvar=True,
            help="Ask nobody for a key; on this machine only.",
        ),
        click.option(
            "--http/--no-http",
            default=True,
            envvar="DURABLY_HTTP",
            show_envvar=True,
            help="Serve the management API and HTTP functions (default: yes).",
        ),
        click.option(
            "--port",
            type=click.IntRange(0, 65_535),
            envvar="DURABLY_HTTP_PORT",
            show_envvar=True,
            help="Listen on this port, 0 for any (default: 7071).",
        ),
        click.option(
            "--host",
            "--bind",
            "bind",
            metavar="ADDRESS",
            envvar="DURABLY_HTTP_BIND",
            show_envvar=True,
            help="Listen on this address (default: 127.0.0.1); any other than one of this machine needs a key.",
        ),
    ):
        command = option(command)
    return command


def reach_options(command: C) -> C:
    """Add ``--hub``, which may be a host that serves HTTP, and credentials for it; `durably.cli.connecting` takes them."""
    command = key_option(command)
    return click.option(
        "--hub",
        metavar="URL",
        envvar="DURABLY_HUB",
        default=_hub_here,
        show_default=DEFAULT_HUB,
        show_envvar=True,
        callback=_filled_hub,
        help="The hub: sqlite:///file.db (relative), sqlite:////dir/file.db (absolute), "
        "postgresql://host/database?hub=name, or a host of it that serves HTTP: http://127.0.0.1:7071.",
    )(command)


def key_option(command: C) -> C:
    """Add ``--key``, ``--token`` and ``--ca``."""
    command = click.option(
        "--ca",
        metavar="FILE",
        envvar="DURABLY_CA",
        show_envvar=True,
        expose_value=False,
        callback=_ca,
        help="PEM file with the authority of the host's certificate, for HTTPS; SSL_CERT_FILE says the same.",
    )(command)
    command = click.option(
        "--token",
        metavar="TOKEN",
        envvar="DURABLY_TOKEN",
        show_envvar=True,
        expose_value=False,
        callback=_token,
        help="A bearer token for the host, in the place of a key. Better given in the variable.",
    )(command)
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


def _token(context: click.Context, _: click.Parameter, given: str | None) -> None:
    if given:
        settings_of(context).token = given


def _ca(context: click.Context, _: click.Parameter, given: str | None) -> None:
    if given:
        settings_of(context).ca = given


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
