"""What an error of PostgreSQL, or of the way to it, means for the caller: try again, never, or stop."""

from __future__ import annotations

import struct
from typing import Final

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from durably.errors import (
    DurablyError,
    StoreFailedError,
    StoreRefusedError,
    StoreUnavailableError,
)

_REFUSED_CLASSES: Final = ("22", "23", "54")
"""Of SQLSTATE: data exceptions, constraints, limits of the server."""

_AGAIN_CLASSES: Final = ("08", "40", "53", "55", "57", "25", "28", "3D", "58")
"""Connections, rollbacks of the server's own, resources, locks, shutdown; read-only, password and database are set right.
An I/O error of the server is one statement that was undone, and no reason to distrust what is in memory here."""

_POOLED: Final = "is it reached through PgBouncer in transaction mode? That needs version 1.21 or newer, and max_prepared_statements above 0"
_ADVICE: Final = {
    "26000": _POOLED,  # a prepared statement is not there, or is there already: another server answers than was asked before
    "42P05": _POOLED,
    "42501": "let the role that owns the schema of the hub run durably hub migrate --grant ROLE",
}

LOCK_TIMEOUT: Final = "55P03"

_LOST = (OSError, EOFError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""The last one: the driver does not know what its connection is in the middle of; one that died at a bad moment."""

_LOST_STATES: Final = ("25006", "25P03", "25P04")
"""It takes no writes any more, so another server may; it hangs up on who is idle, or slow, in a transaction."""

_CANCELED: Final = "57014"
"""A time-out of the server, or an operator: the statement is undone, and the connection is as good as before."""

_UNENCODABLE = (UnicodeEncodeError, OverflowError, TypeError, ValueError, struct.error)


def as_store_error(error: BaseException, url: str) -> DurablyError:
    """Translate an error; a `DurablyError` stays what it is.

    Args:
        error: What the driver raised.
        url: Of the hub, without secrets.
    """
    if isinstance(error, DurablyError):
        return error
    state = str(getattr(error, "sqlstate", None) or "")
    said = str(error).partition("\nHINT")[0]  # what to do about it we know better than the driver
    text = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if isinstance(error, asyncpg.DataError) or state[:2] in _REFUSED_CLASSES:
        return StoreRefusedError(f"Hub {url} cannot hold this data: {text}")
    # A certificate that nobody vouches for is a ValueError, too: connections first.
    if is_lost(error) or state[:2] in _AGAIN_CLASSES:
        return StoreUnavailableError(f"Hub {url} is not available now: {text}")
    if isinstance(error, _UNENCODABLE):
        return StoreRefusedError(f"Hub {url} cannot hold this data: {text}")
    advice = _ADVICE.get(state, "the hub must be opened anew")
    return StoreFailedError(f"Hub {url} failed: {text}; {advice}")


def state_of(error: BaseException) -> str:
    """The SQLSTATE that the server gave, also of an error that was translated; "" when it gave none."""
    cause = error.__cause__ if isinstance(error, DurablyError) else error
    return str(getattr(cause, "sqlstate", None) or "")


def is_lost(error: BaseException) -> bool:
    """True when the connection is of no use any more."""
    state = state_of(error)
    return (
        isinstance(error, _LOST)
        or state in _LOST_STATES
        or (state[:2] in {"08", "57"} and state != _CANCELED)
    )


def may_try_again(error: BaseException) -> bool:
    """True when the server has rolled back for reasons of its own: a deadlock, a serialization failure."""
    return state_of(error)[:2] == "40"
