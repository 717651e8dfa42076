"""Scenarios 2, 3 and 5: the process dies at a named point, within an activity, and around continue-as-new."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.faults.checker import Verdict, check
from tests.faults.clients import jobs
from tests.faults.effects import read_effects
from tests.faults.evidence import Evidence
from tests.faults.injectors.crash_points import POINTS
from tests.faults.lives import Lives, lives
from tests.faults.plan import Job

WORK = jobs(8, first=8)
RINGS = [job for job in jobs(40) if job.program == "ring"]


@pytest.fixture(scope="module")
def process() -> Iterator[Lives]:
    with lives() as found:
        yield found


def die_and_go_on(process: Lives, folder: Path, work: list[Job], point: str, k: int) -> tuple[bool, Verdict]:
    """Die at the k-th arrival at a point, then end all jobs. False when there were fewer than k."""
    folder.mkdir(parents=True, exist_ok=True)
    died = not process.live(folder, work, point, k)
    if died:
        assert process.live(folder, work)
    evidence = Evidence.of_journal(folder)
    verdict = check(evidence, floor=0.9)
    assert verdict.completed == len(work)
    return died, verdict


class Places(Protocol):
    """Where folders come from, such as a folder."""

    def __truediv__(self, name: str, /) -> Path: ...


def visit(process: Lives, folder: Places, work: list[Job], point: str, ks: Iterable[int]) -> int:
    deaths = 0
    for k in ks:
        died, _ = die_and_go_on(process, folder / f"{k}", work, point, k)
        if not died:
            break
        deaths += 1
    return deaths


@pytest.mark.slow_once
@pytest.mark.parametrize("point", POINTS)
def test_who_dies_at_a_named_point_loses_nothing_and_doubles_nothing(
    process: Lives, tmp_path: Path, point: str
) -> None:
    assert visit(process, tmp_path, WORK, point, (1, 2, 5)) > 0


@pytest.mark.slow_once
@pytest.mark.parametrize("point", ["before commit", "within commit", "after commit"])
def test_who_dies_around_continue_as_new_leaves_one_execution(
    process: Lives, tmp_path: Path, point: str
) -> None:
    """Its result says that each carried event is there once; C11 that nothing of an earlier execution is left."""
    assert visit(process, tmp_path, RINGS, point, (1, 3, 4, 6)) == 4


@pytest.mark.slow_once
def test_an_activity_that_dies_halfway_runs_again_under_its_key(process: Lives, tmp_path: Path) -> None:
    died, verdict = die_and_go_on(process, tmp_path / "1", WORK, "within run", 5)
    assert died
    assert verdict.reruns >= 1
    again = [runs for runs in read_effects(tmp_path / "1" / "side.txt").runs.values() if len(runs) > 1]
    assert all([run.delivery for run in runs] == [1, 2] for runs in again)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("point", POINTS)
def test_who_dies_at_every_arrival(process: Lives, tmp_path: Path, point: str) -> None:
    deaths = Counter(work=visit(process, tmp_path / "work", jobs(16), point, range(1, 10_000)))
    deaths["rings"] = visit(process, tmp_path / "rings", RINGS, point, range(1, 10_000))
    sys.stdout.write(f"{point}: {dict(deaths)} deaths\n")
    assert deaths.total() > 0
