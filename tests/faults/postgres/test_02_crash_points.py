"""Scenarios 2, 3 and 5 on PostgreSQL: hosts die at named points, each time with four partitions in their hands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.clients import jobs
from tests.faults.effects import read_effects
from tests.faults.injectors.crash_points import SHARED_POINTS
from tests.faults.lives import Lives, lives
from tests.faults.postgres.conftest import Report
from tests.faults.postgres.places import Places
from tests.faults.test_02_crash_points import RINGS, WORK, die_and_go_on, visit


@pytest.fixture(scope="module")
def process() -> Iterator[Lives]:
    with lives() as found:
        yield found


@pytest.mark.parametrize("point", SHARED_POINTS)
def test_who_dies_at_a_named_point_loses_nothing_and_doubles_nothing(
    process: Lives, places: Places, point: str
) -> None:
    assert visit(process, places, WORK, point, (3,)) > 0


@pytest.mark.parametrize("point", ["statement sent", "after statement"])
def test_who_dies_around_continue_as_new_leaves_one_execution(
    process: Lives, places: Places, point: str
) -> None:
    assert visit(process, places, RINGS, point, (4,)) == 1


def test_an_activity_that_dies_halfway_runs_again_under_its_key(
    process: Lives, places: Places, report: Report
) -> None:
    folder = places / "halfway"
    died, verdict = die_and_go_on(process, folder, WORK, "within run", 5)
    assert died
    again = [runs for runs in read_effects(folder / "side.txt").runs.values() if len(runs) > 1]
    report(reruns=verdict.reruns)
    assert again
    assert all([run.delivery for run in runs] == [1, 2] for runs in again)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("point", SHARED_POINTS)
def test_who_dies_at_many_arrivals(process: Lives, places: Places, point: str, report: Report) -> None:
    report(deaths=visit(process, places, jobs(16), point, range(1, 200, 3)))
