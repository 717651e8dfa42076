"""Checks bearer tokens (JWT): who signed one, for whom, and for how long.

All that a token says of itself is a claim until its signature is checked with a key of the issuer. Of its header two fields
are used, to choose among those keys; a token that brings a key along, or says where one is, is refused unread.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

from joserfc import jws
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError
from joserfc.jwk import ECKey, RSAKey
from joserfc.jwt import JWTClaimsRegistry

from durably.errors import DurablyError
from durably.security.roles import Principal
from durably.security.token_rules import LEEWAY_S, TokenRules

_TOKEN_CHARS_MAX: Final = 16_384
_FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_BRINGS_A_KEY: Final = ("jwk", "jku", "x5u", "x5c")
_TYPES: Final = frozenset(("jwt", "at+jwt", "application/at+jwt"))
_RSA_BITS: Final = range(2048, 8193)
_RSA_CHARS_MIN: Final = 342  # 2048 bits in base64: joserfc warns of a shorter modulus, once it has read it
_KEYS_MAX: Final = 100
_NAME_CHARS_MAX: Final = 255


class TokenError(DurablyError):
    """A token that is not accepted; the text says why, and nothing of what is in it."""


class UnknownKeyError(TokenError):
    """A token that names a key which the issuer did not have when it was asked last."""


class IssuerKey(NamedTuple):
    """A public key of the issuer."""

    kid: str | None
    algorithm: str | None
    key: RSAKey | ECKey

    def fits(self, algorithm: str) -> bool:
        """True when signatures of this kind can be made with it."""
        return self.key.key_type == ("EC" if algorithm.startswith("ES") else "RSA") and self.algorithm in {
            None,
            algorithm,
        }


def read_keys(rows: Sequence[Any]) -> tuple[IssuerKey, ...]:
    """The usable keys of a key set (JWKS); a symmetric, weak or damaged one is none.

    Raises:
        ValueError: There is none at all.
    """
    keys = tuple(key for key in map(_read_key, rows[:_KEYS_MAX]) if key is not None)
    if not keys:
        raise ValueError("the key set has no key that signatures can be checked with")
    return keys


_PUBLIC: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y")}


def _read_key(row: Any) -> IssuerKey | None:
    if not isinstance(row, dict):
        return None
    fields = cast("dict[str, Any]", row)
    kind, kid, algorithm = fields.get("kty"), fields.get("kid"), fields.get("alg")
    operations = fields.get("key_ops")
    if kind not in _PUBLIC or fields.get("use", "sig") != "sig":
        return None
    if not isinstance(kid, str | None) or not isinstance(algorithm, str | None):
        return None
    if operations is not None and "verify" not in operations:
        return None
    if kind == "RSA" and len(str(fields.get("n"))) < _RSA_CHARS_MIN:
        return None
    public = {name: fields.get(name) for name in _PUBLIC[kind]}
    try:
        key = (RSAKey if kind == "RSA" else ECKey).import_key(cast("Any", {"kty": kind, **public}))
        weak = isinstance(key, RSAKey) and key.raw_value.key_size not in _RSA_BITS
    except (JoseError, ValueError, TypeError, AttributeError):
        return None
    return None if weak else IssuerKey(kid, algorithm, key)


def check_token(token: str, keys: Sequence[IssuerKey], rules: TokenRules, now_s: float) -> Principal:
    """Whom a token stands for.

    Args:
        token: In its compact form.
        keys: Of the issuer.
        rules: What it has to say.
        now_s: The time in seconds since 1970 UTC.

    Raises:
        UnknownKeyError: Its key is not among these.
        TokenError: It is not accepted.
    """
    if len(token) > _TOKEN_CHARS_MAX or not _FORM.fullmatch(token):
        raise TokenError("it is no signed JWT")
    registry = _registry(rules)
    try:
        signed = jws.extract_compact(token.encode(), registry=registry)
        header: Any = signed.headers()
        if not isinstance(header, dict):
            raise TokenError("its header is no JSON object")
        candidates = _candidates(cast("dict[str, Any]", header), keys, rules)
        valid = any(jws.validate_compact(signed, one.key, registry=registry) for one in candidates)
        claims = json.loads(signed.payload or b"") if valid else None
    except (JoseError, ValueError, TypeError, RecursionError):
        raise TokenError("it is no JWT that can be checked") from None
    if not valid:
        raise TokenError("its signature is not of the issuer")
    if not isinstance(claims, dict):
        raise TokenError("it has no claims")
    return _principal(cast("dict[str, Any]", claims), rules, now_s)


def _registry(rules: TokenRules) -> jws.JWSRegistry:
    registry = jws.JWSRegistry(algorithms=rules.algorithms, strict_check_header=False)
    registry.max_header_length = 2_048
    registry.max_payload_length = _TOKEN_CHARS_MAX
    return registry


def _candidates(header: dict[str, Any], keys: Sequence[IssuerKey], rules: TokenRules) -> list[IssuerKey]:
    """The keys that a header may mean. Nothing in it leads to any other key."""
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if algorithm not in rules.algorithms:
        raise TokenError(f"its algorithm is not one of {', '.join(rules.algorithms)}")
    if "crit" in header or "b64" in header:
        raise TokenError("it needs extensions that are not understood")
    if any(name in header for name in _BRINGS_A_KEY):
        raise TokenError("it brings its own key")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise TokenError("it is another type of token")
    fitting = [key for key in keys if key.fits(algorithm)]
    if kid is None:
        if len(fitting) != 1:
            raise TokenError("it does not name its key")
        return fitting
    if not isinstance(kid, str):
        raise TokenError("it does not name its key")
    named = [key for key in fitting if key.kid == kid]
    if not named and all(key.kid != kid for key in keys):
        raise UnknownKeyError("its key is not one of the issuer")
    return named


def _principal(claims: dict[str, Any], rules: TokenRules, now_s: float) -> Principal:
    registry = JWTClaimsRegistry(
        now=int(now_s),
        leeway=LEEWAY_S,
        iss={"essential": True, "value": rules.issuer},
        aud={"essential": True, "values": list(rules.audiences)},
        exp={"essential": True},
        sub={"essential": True},
    )
    try:
        registry.validate(claims)
    except ExpiredTokenError:
        raise TokenError("it has expired") from None
    except (InvalidClaimError, MissingClaimError) as error:
        raise TokenError(f"its claim '{error.claim}' is missing, or not what this host expects") from None
    if len(claims["sub"]) > _NAME_CHARS_MAX or not claims["sub"].isprintable():
        raise TokenError("its claim 'sub' is no name")
    if not math.isfinite(claims["exp"]):
        raise TokenError("its claim 'exp' is no time")
    return rules.principal(claims)
