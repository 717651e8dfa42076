"""docs/schedules.md says what is true: its code runs."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from durably.testing import DurableEnvironment

PAGE = Path(__file__).parents[2] / "docs" / "schedules.md"


def test_reports_are_made_and_hearts_beat() -> None:
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(code, names)

    async def main() -> list[Any]:
        async with DurableEnvironment(names["app"], start=datetime(2026, 3, 27, 12, tzinfo=UTC)) as env:
            await env.advance(timedelta(days=3))  # over the night in which clocks are set ahead
            beats = (await env.client.read_entity("@monitor@main"))["beats"]
            page = await env.client.query_instances(tags={"schedule.id": "nightly"})
            outputs = [(one.instance_id, one.output) for one in page.instances]
            started, upcoming, ids = await names["tour"](env.client)
            await env.settle()
            filled = await env.client.query_instances(tags={"schedule.kind": "backfill"})
            return [
                beats,
                outputs[-2:],
                started[:27],
                upcoming,
                ids,
                [one.instance_id for one in filled.instances],
            ]

    beats, outputs, started, upcoming, ids, filled = asyncio.run(main())
    assert beats == 3 * 24 * 2
    assert outputs == [
        ("nightly@2026-03-29T01:00:00Z", "full report of 2026-03-29T01:00:00Z"),
        ("nightly@2026-03-30T00:30:00Z", "full report of 2026-03-30T00:30:00Z"),
    ]
    assert started == "hourly@2026-03-30T12:00:00Z"
    assert upcoming == datetime(2026, 3, 30, 13, tzinfo=UTC)
    assert ids == ["heartbeat", "hourly", "nightly", "timer:cleanup"]
    assert len(filled) == 22
    assert filled[0] == "hourly@2026-02-26T07:00:00Z"
