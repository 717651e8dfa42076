"""Wall-clock times as instants, where clocks are set forward and back.

The rule, of everything that a cron expression means in a time zone:

- A time that is skipped (the clock is set forward over it) comes due at the first instant after the gap, once, however
  many were skipped. An expression of any hour (``*``) loses nothing by a gap, and skips it.
- A time that comes twice (the clock is set back) comes due the first time, if the expression names fixed times of the day.
  One that means every so often (`Cron.by_period`) comes due both times.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from durably.core.timeline import instant
from durably.errors import InvalidScheduleError
from durably.schedules.cron import Cron

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - wall-clock times have no zone here
_SECOND = timedelta(seconds=1)
_MICROSECOND = timedelta(microseconds=1)


@lru_cache(maxsize=1024)
def zone_of(name: str) -> ZoneInfo:
    """The time zone of an IANA name, such as ``Europe/Berlin``.

    Raises:
        InvalidScheduleError: There is none.
    """
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        raise InvalidScheduleError(
            f"Time zone {name!r} is not known here: expected an IANA name such as 'Europe/Berlin' or 'UTC'"
        ) from None


def next_match(cron: Cron, zone: ZoneInfo, after: int) -> int | None:
    """The first instant after another one at which the expression comes due; None when the calendar ends before.

    Args:
        cron: What comes due.
        zone: Where.
        after: Microseconds since 1970 UTC, as is the result.
    """
    local = instant(after).replace(microsecond=0).astimezone(zone)
    wall = local.replace(tzinfo=None, fold=0)
    again = _in_second_pass(cron, zone, wall) if cron.by_period and local.fold == 0 else None
    found = _from(cron, zone, wall + _SECOND, after)
    if again is None or found is None:
        return found if again is None else again
    return min(again, found)


def _from(cron: Cron, zone: ZoneInfo, wall: datetime, after: int) -> int | None:
    """The first one that a wall-clock time at or behind `wall` gives."""
    match = cron.first_from(wall)
    while match is not None:
        early, late = _offset(zone, match, 0), _offset(zone, match, 1)
        wall = match + _SECOND
        if early == late:
            due = [_micros(match - early)]
        elif early > late:  # it comes twice
            due = [_micros(match - early), _micros(match - late)][: 2 if cron.by_period else 1]
        else:  # it is skipped
            end = _transition(zone, match - late, match - early)
            wall = end + late
            due = [] if cron.all_hours else [_micros(end)]
        for one in due:
            if one > after:
                return one
        match = cron.first_from(wall)
    return None


def _in_second_pass(cron: Cron, zone: ZoneInfo, wall: datetime) -> int | None:
    """From within the first pass of a time that comes twice: the first match of the second pass."""
    early, late = _offset(zone, wall, 0), _offset(zone, wall, 1)
    if early <= late:
        return None
    back = _transition(zone, wall - early, wall - late)
    match = cron.first_from(back + late)
    return _micros(match - late) if match is not None and match < back + early else None


def _transition(zone: ZoneInfo, before: datetime, behind: datetime) -> datetime:
    """The instant (naive, UTC, to the second) between two others at which the clock is set."""
    old = _offset_at(zone, before)
    while behind - before > _SECOND:
        middle = before + timedelta(seconds=(behind - before) // _SECOND // 2)
        if _offset_at(zone, middle) == old:
            before = middle
        else:
            behind = middle
    return behind


def _offset(zone: ZoneInfo, wall: datetime, fold: int) -> timedelta:
    return zone.utcoffset(wall.replace(tzinfo=zone, fold=fold)) or timedelta()


def _offset_at(zone: ZoneInfo, moment: datetime) -> timedelta:
    return moment.replace(tzinfo=UTC).astimezone(zone).utcoffset() or timedelta()


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND
