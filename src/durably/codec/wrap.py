"""Bytes around payloads: compressed, then encrypted. Pure: keys, and the source of nonces, come in.

FORMAT: what is wrapped begins with the byte C1, with which neither JSON, msgpack nor text in UTF-8 begins; anything else
stands for itself. The second byte says what follows:

- 0: the plain bytes; for those that begin with C1 themselves.
- 1: their length (4 bytes, big endian), then a raw deflate stream.
- 2: length of the key id (1 byte), key id, salt (8 bytes), nonce (12 bytes), ciphertext and tag (16 bytes) of AES-256-GCM.
  What comes out of it may begin with C1 again, followed by 0 or 1.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Final

from durably.codec.keys import EncryptionKeys
from durably.errors import UsageError

_MARK: Final = 0xC1
_PLAIN: Final = b"\xc1\x00"
_DEFLATED: Final = b"\xc1\x01"
_SEALED: Final = b"\xc1\x02"

_LEVEL: Final = 1
"""Of zlib. On JSON of 4 KB to 1 MB: 20 % of the size in 3 to 6 ns a byte; level 6 makes it 15 % in three times the time."""

_GAIN: Final = 0.9
"""What does not shrink below this share is kept as it is: reading it costs less."""

_SALT_BYTES: Final = 8
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16

_USES_MAX: Final = 1 << 30
"""Random nonces of 96 bits are good for 2^32 messages of a key; long before that a box derives another key."""

_CIPHERS_MAX: Final = 256
"""Derived keys remembered. There is one for each process that ever wrote what is read here."""


class WrapError(ValueError):
    """Bytes that cannot be unwrapped; the message is a sentence without a subject, for people."""


def is_wrapped(stored: bytes) -> bool:
    """True when bytes are not what they stand for."""
    return stored[:1] == b"\xc1"


def is_sealed(stored: bytes) -> bool:
    """True when bytes are encrypted."""
    return stored[:2] == _SEALED


def key_id_of(sealed: bytes) -> str:
    """The id of the key that bytes are encrypted with."""
    return sealed[3 : 3 + sealed[2]].decode("ascii", "replace") if len(sealed) > 2 else ""


def deflate(plain: bytes, above: int) -> bytes:
    """Wrap bytes: compressed when there are more than `above` and it helps; 0 never compresses."""
    if above and len(plain) > above:
        packed = zlib.compress(plain, _LEVEL, -zlib.MAX_WBITS)
        if len(packed) < len(plain) * _GAIN:
            return b"%b%b%b" % (_DEFLATED, len(plain).to_bytes(4, "big"), packed)
    return _PLAIN + plain if plain[:1] == b"\xc1" else plain


def inflate(wrapped: bytes) -> bytes:
    """The reverse of `deflate`.

    Raises:
        WrapError: The bytes are damaged, or encrypted.
    """
    if not is_wrapped(wrapped):
        return wrapped
    form = wrapped[:2]
    if form == _PLAIN:
        return wrapped[2:]
    if form == _SEALED:
        raise WrapError(f"it is encrypted with key '{key_id_of(wrapped)}', which is not here")
    if form != _DEFLATED:
        raise WrapError("its form is unknown: it is damaged, or of a newer version of durably")
    size = int.from_bytes(wrapped[2:6], "big")
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = stream.decompress(wrapped[6:], size + 1)  # never more than it claims, whoever wrote it
    except zlib.error:
        plain = b""
    if len(plain) != size or not stream.eof:
        raise WrapError("it cannot be decompressed: it is damaged")
    return plain


class Box:
    """Encrypts and decrypts for one hub.

    Each box encrypts with a key of its own, derived from the active one and a random salt, so that neither a busy hub nor
    a process that was forked comes near the limits of random nonces.

    Args:
        keys: By id.
        hub_id: Of the hub: nothing can be moved into another one.
        entropy: Gives so many random bytes; fit for keys, and never the same twice.

    Raises:
        UsageError: The library is not installed.
    """

    def __init__(self, keys: EncryptionKeys, hub_id: bytes, entropy: Callable[[int], bytes]) -> None:
        self._keys = keys
        self._hub_id = hub_id
        self._entropy = entropy
        self._ciphers: dict[tuple[str, bytes], Any] = {}
        self._derive = _library()
        self._fresh_key()

    @property
    def takes_plain(self) -> bool:
        """True when what is not encrypted is read too."""
        return self._keys.plain

    def seal(self, plain: bytes, about: bytes) -> bytes:
        """Encrypt; `about` is what the bytes belong to, and has to be the same to open them."""
        self._left -= 1
        if not self._left:
            self._fresh_key()
        nonce = self._entropy(_NONCE_BYTES)
        return self._head + nonce + self._cipher.encrypt(nonce, plain, about)

    def open(self, sealed: bytes, about: bytes) -> bytes:
        """Decrypt.

        Raises:
            WrapError: The key is not here, or these are not the bytes that were written here.
        """
        if not is_sealed(sealed):
            raise WrapError("it is not encrypted, in a hub that is: the file was changed")
        key_id = key_id_of(sealed)
        start = 3 + len(key_id)
        salt = sealed[start : start + _SALT_BYTES]
        nonce = sealed[start + _SALT_BYTES : start + _SALT_BYTES + _NONCE_BYTES]
        if len(sealed) < start + _SALT_BYTES + _NONCE_BYTES + _TAG_BYTES:
            raise WrapError("it is encrypted and cut off: the file was damaged or changed")
        cipher = self._ciphers.get((key_id, salt)) or self._recall(key_id, salt)
        try:
            return cipher.decrypt(nonce, sealed[start + _SALT_BYTES + _NONCE_BYTES :], about)
        except Exception:  # noqa: BLE001 - InvalidTag, and nothing else: the lengths are right
            raise WrapError(
                f"it does not decrypt with key '{key_id}': it was damaged, changed, or put in the place of another"
            ) from None

    def _fresh_key(self) -> None:
        active, salt = self._keys.active, self._entropy(_SALT_BYTES)
        self._left = _USES_MAX
        self._cipher = self._recall(active, salt)
        self._head = b"%b%b%b%b" % (_SEALED, bytes([len(active)]), active.encode(), salt)

    def _recall(self, key_id: str, salt: bytes) -> Any:
        key = self._keys.key(key_id)
        if key is None:
            gone = "was destroyed" if self._keys.knows(key_id) else "is not here"
            raise WrapError(f"it is encrypted with key '{key_id}', which {gone}")
        if len(self._ciphers) >= _CIPHERS_MAX:
            self._ciphers.clear()
        cipher = self._ciphers[key_id, salt] = self._derive(key, salt, b"durably payloads" + self._hub_id)
        return cipher


def _library() -> Callable[[bytes, bytes, bytes], Any]:
    """A cipher of a key derived from another one, a salt and a purpose."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ImportError:
        raise UsageError(
            "Encryption needs the package cryptography, which is not installed: pip install 'durably[codec]'"
        ) from None

    def derive(key: bytes, salt: bytes, purpose: bytes) -> Any:
        return AESGCM(HKDF(SHA256(), 32, salt, purpose).derive(key))

    return derive
