"""``durably scaler``: tells KEDA how many hosts a hub takes."""

from __future__ import annotations

import signal
from types import ModuleType
from typing import TYPE_CHECKING

import click

from durably.cli.output import Exit, say
from durably.cli.settings import hub_option, settings_here, shared
from durably.errors import UsageError

if TYPE_CHECKING:
    from durably.scaling.options import ScalerOptions

_EXAMPLES = """\b
Examples:
  durably scaler --hub postgresql://db/shop
  durably scaler --bind 0.0.0.0:7072 --tls-cert scaler.pem --tls-key scaler.key --client-ca keda.pem
"""


@click.command("scaler", short_help="Tell KEDA how many hosts a hub takes.", epilog=_EXAMPLES)
@hub_option
@click.option(
    "--bind",
    metavar="ADDRESS:PORT",
    envvar="DURABLY_SCALER_BIND",
    default="127.0.0.1:7072",
    show_default=True,
    show_envvar=True,
    help="Listen there, for gRPC. Beyond this machine it takes --client-ca, or --insecure.",
)
@click.option(
    "--tls-cert",
    metavar="FILE",
    envvar="DURABLY_SCALER_TLS_CERT",
    show_envvar=True,
    help="PEM file of the certificate, with intermediate ones.",
)
@click.option(
    "--tls-key", metavar="FILE", envvar="DURABLY_SCALER_TLS_KEY", show_envvar=True, help="PEM file."
)
@click.option(
    "--client-ca",
    metavar="FILE",
    envvar="DURABLY_SCALER_CLIENT_CA",
    show_envvar=True,
    help="PEM file: clients have to show a certificate of this authority.",
)
@click.option(
    "--insecure",
    is_flag=True,
    envvar="DURABLY_SCALER_INSECURE",
    show_envvar=True,
    help="Whoever reaches the address may ask, with or without TLS: where the network keeps others out.",
)
@shared
@click.pass_context
def scaler_command(
    context: click.Context,
    *,
    hub: str,
    bind: str,
    tls_cert: str | None,
    tls_key: str | None,
    client_ca: str | None,
    insecure: bool,
) -> int:
    """Serve the external scaler of KEDA for one hub on PostgreSQL, until Ctrl-C or SIGTERM.

    The metric is the number of hosts that durably hub load recommends. A message that comes, or a timer that is due soon, is
    told at once (triggers of type external-push). Who asks may choose numbers of the rule, and no other hub.
    """
    import asyncio

    from durably.cli.logs import set_up_logging

    set_up_logging(context, "info", settings_here())
    try:
        from durably.scaling.options import ScalerOptions

        options = ScalerOptions(
            bind=bind, tls_certificate=tls_cert, tls_key=tls_key, client_ca=client_ca, insecure=insecure
        )
        from durably.scaling import keda
    except ImportError as error:
        raise UsageError(
            f"The scaler needs the extra 'grpc' ({error}): pip install 'durably[grpc]'"
        ) from None
    return asyncio.run(_serve(hub, options, keda))


async def _serve(hub: str, options: ScalerOptions, keda: ModuleType) -> int:
    import asyncio

    from durably.clock import SystemClock
    from durably.scaling.lookout import Lookout
    from durably.storage.open import hub_name, open_store, shown_url

    store = open_store(hub).inner  # what is encrypted is not read
    if not store.capabilities.shared:
        raise UsageError(
            f"Hub {shown_url(hub)} is served by one process: there is nothing to scale. Expected one on PostgreSQL, such as "
            "--hub postgresql://host/database?hub=name"
        )
    asked = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    await store.open(create=False)
    try:
        server = keda.ScalerServer(keda.KedaService(Lookout(store, SystemClock()), hub_name(hub)), options)
        await server.start()
        place = f"{options.bind.rpartition(':')[0]}:{server.port}"
        say(f"Telling the load of {store.url} on {place} (gRPC); Ctrl-C stops")
        await asked.wait()
        await server.stop()
    finally:
        await store.close()
    say("Stopped")
    return Exit.OK
