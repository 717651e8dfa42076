"""Which event goes to which wait."""

from __future__ import annotations

from durably.core.events import EventRaised
from durably.core.external_events import EventMatcher


def event(name: str, n: int = 0) -> EventRaised:
    return EventRaised(name, b"%d" % n)


def test_an_event_goes_to_the_earliest_wait_of_its_name() -> None:
    matcher = EventMatcher()
    for seq, name in ((1, "a"), (2, "b"), (3, "a")):
        assert matcher.awaited(seq, name) is None
    assert [matcher.raised(event("a")) for _ in range(3)] == [1, 3, None]
    assert matcher.waits() == [2]


def test_a_wait_takes_the_earliest_event_of_its_name() -> None:
    matcher = EventMatcher()
    for n in range(3):
        assert matcher.raised(event("a", n)) is None
    assert [matcher.awaited(seq, "a") for seq in range(4)] == [
        event("a", 0),
        event("a", 1),
        event("a", 2),
        None,
    ]


def test_names_compare_without_case() -> None:
    matcher = EventMatcher()
    matcher.awaited(1, "Straße")
    assert matcher.first_wait("STRASSE") == 1
    assert matcher.raised(event("sTRASSE")) == 1
    matcher.raised(event("GO"))
    assert matcher.awaited(2, "go") == event("GO")


def test_a_wait_that_was_given_up_consumes_nothing() -> None:
    matcher = EventMatcher()
    matcher.awaited(1, "a")
    matcher.awaited(2, "a")
    assert matcher.abandoned(1)
    assert not matcher.abandoned(1)
    assert matcher.raised(event("a")) == 2
    assert matcher.raised(event("a")) is None


def test_the_only_wait_of_a_name_may_be_given_up() -> None:
    matcher = EventMatcher()
    matcher.awaited(1, "a")
    matcher.abandoned(1)
    assert (matcher.waits(), matcher.first_wait("a")) == ([], None)
    assert matcher.raised(event("a")) is None
    assert matcher.awaited(2, "a") == event("a")


def test_what_nobody_consumed_is_told_in_order_of_arrival_over_all_names() -> None:
    matcher = EventMatcher()
    for n, name in enumerate("abab"):
        matcher.raised(event(name, n))
    matcher.awaited(1, "a")
    assert matcher.unconsumed() == [event("b", 1), event("a", 2), event("b", 3)]


def test_who_would_be_served_can_be_asked_without_serving() -> None:
    matcher = EventMatcher()
    assert matcher.first_wait("a") is None
    matcher.awaited(4, "a")
    assert matcher.first_wait("A") == 4
    assert matcher.waits() == [4]
