"""``durably hosts``: who serves the hub, and who is to give its work to the others."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from durably.cli.formats import FORMATS, Column, printer
from durably.cli.instances.session import with_client
from durably.cli.moments import exactly
from durably.cli.output import Exit, say
from durably.cli.settings import (
    Commands,
    format_option,
    quiet_option,
    reach_options,
    settings_of,
    shared,
)

if TYPE_CHECKING:
    from durably.client import Client
    from durably.core.hosts import HostStatus

KEYS = (
    "id",
    "name",
    "version",
    "since",
    "seen_at",
    "partitions",
    "draining",
    "backlog",
    "oldest_wait_s",
    "functions",
)
"""The columns of CSV, and the keys of an object."""

_COLUMNS = (
    Column("ID", lambda row: row["id"]),
    Column("NAME", lambda row: row["name"], elastic=True),
    Column("VERSION", lambda row: row["version"]),
    Column("SINCE", lambda row: f"{row['since'][:19]}Z"),
    Column("PARTITIONS", lambda row: str(row["partitions"]), right=True),
    Column("BACKLOG", lambda row: str(row["backlog"]), right=True),
    Column("STATE", lambda row: "draining" if row["draining"] else "serving"),
)

_EXAMPLES = """\b
Examples:
  durably hosts list
  durably hosts drain 'pid 4711 on box-2'
"""


@click.group("hosts", cls=Commands, short_help="List hosts, and take their work off one.", epilog=_EXAMPLES)
@shared
def hosts_group() -> None:
    """The processes that serve a hub.

    A hub on PostgreSQL may have many: they share its partitions. A hub in a file has one.
    """


@hosts_group.command("list", short_help="List the live hosts.")
@reach_options
@format_option(*FORMATS, help_text="For people; or all for programs.")
@shared
@click.pass_context
def list_command(context: click.Context, *, hub: str, output: str) -> None:
    """List the live hosts, the oldest first, with the number of partitions that each owns."""
    shown = printer(output, sys.stdout, columns=_COLUMNS, keys=KEYS, color=settings_of(context).color)

    async def show(client: Client) -> int:
        found = await client.hosts()
        for host in found:
            shown.row({"instance_id": host.host_id} if output == "ids" else _row(host))
        shown.close()
        return len(found)

    if not with_client(hub, show) and sys.stdout.isatty():
        say("No host serves this hub")


@hosts_group.command("drain", short_help="Ask a host to give its work to the others.")
@click.argument("host", metavar="NAME|ID")
@reach_options
@quiet_option
@shared
def drain_command(host: str, *, hub: str, quiet: bool) -> int:
    """Ask a host to give its partitions to the others, before it is stopped. It stays up, and takes no new ones.

    A stop by signal does the same by itself: it is enough to end a process in order.
    """

    async def drain(client: Client) -> int:
        chosen = _chosen(await client.hosts(), host)
        await client.drain_host(chosen.host_id)
        if not quiet:
            say(f"{chosen.name} was asked to give {chosen.partitions} partitions away")
        return Exit.OK

    return with_client(hub, drain)


def _chosen(hosts: list[HostStatus], wanted: str) -> HostStatus:
    """The host of this id, or else of this name, as long as there is but one."""
    from durably.errors import UsageError

    found = [one for one in hosts if one.host_id == wanted] or [one for one in hosts if one.name == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(one.host_id for one in found)
        raise UsageError(f"{len(found)} hosts are named '{wanted}': give the id of one of them ({ids})")
    known = ", ".join(f"'{one.name}' ({one.host_id})" for one in hosts) or "none"
    raise UsageError(f"No live host is named '{wanted}' or has this id. Live hosts: {known}")


def _row(host: HostStatus) -> dict[str, Any]:
    return {
        "id": host.host_id,
        "name": host.name,
        "version": host.version,
        "since": exactly(host.since),
        "seen_at": exactly(host.seen_at),
        "partitions": host.partitions,
        "draining": host.draining,
        "backlog": host.backlog,
        "oldest_wait_s": None if host.oldest_wait is None else host.oldest_wait.total_seconds(),
        "functions": list(host.functions),
    }
