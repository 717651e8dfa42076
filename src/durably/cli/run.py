"""``durably run``: serves a hub until it is told to stop."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from durably.cli.output import Exit, complain, say
from durably.cli.settings import hub_option, shared

if TYPE_CHECKING:
    from durably.app import App

STALL_LIMIT_S = 300.0
"""A host whose event loop is held up for longer ends with exit code 75: whoever supervises it starts it again."""

_EXAMPLES = """\b
Examples:
  durably run orders.py
  durably run shop.orders shop.billing:app --hub sqlite:////var/lib/shop/hub.db
"""


@click.command("run", short_help="Serve a hub until stopped.", epilog=_EXAMPLES)
@click.argument("apps", metavar="APP...", nargs=-1, required=True)
@hub_option
@shared
@click.pass_context
def run_command(context: click.Context, apps: tuple[str, ...], hub: str) -> int:
    """Serve the functions of one or several APPs until Ctrl-C or SIGTERM.

    APP is a file or a module, and the name of the App in it when that is not "app": orders.py, shop.orders,
    orders.py:billing.

    An APP that cannot be loaded is named, and the others are served: its work waits until a host can do it.

    When code holds up the event loop for 300 seconds (DURABLY_STALL_LIMIT_S, 0 for never), the process ends with exit code
    75: let a supervisor start it again. What kills or hangs its process five times is parked, and the rest goes on.

    Stopping waits for running activities (DURABLY_DRAIN_TIMEOUT_S, 10 seconds); a second signal ends it at once. What
    did not end is done again by the next host. Logs go to stderr.
    """
    from durably.cli.apps import load_what_loads
    from durably.cli.hosting import run_loop
    from durably.cli.logs import set_up_logging

    app, failed = load_what_loads(apps)
    for error in failed:
        error.show()
    set_up_logging(context, "info")
    return run_loop(_serve(app, hub, missing=len(failed)))


async def _serve(app: App, hub: str, *, missing: int) -> int:
    import asyncio
    from dataclasses import replace

    from durably.cli.hosting import Signals, drain
    from durably.engine.options import EngineOptions

    options = EngineOptions.from_environment()
    if "DURABLY_STALL_LIMIT_S" not in os.environ:
        options = replace(options, stall_limit_s=STALL_LIMIT_S)
    if missing:  # what they would do is not failed: it waits for a host that knows it
        options = replace(options, unknown_functions="wait")
    with Signals() as signals:
        host = app.host(hub, options=options)
        await host.start()
        _announce(app, host.engine.store.url, missing)
        failed = asyncio.ensure_future(host.engine.failed())
        asked = asyncio.ensure_future(signals.asked.wait())
        await asyncio.wait({failed, asked}, return_when=asyncio.FIRST_COMPLETED)
        failure = host.engine.failure
        for waiting in (failed, asked):
            waiting.cancel()
        await asyncio.gather(failed, asked, return_exceptions=True)
        await drain(host, signals)
    if failure is not None:
        complain(f"The host of {hub} stopped by itself: {failure}")
        return Exit.FAILED
    say("Stopped")
    return Exit.OK


def _announce(app: App, url: str, missing: int) -> None:
    registry = app.registry
    click.echo(f"Serving {url} (pid {os.getpid()})")
    click.echo(f"  orchestrators  {', '.join(registry.names('orchestrator')) or 'none'}")
    click.echo(f"  activities     {', '.join(registry.names('activity')) or 'none'}")
    if missing:
        click.echo(
            f"  degraded       {missing} app{'' if missing == 1 else 's'} could not be loaded, see above: the work waits"
        )
    click.echo("Ready; Ctrl-C stops")
