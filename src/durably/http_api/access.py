"""Who is let in: there is one way in front of all routes, and this is it.

Nobody, unless a credential says so. Where only this machine can connect, nobody is asked until somebody has made a key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.requests import Request

from durably.http_api.incoming import Incoming
from durably.http_api.reading import header, query_of
from durably.http_api.refusals import Refusal
from durably.security.access_keys import KeyRing
from durably.security.capabilities import (
    ANY_INSTANCE,
    INSTANCE_VERBS,
    LIFE_S,
    START_VERBS,
    sign,
    verbs_of,
    verify,
)
from durably.security.failures import Failures
from durably.security.roles import ANYBODY, EVERYTHING, Principal

if TYPE_CHECKING:
    from pathlib import Path

    from durably.http_api.links import Credential
    from durably.security.issuer import Issuer

TOO_MANY_FAILURES: Final = "TooManyFailures"

_FAILURES: Final = frozenset(("Unauthorized", "InvalidLink", "UnknownHost", "CrossSite"))
"""Nobody is known who asks: these are held off, else anybody could fill the audit log."""

_SAFE: Final = frozenset(("GET", "HEAD", "OPTIONS"))

_OWN_PAGE: Final = frozenset((None, "same-origin", "none"))
"""What ``Sec-Fetch-Site`` is where no page of another site is behind a request."""

_FORWARDED: Final = frozenset((b"forwarded", b"via", b"x-real-ip", b"cf-connecting-ip"))
"""What proxies add, with all that begins ``x-forwarded-``: who asks may be anywhere, although this machine connects."""

_MAKE_KEY: Final = "'durably keys create NAME --role ROLE'"


class Door(Enum):
    """Who is asked for a credential: nobody, nobody until there is a key, everybody."""

    OPEN = "open"
    UNLOCKED = "unlocked"
    LOCKED = "locked"


class Access:
    """Credentials to principals, and links that carry a credential.

    Args:
        hub: The name of the hub.
        keys: The keys of now, or None: nobody is asked for one. Only for people on this machine.
        names: What a client may call this host (without port, lower case); empty: anything.
        now: The time in microseconds since 1970 UTC.
        templates: Links to start new instances carry a credential, as clients of Durable Functions 1.x need it.
        failures: Counts who shows no credential, or a wrong one.
        issuer: Whose bearer tokens are credentials, too.
        open_until_keys: While there are no keys, nobody on this machine is asked for one. See `HttpOptions.open_until_keys`.
        key_file: Where the keys are; None: in memory, where nobody can make one.
    """

    def __init__(
        self,
        hub: str,
        keys: Callable[[], KeyRing] | None,
        names: Collection[str],
        now: Callable[[], int],
        *,
        templates: bool,
        failures: Failures,
        issuer: Issuer | None = None,
        open_until_keys: bool = False,
        key_file: Path | None = None,
    ) -> None:
        self._hub = hub
        self._keys = keys
        self._names = frozenset(names)
        self._now = now
        self._templates = templates
        self._failures = failures
        self._issuer = issuer
        self._open = open_until_keys
        self._key_file = key_file

    @property
    def door(self) -> Door:
        """Who is asked for a credential now. Raises as `principal`."""
        if self._keys is None:
            return Door.OPEN
        return Door.UNLOCKED if self._open and not self._keys().asks else Door.LOCKED

    @property
    def way_in(self) -> str:
        """How to get in, for whoever starts the host. Raises as `principal`."""
        door = self.door
        if self._keys is None:
            return "no keys are asked for"
        if door is Door.LOCKED and (self._keys().keys or self._issuer is not None):
            return "keys: durably keys --help"
        if self._key_file is None:
            who = "no key is asked for" if door is Door.UNLOCKED else "nobody gets in"
            return f"{who}; for keys, start with DURABLY_HTTP_KEY_FILE, and make one with {_MAKE_KEY}"
        if door is Door.UNLOCKED:
            return f"no key is asked for until {_MAKE_KEY} has made one"
        return f"'{self._key_file}' was missing or has no key: nobody gets in until {_MAKE_KEY} has made one"

    def check_host(self, request: Request) -> None:
        """Refuse what a page of another site may have sent.

        A name that resolves to this machine and is not ours (DNS rebinding), or a change that another origin asks for.

        Raises:
            Refusal: 421 or 403.
        """
        host = header(request, b"host") or ""
        name = _host_in(f"//{host}", with_port=False)
        if name is None or (self._names and name not in self._names):
            expected = f"one of {', '.join(sorted(self._names))}" if self._names else "the name of a host"
            raise Refusal(421, f"This host is not {host[:100]!r}: expected {expected}", "UnknownHost")
        if request.method in _SAFE:
            return
        origin = header(request, b"origin")
        foreign = origin is not None and _host_in(origin, with_port=True) != host.lower()
        if foreign or header(request, b"sec-fetch-site") not in _OWN_PAGE:
            raise Refusal(
                403, "A page of another site asks for a change: expected one of this origin", "CrossSite"
            )

    async def principal(
        self, request: Request, instance_id: str | None, grant: str | None = None
    ) -> Principal:
        """Whom the credential of a request stands for: the first there is of a bearer token, a signed link, and a key.

        Args:
            request: The request.
            instance_id: The instance in its path; "" for a start, None for anything else.
            grant: A capability that came in the path.

        Raises:
            Refusal: 401, there is a credential and it is not valid.
            OperationError: The keys, or those of the issuer, cannot be read.
        """
        if self._keys is None:
            return EVERYTHING
        if self._issuer is not None and (bearer := _bearer_of(request)):
            return await _of_token(self._issuer, bearer)
        ring = self._keys()
        if self._open and self._passes(ring, request):
            return EVERYTHING
        link = grant or query_of(request).get("sig")
        return self._of_link(ring, link, instance_id) if link else _of_key(ring, request)

    async def caller(self, request: Request) -> Principal:
        """Who calls a function or an application of the app: no link opens those, and ``sig`` in a query is their own.

        Raises:
            Refusal, OperationError: As `principal`.
        """
        if self._keys is None:
            return EVERYTHING
        if self._issuer is not None and (bearer := _bearer_of(request)):
            return await _of_token(self._issuer, bearer)
        ring = self._keys()
        return EVERYTHING if self._open and self._passes(ring, request) else _of_key(ring, request)

    def _passes(self, ring: KeyRing, request: Request) -> bool:
        """True while there are no keys, for who is at this machine and follows no link of another site.

        Once there was a key it is over for as long as the host lives: a file of keys that vanishes opens nothing.
        """
        self._open = not ring.asks
        return self._open and header(request, b"sec-fetch-site") in _OWN_PAGE and not _is_forwarded(request)

    def _of_link(self, ring: KeyRing, token: str, instance_id: str | None) -> Principal:
        now_s = self._now() / 1_000_000
        for meant in (instance_id, ANY_INSTANCE):
            found = None if meant is None else verify(ring.signing, self._hub, meant, token, now_s)
            if found is not None:
                return found
        raise Refusal(
            403, "The link is not valid for this, or not any more: ask for a new one", "InvalidLink"
        )

    def noted(self, request: Request, refusal: Refusal) -> Refusal:
        """What becomes of a refusal: 429 of one for a credential, host or origin, when there were many from its address.

        Only what fails is held off. Good credentials go through whoever else fails from their address: they cannot be
        guessed, so nothing is won by keeping people out who share one.
        """
        if refusal.kind not in _FAILURES:
            return refusal
        wait_s = self._failures.count(request.client.host if request.client else "")
        if not wait_s:
            return refusal
        text = "Too many requests from your address have no valid credential, host or origin: correct it, and try again later"
        return Refusal(429, text, TOO_MANY_FAILURES, {"Retry-After": str(math.ceil(wait_s))})

    def credential_from(self, principal: Principal) -> Credential:
        """What links to an instance carry that are handed to somebody: no more than that one may, and no longer."""

        def credential(instance_id: str) -> dict[str, str]:
            return self._signed(instance_id, verbs_of(principal), principal.expires_s)

        return credential

    def credential(self, instance_id: str) -> dict[str, str]:
        """What a link carries that code of the app hands out: see `durably.http_api.links.Credential`."""
        is_template = instance_id in {"", ANY_INSTANCE}
        if self._keys is None or (is_template and not self._templates):
            return {}
        return self._signed(instance_id, INSTANCE_VERBS if instance_id else START_VERBS, None)

    def _signed(self, instance_id: str, verbs: str, until_s: int | None) -> dict[str, str]:
        signing = self._keys().signing if self._keys is not None else ()
        if not signing:
            return {}
        # The hour rounds the expiry off, so that a status that is asked for again has the same link.
        expires_s = (self._now() // 3_600_000_000 + 1) * 3_600 + LIFE_S
        if until_s is not None:
            expires_s = min(expires_s, until_s)
        return {"sig": sign(signing[-1], self._hub, instance_id, verbs, expires_s)}


def _is_forwarded(request: Request) -> bool:
    return any(name in _FORWARDED or name.startswith(b"x-forwarded-") for name, _ in request.scope["headers"])


@lru_cache(256)
def _host_in(url: str, *, with_port: bool) -> str | None:
    """The host that a URL names, in lower case; None when it is none."""
    try:
        parts = urlsplit(url)
        return (parts.netloc if with_port else parts.hostname or "").lower()
    except ValueError:
        return None


def require(principal: Principal, permission: str, instance_id: str | None) -> None:
    """Let somebody through.

    Raises:
        Refusal: 401 for nobody, 403 for somebody who may not.
    """
    if principal.may(permission, instance_id):
        return
    if principal is ANYBODY:
        raise _unauthorized("A credential is missing")
    raise Refusal(
        403, f"The {principal.name} does not open this: it needs the permission '{permission}'", "Forbidden"
    )


def sees_payloads(request: Incoming) -> bool:
    """True when whoever asks may see inputs, outputs, states, and texts that may quote them."""
    return request.principal.may("payloads", request.path_params.get("instanceId"))


def require_level(principal: Principal, level: int, function: str) -> None:
    """Let somebody call an HTTP function.

    Raises:
        Refusal: 401.
    """
    opens = principal.level >= level and principal.function in {None, function}
    if not opens:
        raise _unauthorized(
            "A key is missing" if principal is ANYBODY else f"The {principal.name} does not open this"
        )


def offered(request: Request, grant: str | None, *, links: bool) -> str:
    """What a request shows as its credential, valid or not: ``token``, ``link`` (where links open), ``key``, or nothing."""
    if (header(request, b"authorization") or "")[:7].lower() == "bearer ":
        return "token"
    query = query_of(request)
    if links and (grant or query.get("sig")):
        return "link"
    return "key" if header(request, b"x-functions-key") or query.get("code") else ""


def _bearer_of(request: Request) -> str | None:
    """The bearer token of a request.

    Raises:
        Refusal: 401, there are several.
    """
    given = request.headers.getlist("authorization")
    if len(given) > 1:
        raise _unauthorized("There is more than one credential")
    scheme, _, token = (given[0] if given else "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _of_key(ring: KeyRing, request: Request) -> Principal:
    given = header(request, b"x-functions-key") or query_of(request).get("code")
    if not given:
        return ANYBODY
    key = ring.find(given)
    if key is None:
        raise _unauthorized("The key is not valid, or not any more")
    return key.principal()


async def _of_token(issuer: Issuer, token: str) -> Principal:
    from durably.security.tokens import TokenError  # whoever has an issuer has the library

    try:
        return await issuer.principal(token)
    except TokenError as error:
        raise _unauthorized(f"The bearer token is not accepted, {error}", _BAD_TOKEN) from None


_KEY_WANTED: Final = 'ApiKey realm="durably"'
_BAD_TOKEN: Final = 'Bearer realm="durably", error="invalid_token"'  # noqa: S105 - no secret


def _unauthorized(what: str, challenge: str = _KEY_WANTED) -> Refusal:
    return Refusal(
        401,
        f"{what}: expected a key as x-functions-key or code, or a link that this host has made",
        "Unauthorized",
        {"WWW-Authenticate": challenge},
    )
