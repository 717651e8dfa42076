"""Settings as they may be shown to people."""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "***"

_SECRETS: Final = frozenset(
    (
        "DURABLY_ENCRYPTION_KEYS",
        "DURABLY_EVENT_GRID_KEY",
        "DURABLY_KEY",
        "DURABLY_WEBHOOK_SECRET",
    )
)
# All before the last "@" is hidden: who did not write a "/" in a password as %2F still has one.
_URL: Final = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)(?P<user>.*@)?(?P<rest>.*)", re.DOTALL)


def shown(variable: str, value: str, *, secret: bool = False) -> str:
    """The value without what is secret in it: keys, passwords in URLs, and what may be one.

    Args:
        variable: Its name.
        value: Its text.
        secret: Whoever reads it keeps it to itself.
    """
    if variable == "DURABLY_ENCRYPTION_KEYS" and value.startswith("file:"):
        return value
    if secret or variable in _SECRETS:
        return HIDDEN
    if not variable.startswith("DURABLY_"):
        return HIDDEN  # a setting of the app: nobody knows what it is
    url = _URL.fullmatch(value)
    if url is None:
        return HIDDEN if variable == "DURABLY_BLOBS" else value  # a connection string has a key in it
    user = f"{HIDDEN}@" if url["user"] else ""
    place, query, _ = url["rest"].partition("?")
    if variable == "DURABLY_WEBHOOK_URL":  # whoever has such a URL may often post to it
        host, slash, _ = place.partition("/")
        place = f"{host}/{HIDDEN}" if slash else host
    return f"{url['scheme']}{user}{place}{f'?{HIDDEN}' if query else ''}"
