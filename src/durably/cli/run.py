"""``durably run``: serves a hub until it is told to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import click

from durably.cli.output import warn
from durably.cli.processes.count import Count, CountType
from durably.cli.settings import app_hub_option, serving_options, settings_of, shared
from durably.errors import OperationError

if TYPE_CHECKING:
    from durably.app import App, AppHost
    from durably.cli.processes.worker import Attached
    from durably.config.settings import Settings
    from durably.grpc_server.server import GrpcServer
    from durably.http_api.server import HttpServer

LINGER_S = 0.5
"""A worker that stops lets clients whose connections stay open send one more request for so long: others serve the next."""

_EXAMPLES = """\b
Examples:
  durably run orders.py
  durably run shop.orders shop.billing:app --hub sqlite:////var/lib/shop/hub.db
  durably run orders.py --port 8080
  durably run --grpc localhost:4001
  durably run orders.py --dev
  durably run orders.py --hub postgresql://db/shop --processes auto
"""


@click.command("run", short_help="Serve a hub until stopped.", epilog=_EXAMPLES)
@click.argument("apps", metavar="[APP]...", nargs=-1)
@app_hub_option
@serving_options
@click.option(
    "--grpc",
    metavar="ADDRESS:PORT",
    envvar="DURABLY_GRPC",
    show_envvar=True,
    help="Also serve gRPC there, for clients of the Durable Task SDKs; APP may be left out then.",
)
@click.option(
    "--grpc-hubs",
    metavar="NAME,...",
    default="",
    envvar="DURABLY_GRPC_HUBS",
    show_envvar=True,
    help="Other hubs that calls over gRPC may name, * for any: beside --hub, made when first used.",
)
@click.option(
    "--dev",
    is_flag=True,
    envvar="DURABLY_DEV",
    show_envvar=True,
    help="For development: reload on save, tell what fails, replay each turn, ask nobody on this machine for a key.",
)
@click.option(
    "--processes",
    type=CountType(),
    envvar="DURABLY_PROCESSES",
    show_envvar=True,
    help="Serve with so many processes, auto: one a CPU, on PostgreSQL; MIN:MAX: as many between as there is work for.",
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
    grpc: str | None,
    grpc_hubs: str,
    dev: bool,
    processes: Count | None,
) -> int:
    """Serve the functions of one or several APPs until Ctrl-C or SIGTERM.

    APP is a file or a module, and the name of the App in it when that is not "app": orders.py, shop.orders,
    orders.py:billing.

    An APP that cannot be loaded is named, and the others are served: its work waits until a host can do it.

    When code holds up the event loop for 300 seconds (DURABLY_STALL_LIMIT_S, 0 for never), the process ends with exit code
    75: let a supervisor start it again. What kills or hangs its process five times is parked, and the rest goes on.

    Stopping waits for running activities (DURABLY_DRAIN_TIMEOUT_S, 10 seconds); a second signal ends it at once. What
    did not end is done again by the next host. Logs go to stderr.

    Settings: host.json and local.settings.json beside APP, or in the current folder; the environment; these options. What is
    unknown or not supported is named; durably config show --origin tells what holds, and why.

    HTTP: the management API and the HTTP functions of the APPs (more in DURABLY_HTTP_..., see HttpOptions).
    Nobody on this machine needs a key until there is one: durably keys create NAME --role ROLE. Any other --host needs one.

    --grpc localhost:4001: the Durable Task protocol, with the keys, tokens and certificates of HTTP. What the APPs do not
    know waits for somebody who does. --grpc-hubs orders,mails: calls may name these hubs, too (taskhub in the metadata);
    each is a file or schema of that name beside --hub, has its own keys, and its functions are in workers.

    --processes: one process holds the port and starts the others, each a host of its own; what they print comes with their
    numbers. One that dies is replaced. SIGHUP starts new ones with the code as it is now, one after the other, and each old
    one stops when the new one serves. When five in a row do not get to serve, all ends. MIN:MAX starts and stops workers as
    durably hub load recommends; with a MIN of 0, a message, a timer or a connection starts the first one.

    --dev serves the code as it is now: a save reloads it within half a second, and instances go on. Code that cannot be
    loaded is explained, and the next save tries again. Each turn is replayed at once, so that code which is not
    deterministic shows; what fails is told with the frames of your code (all frames: --debug).
    """
    from durably.cli.from_files import left_to_files, settings_of_apps, take

    settings = settings_of_apps(apps)
    said: dict[str, Any] = {"hub": hub, "bind": bind, "port": port, "http": http, "insecure": insecure}
    said |= {"dev": dev, "processes": processes, "grpc": grpc, "grpc_hubs": grpc_hubs}
    said |= left_to_files(context, settings)
    face = Face(said["bind"], said["port"], said["insecure"]) if said["http"] else None
    attached = settings_of(context).attached
    _check_grpc(context, apps, said)
    if attached is None and said["processes"] is not None:
        from durably.cli.processes.run import can_share, run_processes

        if said["dev"]:
            raise click.UsageError("--dev reloads one process: leave --processes out", context)
        if can_share(said["hub"], said["processes"], settings):
            given = settings_of(context).arguments
            return run_processes(given, said["hub"], said["processes"], face, settings)
    if said["dev"]:
        from durably.cli.dev.run import run_dev

        return run_dev(context, apps, said["hub"], face, settings)
    take(settings)
    from durably.cli.apps import load_what_loads
    from durably.cli.hosting import run_loop
    from durably.cli.logs import set_up_logging
    from durably.cli.serving import Service, serve

    app, failed = load_what_loads(apps)
    for error in failed:
        error.show()
    set_up_logging(context, "info", settings)

    async def open_http(host: AppHost) -> HttpServer | None:
        return None if face is None else await _open(app, host, face, settings, attached)

    async def open_grpc(host: AppHost) -> GrpcServer:
        from durably.cli.faces import GrpcFace, open_grpc

        where = GrpcFace(said["grpc"], said["hub"], said["grpc_hubs"])
        return await open_grpc(host, where, settings, insecure=said["insecure"])

    return run_loop(
        serve(
            Service(
                app=app,
                hub=said["hub"],
                missing=len(failed),
                open_http=open_http,
                open_grpc=open_grpc if said["grpc"] else None,
                settings=settings,
                ready=None if attached is None else attached.is_ready,
                controlled=attached is not None,
            )
        )
    )


def _check_grpc(context: click.Context, apps: tuple[str, ...], said: dict[str, Any]) -> None:
    """Refuse before anything is opened what cannot be served over gRPC.

    Raises:
        UsageError: There is no APP and no gRPC, the address is none, or another option does not go with it.
    """
    if not said["grpc"]:
        if said["grpc_hubs"]:
            raise click.UsageError(
                "--grpc-hubs has no gRPC to be served on: expected --grpc ADDRESS:PORT, too", context
            )
        if not apps:
            raise click.UsageError(
                "Missing argument 'APP...': expected a file or module, or --grpc ADDRESS:PORT for a host without one",
                context,
            )
        return
    for option in ("dev", "processes"):
        if said[option]:
            raise click.UsageError(
                f"--grpc is served by one process that stays: leave --{option} out", context
            )
    try:
        from durably.grpc_server.server import Address
    except ImportError as error:
        raise OperationError(f"gRPC needs the extra 'grpc' ({error}): pip install 'durably[grpc]'") from None
    Address.parse(said["grpc"])


class Face(NamedTuple):
    """What the command line says of HTTP; None: nothing."""

    bind: str | None
    port: int | None
    insecure: bool | None


async def _open(
    app: App, host: AppHost, face: Face, settings: Settings, attached: Attached | None
) -> HttpServer | None:
    """Serve HTTP. Where nobody has asked for it, a port that is taken, or no server at all, is no reason not to start."""
    asked = face.port is not None or face.bind is not None or app.serves_http
    try:
        from importlib import import_module

        from durably.http_api.options import HttpOptions

        import_module("durably.http_api.server")  # the options alone need no extra
    except ImportError as error:
        if asked:
            raise OperationError(
                f"HTTP needs the extra 'server' ({error}): pip install 'durably[server]'"
            ) from None
        return None
    options = HttpOptions.from_environment(settings, bind=face.bind, port=face.port, insecure=face.insecure)
    server = host.serve_http(options)
    if attached is not None:
        await server.start(attached.listening(), linger_s=LINGER_S)
        return server
    try:
        await server.start()
    except OperationError as error:
        if asked:
            raise
        warn(f"This host serves no HTTP. {error}, or --no-http")
        return None
    return server
