"""``durably hub load``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from durably.cli.instances.session import with_client
from durably.cli.moments import exactly
from durably.cli.output import Exit, print_json
from durably.cli.settings import output_option, reach_options, shared

if TYPE_CHECKING:
    from durably.client import Client
    from durably.core.load import HubLoad

_EXAMPLES = """\b
Examples:
  durably hub load --hub postgresql://db/shop
  durably hub load -o json | jq .recommended_hosts
"""


@click.command("load", short_help="Show what waits, and how many hosts it takes.", epilog=_EXAMPLES)
@reach_options
@output_option
@shared
def load_command(hub: str, output: str) -> int:
    """Show how much there is to do in a hub, and how many hosts it should have. Takes milliseconds, however large it is.

    Hosts: none when nothing waits, runs or is under way, and no timer is due within a minute. Else one for each 500
    messages and due timers, and one for as many activities as a host has places for. When something has waited for more
    than 10 seconds, messages and timers count twice, and waiting activities call for one host more than there are. Never
    more than there are partitions.

    What is held (suspended, blocked, parked, not to begin yet) does not count. Numbers end at 5,000.
    """

    async def look(client: Client) -> HubLoad:
        return await client.hub_load()

    load = with_client(hub, look)
    if output == "json":
        print_json(_as_json(load), sys.stdout, pretty=False, color=None)
        return Exit.OK
    for title, text in _lines(load):
        click.echo(f"{title:11}  {text}".rstrip())
    return Exit.OK


def _as_json(load: HubLoad) -> dict[str, Any]:
    import msgspec

    found = msgspec.structs.asdict(load)
    oldest = found.pop("oldest_wait")
    for name in ("at", "held_at", "next_timer"):
        found[name] = None if found[name] is None else exactly(found[name])
    return {
        **found,
        "backlog": load.backlog,
        "oldest_wait_s": None if oldest is None else oldest.total_seconds(),
        "recommended_hosts": load.recommended_hosts,
    }


def _lines(load: HubLoad) -> Iterator[tuple[str, str]]:
    oldest = "" if load.oldest_wait is None else f"; the oldest for {load.oldest_wait.total_seconds():.1f} s"
    activities = f"{load.activities + load.tasks:,} activities"
    yield "waiting", f"{load.messages:,} messages, {load.timers_due:,} due timers, {activities}{oldest}"
    places = f" of {load.places:,} places" if load.places else ""
    yield "running", f"{load.running:,} activities{places}; {load.in_flight:,} instances have work under way"
    yield "next timer", "none" if load.next_timer is None else exactly(load.next_timer)
    unowned = f"; {load.unowned} of {load.partitions} partitions have no owner" if load.unowned else ""
    yield "hosts", f"{load.hosts}, recommended {load.recommended_hosts}{unowned}"
