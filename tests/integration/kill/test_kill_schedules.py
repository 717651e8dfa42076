"""Hosts with schedules are killed, again and again: each occurrence in the whole time ran once."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from durably import Client
from tests.integration.kill.timetable import STARTING, build_app
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[3]
KILLS = 10


def live_and_die(hub: str, effects: Path, seconds: float) -> None:
    arguments = [sys.executable, "-m", "tests.integration.kill.timetable", hub, str(effects)]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "serving\n"
        time.sleep(seconds)
        process.kill()


async def come_to_rest(client: Client) -> dict[str, tuple[datetime, datetime]]:
    """Let the schedules end soon; returns from when to when each came due."""
    lives: dict[str, tuple[datetime, datetime]] = {}
    for schedule_id in (*STARTING, "heart"):
        end = datetime.now(UTC) + timedelta(seconds=1)  # what is due by then is not over when this is taken
        await client.schedules.update(schedule_id, end_at=end)
        lives[schedule_id] = ((await client.schedules.describe(schedule_id)).created_time, end)

    async def is_at_rest() -> bool:
        found = (await client.schedules.list()).schedules
        return not any(one.next_time or one.running or one.buffered for one in found)

    await eventually(is_at_rest)
    return lives


def seconds_in(life: tuple[datetime, datetime]) -> list[str]:
    at = life[0].replace(microsecond=0) + timedelta(seconds=1)
    found: list[str] = []
    while at <= life[1]:
        found.append(f"{at:%Y-%m-%dT%H:%M:%SZ}")
        at += timedelta(seconds=1)
    return found


@pytest.mark.slow_once
def test_each_second_is_served_once_over_ten_kills(tmp_path: Path) -> None:
    hub, effects = f"sqlite:///{tmp_path / 'hub.db'}", tmp_path / "effects.txt"
    chance = random.Random(4)
    for _ in range(KILLS):
        live_and_die(hub, effects, chance.choice((0.0, 0.05, 0.3, 0.6)))

    async def judge() -> None:
        async with build_app(str(effects)).host(hub) as host:
            client = host.client
            lives = await come_to_rest(client)
            ran = Counter(effects.read_text().split())
            for schedule_id in STARTING:
                expected = [f"{schedule_id}@{second}" for second in seconds_in(lives[schedule_id])]
                assert len(expected) >= 3
                page = await client.query_instances(tags={"schedule.id": schedule_id}, page_size=1_000)
                assert sorted(one.instance_id for one in page.instances) == expected
                assert [one.output for one in page.instances] == [one.instance_id for one in page.instances]
                assert all(ran[one] >= 1 for one in expected)  # an activity that was cut off runs again
                found = await client.schedules.describe(schedule_id)
                assert (found.started, found.skipped, found.missed) == (len(expected), 0, 0)
            beats = await client.call_entity("@heart@", "beat")
            assert beats is None
            state = await client.read_entity("@heart@")
            assert state["beats"] - 1 == len(seconds_in(lives["heart"]))
            assert set(ran) == {
                f"{schedule_id}@{second}"
                for schedule_id in STARTING
                for second in seconds_in(lives[schedule_id])
            }

    asyncio.run(judge())
