"""TLS: the certificate of a host, and a renewed one when it comes. Nothing older than TLS 1.2 is spoken."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Self

from durably.errors import UsageError

_log = logging.getLogger("durably.http")

_Identity = tuple[tuple[int, int, int], ...]


class Tls:
    """A context whose certificate follows its files.

    Connections that are open keep the certificate that they began with.

    Args:
        certificate: PEM file.
        key: PEM file.
        passphrase: Of the key; "" for none.

    Attributes:
        context: For a server.

    Raises:
        UsageError: A file cannot be used; the message names it.
    """

    def __init__(self, certificate: Path, key: Path, passphrase: str) -> None:
        self._certificate, self._key, self._passphrase = certificate, key, passphrase
        self._seen = self._identity()
        self.context = self._load(_context())

    @classmethod
    def of(cls, certificate: str, key: str, passphrase: str) -> Self | None:
        """What the options say, or None: plain HTTP. Raises as the class."""
        return cls(Path(certificate), Path(key), passphrase) if certificate else None

    def refresh(self) -> None:
        """Take over what has been renewed. A pair that does not fit is told once, and the last one stays."""
        found = self._identity()
        if found == self._seen:
            return
        self._seen = found
        try:
            self._load(_context())  # a context that takes half of a pair would be of no use any more
            self._load(self.context)
        except (UsageError, OSError) as error:
            _log.warning("The TLS certificate on the disk is not taken over: %s", error)
        else:
            _log.info("The TLS certificate %s was renewed", self._certificate)

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        _check("tls_certificate", self._certificate, b"-----BEGIN CERTIFICATE-----")
        content = _check("tls_key", self._key, b"PRIVATE KEY-----")
        try:
            # Asked for in any case: else OpenSSL asks whoever sits at the terminal.
            context.load_cert_chain(self._certificate, self._key, lambda: self._passphrase)
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            raise UsageError(self._wrong(error, content)) from None
        return context

    def _wrong(self, error: Exception, key: bytes) -> str:
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            return (
                f"tls_key '{self._key}' is not the key of tls_certificate '{self._certificate}': expected a pair, with the "
                "certificate of the host first in its file"
            )
        if b"ENCRYPTED" in key:  # not read again: it may be moved at this moment
            given = "does not open it" if self._passphrase else "is not given"
            return f"tls_key '{self._key}' is encrypted, and tls_passphrase {given}: expected its passphrase"
        return f"tls_certificate '{self._certificate}' and tls_key '{self._key}' cannot be used: {error}"

    def _identity(self) -> _Identity:
        found: list[tuple[int, int, int]] = []
        for path in (self._certificate, self._key):
            try:
                status = path.stat()
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((status.st_ino, status.st_mtime_ns, status.st_size))
        return tuple(found)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def _check(setting: str, path: Path, begins: bytes) -> bytes:
    """What is in the file. Says which file is wrong: OpenSSL does not."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{setting} '{path}' cannot be read: {error.strerror or error}") from None
    if begins not in content:
        what = "a certificate" if setting == "tls_certificate" else "a private key"
        raise UsageError(f"{setting} '{path}' holds no {what.split(' ', 1)[1]}: expected {what} as PEM")
    return content
