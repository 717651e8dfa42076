"""Links that carry their own permission: for one instance, some verbs, and a time, signed by the host.

FORMAT: ``c1.{expiry in seconds since 1970, hexadecimal}.{letters of permissions}.{HMAC-SHA256, base64url}``. The MAC covers
version, hub, instance, letters and expiry, each with its length, so no two links can say the same in different ways.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from durably.security.roles import Principal

_VERSION: Final = "c1"

_LETTERS: Final = {"r": "read", "v": "payloads", "c": "control", "s": "start", "p": "purge"}

INSTANCE_VERBS: Final = "rvcsp"
"""What the links in a check-status payload are for: all verbs on that one instance."""

START_VERBS: Final = "s"
"""What templates for starts are for."""

ANY_INSTANCE: Final = "/"
"""Stands for all instances of the hub, in what a client of Durable Functions fills in by itself. No id can be this."""

LIFE_S: Final = 90 * 24 * 3600
"""Links live for a quarter of a year: longer than an approval takes, shorter than a log that they may end up in."""


def sign(secret: str, hub: str, instance_id: str, verbs: str, expires_s: int) -> str:
    """A capability.

    Args:
        secret: Of the host, hexadecimal.
        hub: The hub it is for.
        instance_id: The instance it is for; "" for starts of new ones, `ANY_INSTANCE` for all there are.
        verbs: Some letters of `INSTANCE_VERBS`.
        expires_s: Until when, in seconds since 1970 UTC.
    """
    return f"{_VERSION}.{expires_s:x}.{verbs}.{_mac(secret, hub, instance_id, verbs, expires_s)}"


def verify(secrets: Sequence[str], hub: str, instance_id: str, token: str, now_s: float) -> Principal | None:
    """Whom a capability stands for; None when it is not one of ours, for something else, or over."""
    parts = token.split(".")
    if len(parts) != 4 or parts[0] != _VERSION or not set(parts[2]) <= _LETTERS.keys() or len(parts[1]) > 12:
        return None
    try:
        expires_s = int(parts[1], 16)
    except ValueError:
        return None
    if f"{expires_s:x}" != parts[1]:
        return None
    valid = False
    for secret in secrets:
        expected = _mac(secret, hub, instance_id, parts[2], expires_s)
        valid |= hmac.compare_digest(expected.encode(), parts[3].encode("ascii", "replace"))
    if not valid or now_s >= expires_s:
        return None
    permissions = frozenset(_LETTERS[letter] for letter in parts[2])
    bound = None if instance_id == ANY_INSTANCE else instance_id
    name = f"link to {instance_id or 'starts'}"
    return Principal(name, permissions, instance_id=bound, expires_s=expires_s)


def verbs_of(principal: Principal) -> str:
    """The letters of what somebody may do."""
    return _letters_of(principal.permissions)


@lru_cache(64)
def _letters_of(permissions: frozenset[str]) -> str:
    return "".join(letter for letter in INSTANCE_VERBS if _LETTERS[letter] in permissions)


def _mac(secret: str, hub: str, instance_id: str, verbs: str, expires_s: int) -> str:
    mac = _begun(secret, hub).copy()
    mac.update(_said(instance_id, verbs, f"{expires_s:x}"))
    return base64.urlsafe_b64encode(mac.digest()).rstrip(b"=").decode()


@lru_cache(8)
def _begun(secret: str, hub: str) -> hmac.HMAC:
    """Of what all links of a hub begin with: to go on from it is cheaper, and `hmac.digest` would let other threads in."""
    return hmac.new(bytes.fromhex(secret), _said(_VERSION, hub), hashlib.sha256)


def _said(*texts: str) -> bytes:
    return b"".join([b"%d:%b" % (len(part), part) for part in map(str.encode, texts)])
