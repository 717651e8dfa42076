"""The options of ``func durable``, and what they mean here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import click

from durably.cli.instances.filters import STATUSES
from durably.cli.moments import Moment
from durably.cli.settings import is_http, reach_options, shared

C = TypeVar("C", bound=Callable[..., Any])


def common(command: C) -> C:
    """Add the options of all verbs; `hub_of` takes them."""
    for option in (
        shared,
        reach_options,
        click.option(
            "--task-hub-name", metavar="NAME", show_envvar=True, help="A hub URL, or the name of the hub."
        ),
        click.option(
            "--connection-string-setting",
            metavar="VARIABLE",
            show_envvar=True,
            help="An environment variable that holds the URL of the hub.",
        ),
    ):
        command = option(command)
    return command


def id_option(command: C) -> C:
    """Add ``--id``."""
    return click.option(
        "--id", "instance_id", metavar="ID", required=True, show_envvar=True, help="The instance."
    )(command)


def reason_option(command: C) -> C:
    """Add ``--reason``."""
    return click.option("--reason", metavar="TEXT", show_envvar=True, help="Why; it is recorded.")(command)


def flag(name: str, help_text: str) -> Callable[[C], C]:
    """A flag that may be followed by true or false, as there."""
    return click.option(
        name,
        type=click.BOOL,
        is_flag=False,
        flag_value="true",
        default=False,
        show_envvar=True,
        metavar="[true|false]",
        help=help_text,
    )


class _Statuses(click.ParamType):  # pyright: ignore[reportMissingTypeArgument]  # not generic before click 8.4
    """Statuses with spaces or commas between them."""

    name = "statuses"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value  # pyright: ignore[reportUnknownVariableType]
        known = {status.lower(): status for status in STATUSES}
        words = str(value).replace(",", " ").split()
        for word in words:
            if word.lower() not in known:
                self.fail(f"'{word}' is no status: statuses are {', '.join(STATUSES)}", param, ctx)
        return tuple(known[word.lower()] for word in words)


def filters(command: C) -> C:
    """Add the options that choose instances."""
    for option in (
        click.option(
            "--runtime-status",
            "statuses",
            type=_Statuses(),
            default=(),
            metavar="STATUSES",
            show_envvar=True,
            help="One, or several in quotes with spaces between them.",
        ),
        click.option(
            "--created-before",
            "before",
            type=Moment("past"),
            show_envvar=True,
            help="Created then or earlier.",
        ),
        click.option(
            "--created-after", "after", type=Moment("past"), show_envvar=True, help="Created then or later."
        ),
    ):
        command = option(command)
    return command


# --- which hub -------------------------------------------------------------------------------------------------------


def _held(hub: str) -> str:
    from durably.storage.open import hub_name

    return hub_name(hub)


def hub_of(given: dict[str, Any]) -> str:
    """The URL of the hub that the options name.

    Raises:
        click.UsageError: The variable is not set, or the hub has another name.
    """
    hub: str = given["hub"]
    setting: str | None = given["connection_string_setting"]
    if setting is not None:
        hub = os.environ.get(setting, "")
        if "://" not in hub:
            raise click.UsageError(
                f"--connection-string-setting names the environment variable '{setting}', which holds no hub URL: expected one "
                "such as sqlite:///hub.db"
            )
    name: str | None = given["task_hub_name"]
    if name is None or name == hub:
        return hub
    if "://" in name:
        return name
    held = "" if is_http(hub) else _held(hub)
    if name.lower() != held.lower():
        from durably.storage.open import shown_url

        raise click.UsageError(
            f"Task hub '{name}' is not that of {shown_url(hub)}: leave --task-hub-name out, or give the URL of the hub there"
        )
    return hub


def option(name: str, value: Any) -> list[str]:
    """An option of ours with its value, if there is one."""
    if value is None:
        return []
    return [f"{name}={value.isoformat() if isinstance(value, datetime) else value}"]


def data_of(text: str | None) -> str | None:
    """Inline data: JSON, or text as it is."""
    if text is None or text.startswith("@"):
        return text
    try:
        json.loads(text)
    except ValueError:
        return json.dumps(text)
    return text
