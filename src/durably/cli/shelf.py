"""The commands of the program, by name: each is imported when it is asked for, and help asks for none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import NamedTuple

import click

from durably.cli.settings import Commands


class Place(NamedTuple):
    """Where a command is.

    Attributes:
        module: Below `durably.cli`.
        attribute: The command in it.
        about: Its short help, which a test compares with what it says itself.
    """

    module: str
    attribute: str
    about: str


class Shelf(MutableMapping[str, click.Command]):
    """Commands that are imported when they are taken.

    Args:
        places: Where they are.
    """

    def __init__(self, places: Mapping[str, Place]) -> None:
        self.places = places
        self._taken: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._taken:
            place = self.places[name]
            self._taken[name] = getattr(import_module(f"durably.cli.{place.module}"), place.attribute)
        return self._taken[name]

    def __contains__(self, name: object) -> bool:
        return name in self.places or name in self._taken

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._taken[name] = command

    def __delitem__(self, name: str) -> None:
        del self._taken[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self.places, **self._taken})

    def __len__(self) -> int:
        return len({**self.places, **self._taken})


class ShelvedCommands(Commands):
    """A group whose help reads what is written on the shelf."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write all commands with their short help."""
        if not isinstance(self.commands, Shelf):
            super().format_commands(ctx, formatter)
            return
        places = self.commands.places
        rows = [
            (name, places[name].about if name in places else self.commands[name].get_short_help_str())
            for name in self.list_commands(ctx)
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
