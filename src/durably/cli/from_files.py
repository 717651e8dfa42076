"""Settings of the files beside an app, for the commands that host it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from durably.cli.output import warn
from durably.cli.settings import DEFAULT_HUB
from durably.config.settings import HOST_FILE, LOCAL_FILE, Settings


def folder_of(apps: Iterable[str]) -> Path:
    """Where the files of some apps are: the folder of the first app that is a file and has one, or the current folder."""
    for app in apps:
        place = app if app.endswith(".py") else app.rpartition(":")[0]
        folder = Path(place).parent
        if place.endswith(".py") and any((folder / name).is_file() for name in (HOST_FILE, LOCAL_FILE)):
            return folder
    return Path()


def settings_of_apps(apps: Iterable[str]) -> Settings:
    """All settings that some apps are hosted with."""
    return Settings.read(folder_of(apps))


def take(settings: Settings) -> None:
    """Name what is unknown or not supported, refuse what is wrong, and give code the environment that it expects.

    Raises:
        UsageError: Nothing can be started with these settings.
    """
    from durably.cli.config.catalogue import unknown_variables

    for text in (*settings.warnings, *unknown_variables(settings)):
        warn(text)
    settings.check()
    os.environ.update(settings.exports)


def left_to_files(context: click.Context, settings: Settings) -> dict[str, Any]:
    """What the files say for options that neither the command line nor the environment does, by parameter."""
    found: dict[str, Any] = {}
    for one in context.command.params:
        name = str(one.name)
        source = context.get_parameter_source(name)
        if source is None or source.name not in {"DEFAULT", "DEFAULT_MAP"}:
            continue
        if name == "hub":
            found[name] = settings.get("DURABLY_HUB", DEFAULT_HUB)
        elif isinstance(one.envvar, str) and one.envvar in settings:
            found[name] = one.type_cast_value(context, settings[one.envvar])
    return found
