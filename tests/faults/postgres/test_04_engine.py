"""Scenarios 4, 8, 20 and 40 on PostgreSQL: the same tests as on a file, with four partitions."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from durably.core.events import TimerFired
from tests.faults import test_04_fan_out_death, test_08_signals, test_17_clock, test_40_operator_races
from tests.faults.checker import read_events
from tests.faults.evidence import Evidence
from tests.faults.postgres.places import Places


@pytest.fixture
def folder(places: Places, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DURABLY_LEASE_S", "1")
    monkeypatch.setenv("DURABLY_PARTITIONS", "4")
    return places / "hub"


def test_a_fan_out_is_scheduled_whole_or_not_at_all(folder: Path) -> None:
    test_04_fan_out_death.test_a_fan_out_is_scheduled_whole_or_not_at_all(folder, 0.02)


def test_sigterm_under_load_drains_and_lets_the_hub_go(folder: Path) -> None:
    test_08_signals.test_sigterm_under_load_drains_and_lets_the_hub_go(folder)


def test_what_became_due_while_nobody_was_there_fires_once(folder: Path) -> None:
    """The clock of a hub on a server cannot be set ahead three days: the hosts are away for two seconds."""
    evidence, count = Evidence.in_folder(folder), 500
    due_s = 1.0

    async def main() -> float:
        async with test_17_clock.sleeper().host(evidence.url) as host:
            starts = (host.client.start("sleep", due_s, instance_id=f"s-{n}") for n in range(count))
            await asyncio.gather(*starts)
        await asyncio.sleep(2 * due_s)
        async with test_17_clock.sleeper().host(evidence.url) as host:
            began = time.monotonic()
            for n in range(count):
                await host.client.handle(f"s-{n}").result()
            return time.monotonic() - began

    took = asyncio.run(main())
    sys.stdout.write(f"{count} overdue timers: all over after {took:.2f} s\n")
    for n in range(0, count, count // 20):
        events = asyncio.run(read_events(evidence, f"s-{n}"))
        assert sum(isinstance(event, TimerFired) for event in events) == 2  # its own, and that of the event


def test_what_four_operators_are_told_is_explained_by_one_order(folder: Path) -> None:
    test_40_operator_races.judge(Evidence.in_folder(folder), instances=16, calls=8, seed=2)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_fifty_deaths_of_fan_outs(places: Places) -> None:
    for number in range(50):
        test_04_fan_out_death.test_a_fan_out_is_scheduled_whole_or_not_at_all(
            places / str(number), number * 0.004
        )


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("seed", range(3, 6))
def test_ten_thousand_calls_of_operators(folder: Path, seed: int) -> None:
    test_40_operator_races.judge(Evidence.in_folder(folder), instances=313, calls=8, seed=seed)
