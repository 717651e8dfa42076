"""Scenarios 17 and 18: hosts whose machines tell a wrong time. The time of a hub is that of its database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from durably import App, AppHost, Client, EngineOptions, OrchestrationContext
from durably.clock import SystemClock
from tests.faults.postgres.conftest import Report
from tests.support.postgres import PostgresServer

MINUTE = 60_000_000
TIMERS = 24
DUE_S = 2.0

app = App()


@app.orchestrator
async def sleeper(ctx: OrchestrationContext, seconds: float) -> float:
    """How late its timer was, in seconds of orchestration time."""
    began = ctx.current_utc_datetime
    await asyncio.sleep(seconds)
    return (ctx.current_utc_datetime - began).total_seconds() - seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the clock of this machine so far ahead."""

    def is_ahead(by_us: int) -> None:
        def now(_: SystemClock) -> int:
            return time.time_ns() // 1_000 + by_us

        monkeypatch.setattr(SystemClock, "now", now)

    return is_ahead


def host_of(url: str) -> AppHost:
    return app.host(url, options=EngineOptions(partitions=4, lease_s=2))


def test_two_hosts_two_minutes_apart_fire_each_timer_once_and_in_time(
    shared_server: PostgresServer, hub_name: str, machine: Callable[[int], None], report: Report
) -> None:
    url = shared_server.url(hub_name)

    async def main() -> list[float]:
        machine(MINUTE)
        first = host_of(url)
        await first.start()
        began = time.time()
        names = [f"s-{number}" for number in range(TIMERS)]
        for name in names:
            await first.client.start(sleeper, DUE_S, instance_id=name)
        machine(-MINUTE)
        second = host_of(url)
        await second.start()
        await first.stop()
        late = [await second.client.handle(name).result(timeout=30) for name in names]
        took = time.time() - began
        status = await second.client.get_status(names[0])
        await second.stop()
        assert took >= DUE_S, "a timer was early"
        assert status is not None
        assert abs(status.created_time.timestamp() - began) < 20, "it was not created in the time of the hub"
        return late

    late = asyncio.run(main())
    report(timers=len(late), latest_s=round(max(late), 2))
    assert min(late) >= 0
    assert max(late) < 30  # a minute of either machine would show


def test_a_delay_that_a_client_asks_for_begins_now_whatever_its_clock_says(
    shared_server: PostgresServer, hub_name: str, machine: Callable[[int], None]
) -> None:
    url = shared_server.url(hub_name)

    async def main() -> float:
        async with host_of(url) as host, Client(url) as client:
            machine(-10 * MINUTE)
            began = time.monotonic()
            handle = await client.start(sleeper, 0.0, instance_id="later", start_at=2)
            machine(0)
            await host.client.handle(handle.instance_id).result(timeout=60)
            return time.monotonic() - began

    took = asyncio.run(main())
    assert took >= 2, "it began ten minutes ago"


@pytest.mark.parametrize("jump_us", [60 * MINUTE, -60 * MINUTE, -24 * 60 * MINUTE])
def test_a_clock_that_jumps_moves_no_timer_and_no_lease(
    shared_server: PostgresServer, hub_name: str, machine: Callable[[int], None], jump_us: int
) -> None:
    async def main() -> tuple[float, list[int]]:
        async with host_of(shared_server.url(hub_name)) as host:
            handle = await host.client.start(sleeper, DUE_S)
            began = time.monotonic()
            machine(jump_us)
            await handle.result(timeout=30)
            took = time.monotonic() - began
            epochs = [one.epoch for one in (await host.engine.store.survey()).partitions]
        return took, epochs

    took, epochs = asyncio.run(main())
    assert took >= DUE_S - 0.1
    assert epochs == [1] * 4, "a partition was taken again"
