"""From one request to the next: redirects, polls, and which headers may go along."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx
from msgspec.structs import replace

from durably.errors import HttpRefusedError
from durably.program.http import HttpRequest

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

_SECONDS: Final = re.compile(r"\d{1,12}")

_PORTS: Final = {"http": 80, "https": 443}

FUNCTIONS_KEY: Final = "x-functions-key"
"""Our own key, too: it starts an operation, and is none of the business of the URL that tells how that goes."""


def parsed(uri: str) -> httpx.URL:
    """A URI that can be called.

    Raises:
        HttpRefusedError: It is malformed, of another scheme, or holds a password.
    """
    try:
        url = httpx.URL(uri)
    except (httpx.InvalidURL, ValueError) as error:
        raise HttpRefusedError(
            f"HTTP uri is malformed: {error}; expected an absolute http or https URI"
        ) from None
    if url.scheme not in _PORTS or not url.host:
        raise HttpRefusedError(
            f"HTTP uri '{shown(url)}' cannot be called: expected http:// or https:// and a host"
        )
    if url.port is not None and not 0 < url.port < 65536:
        raise HttpRefusedError(f"HTTP uri '{shown(url)}' has port {url.port}: expected 1 to 65535")
    if url.userinfo:
        raise HttpRefusedError(
            f"HTTP uri '{shown(url)}' holds a user or a password: expected none; use a token source or a header"
        )
    return url


def shown(uri: httpx.URL | str) -> str:
    """A URI for messages: without what may be secret in it."""
    url = httpx.URL(uri)
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))


def port_of(url: httpx.URL) -> int:
    """The port that is called."""
    return url.port or _PORTS[url.scheme]


def origin_of(url: httpx.URL) -> tuple[str, str, int]:
    """Scheme, host and port: whom a credential was meant for."""
    return url.scheme, url.host, port_of(url)


def redirected(
    request: HttpRequest, status: int, headers: Mapping[str, str], cross_origin: tuple[str, ...]
) -> HttpRequest | None:
    """The request that a redirect asks for, or None when it is none.

    As browsers do it: 303 is followed with GET, 301 and 302 turn a POST into a GET, 307 and 308 change nothing.
    """
    location = headers.get("location")
    if status not in _REDIRECTS or not location:
        return None
    to_get = (status == 303 and request.method != "HEAD") or (
        status in (301, 302) and request.method == "POST"
    )
    return _moved(without_content(request) if to_get else request, location, cross_origin)


def poll_of(
    request: HttpRequest, status: int, headers: Mapping[str, str], cross_origin: tuple[str, ...]
) -> HttpRequest | None:
    """The request that asks how a long operation goes, or None when the answer is no 202 with a location."""
    location = headers.get("location")
    if status != 202 or not request.polls or not location:
        return None
    bare = without_content(request)
    kept = {name: value for name, value in bare.headers.items() if name != FUNCTIONS_KEY}
    return _moved(replace(bare, headers=kept), location, cross_origin)


def without_content(request: HttpRequest) -> HttpRequest:
    """A GET instead."""
    kept = {name: value for name, value in request.headers.items() if not name.startswith("content-")}
    return replace(request, method="GET", content="", is_base64=False, headers=kept)


def _moved(request: HttpRequest, location: str, cross_origin: tuple[str, ...]) -> HttpRequest:
    """The request to another place. Another origin gets harmless headers only, and what is dropped never comes back."""
    here = httpx.URL(request.uri)
    try:
        there = here.join(location)
    except (httpx.InvalidURL, ValueError) as error:
        raise HttpRefusedError(
            f"'{shown(here)}' points to a malformed location: {error}; expected an http or https URI"
        ) from None
    there = parsed(str(there))
    if origin_of(there) == origin_of(here):
        return replace(request, uri=str(there))
    kept = {name: value for name, value in request.headers.items() if name in cross_origin}
    return replace(request, uri=str(there), headers=kept, token_source=None)


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds until the server wants to be asked again; None when it does not say.

    A date is compared with the server's own ``Date`` where there is one: its clock may be off.
    """
    text = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    due = _date(text)
    if due is None:
        return None
    return max(0.0, (due - (_date(headers.get("date", "")) or now)).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
