"""The engine under seeds: each one a world of crashes, doubtful commits, reloads and jumping clocks."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import pytest

from durably.testing.simulation import (
    Report,
    simulate,
    simulate_bank,
    simulate_overdue,
    simulate_timetable,
    simulate_wheels,
)

SEEDS = int(os.environ.get("DURABLY_SEEDS", "500"))
SEED_FIRST = int(os.environ.get("DURABLY_SEED_FIRST", "0"))


def run_all(seeds: range, play: Callable[[int], Report] = simulate) -> list[Report]:
    with ProcessPoolExecutor(2) as pool:
        return list(pool.map(play, seeds, chunksize=5))


@pytest.mark.slow_once
@pytest.mark.timeout(600)
def test_every_seed_keeps_all_invariants_and_comes_to_its_foretold_end() -> None:
    reports = run_all(range(SEED_FIRST, SEED_FIRST + SEEDS))
    faults = sum(report.faults.total() for report in reports)
    print(f"{len(reports)} seeds, {faults} faults, {sum(report.commits for report in reports)} commits")
    assert len(reports) == SEEDS
    assert all(report.faults.total() >= 10 for report in reports)
    assert all(report.instances > 0 for report in reports)
    kinds = {kind for report in reports for kind in report.faults}
    assert kinds >= {"crash", "doubtful", "unavailable", "failed", "reload", "clock", "stop", "slow"}


def judge_banks(reports: list[Report]) -> None:
    """Every world has judged its books itself; here it is that enough went wrong, and at the moments that count."""
    faults = [report.faults.total() for report in reports]
    transfers = sum(report.transfers for report in reports)
    sections = sum(report.cut_sections for report in reports)
    grants = sum(report.cut_grants for report in reports)
    print(
        f"{len(reports)} banks, {sum(report.commits for report in reports)} commits, {transfers} transfers; "
        f"{sum(faults)} faults, {min(faults)} or more in each; {sections} critical sections lost their host between "
        f"grant and commit, {grants} of them before the grant was durable"
    )
    assert min(faults) >= 10
    assert all(report.instances > 0 for report in reports)
    assert transfers >= len(reports)
    assert sections >= len(reports) // 2
    assert grants >= len(reports) // 10


@pytest.mark.slow_once
@pytest.mark.timeout(600)
def test_the_books_of_every_bank_are_in_order() -> None:
    """Locks, transfers that are cut off, signals and calls: see `durably.testing.sim_bank`. A third as many seeds."""
    reports = run_all(range(SEED_FIRST, SEED_FIRST + max(1, SEEDS // 5)), simulate_bank)
    judge_banks(reports)


@pytest.mark.slow_once
@pytest.mark.timeout(600)
def test_every_occurrence_of_every_schedule_has_run_once() -> None:
    """Overlap and catch-up policies, pauses, backfills: see `durably.testing.sim_timetable`. A twentieth as many."""
    reports = run_all(range(SEED_FIRST, SEED_FIRST + max(1, SEEDS // 40)), simulate_timetable)
    print(f"{len(reports)} timetables, {sum(report.commits for report in reports)} commits")
    assert all(report.faults.total() >= 10 for report in reports)
    assert all(report.instances > 0 for report in reports)


@pytest.mark.slow_once
@pytest.mark.timeout(600)
def test_every_activity_that_hangs_has_failed_after_its_time() -> None:
    """Whatever happens to hosts meanwhile: see `durably.testing.sim_overdue`. A fiftieth as many."""
    reports = run_all(range(SEED_FIRST, SEED_FIRST + max(1, SEEDS // 50)), simulate_overdue)
    print(f"{len(reports)} worlds, {sum(report.commits for report in reports)} commits")
    assert all(report.faults.total() >= 10 for report in reports)
    assert all(report.instances > 0 for report in reports)


@pytest.mark.slow_once
@pytest.mark.timeout(600)
def test_no_life_is_continued_by_the_one_that_it_replaced() -> None:
    """What never rests is replaced and crashes: see `durably.testing.sim_wheels`. A hundredth as many."""
    reports = run_all(range(SEED_FIRST, SEED_FIRST + max(1, SEEDS // 100)), simulate_wheels)
    print(f"{len(reports)} worlds, {sum(report.commits for report in reports)} commits")
    assert all(report.faults.total() >= 10 for report in reports)
    assert all(report.instances > 0 for report in reports)


# A compensation that was refused, since the cancelled call that it undoes counted as under way.
@pytest.mark.parametrize("seed", [22])
def test_banks_that_failed_once_stay_fixed(seed: int) -> None:
    assert simulate_bank(seed).instances > 0


# What once went wrong: a batch that landed behind a reload (21, 27), a result that was told to nobody while the
# partition was loading (136), a host that stopped while its partition was lost (84), a carried event that was overtaken
# (486), a timer that fired early because the clock was set back between its ring and its turn (630).
@pytest.mark.parametrize("seed", [21, 27, 84, 117, 136, 486, 630])
def test_seeds_that_failed_once_stay_fixed(seed: int) -> None:
    assert simulate(seed).instances > 0


def test_a_seed_is_the_same_world_every_time() -> None:
    first, second = simulate(3), simulate(3)
    assert (first.fingerprint, first.faults, first.virtual_s) == (
        second.fingerprint,
        second.faults,
        second.virtual_s,
    )


@pytest.mark.soak
def test_seeds_without_end() -> None:
    """`make soak`: ten thousand more."""
    for report in run_all(range(1_000_000, 1_010_000)):
        assert report.faults.total() >= 10
    for play in (simulate_timetable, simulate_overdue, simulate_wheels):
        for report in run_all(range(1_000_000, 1_010_000), play):
            assert report.faults.total() >= 10


@pytest.mark.soak
@pytest.mark.parametrize("banks", [500, 10_000])
def test_banks_without_end(banks: int) -> None:
    """`make soak ARGS="-k banks -s"`: what goes wrong is told for each number of seeds."""
    judge_banks(run_all(range(1_000_000, 1_000_000 + banks), simulate_bank))
