"""How a host of the command line is reached from outside: HTTP, gRPC, both, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from durably.clock import SystemRandom
from durably.errors import OperationError, UsageError

if TYPE_CHECKING:
    from durably.app import AppHost
    from durably.executors.remote.executor import RemoteExecutor
    from durably.grpc_server.server import GrpcServer
    from durably.http_api.server import HttpServer


_ITEM_BYTES_MAX: Final = "DURABLY_GRPC_ITEM_BYTES_MAX"


class GrpcFace(NamedTuple):
    """What the command line says of gRPC.

    Attributes:
        address: Where to listen.
        hub: The URL of the hub, secrets included.
        others: Names of other hubs, or ``*``, between commas.
    """

    address: str
    hub: str
    others: str

    @property
    def names(self) -> frozenset[str]:
        """The other hubs, each once."""
        return frozenset(name.strip().lower() for name in self.others.split(",") if name.strip())


@dataclass(frozen=True)
class Faces:
    """What a host serves.

    Attributes:
        http: Its server of HTTP, or None.
        grpc: Its server of gRPC, or None.
    """

    http: HttpServer | None = None
    grpc: GrpcServer | None = None

    async def stop(self) -> None:
        """Take no more requests, and let those that are under way end. What HTTP has failed of is raised."""
        try:
            if self.grpc is not None:
                await self.grpc.stop()
        finally:
            if self.http is not None:
                await self.http.stop()


def remote_workers(settings: Mapping[str, str]) -> RemoteExecutor:
    """What runs functions in workers that connect over gRPC, for a host.

    Raises:
        OperationError: The extra is missing.
        UsageError: A setting is wrong.
    """
    try:
        from durably.executors.remote.executor import RemoteExecutor
    except ImportError as error:
        raise _missing(error) from None
    text = settings.get(_ITEM_BYTES_MAX)
    if text is None:
        return RemoteExecutor(SystemRandom())
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise UsageError(f"{_ITEM_BYTES_MAX} is {text!r}: expected a number of bytes above 0")
    return RemoteExecutor(SystemRandom(), int(text))


def _missing(error: ImportError) -> OperationError:
    return OperationError(f"gRPC needs the extra 'grpc' ({error}): pip install 'durably[grpc]'")


async def open_grpc(
    host: AppHost, where: GrpcFace, settings: Mapping[str, str], *, insecure: bool | None
) -> GrpcServer:
    """Serve gRPC for the clients of the Durable Task SDKs, with the keys, tokens and certificates of HTTP.

    Raises:
        UsageError: ``--grpc`` is no address, one for which there is no credential yet, or the extra is missing.
        OperationError: The address is taken, or not one of this machine.
    """
    try:
        from durably.cli.grpc_hubs import OtherHubs, service_of
        from durably.grpc_server.gate import Gate
        from durably.grpc_server.server import Address
        from durably.grpc_server.serving import grpc_server, options_at
    except ImportError as error:
        raise _missing(error) from None
    from durably.http_api.options import HttpOptions

    address = Address.parse(where.address)
    try:
        options = options_at(HttpOptions.from_environment(settings, insecure=insecure), address)
        url = host.engine.store.url
        gate = Gate.of(options, url, host.engine.clock)
        server = grpc_server(
            service_of(host, gate, options),
            address,
            options,
            name=options.hub_at(url),
            others=where.names,
            find=OtherHubs(where.hub, host.engine.options, options, settings).find,
        )
    except UsageError as error:
        raise UsageError(f"--grpc {where.address}: {error}") from None
    await server.start()
    return server
