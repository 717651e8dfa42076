"""Which bearer tokens are accepted, and what they are good for: settings, checked when they are made."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, cast
from urllib.parse import urlsplit

from durably.errors import UsageError
from durably.security.roles import LEVELS, ROLES, Principal

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Signatures with a key of which we know the public half only: whoever can check a token cannot make one."""

DEFAULT_ALGORITHMS: Final = "RS256,PS256,ES256"

DEFAULT_ROLES: Final = ",".join(f"roles:durably.{role}={role}" for role in ROLES)

LEEWAY_S: Final = 60
"""By so much the clocks of issuer and host may differ."""


@dataclass(frozen=True, kw_only=True)
class TokenRules:
    """Whose tokens, for whom, signed how, and which claim gives which role.

    Attributes:
        issuer: The ``iss`` of a token, exactly; its discovery document says where the keys are.
        audiences: One of them is in ``aud``.
        algorithms: Some of `ALGORITHMS`.
        roles: Claim and value to role.
        jwks_url: Where the keys are, for an issuer without a discovery document; else "".
    """

    issuer: str
    audiences: tuple[str, ...]
    algorithms: tuple[str, ...]
    roles: Mapping[tuple[str, str], str]
    jwks_url: str = ""

    @classmethod
    def of(cls, *, issuer: str, audience: str, algorithms: str, roles: str, jwks_url: str) -> Self:
        """Rules from texts; lists have commas.

        Raises:
            UsageError: A text is none of these; the message names the setting.
        """
        check_url("oidc_issuer", issuer)
        if jwks_url:
            check_url("oidc_jwks_url", jwks_url)
        audiences = _parts(audience)
        if not audiences:
            raise UsageError(
                "oidc_audience is empty: expected what the issuer writes into 'aud' of tokens for this host, or tokens for "
                "any other service would open it"
            )
        allowed = _parts(algorithms)
        unknown = [name for name in allowed if name not in ALGORITHMS]
        if unknown or not allowed:
            given = f"has {unknown[0]!r}" if unknown else "is empty"
            raise UsageError(f"oidc_algorithms {given}: expected some of {', '.join(ALGORITHMS)}")
        return cls(
            issuer=issuer,
            audiences=audiences,
            algorithms=allowed,
            roles=dict(_grant(part) for part in _parts(roles)),
            jwks_url=jwks_url,
        )

    def principal(self, claims: Mapping[str, Any]) -> Principal:
        """Whom the claims of a valid token stand for; without a role it may do nothing. What it gets ends with it."""
        found = {
            role for (claim, value), role in self.roles.items() if value in _values(claim, claims.get(claim))
        }
        permissions = frozenset[str]().union(*(ROLES[role] for role in found))
        level = max((LEVELS.get(role, 0) for role in found), default=0)
        return Principal(
            f"token {claims['sub']}", permissions, level=level, expires_s=math.floor(claims["exp"])
        )


def _values(claim: str, given: Any) -> list[Any]:
    """The values of a claim: those of scopes are one text."""
    if isinstance(given, str):
        return given.split(" ") if claim in {"scp", "scope"} else [given]
    return cast("list[Any]", given) if isinstance(given, list) else []


def _grant(text: str) -> tuple[tuple[str, str], str]:
    source, _, role = text.rpartition("=")
    claim, _, value = source.partition(":")
    if not claim or not value or role not in ROLES:
        raise UsageError(
            f"oidc_roles has {text!r}: expected claim:value=role, such as roles:Orders.Operator=operator, with one of the "
            f"roles {', '.join(ROLES)}"
        )
    return (claim, value), role


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def check_url(setting: str, url: str) -> None:
    """Refuse a place where anybody on the way could put keys of their own.

    Raises:
        UsageError: It is not HTTPS; plain HTTP is for this machine.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    plain = parts.scheme == "http" and _is_loopback(host)
    if not host or parts.username is not None or not (parts.scheme == "https" or plain):
        raise UsageError(f"{setting} is {url!r}: expected an https:// URL (http:// on this machine only)")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
