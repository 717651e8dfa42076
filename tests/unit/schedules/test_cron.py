"""NCRONTAB expressions: what they mean, what they refuse, and that no second is lost or doubled when clocks are set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from durably import InvalidScheduleError
from durably.core.timeline import instant
from durably.program.durations import micros_of
from durably.schedules.cron import Cron, parse_cron
from durably.schedules.zones import next_match, zone_of

SETTINGS = {
    "Europe/Berlin": (datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)),
    "Australia/Lord_Howe": (datetime(2026, 4, 4, 15, tzinfo=UTC), datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
    "America/Havana": (
        datetime(2026, 3, 8, 5, tzinfo=UTC),
        datetime(2026, 11, 1, 5, tzinfo=UTC),
    ),  # at midnight
    "Pacific/Apia": (
        datetime(2011, 12, 30, 10, tzinfo=UTC),
        datetime(2011, 9, 24, 14, tzinfo=UTC),
    ),  # a whole day
    "UTC": (datetime(2026, 3, 29, 1, tzinfo=UTC),),
}
"""When clocks are set, forward or back."""


def due(expression: str, zone: str, start: datetime, count: int) -> list[str]:
    """The next ones, as their clocks show it, with the offset."""
    cron, where = parse_cron(expression), zone_of(zone)
    found: list[str] = []
    at: int | None = micros_of(start)
    for _ in range(count):
        assert at is not None
        at = next_match(cron, where, at)
        assert at is not None
        found.append(instant(at).astimezone(where).strftime("%m-%d %H:%M:%S%z"))
    return found


# --- what an expression says -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("*/20 * * * * *", ["01-01 00:00:20+0000", "01-01 00:00:40+0000", "01-01 00:01:00+0000"]),
        ("5 4 3 * * *", ["01-01 03:04:05+0000", "01-02 03:04:05+0000", "01-03 03:04:05+0000"]),
        ("30 9 * * Mon-Fri", ["01-01 09:30:00+0000", "01-02 09:30:00+0000", "01-05 09:30:00+0000"]),
        ("0 0 0 1 Feb,apr,DECEMBER *", ["02-01 00:00:00+0000", "04-01 00:00:00+0000", "12-01 00:00:00+0000"]),
        ("0 50/5 23 31 12 *", ["12-31 23:50:00+0000", "12-31 23:55:00+0000", "12-31 23:50:00+0000"]),
        ("0 0 12 13 * Fri", ["02-13 12:00:00+0000", "03-13 12:00:00+0000", "11-13 12:00:00+0000"]),
        ("0 0 0 * * 7", ["01-04 00:00:00+0000", "01-11 00:00:00+0000", "01-18 00:00:00+0000"]),
        ("0 0 0 * * 5-7/2", ["01-02 00:00:00+0000", "01-04 00:00:00+0000", "01-09 00:00:00+0000"]),
        ("0 0 0 29 2 *", ["02-29 00:00:00+0000", "02-29 00:00:00+0000", "02-29 00:00:00+0000"]),
        ("0 0 0 29 2 Mon", ["02-29 00:00:00+0000", "02-29 00:00:00+0000", "02-29 00:00:00+0000"]),
        ("0 10-20/10,40 0 1 1 *", ["01-01 00:10:00+0000", "01-01 00:20:00+0000", "01-01 00:40:00+0000"]),
    ],
)
def test_an_expression_says_when(expression: str, expected: list[str]) -> None:
    assert due(expression, "UTC", datetime(2026, 1, 1, tzinfo=UTC), 3) == expected


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("* * * *", "4 fields"),
        ("", "0 fields"),
        ("60 * * * * *", "field second"),
        ("* * 24 * * *", "expected 0 to 23"),
        ("0 0 0 0 * *", "expected 1 to 31"),
        ("0 0 0 * 13 *", "field month"),
        ("0 0 0 * * 8", "or a name such as Mon"),
        ("0 0 0 * Mo *", "field month"),
        ("0 0 0 * * Tu", "field day-of-week"),
        ("0 0 5-2 * * *", "goes up"),
        ("0 0 */0 * * *", "step of 1"),
        ("0 0 */x * * *", "step of 1"),
        ("0 0 -1 * * *", "field hour"),
        ("0 0 1_0 * * *", "field hour"),
        ("0 0 ² * * *", "field hour"),
        ("0 0 , * * *", "field hour"),
        ("0 0 ? * * *", "field hour"),
        ("0 0 0 30 2 *", "never comes due"),
        ("0 0 0 31 Apr,Jun *", "never comes due"),
    ],
)
def test_what_is_no_expression_is_refused_with_its_place(expression: str, said: str) -> None:
    with pytest.raises(InvalidScheduleError, match=said):
        parse_cron(expression)


def test_a_zone_has_a_name() -> None:
    for name in ("Europe/Atlantis", "", "../etc/passwd", "Europe"):
        with pytest.raises(InvalidScheduleError, match="IANA name"):
            zone_of(name)


def test_the_calendar_ends() -> None:
    end = datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert next_match(parse_cron("* * * * * *"), zone_of("Europe/Berlin"), micros_of(end)) is None


# --- when clocks are set ---------------------------------------------------------------------------------------------


def test_a_fixed_time_that_is_skipped_comes_at_the_next_valid_instant() -> None:
    start = datetime(2026, 3, 28, 12, tzinfo=UTC)
    assert due("0 30 2 * * *", "Europe/Berlin", start, 2) == ["03-29 03:00:00+0200", "03-30 02:30:00+0200"]
    assert due("0 10,20 2 * * *", "Europe/Berlin", start, 2) == ["03-29 03:00:00+0200", "03-30 02:10:00+0200"]
    start = datetime(2026, 10, 3, 12, tzinfo=UTC)
    assert due("0 15 2 * * *", "Australia/Lord_Howe", start, 2) == [
        "10-04 02:30:00+1100",
        "10-05 02:15:00+1100",
    ]


def test_a_fixed_time_that_comes_twice_is_due_once() -> None:
    start = datetime(2026, 10, 24, 12, tzinfo=UTC)
    assert due("0 30 2 * * *", "Europe/Berlin", start, 2) == ["10-25 02:30:00+0200", "10-26 02:30:00+0100"]
    start = datetime(2026, 4, 4, 12, tzinfo=UTC)
    assert due("0 45 1 * * *", "Australia/Lord_Howe", start, 2) == [
        "04-05 01:45:00+1100",
        "04-06 01:45:00+1030",
    ]


def test_every_so_often_goes_on_in_real_time() -> None:
    for expression in ("0 */30 * * * *", "0 */30 0-5 * * *"):
        start = datetime(2026, 10, 24, 23, 59, tzinfo=UTC)
        assert due(expression, "Europe/Berlin", start, 5) == [
            "10-25 02:00:00+0200",
            "10-25 02:30:00+0200",
            "10-25 02:00:00+0100",
            "10-25 02:30:00+0100",
            "10-25 03:00:00+0100",
        ]
        start = datetime(2026, 3, 29, 0, 29, tzinfo=UTC)
        expected = ["03-29 01:30:00+0100", "03-29 03:00:00+0200", "03-29 03:30:00+0200"]
        assert due(expression, "Europe/Berlin", start, 3) == expected
    start = datetime(2026, 4, 4, 14, 29, tzinfo=UTC)
    assert due("0 */15 * * * *", "Australia/Lord_Howe", start, 5) == [
        "04-05 01:30:00+1100",
        "04-05 01:45:00+1100",
        "04-05 01:30:00+1030",
        "04-05 01:45:00+1030",
        "04-05 02:00:00+1030",
    ]


def test_a_day_that_a_country_skipped() -> None:
    start = datetime(2011, 12, 29, 12, tzinfo=UTC)
    assert due("0 0 12 30 12 *", "Pacific/Apia", start, 1) == ["12-31 00:00:00+1400"]


# --- the same, second by second --------------------------------------------------------------------------------------


def matches(cron: Cron, wall: datetime) -> bool:
    return (
        wall.second in cron.seconds
        and wall.minute in cron.minutes
        and wall.hour in cron.hours
        and wall.day in cron.days
        and wall.month in cron.months
        and wall.isoweekday() % 7 in cron.weekdays
    )


def by_looking(cron: Cron, zone: ZoneInfo, start: datetime, end: datetime, step: timedelta) -> list[datetime]:
    """All that comes due in (start, end], found by looking at each instant."""
    found: list[datetime] = []
    moments = [start]
    while moments[-1] < end:
        moments.append(moments[-1] + step)
    for before, now in pairwise(moments):
        wall = now.astimezone(zone).replace(tzinfo=None)
        skipped = before.astimezone(zone).replace(tzinfo=None) + step
        is_due = matches(cron, wall) and (cron.by_period or now.astimezone(zone).fold == 0)
        while not is_due and not cron.all_hours and skipped < wall:
            is_due = matches(cron, skipped)
            skipped += step
        if is_due:
            found.append(now)
    return found


def fields(least: int, most: int) -> st.SearchStrategy[str]:
    value = st.integers(least, most)
    ranges = st.tuples(value, value).map(lambda ends: f"{min(ends)}-{max(ends)}")
    return st.one_of(
        st.just("*"),
        st.integers(1, 30).map(lambda step: f"*/{step}"),
        value.map(str),
        ranges,
        st.lists(st.one_of(value.map(str), ranges), min_size=1, max_size=3).map(",".join),
    )


@settings(max_examples=40, deadline=None)
@given(
    place=st.sampled_from([(zone, at) for zone, moments in SETTINGS.items() for at in moments]),
    minute=fields(0, 59),
    hour=fields(0, 4) | fields(0, 23),
    weekday=st.sampled_from(["*", "*", "0", "Sat,Sun", "Mon-Fri"]),
    before=st.integers(0, 4 * 60),
)
@example(("Europe/Berlin", SETTINGS["Europe/Berlin"][1]), "*/30", "*", "*", 45)
def test_it_is_what_one_finds_by_looking(
    place: tuple[str, datetime], minute: str, hour: str, weekday: str, before: int
) -> None:
    zone, at = zone_of(place[0]), place[1]
    cron = parse_cron(f"0 {minute} {hour} * * {weekday}")
    start, end = at - timedelta(minutes=before), at + timedelta(hours=26)
    expected = by_looking(cron, zone, start, end, timedelta(minutes=1))
    found: list[datetime] = []
    moment = next_match(cron, zone, micros_of(start))
    while moment is not None and instant(moment) <= end:
        found.append(instant(moment))
        moment = next_match(cron, zone, moment)
    assert found == expected


@settings(max_examples=5, deadline=None)
@given(
    place=st.sampled_from([("Europe/Berlin", at) for at in SETTINGS["Europe/Berlin"]]),
    second=fields(0, 59),
    minute=fields(0, 59),
    hour=st.sampled_from(["*", "2", "1-3"]),
)
def test_seconds_are_found_too(place: tuple[str, datetime], second: str, minute: str, hour: str) -> None:
    zone, at = zone_of(place[0]), place[1]
    cron = parse_cron(f"{second} {minute} {hour} * * *")
    start, end = at - timedelta(minutes=20), at + timedelta(minutes=40)
    expected = by_looking(cron, zone, start, end, timedelta(seconds=1))
    found: list[datetime] = []
    moment = next_match(cron, zone, micros_of(start))
    while moment is not None and instant(moment) <= end:
        found.append(instant(moment))
        moment = next_match(cron, zone, moment)
    assert found == expected
