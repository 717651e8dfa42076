"""The keys of an issuer of tokens: asked for at the place that is configured, kept, and asked for again, but not often.

Nothing in a token has a say in where that is. While the issuer cannot be reached its last keys stay good.
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import time
import urllib.request
from collections.abc import Callable
from typing import IO, Any, Final, TypeVar
from urllib.error import URLError

import msgspec

from durably.errors import OperationError, UsageError
from durably.security.roles import Principal
from durably.security.token_rules import TokenRules, check_url
from durably.security.tokens import IssuerKey, UnknownKeyError, check_token, read_keys

T = TypeVar("T")

_log = logging.getLogger("durably.security")

FRESH_S: Final = 600.0
"""Keys that are older are asked for again, while they are used on."""

STALE_S: Final = 3_600.0
"""Keys that are older are asked for again, and whoever needs them waits for the answer: a withdrawn key ends here."""

PAUSE_S: Final = 30.0
"""Between two requests for the same reason: tokens with invented keys make no traffic."""

_FIRST_PAUSE_S: Final = 2.0
"""As long as there are no keys at all."""

_PATIENCE_S: Final = 5.0
_BYTES_MAX: Final = 512 * 1024
_FAILURES: Final = (
    OSError,
    http.client.HTTPException,
    ValueError,
    msgspec.DecodeError,
    RecursionError,
    UsageError,
)
_DISCOVERY: Final = "/.well-known/openid-configuration"


class Issuer:
    """Turns the tokens of one issuer into principals.

    Args:
        rules: What is accepted.
        now: The time in microseconds since 1970 UTC.
        elapsed: Seconds of a clock that nobody sets.
    """

    def __init__(
        self, rules: TokenRules, now: Callable[[], int], elapsed: Callable[[], float] = time.monotonic
    ) -> None:
        self._rules = rules
        self._now = now
        self._elapsed = elapsed
        self._keys: tuple[IssuerKey, ...] = ()
        self._got_at = 0.0
        self._tried_at: float | None = None
        self._unknown_at: float | None = None
        self._asking: asyncio.Task[None] | None = None

    async def principal(self, token: str) -> Principal:
        """Whom a token stands for.

        Raises:
            TokenError: It is not accepted.
            OperationError: The issuer cannot be reached, and has not been yet.
        """
        keys = await self._current()
        try:
            return check_token(token, keys, self._rules, self._now() / 1_000_000)
        except UnknownKeyError:
            if not await self._ask_for_unknown():
                raise
        return check_token(token, self._keys, self._rules, self._now() / 1_000_000)

    async def _current(self) -> tuple[IssuerKey, ...]:
        age = self._elapsed() - self._got_at
        if self._keys and age < FRESH_S:
            return self._keys
        pause = PAUSE_S if self._keys else _FIRST_PAUSE_S
        if self._asking is None and (self._tried_at is None or self._elapsed() - self._tried_at >= pause):
            self._tried_at = self._elapsed()
            self._ask()
        if self._asking is not None and (not self._keys or age >= STALE_S):
            await asyncio.shield(self._asking)
        if not self._keys:
            raise OperationError(
                f"The keys of the issuer {self._rules.issuer} cannot be had: no token can be checked. Try again, or use a key"
            )
        return self._keys

    async def _ask_for_unknown(self) -> bool:
        """Look whether the issuer has new keys; False when that was done a moment ago."""
        if self._asking is None:
            if self._unknown_at is not None and self._elapsed() - self._unknown_at < PAUSE_S:
                return False
            self._unknown_at = self._elapsed()
            self._ask()
        if self._asking is not None:
            await asyncio.shield(self._asking)
        return True

    def _ask(self) -> None:
        self._asking = asyncio.create_task(self._fetch(), name="durably-issuer")

    async def _fetch(self) -> None:
        try:
            self._keys = await asyncio.to_thread(_keys_of, self._rules)
            self._got_at = self._elapsed()
        except _FAILURES as error:
            left = "the last ones stay good" if self._keys else "no token can be checked"
            _log.warning("The keys of the issuer %s cannot be had (%s): %s", self._rules.issuer, error, left)
        finally:
            self._asking = None


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


class _KeySet(msgspec.Struct):
    keys: list[Any]


def _keys_of(rules: TokenRules) -> tuple[IssuerKey, ...]:
    return read_keys(_get(rules.jwks_url or _discover(rules.issuer), _KeySet).keys)


def _discover(issuer: str) -> str:
    found = _get(issuer.rstrip("/") + _DISCOVERY, _Discovery)
    if found.issuer != issuer:
        raise ValueError(
            f"its discovery document is of {found.issuer[:200]!r}, and oidc_issuer is {issuer!r}"
        )
    check_url("jwks_uri of the issuer", found.jwks_uri)
    if found.jwks_uri.startswith("http:") and not issuer.startswith("http:"):
        raise ValueError("its discovery document leads from HTTPS to HTTP")
    return found.jwks_uri


class _Stay(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else than where it was sent."""

    def redirect_request(  # noqa: PLR0917 - of the standard library
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        raise URLError(f"{req.full_url} redirects, which is not followed")


def _get(url: str, document: type[T]) -> T:
    opener = urllib.request.build_opener(_Stay())
    ends = time.monotonic() + _PATIENCE_S
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 - see check_url
    parts: list[bytes] = []
    length = 0
    with opener.open(request, timeout=_PATIENCE_S) as answer:
        while part := answer.read1(65_536):
            parts.append(part)
            length += len(part)
            if length > _BYTES_MAX:
                raise ValueError(f"{url} answers with more than {_BYTES_MAX:,} bytes")
            if time.monotonic() > ends:
                raise ValueError(f"{url} takes longer than {_PATIENCE_S:g} s")
    return msgspec.json.decode(b"".join(parts), type=document)
