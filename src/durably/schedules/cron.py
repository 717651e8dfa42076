"""NCRONTAB expressions: six fields, and the wall-clock times that match them. No zone is known here, see `zones`."""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import NamedTuple

from durably.errors import InvalidScheduleError

YEAR_MAX = 9998
"""Later times are not looked for: arithmetic with time zones must not leave the calendar."""

_MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_DAYS_IN_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_NAME_MIN = 3
"""`Mon`, `Mond`, `Monday`: so many letters of a name make it clear."""


class _Field(NamedTuple):
    name: str
    least: int
    most: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day-of-week", 0, 7, _DAYS),
)


class Cron(NamedTuple):
    """A parsed expression: what each field allows, sorted.

    Attributes:
        text: As it was written.
        weekdays: 0 is Sunday.
        by_period: It means every so often (``*`` in the field of hours, or a ``*`` at the beginning of that of minutes),
            and not fixed times of the day.
        all_hours: Any hour will do.
    """

    text: str
    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    by_period: bool
    all_hours: bool

    def first_from(self, moment: datetime) -> datetime | None:
        """The first time at or after a naive moment (of whole seconds) that matches; None when the calendar ends before."""
        today = moment.date()
        earliest = time(self.hours[0], self.minutes[0], self.seconds[0])
        for day in self._days_from(today):
            found = self._time_from(moment.hour, moment.minute, moment.second) if day == today else earliest
            if found is not None:
                return datetime.combine(day, found)
        return None

    def _days_from(self, first: date) -> Iterator[date]:
        for year in range(first.year, YEAR_MAX + 1):
            for month in self.months:
                if (year, month) < (first.year, first.month):
                    continue
                for number in self.days:
                    try:
                        day = date(year, month, number)
                    except ValueError:  # there is no such day in this month
                        break
                    if day >= first and day.isoweekday() % 7 in self.weekdays:
                        yield day

    def _time_from(self, hour: int, minute: int, second: int) -> time | None:
        at = _at_least(self.seconds, second)
        if at is None:
            minute, at = minute + 1, self.seconds[0]
        of_minute = _at_least(self.minutes, minute)
        if of_minute is None:
            hour, of_minute, at = hour + 1, self.minutes[0], self.seconds[0]
        elif of_minute != minute:
            at = self.seconds[0]
        of_hour = _at_least(self.hours, hour)
        if of_hour is None:
            return None
        if of_hour != hour:
            of_minute, at = self.minutes[0], self.seconds[0]
        return time(of_hour, of_minute, at)


_CHARS_MAX = 1_000
"""Lists of all that each field can be are shorter."""


@functools.lru_cache(maxsize=1024)
def parse_cron(text: str) -> Cron:
    """Read an NCRONTAB expression: ``{second} {minute} {hour} {day} {month} {day-of-week}``, all of which must match.

    A field is ``*``, a number, a range ``1-5``, any of these with a step (``*/10``, ``5/10``: from 5 on, ``0-30/10``), or a
    list of them with commas. Months and days of the week may be names, ``Jan`` or ``January``; 0 and 7 are Sunday. With five
    fields, the second is 0.

    Raises:
        InvalidScheduleError: It is none, or names a day that no year has.
    """
    if len(text) > _CHARS_MAX:
        raise InvalidScheduleError(
            f"Cron expression '{text[:60]}…' has {len(text):,} characters: expected {_CHARS_MAX:,} at most"
        )
    fields = text.split()
    if len(fields) not in (5, 6):
        raise InvalidScheduleError(
            f"Cron expression {text!r} has {len(fields)} fields: expected 6, second minute hour day month day-of-week "
            "(or 5, without the second), such as '0 30 9 * * Mon-Fri'"
        )
    if len(fields) == 5:
        fields.insert(0, "0")
    values = [_parse_field(field, given, text) for field, given in zip(_FIELDS, fields, strict=True)]
    seconds, minutes, hours, days, months, weekdays = values
    if days[0] > max(_DAYS_IN_MONTH[month - 1] for month in months):
        raise InvalidScheduleError(
            f"Cron expression {text!r} never comes due: no year has day {days[0]} in the months that it names; correct the day"
        )
    return Cron(
        text,
        seconds,
        minutes,
        hours,
        days,
        months,
        tuple(sorted({day % 7 for day in weekdays})),
        by_period=len(hours) == 24 or fields[1].startswith("*"),
        all_hours=len(hours) == 24,
    )


def _parse_field(field: _Field, given: str, text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for term in given.split(","):
        found.update(_parse_term(field, term, text))
    return tuple(sorted(found))


def _parse_term(field: _Field, term: str, text: str) -> range:
    what, slash, step_text = term.partition("/")
    step = 1
    if slash:
        step = _number(step_text)
        if step < 1:
            raise _wrong(field, term, text, "expected a step of 1 or more behind '/'")
    last = 6 if field.names is _DAYS else field.most
    if what == "*":
        return range(field.least, last + 1, step)
    first_text, dash, last_text = what.partition("-")
    first = _value(field, first_text, term, text)
    if slash and not dash:
        return range(first % 7 if field.names is _DAYS else first, last + 1, step)
    if not dash:
        return range(first, first + 1)
    last = _value(field, last_text, term, text)
    if last < first:
        raise _wrong(field, term, text, "expected a range that goes up; write it as two, with a comma")
    return range(first, last + 1, step)


def _value(field: _Field, given: str, term: str, text: str) -> int:
    value = _number(given)
    lowered = given.lower()
    if value < 0 and len(lowered) >= _NAME_MIN:
        for at, name in enumerate(field.names):
            if name.startswith(lowered):
                return at + field.least
    if not field.least <= value <= field.most:
        names = f", or a name such as {field.names[1][:3].capitalize()}" if field.names else ""
        raise _wrong(field, term, text, f"expected {field.least} to {field.most}{names}")
    return value


def _number(given: str) -> int:
    """-1 for what is none: `int` would take signs, blanks and underscores."""
    return int(given) if given.isascii() and given.isdigit() and len(given) <= 4 else -1


def _wrong(field: _Field, term: str, text: str, expected: str) -> InvalidScheduleError:
    return InvalidScheduleError(
        f"Cron expression {text!r} has {term!r} in the field {field.name}: {expected}"
    )


def _at_least(values: tuple[int, ...], least: int) -> int | None:
    at = bisect_left(values, least)
    return values[at] if at < len(values) else None
