"""FEATURES 4.4: timers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from durably import App, AppHost, EngineOptions, OrchestrationContext
from tests.support.clock import START, ManualClock
from tests.support.hubs import Deployment
from tests.support.waiting import has_event, is_quiet, reaches


def sleeper() -> App:
    """An app whose "sleep" waits for some seconds and tells when it went on, on the orchestration clock."""
    app = App()

    @app.orchestrator(name="sleep")
    async def sleep(ctx: OrchestrationContext, seconds: float) -> float:
        await ctx.create_timer(seconds)
        return (ctx.current_utc_datetime - START).total_seconds()

    return app


async def status_of(host: AppHost, instance_id: str) -> str:
    status = await host.client.get_status(instance_id)
    assert status is not None
    return status.runtime_status


async def test_4_4_1_a_timer_fires_at_its_due_time_and_not_before(
    hub: Deployment, clock: ManualClock
) -> None:
    async with hub.host(sleeper(), clock=clock) as host:
        handle = await host.client.start("sleep", 60)
        clock.advance(timedelta(seconds=60) - timedelta(microseconds=1))
        await is_quiet(host)
        assert await status_of(host, handle.instance_id) == "Running"
        clock.advance(timedelta(microseconds=1))
        assert await handle.result() == 60


@pytest.mark.parametrize("down", [10.0, 100.0], ids=["not due yet", "due while nobody served the hub"])
async def test_4_4_1_a_timer_is_neither_early_nor_lost_after_downtime(
    hub: Deployment, clock: ManualClock, down: float
) -> None:
    host = await hub.start(sleeper(), clock=clock)
    await host.client.start("sleep", 60, instance_id="i")
    await hub.crash(host)
    clock.advance(down)
    host = await hub.start(sleeper(), clock=clock)
    if down < 60:
        await is_quiet(host)
        assert await status_of(host, "i") == "Running"
        clock.advance(60 - down)
    assert (await host.client.wait_for_completion("i")).output == max(60, down)


@pytest.mark.parametrize("due", [-60.0, 0.0, START - timedelta(days=3)], ids=str)
async def test_4_4_1_a_due_time_in_the_past_fires_in_the_next_turn(
    memory: Deployment, clock: ManualClock, due: Any
) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> bool:
        timer = ctx.create_timer(due)
        await asyncio.sleep(0)
        at_once = timer.done()
        await timer
        return at_once

    async with memory.host(app, clock=clock) as host:
        handle = await host.client.start(flow)
        assert await handle.result() is False
        types = [entry.event_type for entry in await handle.history()]
        assert types == [
            "OrchestratorStarted",
            "ExecutionStarted",
            "TimerCreated",
            "OrchestratorStarted",
            "TimerFired",
            "ExecutionCompleted",
        ]


async def test_4_4_1_a_timer_behind_the_horizon_is_read_in_time(hub: Deployment, clock: ManualClock) -> None:
    """Timers due later than `timer_horizon_s` are not held in memory."""
    async with hub.host(sleeper(), clock=clock, options=EngineOptions(timer_horizon_s=100)) as host:
        handle = await host.client.start("sleep", 1_000)
        for _ in range(99):
            clock.advance(10)
            await is_quiet(host)
        assert await status_of(host, handle.instance_id) == "Running"
        clock.advance(10)
        assert await handle.result() == 1_000


async def test_4_4_2_aware_instants_of_any_zone_are_the_same_instant(
    memory: Deployment, clock: ManualClock
) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> int:
        due = datetime(2026, 3, 1, 13, tzinfo=UTC)
        timers = [
            ctx.create_timer(due),
            ctx.create_timer(due.astimezone(timezone(timedelta(hours=9)))),
            ctx.create_timer(due.astimezone(timezone(-timedelta(hours=3, minutes=30)))),
            ctx.create_timer(due.replace(tzinfo=None)),
        ]
        await ctx.when_any(timers)
        return sum(timer.done() for timer in timers)

    async with memory.host(app, clock=clock) as host:
        handle = await host.client.start(flow)
        fire_at = {
            entry.details["fire_at"] for entry in await handle.history() if entry.event_type == "TimerCreated"
        }
        assert fire_at == {"2026-03-01T13:00:00+00:00"}
        clock.advance(3600)
        await handle.result()


async def test_4_4_3_a_timer_of_months_is_one_timer_to_user_code(hub: Deployment, clock: ManualClock) -> None:
    host = await hub.start(sleeper(), clock=clock)
    await host.client.start("sleep", timedelta(days=100).total_seconds(), instance_id="i")
    for _ in range(9):
        clock.advance(timedelta(days=10))
        await is_quiet(host)
    assert await status_of(host, "i") == "Running"
    host = await hub.recover(host, sleeper(), clock=clock)
    clock.advance(timedelta(days=10))
    assert (await host.client.wait_for_completion("i")).output == 8_640_000
    types = [entry.event_type for entry in await host.client.get_history("i")]
    assert (types.count("TimerCreated"), types.count("TimerFired")) == (1, 1)


async def test_4_4_3_a_timer_of_months_is_cancelled_as_one(memory: Deployment, clock: ManualClock) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        timer = ctx.create_timer(timedelta(days=100))
        await ctx.wait_for_external_event("go")
        timer.cancel()
        return await ctx.wait_for_external_event("end", str)

    async with memory.host(app, clock=clock) as host:
        handle = await host.client.start(flow)
        clock.advance(timedelta(days=50))
        await handle.raise_event("go")
        clock.advance(timedelta(days=100))
        await is_quiet(host)
        await handle.raise_event("end", "over")
        assert await handle.result() == "over"
        types = [entry.event_type for entry in await handle.history()]
        assert (types.count("TimerCanceled"), types.count("TimerFired")) == (1, 0)


async def test_4_4_4_a_cancelled_timer_never_fires_and_does_not_keep_the_instance_alive(
    memory: Deployment, clock: ManualClock
) -> None:
    app = App()

    @app.orchestrator
    async def race(ctx: OrchestrationContext) -> str:
        timer = ctx.create_timer(60)
        event = ctx.wait_for_external_event("go", str)
        winner = await ctx.when_any([timer, event])
        if winner is event:
            timer.cancel()
            return event.result()
        return "too late"

    async with memory.host(app, clock=clock) as host:
        handle = await host.client.start(race)
        await handle.raise_event("go", "in time")
        assert await handle.result() == "in time"  # without the clock having moved
        history = await handle.history()
        clock.advance(3600)
        await is_quiet(host)
        assert await handle.history() == history
        assert "TimerFired" not in [entry.event_type for entry in history]


async def test_4_4_5_timers_of_one_instant_complete_in_the_order_of_their_creation(
    hub: Deployment, clock: ManualClock
) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> list[int]:
        due = ctx.current_utc_datetime + timedelta(seconds=60)
        later = ctx.create_timer(due + timedelta(microseconds=1))
        timers = [ctx.create_timer(due) for _ in range(12)]
        order: list[int] = []
        for place, timer in enumerate([later, *timers]):
            timer.add_done_callback(lambda _, place=place: order.append(place))
        await ctx.when_all([later, *timers])
        return order

    host = await hub.start(app, clock=clock)
    await host.client.start(flow, instance_id="i")
    host = await hub.recover(host, app, clock=clock)
    clock.advance(61)
    assert (await host.client.wait_for_completion("i")).output == [*range(1, 13), 0]
    fired = [
        entry.task_id for entry in await host.client.get_history("i") if entry.event_type == "TimerFired"
    ]
    assert fired == [*range(1, 13), 0]


@pytest.mark.parametrize("crash", [False, True])
async def test_4_4_6_a_suspended_instance_gets_its_due_timers_on_resume(
    hub: Deployment, clock: ManualClock, crash: bool
) -> None:
    host = await hub.start(sleeper(), clock=clock)
    await host.client.start("sleep", 60, instance_id="i")
    await host.client.suspend("i")
    clock.advance(100)
    await is_quiet(host)
    assert await status_of(host, "i") == "Suspended"
    if crash:
        host = await hub.recover(host, sleeper(), clock=clock)
        await is_quiet(host)
        assert await status_of(host, "i") == "Suspended"
    clock.advance(100)
    await host.client.resume("i")
    assert (await host.client.wait_for_completion("i")).output == 200
    types = [entry.event_type for entry in await host.client.get_history("i")]
    assert types.count("TimerFired") == 1


async def test_4_4_7_timers_survive_one_change_of_host_after_the_other(
    hub: Deployment, clock: ManualClock
) -> None:
    host = await hub.start(sleeper(), clock=clock)
    await host.client.start("sleep", 60, instance_id="i")
    for change in range(5):
        clock.advance(10)
        change_host = hub.recover if change % 2 else hub.restart
        host = await change_host(host, sleeper(), clock=clock)
    await is_quiet(host)
    assert await status_of(host, "i") == "Running"
    clock.advance(10)
    assert (await host.client.wait_for_completion("i")).output == 60


@pytest.mark.parametrize("restart", [False, True])
async def test_4_4_7_a_clock_that_was_set_back_delays_a_timer_and_loses_nothing(
    hub: Deployment, clock: ManualClock, restart: bool
) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> list[float]:
        seen: list[float] = []
        for seconds in (60, 60):
            await ctx.create_timer(seconds)
            seen.append((ctx.current_utc_datetime - START).total_seconds())
        return seen

    host = await hub.start(app, clock=clock)
    await host.client.start(flow, instance_id="i")
    clock.advance(60)
    await has_event(host, "i", "TimerCreated", 2)  # due at 120
    clock.set(START - timedelta(minutes=5))
    if restart:
        host = await hub.recover(host, app, clock=clock)
    await is_quiet(host)
    clock.set(START + timedelta(seconds=119.999))
    await is_quiet(host)
    assert await status_of(host, "i") == "Running"
    clock.set(START + timedelta(seconds=120))
    done = await reaches(host, "i", "Completed")
    assert done.output == [60, 120]


async def test_4_4_7_orchestration_time_never_goes_back(memory: Deployment, clock: ManualClock) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> list[float]:
        seen = [(ctx.current_utc_datetime - START).total_seconds()]
        await ctx.wait_for_external_event("go")
        return [*seen, (ctx.current_utc_datetime - START).total_seconds()]

    async with memory.host(app, clock=clock) as host:
        handle = await host.client.start(flow)
        clock.set(START - timedelta(minutes=5))
        await handle.raise_event("go")
        assert await handle.result() == [0, 0]
