"""The group of commands."""

from __future__ import annotations

import click

from durably.cli.entities.looking import list_command, show_command
from durably.cli.entities.sending import call_command, clean_command, signal_command
from durably.cli.settings import Commands, shared

_IN_ORDER = (list_command, show_command, signal_command, call_command, clean_command)


class _InOrder(Commands):
    """Help lists the commands in the order in which one learns them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [command.name for command in _IN_ORDER if command.name is not None]


@click.group("entities", cls=_InOrder, short_help="List, show, signal and call entities.")
@shared
def entities_group() -> None:
    """List, show, signal and call entities, from any process, whether a host of the hub runs or not.

    An id is written as @name@key.
    """


for _command in _IN_ORDER:
    entities_group.add_command(_command)
