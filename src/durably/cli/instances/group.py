"""The group of commands."""

from __future__ import annotations

import click

from durably.cli.instances.listing import count_command, list_command
from durably.cli.instances.looking import history_command, show_command, why_command
from durably.cli.instances.starting import result_command, start_command
from durably.cli.instances.verbs import COMMANDS
from durably.cli.instances.watching import watch_command
from durably.cli.settings import Commands, shared

_IN_ORDER = (
    start_command,
    result_command,
    list_command,
    count_command,
    show_command,
    why_command,
    history_command,
    watch_command,
    *COMMANDS,
)


class _InOrder(Commands):
    """Help lists the commands in the order in which one learns them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [command.name for command in _IN_ORDER if command.name is not None]


@click.group("instances", cls=_InOrder, short_help="Start, follow, list and control instances.")
@shared
def instances_group() -> None:
    """Start, follow, list and control instances, from any process, whether a host of the hub runs or not.

    While none runs, what is accepted waits for the next one. Commands that change something take ids, - for ids on
    stdin, or filters.
    """


for _command in _IN_ORDER:
    instances_group.add_command(_command)
