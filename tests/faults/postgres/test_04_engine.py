"""Scenarios 4, 7, 8, 9, 19, 20, 38 and 40 on PostgreSQL: the same tests as on a file, with four partitions."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from durably.core.events import TimerFired
from tests.faults import (
    test_04_fan_out_death,
    test_07_broken_import,
    test_08_signals,
    test_09_memory,
    test_17_clock,
    test_19_clocks_are_set,
    test_40_operator_races,
)
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


def test_the_others_are_served_and_the_work_of_a_broken_file_waits(folder: Path) -> None:
    test_07_broken_import.test_the_others_are_served_and_the_work_of_a_broken_file_waits(folder)


def test_with_nothing_to_serve_no_hub_is_made(folder: Path) -> None:
    test_07_broken_import.test_with_nothing_to_serve_it_says_what_is_wrong_and_touches_no_hub(folder)


def test_an_activity_for_which_there_is_no_memory_fails_and_the_others_go_on(folder: Path) -> None:
    test_09_memory.test_an_activity_for_which_there_is_no_memory_fails_and_the_others_go_on(folder)


def test_a_process_that_dies_of_it_is_a_death_like_any_other(folder: Path) -> None:
    test_09_memory.test_a_process_that_dies_of_it_is_a_death_like_any_other(folder)


def test_a_history_larger_than_memory_is_set_aside_and_the_others_go_on(folder: Path) -> None:
    test_09_memory.test_a_history_larger_than_memory_is_set_aside_and_the_others_go_on(folder)


@pytest.mark.parametrize("what", ["payload", "fan", "long"])
def test_what_is_large_fits_under_a_cap(folder: Path, what: str) -> None:
    test_09_memory.test_what_is_large_fits_under_a_cap(folder, what)


def test_what_is_too_deep_is_refused_where_it_comes_from(folder: Path) -> None:
    test_09_memory.test_what_is_too_deep_is_refused_where_it_comes_from(folder)


def test_a_loop_that_never_ends_fails_at_its_limit_with_the_cure(folder: Path) -> None:
    test_09_memory.test_a_loop_that_never_ends_fails_at_its_limit_with_the_cure(folder)


def test_each_time_runs_once_whatever_clocks_show(folder: Path) -> None:
    test_19_clocks_are_set.each_time_runs_once(folder, hosts=2)


def test_times_that_nobody_was_there_for_run_once_as_well(folder: Path) -> None:
    test_19_clocks_are_set.what_was_missed_runs_once(folder, hosts=2)


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
