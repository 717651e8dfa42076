"""Which addresses only this machine can reach."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

LOCAL_NAMES: Final = frozenset(("localhost", "127.0.0.1", "::1"))
"""What clients on this machine call it."""


def is_loopback(host: str) -> bool:
    """True for ``localhost`` and for addresses of the loopback network, IPv6 with or without brackets.

    A name is none of them, whatever it begins with: ``127.example`` may lead anywhere.
    """
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False
