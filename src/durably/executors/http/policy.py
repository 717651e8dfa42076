"""Which addresses an app may call, and what a request may cost."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

from durably.errors import UsageError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NEVER_PUBLIC: Final = tuple(
    ip_network(text)
    for text in (
        "192.0.0.0/24",  # protocol assignments; metadata of a cloud at 192.0.0.192
        "168.63.129.16/32",  # a cloud's platform services, under an address that looks public
        "64:ff9b:1::/48",  # translation to private IPv4
        "fec0::/10",  # private, by an older rule
        "5f00::/16",  # segment routing
    )
)
"""Beside what `ipaddress` knows not to be global: older versions of it know fewer."""

_TRANSLATED: Final = IPv6Network("64:ff9b::/96")
"""IPv6 addresses that a gateway translates to the IPv4 address in their last 32 bits."""

_CROSS_ORIGIN: Final = (
    "accept",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "content-encoding",
    "content-language",
    "content-type",
    "prefer",
    "traceparent",
    "tracestate",
    "user-agent",
)


@dataclass(frozen=True, kw_only=True)
class HttpPolicy:
    """What `call_http` may reach, and limits. Each has an environment variable: ``DURABLY_HTTP_`` and its name in capitals.

    Every request, each redirect and each poll is checked. A host name is resolved once for a request, and the connection
    goes to an address that was checked.

    Attributes:
        allow_networks: Networks (such as ``"10.0.0.0/8"``) and addresses that may be called although they are not public. By
            default loopback, private, link-local (where clouds keep credentials), multicast and reserved ones are refused.
        ports: The only ports that may be called; by default 80, 443 and all from 1024 on.
        max_response_bytes: A larger body is refused, also when it only becomes that large when it is decompressed. Responses
            are in the history.
        max_redirects: In one request.
        connect_timeout_s: For each address of a host.
        poll_interval_s: Between polls when neither the server nor the call says.
        cross_origin_headers: The headers that go along to another origin (scheme, host and port): none that could be a
            credential.

    Raises:
        UsageError: A value is none of these.
    """

    allow_networks: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    max_response_bytes: int = 1 << 20
    max_redirects: int = 10
    connect_timeout_s: float = 10.0
    poll_interval_s: float = 30.0
    cross_origin_headers: tuple[str, ...] = _CROSS_ORIGIN
    _allowed: tuple[Network, ...] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_allowed", tuple(_network(text) for text in _texts(self, "allow_networks")))
        headers = tuple(name.lower() for name in _texts(self, "cross_origin_headers"))
        object.__setattr__(self, "cross_origin_headers", headers)
        for port in _items(self, "ports"):
            if type(port) is not int or not 0 < port < 65536:
                raise UsageError(f"HttpPolicy: ports has {port!r}: expected numbers from 1 to 65535")
        for name in ("max_response_bytes", "max_redirects"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise UsageError(f"HttpPolicy: {name} is {value!r}: expected a whole number, 0 or more")
        for name in ("connect_timeout_s", "poll_interval_s"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value < math.inf:
                raise UsageError(f"HttpPolicy: {name} is {value!r}: expected a number of seconds above 0")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> HttpPolicy:
        """A policy from ``DURABLY_HTTP_…`` variables; lists have commas.

        Raises:
            UsageError: A variable does not hold what the setting needs; the message names it.
        """
        source = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        for one in fields(cls):
            variable = f"DURABLY_HTTP_{one.name.upper()}"
            text = source.get(variable)
            if text is None or not one.init:
                continue
            try:
                values[one.name] = _parsed(one.name, one.default, text)
            except ValueError:
                raise UsageError(
                    f"Environment variable {variable} is {text!r}: expected {type(one.default).__name__}"
                ) from None
        return cls(**values)

    def allows_port(self, port: int) -> bool:
        """True when the port may be called."""
        return port in self.ports if self.ports else port in (80, 443) or port >= 1024

    def allows(self, address: str) -> bool:
        """True when the address may be connected to. One that stands for another one is that other one."""
        real = _real(ip_address(address))
        if any(real.version == network.version and real in network for network in self._allowed):
            return True
        return (
            real.is_global
            and not real.is_multicast
            and not any(real.version == network.version and real in network for network in _NEVER_PUBLIC)
        )


def _real(address: Address) -> Address:
    """Where packets to an address end: some IPv6 addresses are a way to write, or to reach, an IPv4 address."""
    if isinstance(address, IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
    if not inner and (address in _TRANSLATED or (0xFFFF < int(address) < 1 << 32)):
        inner = IPv4Address(int(address) & 0xFFFFFFFF)  # the second: "IPv4-compatible", long out of use
    return inner or address


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise UsageError(
            f"HttpPolicy: allow_networks has {text!r}: {error}; expected a network such as '10.0.0.0/8', or an address"
        ) from None


def _items(policy: HttpPolicy, name: str) -> tuple[Any, ...]:
    value = getattr(policy, name)
    if not isinstance(value, tuple | list):
        raise UsageError(f"HttpPolicy: {name} is {value!r}: expected a tuple")
    return tuple(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _texts(policy: HttpPolicy, name: str) -> tuple[str, ...]:
    for value in _items(policy, name):
        if not isinstance(value, str):
            raise UsageError(f"HttpPolicy: {name} has {value!r}: expected text")
    return _items(policy, name)


def _parsed(name: str, default: Any, text: str) -> Any:
    if not isinstance(default, tuple):
        return type(default)(text)
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    return tuple(int(part) for part in parts) if name == "ports" else parts
