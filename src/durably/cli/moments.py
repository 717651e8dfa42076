"""Instants on the command line: ``2026-11-20``, ``2026-11-20T12:00:05Z``, ``2h``, ``3d``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import click

_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)")
_EXPECTED = "an instant such as 2026-11-20, 2026-11-20T12:00:05Z (UTC without an offset), or a length of time such as 90s, 30min, 2h, 3d, 1w"


class Moment(click.ParamType):  # pyright: ignore[reportMissingTypeArgument]  # not generic before click 8.4
    """An instant, as it is or by its distance from now.

    Args:
        towards: Where a distance leads: ``3d`` is three days ago, or in three days.
    """

    name = "moment"

    def __init__(self, towards: Literal["past", "future"]) -> None:
        self._sign = -1 if towards == "past" else 1

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """See `click.ParamType.convert`."""
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        found = _SPAN.fullmatch(text.lower())
        try:
            if found is not None:
                distance = timedelta(seconds=float(found[1]) * _SECONDS[found[2]])
                return _now() + self._sign * distance
            moment = datetime.fromisoformat(text)
            return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{text!r} is no moment: expected {_EXPECTED}", param, ctx)


class Length(click.ParamType):  # pyright: ignore[reportMissingTypeArgument]  # as above
    """A length of time: ``90s``, ``30min``, ``2h``, ``3d``."""

    name = "length"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """See `click.ParamType.convert`."""
        if isinstance(value, timedelta):
            return value
        found = _SPAN.fullmatch(str(value).strip().lower())
        try:
            if found is None:
                raise ValueError
            return timedelta(seconds=float(found[1]) * _SECONDS[found[2]])
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no length of time: expected one such as 90s, 30min, 2h, 3d, 1w", param, ctx
            )


def _now() -> datetime:
    from durably.clock import SystemClock
    from durably.core.timeline import instant

    return instant(SystemClock().now())


def to_second(moment: datetime) -> str:
    """For tables: ``2026-11-20T12:00:05Z``; such text can be given to the options again."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def exactly(moment: datetime) -> str:
    """For programs: ISO 8601 with microseconds."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
