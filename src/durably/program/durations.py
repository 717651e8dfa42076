"""Durations and instants as users give them, to microseconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from durably.core.retry import DELAY_MAX_US
from durably.errors import UsageError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(duration: timedelta | float, what: str, *, least: int = 0) -> int:
    """A `timedelta` or a number of seconds, as microseconds; capped at a century, so that infinity means "never".

    Args:
        duration: What the user gave.
        what: Names it in the error.
        least: The smallest value that is taken, in microseconds.

    Raises:
        UsageError: Neither of the two, not a number, or too small.
    """
    value: Any = duration
    if isinstance(value, timedelta):
        result = value // _MICROSECOND
    elif isinstance(value, int | float) and not isinstance(value, bool) and value == value:  # noqa: PLR0124 - not NaN
        result = DELAY_MAX_US if value * 1_000_000 >= DELAY_MAX_US else round(max(value, -1e9) * 1_000_000)
    else:
        raise UsageError(f"{what} is {value!r}: expected a timedelta or a number of seconds")
    if result < least:
        raise UsageError(f"{what} is {value!r}: expected {'0 or more' if least == 0 else 'more than 0'}")
    return min(result, DELAY_MAX_US)


def micros_of(moment: datetime) -> int:
    """A datetime as microseconds since 1970 UTC; a naive one is taken as UTC. The reverse of `core.timeline.instant`."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND
