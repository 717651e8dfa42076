"""Scenario 4: kill -9 while a fan-out of 1,000 is scheduled and run."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path

import pytest

from durably.core.events import TaskCompleted, TaskScheduled
from tests.faults.checker import check_file, read_events
from tests.faults.children import WIDTH, child, line_of, wide_app
from tests.faults.effects import SideFile, read_effects
from tests.faults.evidence import Evidence


def kill_within(evidence: Evidence, delay_s: float) -> int:
    """Kill the host so long after the turn began that schedules everything; returns how many schedules are there."""
    with child("fan_out", evidence.hub.parent) as process:
        assert line_of(process) == "scheduling"
        time.sleep(delay_s)  # chance decides what is going on then
        process.kill()
        process.wait()
    try:
        events = asyncio.run(read_events(evidence, "wide"))
    except AssertionError:
        return 0
    return sum(isinstance(event, TaskScheduled) for event in events)


async def finish(evidence: Evidence) -> int:
    side = SideFile(evidence.side, 1)
    async with wide_app(side).host(evidence.url) as host:
        handle = await host.client.start("wide", WIDTH, instance_id="wide", on_existing="attach")
        result = await handle.result(timeout=60)
    side.close()
    return result


@pytest.mark.slow_once
@pytest.mark.parametrize("delay_s", [0.0, 0.003, 0.02])
def test_a_fan_out_is_scheduled_whole_or_not_at_all(tmp_path: Path, delay_s: float) -> None:
    evidence = Evidence.in_folder(tmp_path)
    scheduled = kill_within(evidence, delay_s)
    assert scheduled in (0, WIDTH)
    assert asyncio.run(finish(evidence)) == WIDTH * (WIDTH - 1) // 2
    events = asyncio.run(read_events(evidence, "wide"))
    assert sum(isinstance(event, TaskCompleted) for event in events) == WIDTH
    check_file(evidence)
    effects = read_effects(evidence.side)
    assert len(effects.runs) == WIDTH
    assert max(len(runs) for runs in effects.runs.values()) <= 2
    sys.stdout.write(f"killed after {delay_s:g} s: {scheduled} scheduled, {effects.reruns} reruns\n")


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_fifty_deaths_of_fan_outs(tmp_path: Path) -> None:
    chance = random.Random(4)
    for number in range(50):
        folder = tmp_path / str(number)
        folder.mkdir()
        test_a_fan_out_is_scheduled_whole_or_not_at_all(folder, chance.uniform(0, 0.2))
