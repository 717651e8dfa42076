"""``durably run``: serves a hub until it is told to stop."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import click

from durably.cli.output import Exit, complain, say, warn
from durably.cli.settings import hub_option, shared
from durably.errors import OperationError

if TYPE_CHECKING:
    from durably.app import App, AppHost
    from durably.http_api.server import HttpServer

STALL_LIMIT_S = 300.0
"""A host whose event loop is held up for longer ends with exit code 75: whoever supervises it starts it again."""

_EXAMPLES = """\b
Examples:
  durably run orders.py
  durably run shop.orders shop.billing:app --hub sqlite:////var/lib/shop/hub.db
  durably run orders.py --port 8080
"""


@click.command("run", short_help="Serve a hub until stopped.", epilog=_EXAMPLES)
@click.argument("apps", metavar="APP...", nargs=-1, required=True)
@hub_option
@click.option(
    "--bind",
    metavar="ADDRESS",
    envvar="DURABLY_HTTP_BIND",
    show_envvar=True,
    help="Listen on this address (default: 127.0.0.1).",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    envvar="DURABLY_HTTP_PORT",
    show_envvar=True,
    help="Listen on this port, 0 for any (default: 7071).",
)
@click.option(
    "--http/--no-http",
    default=True,
    envvar="DURABLY_HTTP",
    show_envvar=True,
    help="Serve the management API and HTTP functions (default: yes).",
)
@click.option(
    "--insecure",
    is_flag=True,
    default=None,
    envvar="DURABLY_HTTP_INSECURE",
    show_envvar=True,
    help="Ask nobody for a key; on this machine only.",
)
@shared
@click.pass_context
def run_command(
    context: click.Context,
    *,
    apps: tuple[str, ...],
    hub: str,
    bind: str | None,
    port: int | None,
    http: bool,
    insecure: bool | None,
) -> int:
    """Serve the functions of one or several APPs until Ctrl-C or SIGTERM.

    APP is a file or a module, and the name of the App in it when that is not "app": orders.py, shop.orders,
    orders.py:billing.

    An APP that cannot be loaded is named, and the others are served: its work waits until a host can do it.

    When code holds up the event loop for 300 seconds (DURABLY_STALL_LIMIT_S, 0 for never), the process ends with exit code
    75: let a supervisor start it again. What kills or hangs its process five times is parked, and the rest goes on.

    Stopping waits for running activities (DURABLY_DRAIN_TIMEOUT_S, 10 seconds); a second signal ends it at once. What
    did not end is done again by the next host. Logs go to stderr.

    HTTP: the management API and the HTTP functions of the APPs (more in DURABLY_HTTP_..., see HttpOptions).
    Whoever asks needs a key: durably keys renew makes one.
    """
    from durably.cli.apps import load_what_loads
    from durably.cli.hosting import run_loop
    from durably.cli.logs import set_up_logging

    app, failed = load_what_loads(apps)
    for error in failed:
        error.show()
    set_up_logging(context, "info")
    face = Face(bind, port, insecure) if http else None
    return run_loop(_serve(app, hub, face, missing=len(failed)))


class Face(NamedTuple):
    """What the command line says of HTTP; None: nothing."""

    bind: str | None
    port: int | None
    insecure: bool | None


async def _serve(app: App, hub: str, face: Face | None, *, missing: int) -> int:
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
        try:
            server = None if face is None else await _open(app, host, face)
        except BaseException:
            await host.stop(0)
            raise
        _announce(app, host.engine.store.url, server, missing)
        failed = asyncio.ensure_future(host.engine.failed())
        asked = asyncio.ensure_future(signals.asked.wait())
        await asyncio.wait({failed, asked}, return_when=asyncio.FIRST_COMPLETED)
        failure = host.engine.failure
        for waiting in (failed, asked):
            waiting.cancel()
        await asyncio.gather(failed, asked, return_exceptions=True)
        if server is not None:
            await server.stop()
        await drain(host, signals)
    if failure is not None:
        complain(f"The host of {hub} stopped by itself: {failure}")
        return Exit.FAILED
    say("Stopped")
    return Exit.OK


async def _open(app: App, host: AppHost, face: Face) -> HttpServer | None:
    """Serve HTTP. Where nobody has asked for it, a port that is taken, or no server at all, is no reason not to start."""
    asked = face.port is not None or face.bind is not None or app.has_http_functions
    try:
        from durably.http_api.options import HttpOptions
    except ImportError as error:
        if asked:
            raise OperationError(
                f"HTTP needs the extra 'server' ({error}): pip install 'durably[server]'"
            ) from None
        return None
    options = HttpOptions.from_environment(bind=face.bind, port=face.port, insecure=face.insecure)
    server = host.serve_http(options)
    try:
        await server.start()
    except OperationError as error:
        if asked:
            raise
        warn(f"This host serves no HTTP. {error}, or --no-http")
        return None
    return server


def _announce(app: App, url: str, server: HttpServer | None, missing: int) -> None:
    registry = app.registry
    click.echo(f"Serving {url} (pid {os.getpid()})")
    click.echo(f"  orchestrators  {', '.join(registry.names('orchestrator')) or 'none'}")
    click.echo(f"  activities     {', '.join(registry.names('activity')) or 'none'}")
    if server is not None:
        click.echo(f"  http           {server.url} (keys: durably keys --help)")
        for line in server.routes:
            click.echo(f"                 {line}")
    if missing:
        click.echo(
            f"  degraded       {missing} app{'' if missing == 1 else 's'} could not be loaded, see above: the work waits"
        )
    click.echo("Ready; Ctrl-C stops")
