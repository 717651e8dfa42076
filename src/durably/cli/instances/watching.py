"""``durably instances watch``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from durably.cli.answers import failure_of
from durably.cli.completing import complete_ids
from durably.cli.instances.ids import one_id
from durably.cli.instances.session import status_of, with_client
from durably.cli.output import Exit, console, say
from durably.cli.settings import reach_options, settings_of, shared, timeout_option

if TYPE_CHECKING:
    from durably.cli.views import View
    from durably.client import Client


@click.command("watch", short_help="Follow an instance until it ends.")
@click.argument("instance_id", metavar="ID", shell_complete=complete_ids("Pending", "Running", "Suspended"))
@timeout_option("Stop watching after this long (exit code 6).")
@reach_options
@shared
@click.pass_context
def watch_command(context: click.Context, *, instance_id: str, timeout: float | None, hub: str) -> int:
    """Show what an instance and its sub-orchestrations do, on stderr, until it has ended.

    On a terminal a tree that moves, else a line for each step. Ctrl-C ends the watching and leaves the instance alone.
    Exit code 0: it completed. 7: it failed, was cancelled or terminated.
    """
    wanted = one_id(instance_id)
    color = settings_of(context).color
    return with_client(hub, lambda client: _watch(client, wanted, timeout, color=color))


async def _watch(client: Client, instance_id: str, timeout_s: float | None, *, color: bool | None) -> int:
    from contextlib import closing

    from durably.cli.follow import follow
    from durably.cli.hosting import Signals
    from durably.clock import SystemClock

    status = await status_of(client, instance_id)
    if not status.runtime_status.is_terminal and not await client.is_served():
        say("No host serves the hub: nothing happens until one does")
    with Signals() as signals, closing(_view(color=color)) as view:
        ending = await follow(
            client,
            instance_id,
            view,
            signals.asked,
            SystemClock(),
            timeout_s=timeout_s,
            through_blocks=True,
        )
    match ending.how:
        case "interrupted":
            say(f"Instance '{instance_id}' goes on; it is not watched any more")
            return Exit.INTERRUPTED
        case "timeout":
            say(f"Instance '{instance_id}' has not ended within {timeout_s:g} s; it goes on")
            return Exit.TIMEOUT
        case _:
            return Exit.OK if failure_of(ending.status) is None else Exit.INSTANCE_FAILED


def _view(*, color: bool | None) -> View:
    from durably.cli.views import LogView

    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from durably.cli.progress import LiveView

        return LiveView(console(color=color))
    return LogView(resumed=True)
