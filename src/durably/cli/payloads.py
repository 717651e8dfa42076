"""JSON that people write: on the command line, in a file, or on stdin."""

from __future__ import annotations

import json
import shlex
import sys
from typing import Any, NoReturn

import click


def json_of(given: str | None, option: str) -> Any:
    """The value of ``JSON``, ``@FILE`` or ``-``; None when nothing was given.

    Args:
        given: What stands behind the option.
        option: Its name, for messages.

    Raises:
        click.BadParameter: The file cannot be read, or it is not JSON.
    """
    if given is None:
        return None
    text, source = given, option
    if given == "-":
        text, source = sys.stdin.read(), "stdin"
    elif given.startswith("@"):
        source = f"file '{given[1:]}'"
        try:
            with open(given[1:], encoding="utf-8") as file:  # noqa: PTH123 - pathlib is slow to import
                text = file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise click.BadParameter(f"{source} cannot be read: {error}", param_hint=option) from None
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        hint = f"; for text, quote it twice: {option} {shlex.quote(json.dumps(given))}"
        if source != option:
            hint = ""
        raise click.BadParameter(f"{source} is not JSON: {error}{hint}", param_hint=option) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")
