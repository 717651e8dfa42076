"""``durably run``: serves a hub until it is told to stop."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from durably.cli.output import Exit, complain, say
from durably.cli.settings import hub_option, shared

if TYPE_CHECKING:
    from durably.app import App

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

    Stopping waits for running activities (DURABLY_DRAIN_TIMEOUT_S, 10 seconds); a second signal ends it at once. What
    did not end is done again by the next host. Logs go to stderr.
    """
    from durably.cli.apps import load_apps
    from durably.cli.hosting import run_loop
    from durably.cli.logs import set_up_logging

    app = load_apps(apps)
    set_up_logging(context, "info")
    return run_loop(_serve(app, hub))


async def _serve(app: App, hub: str) -> int:
    import asyncio

    from durably.cli.hosting import Signals, drain

    with Signals() as signals:
        host = app.host(hub)
        await host.start()
        _announce(app, host.engine.store.url)
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


def _announce(app: App, url: str) -> None:
    registry = app.registry
    click.echo(f"Serving {url} (pid {os.getpid()})")
    click.echo(f"  orchestrators  {', '.join(registry.names('orchestrator')) or 'none'}")
    click.echo(f"  activities     {', '.join(registry.names('activity')) or 'none'}")
    click.echo("Ready; Ctrl-C stops")
