"""The time of a hub that hosts share."""

from __future__ import annotations

import logging
import time

import pytest

from durably.clock import SystemClock
from durably.engine.hub_clock import HubClock

HOUR = 3_600_000_000


def test_it_starts_as_the_clock_of_the_machine() -> None:
    before = time.time_ns() // 1_000
    now = HubClock().now()
    assert before - 1_000 <= now <= time.time_ns() // 1_000 + 1_000


def test_it_follows_the_hub_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = HubClock()
    asked = clock.now()
    with caplog.at_level(logging.WARNING, "durably.engine"):
        clock.heard(asked - HOUR, asked, asked)
        assert abs(clock.now() - (asked - HOUR)) < 1_000_000
        asked = clock.now()
        clock.heard(asked + 100_000, asked, asked)
    (said,) = caplog.messages
    assert "3600.0 s ahead of" in said


def test_an_answer_within_the_time_of_asking_moves_nothing() -> None:
    clock = HubClock()
    ahead = clock._ahead
    asked = clock.now()
    for told in (asked, asked + 1, asked + 50_000, asked - 9_000):
        clock.heard(told, asked, asked + 50_000)
    assert clock._ahead == ahead


def test_a_jump_of_the_wall_clock_is_not_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HubClock()
    before = clock.now()

    def jumped(_: SystemClock) -> int:
        return before + HOUR

    monkeypatch.setattr(SystemClock, "now", jumped)
    assert 0 <= clock.now() - before < 10_000_000
