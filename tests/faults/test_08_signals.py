"""Scenario 8: SIGTERM under load, again, and SIGKILL at the end of the patience, on real `durably run` processes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from durably.cli.output import Exit
from tests.faults.checker import check
from tests.faults.children import line_of, program
from tests.faults.clients import Clients, jobs, live_through, serving
from tests.faults.effects import SideFile, read_effects
from tests.faults.evidence import Evidence
from tests.faults.programs import build_patient
from tests.support.hubs import crash
from tests.support.waiting import eventually

HAND_OVER_S = 1.0
"""The bound of G11: a graceful stop lets the hub go so soon once nothing runs any more."""

LOAD = [job for job in jobs(400, first=8) if job.program in ("chain", "fan", "parent")]


@contextmanager
def served(evidence: Evidence, **environment: str) -> Iterator[subprocess.Popen[str]]:
    with program(
        "durably",
        "run",
        "tests/faults/served.py",
        "--hub",
        evidence.url,
        FAULTS_SIDE=str(evidence.side),
        FAULTS_LIFE=str(evidence.deaths),
        **environment,
    ) as process:
        while not line_of(process).startswith("Ready"):
            assert process.poll() is None, process.communicate()
        yield process


async def start_all(evidence: Evidence) -> None:
    """Start the load and die with nearly all of it to be done."""
    async with serving(evidence) as host:
        clients = asyncio.ensure_future(Clients(evidence, LOAD).drive(host))
        await eventually(lambda: len(evidence.started) == len(LOAD), "all starts")
        await crash(host)
        clients.cancel()
        await asyncio.gather(clients, return_exceptions=True)


def loaded(folder: Path) -> Evidence:
    evidence = Evidence.in_folder(folder)
    asyncio.run(start_all(evidence))
    return evidence


def goes_on(evidence: Evidence) -> None:
    assert asyncio.run(live_through(evidence, LOAD))
    verdict = check(evidence, floor=0.9)
    assert verdict.completed == len(LOAD)


@pytest.mark.slow_once
def test_sigterm_under_load_drains_and_lets_the_hub_go(tmp_path: Path) -> None:
    evidence = loaded(tmp_path)
    with served(evidence) as process:
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == Exit.OK
        took = time.monotonic() - asked
        assert process.stderr is not None
        assert "Stopped" in process.stderr.read()
    effects = read_effects(evidence.side)
    of_this_life = [attempt for attempt, runs in effects.runs.items() if runs[-1].life == evidence.deaths]
    assert of_this_life, "it was stopped before it did anything"
    cut_off = [attempt for attempt in of_this_life if not effects.ended[attempt]]
    assert not cut_off, "a drain waits for what runs"
    sys.stdout.write(f"stopped {took:.2f} s after SIGTERM, {len(of_this_life)} activities had run\n")
    assert took <= 3 * HAND_OVER_S
    evidence.note("death", 1)  # what had not begun may have been handed out
    goes_on(evidence)


@pytest.mark.slow_once
def test_a_second_sigterm_ends_it_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    evidence = Evidence.in_folder(tmp_path)
    asyncio.run(_start_patient(evidence))
    with served(evidence) as process:
        _wait_for_start(evidence)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        while "waiting up to 10 s for 1 activity" not in (line := process.stderr.readline()):
            assert line
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == Exit.INTERRUPTED
    evidence.note("death", 1)
    assert asyncio.run(_result(evidence)) == ["over"] * 3


@pytest.mark.slow_once
def test_what_is_left_when_the_patience_ends_runs_again(tmp_path: Path) -> None:
    evidence = Evidence.in_folder(tmp_path)
    asyncio.run(_start_patient(evidence))
    with served(evidence, DURABLY_DRAIN_TIMEOUT_S="0.1") as process:
        _wait_for_start(evidence)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == Exit.OK
    evidence.note("death", 1)
    with served(evidence) as process:
        _wait_for_start(evidence, times=2)
        process.kill()
    evidence.note("death", 1)
    assert asyncio.run(_result(evidence)) == ["over"] * 3
    first, *_ = read_effects(evidence.side).runs.values()
    assert [run.life for run in first] == [0, 1, 2]


def _wait_for_start(evidence: Evidence, times: int = 1) -> None:
    deadline = time.monotonic() + 20
    while sum(map(len, read_effects(evidence.side).runs.values())) < times:
        assert time.monotonic() < deadline, "the activity did not start"
        time.sleep(0.01)


async def _start_patient(evidence: Evidence) -> None:
    """An instance whose first activity takes longer than any patience."""
    async with build_patient(SideFile(evidence.side, 0), 60.0).host(evidence.url) as host:
        await host.client.start("patient", instance_id="p", start_at=0.5)
        await crash(host)


async def _result(evidence: Evidence) -> object:
    async with build_patient(SideFile(evidence.side, evidence.deaths), 0.0).host(evidence.url) as host:
        return await host.client.handle("p").result(timeout=60)
