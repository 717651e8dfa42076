"""Where a scaler listens, who may ask it, and what those who ask may choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import isfinite
from pathlib import Path
from typing import Final

from durably.core.load import RULE, Rule
from durably.errors import UsageError
from durably.security.loopback import is_loopback

BIND: Final = "127.0.0.1:7072"

OURS: Final = ("messagesPerHost", "patienceSeconds", "wakeSeconds", "hub")
"""What the metadata of a trigger may say to us."""

KEDAS: Final = frozenset(
    ("scalerAddress", "tlsCertFile", "caCert", "tlsClientCert", "tlsClientKey", "unsafeSsl", "enableTLS")
)
"""What it may say to KEDA."""


@dataclass(frozen=True, kw_only=True)
class ScalerOptions:
    """How a scaler is served.

    Attributes:
        bind: Address and port. Beyond this machine it takes `client_ca`, or `insecure`.
        tls_certificate: PEM file, with `tls_key`.
        tls_key: PEM file.
        client_ca: PEM file: clients show a certificate of this authority.
        insecure: Whoever reaches the address may ask.
    """

    bind: str = BIND
    tls_certificate: str | None = None
    tls_key: str | None = None
    client_ca: str | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        host, _, port = self.bind.rpartition(":")
        if not host or not (port.isascii() and port.isdigit() and int(port) < 65_536):
            raise UsageError(f"bind is {self.bind!r}: expected an address and a port, such as {BIND}")
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise UsageError("tls_certificate and tls_key: expected both, or none")
        if self.client_ca and not self.tls_certificate:
            raise UsageError(
                "client_ca is set, and tls_certificate is not: expected a certificate of the scaler, too"
            )
        if not (is_loopback(host) or self.client_ca or self.insecure):
            raise UsageError(
                f"bind is {self.bind!r}, which others reach, and client_ca is not set: anybody could ask what waits in the hub. "
                f"Bind to {BIND}, give tls_certificate, tls_key and client_ca, or say that it is meant (insecure)"
            )

    def read(self, name: str, path: str) -> bytes:
        """A PEM file.

        Raises:
            UsageError: It cannot be read.
        """
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise UsageError(f"{name} is {path!r}, which cannot be read: {error.strerror or error}") from None


def rule_of(metadata: Mapping[str, str], hub: str) -> Rule:
    """The rule that the metadata of a trigger asks for. It may choose numbers, and never a hub.

    Raises:
        UsageError: A value is none, or it is about another hub.
    """
    if metadata.get("hub", hub) != hub:
        raise UsageError(
            f"The metadata names hub {metadata['hub'][:100]!r}, and this scaler is of '{hub}': expected that, or nothing; another "
            "hub has a scaler of its own"
        )
    seconds = {
        name: timedelta(seconds=_number(metadata, f"{name}Seconds", getattr(RULE, name).total_seconds(), 0))
        for name in ("patience", "wake")
    }
    return RULE._replace(messages=int(_number(metadata, "messagesPerHost", RULE.messages, 1)), **seconds)


def _number(metadata: Mapping[str, str], name: str, default: float, least: float) -> float:
    text = metadata.get(name)
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not isfinite(number) or not least <= number <= 1e9:
        raise UsageError(f"{name} is {text[:100]!r} in the metadata: expected a number from {least:g} on")
    return number
