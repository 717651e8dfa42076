"""One request and its answer: resolve, check, connect to what was checked, read no more than allowed."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import zlib
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Final, NamedTuple

import httpx

from durably.errors import HttpRefusedError, HttpRequestError
from durably.executors.http.hops import port_of, shown
from durably.executors.http.policy import HttpPolicy

Resolver = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a host."""

_GZIP: Final = 16 + zlib.MAX_WBITS


class Outgoing(NamedTuple):
    """What is sent; header names in lower case."""

    method: str
    url: httpx.URL
    headers: Mapping[str, str]
    body: bytes


class Answer(NamedTuple):
    """What came back; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, by the system. What looks like a number to it (``0x7f.1``) is an address, too."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def exchange(sent: Outgoing, policy: HttpPolicy, resolver: Resolver = resolve) -> Answer:
    """Send a request, and read the answer. Redirects are answers.

    The connection serves this request alone: no other one, perhaps to another name on the same address, gets into it.

    Raises:
        HttpRefusedError: The policy does not allow it.
        HttpRequestError: There is no answer.
    """
    addresses = await _checked_addresses(sent.url, policy, resolver)
    problem: Exception | None = None
    for address in addresses:
        request = _request(sent, address, policy)
        try:
            async with httpx.AsyncHTTPTransport(verify=_trust(), trust_env=False) as transport:
                response = await transport.handle_async_request(request)
                return await _read(response, sent.url, policy)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            problem = error  # nothing was sent: try the next address
        except httpx.LocalProtocolError:
            # Without its message, which quotes what cannot be sent: that may be a secret.
            raise HttpRefusedError(
                f"{sent.method} '{shown(sent.url)}' cannot be written as HTTP: expected other headers"
            ) from None
        except (httpx.TransportError, httpx.StreamError, zlib.error) as error:
            raise _failed(sent, error) from error
    assert problem is not None  # noqa: S101 - there is an address
    raise _failed(sent, problem) from problem


async def _checked_addresses(url: httpx.URL, policy: HttpPolicy, resolver: Resolver) -> list[str]:
    port = port_of(url)
    if not policy.allows_port(port):
        raise HttpRefusedError(
            f"HTTP uri '{shown(url)}' has port {port}: expected {_ports(policy)}; list it in HttpPolicy(ports=...)"
        )
    try:
        addresses = await resolver(url.host, port)
    except OSError as error:
        raise HttpRequestError(
            f"Host of '{shown(url)}' is unknown: {error}; check its name, or try later"
        ) from error
    except UnicodeError as error:
        raise HttpRefusedError(
            f"Host of '{shown(url)}' cannot be looked up: {error}; check its name"
        ) from None
    allowed = [address for address in addresses if policy.allows(address)]
    if not allowed:
        raise HttpRefusedError(
            f"Host of '{shown(url)}' has the address {', '.join(addresses) or '(none)'}: expected a public one; "
            "if it may be called, add its network to HttpPolicy(allow_networks=...) or DURABLY_HTTP_ALLOW_NETWORKS"
        )
    return allowed


def _ports(policy: HttpPolicy) -> str:
    return ", ".join(map(str, policy.ports)) if policy.ports else "80, 443, or 1024 and above"


def _request(sent: Outgoing, address: str, policy: HttpPolicy) -> httpx.Request:
    """The request to an address, in the name of the host: it is asked for by name, and so is its certificate."""
    url = sent.url
    headers = {
        "host": url.netloc.decode("ascii"),
        "accept": "*/*",
        "accept-encoding": "identity",
        "user-agent": f"durably/{_version()}",
        **sent.headers,
    }
    timeout = {"connect": policy.connect_timeout_s, "read": None, "write": None, "pool": None}
    return httpx.Request(
        sent.method,
        url.copy_with(host=address, fragment=None),
        # Latin-1, as headers travel.
        headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
        content=sent.body or None,
        extensions={"timeout": timeout, "sni_hostname": url.raw_host.decode("ascii")},
    )


async def _read(response: httpx.Response, url: httpx.URL, policy: HttpPolicy) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    limit = policy.max_response_bytes
    parts: list[bytes] = []
    size = 0
    try:
        async for part in response.aiter_raw():
            size += len(part)
            if size > limit:
                raise _too_large(url, limit)
            parts.append(part)
    finally:
        await response.aclose()
    body = b"".join(parts)
    if headers.get("content-encoding", "").strip().lower() in ("gzip", "x-gzip"):
        body = _unzipped(body, url, limit)
        headers = {name: text for name, text in headers.items() if name != "content-encoding"}
    return Answer(response.status_code, headers, body)


def _unzipped(body: bytes, url: httpx.URL, limit: int) -> bytes:
    """Sent although we ask for plain bytes. Other encodings stay as they are."""
    unpack = zlib.decompressobj(_GZIP)
    plain = unpack.decompress(body, limit + 1)
    if len(plain) > limit:
        raise _too_large(url, limit)
    return plain


def _too_large(url: httpx.URL, limit: int) -> HttpRefusedError:
    return HttpRefusedError(
        f"Answer of '{shown(url)}' is larger than {limit:,} bytes: expected no more, since it goes into the history; fetch "
        "large data in an activity, or set HttpPolicy(max_response_bytes=...)"
    )


def _failed(sent: Outgoing, error: Exception) -> HttpRequestError:
    return HttpRequestError(
        f"{sent.method} '{shown(sent.url)}' got no answer: {type(error).__name__}: {error or 'no details'}; "
        "expected an HTTP response; pass retry=RetryPolicy(...) to try again"
    )


@functools.cache
def _trust() -> ssl.SSLContext:
    """Whose certificates count. Made once: that takes as long as a hundred requests."""
    return httpx.create_ssl_context()


@functools.cache
def _version() -> str:
    return version("durably")
