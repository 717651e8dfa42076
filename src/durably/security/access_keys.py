"""Keys that open a host: those with a role, and, after the model of Azure Functions, master, host, function and system keys.

Stored are digests: a key is shown once, when it is made. What is random cannot be guessed from its digest, which
needs neither salt nor stretching.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import zlib
from functools import lru_cache
from typing import Final, Literal

import msgspec

from durably.errors import UsageError
from durably.security.roles import LEVELS, ROLES, SYSTEM, Principal

KeyKind = Literal["master", "host", "function", "system", "role"]

AZURE_KINDS: Final[tuple[KeyKind, ...]] = ("master", "host", "function", "system")
"""Those that Azure Functions has; no key with a role is called like one of them."""

PREFIX: Final = "durably_"
"""Of every key, so that a scanner of secrets finds one that has leaked; six characters at its end are a checksum."""

MANAGEMENT: Final = "durabletask_extension"
"""The name of the system key that opens the management API, as in Durable Functions."""

DEFAULT: Final = "default"


class AccessKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key, without its secret.

    Attributes:
        kind: What it is for.
        name: Its name within the kind, and within the function.
        function: Of a function key: the function.
        role: Of a key with a role: which one.
        digest: SHA-256 of the key, in hexadecimal.
        created_at: When it was made, in microseconds since 1970 UTC.
    """

    kind: KeyKind
    name: str
    digest: str
    created_at: int
    function: str | None = None
    role: str | None = None

    @property
    def place(self) -> tuple[str, str | None, str]:
        """What it replaces: a key of the same kind, function and name."""
        return self.kind, self.function, self.name

    def principal(self) -> Principal:
        """Whom it stands for."""
        return _principal_of(self)


class KeyRing(msgspec.Struct, frozen=True, kw_only=True):
    """All keys of a host, and the secrets that its links are signed with.

    Attributes:
        keys: In the order in which they were made.
        signing: Secrets in hexadecimal; links are signed with the last one, and those of all are valid.
        closed: There was a key once, or should have been. To delete the last one shuts everybody out: it opens nothing.
    """

    keys: tuple[AccessKey, ...] = ()
    signing: tuple[str, ...] = ()
    closed: bool = False

    @property
    def asks(self) -> bool:
        """True once somebody has made a key."""
        return self.closed or bool(self.keys)

    def find(self, text: str) -> AccessKey | None:
        """The key that this text is, or None."""
        if not is_well_formed(text):
            return None
        digest = digest_of(text)
        for key in self.keys:
            if secrets.compare_digest(key.digest, digest):
                return key
        return None

    def with_key(self, key: AccessKey) -> KeyRing:
        """With a key in the place of the one that has its kind, function and name."""
        others = tuple(one for one in self.keys if one.place != key.place)
        return msgspec.structs.replace(self, keys=(*others, key), closed=True)

    def with_role(self, name: str) -> AccessKey | None:
        """The key with a role that has a name."""
        return next((one for one in self.keys if one.kind == "role" and one.name == name), None)

    def without(self, kind: KeyKind, name: str, function: str | None = None) -> KeyRing:
        """Without a key.

        Raises:
            UsageError: There is none of this name, or it is the master key.
        """
        if kind == "master":
            raise UsageError("The master key cannot be deleted: renew it instead")
        left = tuple(one for one in self.keys if one.place != (kind, function, name))
        if len(left) == len(self.keys):
            raise no_such_key(kind, name, function)
        return msgspec.structs.replace(self, keys=left, closed=True)


def no_such_key(kind: KeyKind, name: str, function: str | None = None) -> UsageError:
    """The error for a key that is not there."""
    if kind == "role":
        kinds = ", ".join(AZURE_KINDS)
        return UsageError(
            f"There is no key '{name}': expected one that 'durably keys list' shows, or a kind ({kinds})"
        )
    where = f" of function '{function}'" if function else ""
    return UsageError(f"There is no {kind} key '{name}'{where}: expected one that 'durably keys list' shows")


@lru_cache(256)
def _principal_of(key: AccessKey) -> Principal:
    if key.role is not None:
        return Principal(f"key {key.name}", ROLES.get(key.role, frozenset()), level=LEVELS.get(key.role, 0))
    label = f"key {key.kind}/{key.function}/{key.name}" if key.function else f"key {key.kind}/{key.name}"
    if key.kind == "master":
        return Principal(label, ROLES["admin"], level=2)
    if key.kind == "system":
        return Principal(label, SYSTEM if key.name == MANAGEMENT else frozenset())
    return Principal(label, level=1, function=key.function)


def draw_key() -> str:
    """A new key: 32 random bytes as text that needs no escaping in a URL."""
    body = base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
    return f"{PREFIX}{body}{_checksum(body)}"


def is_well_formed(text: str) -> bool:
    """True for text that `draw_key` could have made; a mistyped key is told from an unknown one so."""
    body = text.removeprefix(PREFIX)
    return body != text and body.isascii() and len(body) == 49 and _checksum(body[:-6]) == body[-6:]


def _checksum(body: str) -> str:
    packed = zlib.crc32(body.encode()).to_bytes(4, "big")
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def digest_of(text: str) -> str:
    """The digest of a key."""
    return hashlib.sha256(text.encode()).hexdigest()
