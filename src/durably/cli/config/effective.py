"""What a host would have, setting by setting."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import click

from durably.cli.config.catalogue import PREFIX, check_values, known_variables
from durably.cli.serving import STALL_LIMIT_S, engine_options
from durably.config.redaction import HIDDEN, shown
from durably.config.settings import ENVIRONMENT, Settings

DEFAULT = "default"


class Effective(NamedTuple):
    """A setting as it holds.

    Attributes:
        name: Its variable.
        value: Text, or its default; None: nothing. Without what is secret.
        origin: ``default``, a file and a line, ``environment``, or an option of the command line.
    """

    name: str
    value: Any
    origin: str

    @property
    def text(self) -> str:
        """The value for people."""
        value: object = self.value
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, tuple):
            return ",".join(map(str, cast("tuple[object, ...]", value)))
        return "" if value is None else str(value)

    def as_json(self) -> dict[str, Any]:
        """The row for programs."""
        return {"name": self.name, "value": self.value, "origin": self.origin}


def effective(settings: Settings, context: click.Context) -> list[Effective]:
    """All settings of a host, and the names of those of the app.

    Args:
        settings: Of files and the environment.
        context: Of a command with the options of ``durably run``.

    Raises:
        UsageError: One is wrong.
    """
    check_values(settings)
    flags = _flags(context)
    stall_limit_s = engine_options(settings, STALL_LIMIT_S).stall_limit_s
    rows: list[Effective] = []
    for one in known_variables():
        if one.variable in flags:
            option, value = flags[one.variable]
            rows.append(Effective(one.variable, shown(one.variable, value, secret=one.secret), option))
        elif one.variable in settings:
            text = shown(one.variable, settings[one.variable], secret=one.secret)
            rows.append(Effective(one.variable, text, settings.origin(one.variable) or ENVIRONMENT))
        elif one.variable == "DURABLY_STALL_LIMIT_S" and stall_limit_s != one.default:
            rows.append(Effective(one.variable, stall_limit_s, "DURABLY_FUNCTION_TIMEOUT_S"))
        else:
            rows.append(Effective(one.variable, one.default, DEFAULT))
    apps_own = [name for name in settings.exports if not name.startswith(PREFIX)]
    return [*rows, *(Effective(name, HIDDEN, settings.origin(name) or "") for name in apps_own)]


def _flags(context: click.Context) -> dict[str, tuple[str, str]]:
    """Option and value of what the command line says, by variable."""
    found: dict[str, tuple[str, str]] = {}
    for one in context.command.params:
        source = context.get_parameter_source(str(one.name))
        if source is not None and source.name == "COMMANDLINE" and isinstance(one.envvar, str):
            value = context.params.get(str(one.name))
            text = str(value).lower() if isinstance(value, bool) else str(value)
            found[one.envvar] = (one.opts[-1], text)
    return found
