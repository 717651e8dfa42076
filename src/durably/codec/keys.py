"""The keys that a hub is encrypted with: which one writes, and which ones still read."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping
from typing import Final

from durably.errors import UsageError

_KEY_BYTES: Final = 32
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DESTROYED: Final = "destroyed"
_PLAIN: Final = "plain"

_EXPECTED: Final = (
    "expected ID=KEY entries with a comma or a line break between them: an id of letters, digits and '._-', and a key "
    "of 32 random bytes in Base64 (openssl rand -base64 32). The first one encrypts"
)


class EncryptionKeys:
    """AES-256 keys by id. The first one encrypts; the others are there to read what was written with them.

    To rotate, put a new one in front and keep the old one for as long as something is left that it encrypted.

    Args:
        keys: 32 random bytes by id (1 to 64 letters, digits and ``._-``); the order counts. None instead of a key: it was
            destroyed on purpose, and what it encrypted is lost.
        plain: Also read what is not encrypted: for a hub that was in use before it had keys. Without it, such rows are
            refused, so that nobody who can write the file can slip anything in.

    Raises:
        UsageError: An id or a key is not as it has to be, or there is none that can encrypt.
    """

    def __init__(self, keys: Mapping[str, bytes | None], *, plain: bool = False) -> None:
        self.plain = plain
        self._keys = dict(keys)
        for key_id, key in self._keys.items():
            if not _ID.fullmatch(key_id):
                raise UsageError(
                    f"Encryption key id {key_id[:64]!r}: expected 1 to 64 letters, digits, '.', '_' and '-'"
                )
            if key is not None and len(key) != _KEY_BYTES:
                raise UsageError(
                    f"Encryption key '{key_id}' has {len(key)} bytes: expected {_KEY_BYTES} random ones"
                )
        self.active = next(iter(self._keys), "")
        """The id of the key that encrypts."""
        if self._keys.get(self.active) is None:
            raise UsageError(
                f"The first encryption key is the one that encrypts, and there is none: {_EXPECTED}"
            )

    @classmethod
    def parse(cls, text: str) -> EncryptionKeys:
        """Keys from text: ``ID=KEY`` entries, the one that encrypts first.

        A key is 32 bytes in Base64. ``ID=destroyed`` stands for a key that is gone on purpose; the entry ``plain`` also lets
        read what is not encrypted. Entries end with a comma or a line; lines that begin with ``#`` are skipped.

        Raises:
            UsageError: It is not like this. The message does not repeat the text.
        """
        lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
        entries = [entry.strip() for line in lines for entry in line.split(",") if entry.strip()]
        keys: dict[str, bytes | None] = {}
        for entry in entries:
            key_id, separator, key = (part.strip() for part in entry.partition("="))
            if entry == _PLAIN:
                continue
            if not separator:
                raise UsageError(f"An entry of the encryption keys has no '=': {_EXPECTED}")
            if key_id in keys:
                raise UsageError(f"Encryption key '{key_id[:64]}' is there twice: expected one key for an id")
            keys[key_id] = None if key == _DESTROYED else _decoded(key_id, key)
        return cls(keys, plain=_PLAIN in entries)

    def __repr__(self) -> str:
        """The ids, never a key."""
        return f"EncryptionKeys({', '.join(self._keys)})"

    def key(self, key_id: str) -> bytes | None:
        """The key of an id; None for one that was destroyed or is not known."""
        return self._keys.get(key_id)

    def knows(self, key_id: str) -> bool:
        """True when the id is there, be it with a key or without."""
        return key_id in self._keys

    def proof(self, key_id: str, hub_id: bytes) -> bytes:
        """What a hub keeps to tell this key from another one under the same id; says nothing about the key."""
        key = self._keys[key_id]
        if key is None:
            raise UsageError(f"Encryption key '{key_id}' was destroyed: expected one that is there")
        return hmac.digest(key, b"durably proof of key" + hub_id, "sha256")[:16]


def _decoded(key_id: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, altchars=b"-_" if set(text) & set("-_") else None, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError(f"Encryption key '{key_id[:64]}' is not Base64: {_EXPECTED}") from None
