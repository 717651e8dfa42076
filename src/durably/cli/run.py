"""``durably run``: serves a hub until it is told to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import click

from durably.cli.output import warn
from durably.cli.settings import hub_option, shared
from durably.errors import OperationError

if TYPE_CHECKING:
    from durably.app import App, AppHost
    from durably.http_api.server import HttpServer

_EXAMPLES = """\b
Examples:
  durably run orders.py
  durably run shop.orders shop.billing:app --hub sqlite:////var/lib/shop/hub.db
  durably run orders.py --port 8080
  durably run orders.py --dev
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
@click.option(
    "--dev",
    is_flag=True,
    envvar="DURABLY_DEV",
    show_envvar=True,
    help="For development: reload on save, tell what fails, replay each turn, ask nobody on this machine for a key.",
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
    dev: bool,
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

    --dev serves the code as it is now: a save reloads it within half a second, and instances go on. Code that cannot be
    loaded is explained, and the next save tries again. Each turn is replayed at once, so that code which is not
    deterministic shows; what fails is told with the frames of your code (all frames: --debug).
    """
    face = Face(bind, port, insecure) if http else None
    if dev:
        from durably.cli.dev.run import run_dev

        return run_dev(context, apps, hub, face)
    from durably.cli.apps import load_what_loads
    from durably.cli.hosting import run_loop
    from durably.cli.logs import set_up_logging
    from durably.cli.serving import Service, serve

    app, failed = load_what_loads(apps)
    for error in failed:
        error.show()
    set_up_logging(context, "info")

    async def open_http(host: AppHost) -> HttpServer | None:
        return None if face is None else await _open(app, host, face)

    return run_loop(serve(Service(app=app, hub=hub, missing=len(failed), open_http=open_http)))


class Face(NamedTuple):
    """What the command line says of HTTP; None: nothing."""

    bind: str | None
    port: int | None
    insecure: bool | None


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
