"""Options of a connection, in the query of its URL: ours are taken out, those of the library stay."""

from __future__ import annotations

import math
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from durably.errors import RegistrationError


def check_url(url: str, broker: str) -> None:
    """Make sure that what comes after the last ``@`` is an address, so that no part of a password is taken for one.

    Args:
        url: Of a broker; nothing of it is shown.
        broker: What it is.

    Raises:
        RegistrationError: It is no such URL.
    """
    try:
        parts = urlsplit(url)
        clean = bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, clean = None, False
    if parts is None or not clean or "@" in parts.path + parts.query + parts.fragment or "#" in url:
        raise RegistrationError(
            f"The URL of {broker} is not usable: expected scheme://user:password@host:port, with special characters of the "
            "password (such as / ? # @) as %XX"
        )


def without_options(url: str, *names: str) -> tuple[str, dict[str, str]]:
    """The URL without some of its options, and these."""
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    rest = urlencode([(name, value) for name, value in pairs if name not in names])
    return urlunsplit(parts._replace(query=rest)), {name: value for name, value in pairs if name in names}


def seconds(options: dict[str, str], name: str, default: float, least: float) -> float:
    """An option that is a number of seconds.

    Raises:
        RegistrationError: It is none, or too small.
    """
    text = options.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < least:
        raise RegistrationError(
            f"The connection has {name}={text!r}: expected a number of seconds, {least:g} or more"
        )
    return value
