"""A gRPC server in the event loop of a host."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import grpc
import grpc.aio

from durably.errors import OperationError, UsageError
from durably.grpc_server.service import SERVICE, Handlers
from durably.http_api.options import HttpOptions
from durably.http_api.tls import Tls

MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of a message, either way: gRPC's own limit of 4 MiB is less than a payload may be. Clients have limits of their own."""

_CALLS_MAX: Final = 10_000
"""At once, with those that wait for an instance and the streams of workers; more are answered with RESOURCE_EXHAUSTED."""

_GRACE_S: Final = 0.5
"""Calls that are under way may end in this time when it stops."""

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.so_reuseport", 0),  # else two hosts could share a port, each with half of the calls
    ("grpc.keepalive_time_ms", 60_000),  # peers that are gone do not keep their streams
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),  # clients may look whether we are here
)


class Address(NamedTuple):
    """Where to listen.

    Attributes:
        host: A name or an address, IPv6 without brackets.
        port: 0 for any free one.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, option: str = "--grpc") -> Address:
        """An address and a port, such as ``localhost:4001`` or ``[::1]:4001``.

        Raises:
            UsageError: It is none; the message names the option.
        """
        host, _, port = text.strip().rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        is_port = port.isascii() and port.isdigit() and int(port) <= 65_535
        if not bare or not is_port or ("]" in bare) or (":" in bare and bare == host):
            raise UsageError(
                f"{option} is {text!r}: expected an address and a port, such as localhost:4001 or [::1]:4001"
            )
        return cls(bare, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Service(Protocol):
    """What a server answers.

    Attributes:
        way_in: How to get in, in a few words.
    """

    @property
    def way_in(self) -> str: ...

    def handlers(self) -> Handlers:
        """By the name of the method."""
        ...

    async def close(self) -> None:
        """No call comes any more. Idempotent."""
        ...


class GrpcServer:
    """Serves until it is stopped.

    Args:
        service: What is answered.
        address: Where.
        options: Of HTTP: the files for TLS are the same.

    Attributes:
        url: Where it is; known once it is open.

    Raises:
        UsageError: A file for TLS cannot be used.
    """

    def __init__(self, service: Service, address: Address, options: HttpOptions) -> None:
        self._service = service
        self._address = address
        self._credentials = _credentials(options)
        self._server: grpc.aio.Server | None = None
        self.url = ""

    @property
    def way_in(self) -> str:
        """How to get in, in a few words."""
        return self._service.way_in

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            OperationError: The address is taken, or not one of this machine.
        """
        server = grpc.aio.server(maximum_concurrent_rpcs=_CALLS_MAX, options=_OPTIONS)
        # Registered: each method takes its calls by itself. Else all of them come in through one door, one after the other.
        untyped: Any = server  # the type stubs are behind
        untyped.add_registered_method_handlers(SERVICE, self._service.handlers())
        port = self._address.port
        for address in _resolved(self._address):
            place = str(address._replace(port=port))
            try:
                if self._credentials is None:
                    port = server.add_insecure_port(place)
                else:
                    port = server.add_secure_port(place, self._credentials)
            except RuntimeError as error:  # somebody was faster
                await server.stop(None)
                raise _cannot_listen(self._address, str(error)) from None
        await server.start()
        self._server = server
        scheme = "grpc" if self._credentials is None else "grpcs"
        self.url = f"{scheme}://{self._address._replace(port=port)}"

    async def stop(self, grace_s: float = _GRACE_S) -> None:
        """Take no more calls, and let those that are under way end, within their time; those that wait are hung up on.

        Idempotent.
        """
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace_s)
            await self._service.close()


def _resolved(address: Address) -> list[Address]:
    """Where to listen: on both loopback addresses for ``localhost``, since clients may try either one first.

    Each is tried here: gRPC says of a port that it cannot have no more than that, and that on stderr.

    Raises:
        OperationError: The address is taken, or not one of this machine.
    """
    hosts = ["127.0.0.1", "::1"] if address.host.lower() == "localhost" else [address.host]
    found: list[Address] = []
    for host in hosts:
        try:
            for place in _places(host, address.port):
                _try(place)
        except OSError as error:
            if found and not _has(host):
                continue  # a machine without IPv6
            raise _cannot_listen(address, error.strerror or str(error)) from None
        found.append(address._replace(host=host))
    return found


_Place = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]


def _places(host: str, port: int) -> Iterator[_Place]:
    for family, _, _, _, place in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        yield family, place  # type: ignore[misc]


def _try(place: _Place) -> None:
    family, where = place
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        trial.bind(where)
        trial.listen(1)


def _has(host: str) -> bool:
    """Whether this machine has an address at all."""
    try:
        for place in _places(host, 0):
            _try(place)
    except OSError:
        return False
    return True


def _cannot_listen(address: Address, why: str) -> OperationError:
    return OperationError(
        f"Cannot listen on {address} for gRPC: {why}. Stop what listens there, or choose another place with --grpc"
    )


# --- TLS -------------------------------------------------------------------------------------------------------------


def _credentials(options: HttpOptions) -> grpc.ServerCredentials | None:
    """What the options say of TLS, or None: none is spoken. Files that are replaced hold for the connections that follow."""
    if not options.tls_certificate:
        return None
    if options.tls_passphrase:
        raise UsageError(
            "tls_passphrase is set, and gRPC takes no key that is encrypted: expected a plain one"
        )
    files = _Files(Path(options.tls_certificate), Path(options.tls_key))
    renewed: Any = files.renewed  # None is allowed, but for the type stubs
    return grpc.dynamic_ssl_server_credentials(files.first, renewed)


class _Files:
    """A certificate and its key, as they are on the disk."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate, self._key = certificate, key
        Tls(certificate, key, "")  # says which file is wrong: gRPC does not
        self._held = self._read()
        self.first = _configuration(*self._held)

    def _read(self) -> tuple[bytes, bytes]:
        return self._certificate.read_bytes(), self._key.read_bytes()

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """What there is for a new connection; None: what it was. Half of a pair is not taken. Called by threads of gRPC."""
        try:
            found = self._read()
            if found == self._held:
                return None
            Tls(self._certificate, self._key, "")
            if found != self._read():
                return None
        except (UsageError, OSError):  # the HTTP face, or the next start, says what is wrong with them
            return None
        self._held = found
        return _configuration(*found)


def _configuration(certificate: bytes, key: bytes) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(key, certificate)])
