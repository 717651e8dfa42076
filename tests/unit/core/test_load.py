"""How many hosts a hub should have."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from durably.core.load import HubLoad, Rule, recommended_hosts

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def late(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        # Nothing to do
        ({}, 0),
        ({"hosts": 5, "places": 5_000}, 0),
        ({"next_timer": ago(-61)}, 0),
        ({"held_at": ago(61)}, 0),
        # Little to do
        ({"next_timer": ago(-59)}, 1),
        ({"held_at": ago(59)}, 1),
        ({"messages": 1}, 1),
        ({"timers_due": 1}, 1),
        ({"in_flight": 1}, 1),
        ({"running": 1, "hosts": 1, "places": 1_000}, 1),
        # By amount
        ({"messages": 500}, 1),
        ({"messages": 501}, 2),
        ({"messages": 250, "timers_due": 251}, 2),
        ({"running": 1_500}, 2),
        ({"running": 20, "hosts": 2, "places": 20}, 2),
        ({"running": 20, "activities": 5, "hosts": 2, "places": 20}, 3),
        ({"running": 10, "tasks": 1, "hosts": 1, "places": 10}, 2),
        # By time
        ({"messages": 500, "oldest_wait": late(11)}, 2),
        ({"messages": 500, "oldest_wait": late(9)}, 1),
        ({"activities": 100, "running": 2, "hosts": 3, "places": 3_000, "oldest_wait": late(11)}, 4),
        ({"activities": 1, "running": 1, "hosts": 3, "places": 3_000, "oldest_wait": late(11)}, 2),
        ({"messages": 1, "hosts": 3, "places": 3_000, "oldest_wait": late(9_999)}, 1),
        # Limits
        ({"messages": 5_000, "running": 20_000, "oldest_wait": late(60)}, 32),
    ],
)
def test_the_rule(load: dict[str, Any], expected: int) -> None:
    given: dict[str, Any] = {"at": NOW, "hosts": 0, "partitions": 32, "unowned": 0} | load
    assert recommended_hosts(HubLoad(**given)) == HubLoad(**given).recommended_hosts == expected


def test_limits_and_another_rule() -> None:
    load = HubLoad(at=NOW, hosts=1, partitions=32, unowned=0, messages=2_000)
    assert recommended_hosts(load, most=3) == 3
    assert recommended_hosts(load, least=8) == 8
    assert recommended_hosts(load, Rule(messages=100)) == 20
    assert recommended_hosts(HubLoad(at=NOW, hosts=1, partitions=32, unowned=0), least=2, most=4) == 2
