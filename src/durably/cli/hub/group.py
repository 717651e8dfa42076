"""The group of commands."""

from __future__ import annotations

import click

from durably.cli.hub.load import load_command
from durably.cli.hub.migrating import migrate_command
from durably.cli.hub.moving import copy_command, export_command, import_command
from durably.cli.hub.status import status_command
from durably.cli.settings import Commands, shared

_IN_ORDER = (status_command, load_command, migrate_command, export_command, import_command, copy_command)


class _InOrder(Commands):
    """Help lists the commands in the order in which one learns them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [command.name for command in _IN_ORDER if command.name is not None]


@click.group(
    "hub", cls=_InOrder, short_help="Look at a hub as a whole: migrate, back up, restore and move it."
)
@shared
def hub_group() -> None:
    """Work on a hub as a whole, in this process."""


for _command in _IN_ORDER:
    hub_group.add_command(_command)
