"""Instants as people write them."""

from datetime import UTC, datetime, timedelta

import click
import pytest

from durably.cli import moments
from durably.cli.moments import Length, Moment, exactly, to_second

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "_now", lambda: NOW)


@pytest.mark.parametrize(
    ("text", "delta"),
    [
        ("90s", timedelta(seconds=90)),
        ("30min", timedelta(minutes=30)),
        ("30m", timedelta(minutes=30)),
        ("1.5 H", timedelta(hours=1.5)),
        ("3d", timedelta(days=3)),
        ("2w", timedelta(weeks=2)),
    ],
)
def test_a_distance_leads_into_the_past_or_the_future(text: str, delta: timedelta):
    assert Moment("past").convert(text, None, None) == NOW - delta
    assert Moment("future").convert(text, None, None) == NOW + delta


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20T12:00Z", datetime(2026, 11, 20, 12, tzinfo=UTC)),
        (" 2026-11-20 12:00:05.25 ", datetime(2026, 11, 20, 12, 0, 5, 250_000, tzinfo=UTC)),
        ("2026-11-20T12:00+02:00", datetime(2026, 11, 20, 10, tzinfo=UTC)),
    ],
)
def test_an_instant_without_an_offset_is_utc(text: str, moment: datetime):
    assert Moment("past").convert(text, None, None) == moment
    assert Moment("past").convert(moment, None, None) == moment


@pytest.mark.parametrize(
    "text", ["", "soon", "-3d", "3 fortnights", "2026-13-01", "9" * 400 + "d", "99999999w"]
)
def test_anything_else_is_refused_with_what_was_expected(text: str):
    with pytest.raises(click.BadParameter, match="is no moment: expected an instant such as 2026-11-20"):
        Moment("past").convert(text, None, None)


def test_what_is_printed_can_be_given_again():
    moment = datetime(2026, 11, 20, 12, 0, 5, tzinfo=UTC)
    assert to_second(moment) == "2026-11-20T12:00:05Z"
    assert exactly(moment) == "2026-11-20T12:00:05.000000Z"
    for text in (to_second(moment), exactly(moment)):
        assert Moment("past").convert(text, None, None) == moment


@pytest.mark.parametrize(
    ("text", "length"),
    [("90s", timedelta(seconds=90)), ("1.5 H", timedelta(hours=1.5)), (timedelta(1), timedelta(1))],
)
def test_a_length_is_read(text: str | timedelta, length: timedelta):
    assert Length().convert(text, None, None) == length


@pytest.mark.parametrize("text", ["", "10", "-5s", "soon", f"{'9' * 40}w"])
def test_what_is_no_length_is_refused(text: str):
    with pytest.raises(click.BadParameter, match="no length of time"):
        Length().convert(text, None, None)
