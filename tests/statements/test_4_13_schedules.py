"""FEATURES 4.13.1, 4.13.2, and the promises of schedules: when, how often, what beside what, and who sees it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from durably import (
    App,
    Client,
    EngineOptions,
    EntityContext,
    EntityCorruptError,
    EntityId,
    HubNotFoundError,
    InvalidIdError,
    InvalidScheduleError,
    OrchestrationContext,
    RegistrationError,
    ScheduleAlreadyExistsError,
    ScheduleDescription,
    ScheduleNotFoundError,
    UsageError,
)
from durably.testing import DurableEnvironment
from tests.support.clock import ManualClock
from tests.support.hubs import Deployment, FileHub, MemoryHubOfTest
from tests.support.waiting import eventually, is_quiet

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


def works() -> App:
    """`quick` ends at once, `slow` after its input in hours, `stubborn` ignores that it is cancelled, `deaf` never ends."""
    app = App()

    @app.orchestrator
    async def quick(ctx: OrchestrationContext, given: Any = None) -> Any:
        return given

    @app.orchestrator
    async def origin(ctx: OrchestrationContext) -> Any:
        return [ctx.parent_instance_id, ctx.tags["schedule.time"]]

    @app.orchestrator
    async def slow(ctx: OrchestrationContext, hours: float) -> float:
        await ctx.create_timer(timedelta(hours=hours))
        return hours

    @app.orchestrator
    async def stubborn(ctx: OrchestrationContext) -> str:
        try:
            await ctx.wait_for_external_event("Go")
        except asyncio.CancelledError:
            await ctx.create_timer(timedelta(minutes=10))
        return "at last"

    @app.orchestrator
    async def broken(ctx: OrchestrationContext) -> None:
        raise ValueError("broken")

    @app.orchestrator
    async def twice(ctx: OrchestrationContext, lap: int = 0) -> None:
        await ctx.create_timer(timedelta(hours=0.75))
        if lap == 0:
            ctx.continue_as_new(1)

    @app.entity
    def tally(ctx: EntityContext) -> int:
        count = ctx.get_state(int, default=0) + ctx.get_input(int)
        ctx.set_state(count)
        return count

    return app


def world(app: App | None = None, **options: Any) -> DurableEnvironment:
    """Begins at noon of the first of March 2026, UTC."""
    return DurableEnvironment(works() if app is None else app, **options)


async def runs(client: Client, **filters: Any) -> dict[str, str]:
    """What has been started, in order, and how it is."""
    page = await client.query_instances(page_size=1_000, **filters)
    return {one.instance_id: one.runtime_status.value for one in page.instances}


def hours(*of_day: int, day: int = 1) -> list[str]:
    return [f"s@2026-03-{day:02}T{hour:02}:00:00Z" for hour in of_day]


async def look(env: DurableEnvironment) -> ScheduleDescription:
    return await env.client.schedules.describe("s")


# --- 4.13.1, 4.13.2 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("catch_up", "window", "expected"),
    [
        ("latest", None, hours(15)),
        ("skip", None, []),
        ("all", None, hours(13, 14, 15)),
        ("all", timedelta(hours=1.5), hours(14, 15)),
        ("latest", timedelta(minutes=1), []),
    ],
)
async def test_4_13_1_what_came_due_while_no_host_ran(
    hub: Deployment, clock: ManualClock, catch_up: Any, window: Any, expected: list[str]
) -> None:
    app = works()
    host = await hub.start(app, clock=clock)
    await host.client.schedules.create(
        "s", "quick", cron="0 0 * * * *", catch_up=catch_up, catch_up_window=window, overlap="allow"
    )
    await hub.stop(host)
    clock.advance(3.2 * 3600)
    async with hub.host(app, clock=clock) as host:
        schedules = host.client.schedules

        async def is_up_to_date() -> bool:
            return (await schedules.describe("s")).next_time == utc(2026, 3, 1, 16)

        await eventually(is_up_to_date)
        await is_quiet(host)
        page = await host.client.query_instances(tags={"schedule.past_due": "true"})
        assert [one.instance_id for one in page.instances] == expected
        found = await schedules.describe("s")
        assert (found.started, found.missed) == (len(expected), 3 - len(expected))
        assert all(one.past_due for one in found.recent)
        clock.advance(0.8 * 3600)
        on_time = await eventually(lambda: host.client.get_status(hours(16)[0]))
        assert on_time.tags["schedule.time"] == "2026-03-01T16:00:00Z"
        assert "schedule.past_due" not in on_time.tags
        await eventually(is_gone_by(host.client, hours(16)[0]))


def is_gone_by(client: Client, instance_id: str) -> Any:
    async def has_ended() -> bool:
        status = await client.get_status(instance_id)
        return status is not None and status.runtime_status.is_terminal

    return has_ended


async def test_4_13_1_seconds_are_honoured() -> None:
    async with world() as env:
        await env.client.schedules.create("s", "quick", cron="*/7 * * * * *")
        await env.advance(60)
        assert [at[-4:-1] for at in await runs(env.client)] == [
            ":07",
            ":14",
            ":21",
            ":28",
            ":35",
            ":42",
            ":49",
            ":56",
            ":00",
        ]


async def test_4_13_1_a_little_late_is_on_time(memory: Deployment, clock: ManualClock) -> None:
    app = works()
    host = await memory.start(app, clock=clock)
    await host.client.schedules.create("s", "quick", cron="0 0 * * * *", catch_up="skip")
    await memory.stop(host)
    clock.advance(3610)
    async with memory.host(app, clock=clock) as host:
        status = await eventually(lambda: host.client.get_status(hours(13)[0]))
        assert "schedule.past_due" not in status.tags


async def test_4_13_2_an_occurrence_runs_once_whoever_runs_it(hub: Deployment, clock: ManualClock) -> None:
    app = works()
    app.schedule("s", "quick", cron="0 */10 * * * *", overlap="allow")
    host = await hub.start(app, clock=clock)
    expected: list[str] = []
    for minute in range(10, 60, 10):
        clock.advance(600)
        expected.append(f"s@2026-03-01T12:{minute}:00Z")
        await eventually(is_gone_by(host.client, expected[-1]))
        host = await hub.recover(host, app, clock=clock)
    assert list(await runs(host.client)) == expected
    assert (await host.client.schedules.describe("s")).started == 5


@pytest.mark.parametrize(
    ("zone", "start", "expression", "expected"),
    [
        ("Europe/Berlin", utc(2026, 3, 27), "0 30 2 * * *", ["27T01:30", "28T01:30", "29T01:00", "30T00:30"]),
        ("Europe/Berlin", utc(2026, 10, 23), "0 30 2 * * *", ["23T00:30", "24T00:30", "25T00:30", "26T01:30"]),
        ("Europe/Berlin", utc(2026, 10, 25), "0 0 */1 * * *", ["25T01:00", "25T02:00", "25T03:00", "25T04:00"]),
        ("Australia/Lord_Howe", utc(2026, 10, 3), "0 15 2 * * *", ["03T15:30", "04T15:15", "05T15:15", "06T15:15"]),
        ("Australia/Lord_Howe", utc(2026, 4, 3), "0 45 1 * * *", ["03T14:45", "04T14:45", "05T15:15", "06T15:15"]),
    ],
)  # fmt: skip
async def test_4_13_2_clocks_are_set(
    zone: str, start: datetime, expression: str, expected: list[str]
) -> None:
    async with world(start=start) as env:
        await env.client.schedules.create("s", "quick", cron=expression, time_zone=zone)
        upcoming = (await look(env)).upcoming
        await env.advance(4 * DAY)
        found = list(await runs(env.client))[:4]
        assert [one[10:18] for one in found] == expected
        assert [f"{moment:%dT%H:%M}" for moment in upcoming[:4]] == expected


async def test_its_code_sees_no_parent_and_when_it_was_due() -> None:
    async with world() as env:
        await env.client.schedules.create("s", "origin", cron="0 0 * * * *")
        await env.advance(HOUR)
        status = await env.client.get_status(hours(13)[0])
        assert status is not None
        assert status.output == [None, "2026-03-01T13:00:00Z"]


# --- a month in milliseconds -----------------------------------------------------------------------------------------


async def test_a_month_of_days() -> None:
    app = works()
    app.schedule("s", "slow", 5, cron="0 0 3 * * *", time_zone="Europe/Berlin")
    async with world(app) as env:
        await env.advance(31 * DAY)
        found = await runs(env.client)
        assert len(found) == 31
        assert set(found.values()) == {"Completed"}
        assert list(found)[-1] == "s@2026-04-01T01:00:00Z"
        described = await look(env)
        assert (described.started, described.skipped, described.missed) == (31, 0, 0)
        assert described.running == []


async def test_an_interval_counts_from_its_start() -> None:
    async with world() as env:
        schedules = env.client.schedules
        start = env.now + timedelta(minutes=45)
        await schedules.create(
            "s", "quick", interval=HOUR, start_at=start, end_at=start + timedelta(hours=2.5)
        )
        await schedules.create("t", "quick", interval=5400.5)
        assert (await look(env)).next_time == start
        await env.advance(DAY)
        found = list(await runs(env.client, instance_id_prefix="s@"))
        assert found == [f"s@2026-03-01T{hour}:45:00Z" for hour in (12, 13, 14)]
        assert (await look(env)).next_time is None
        found = list(await runs(env.client, instance_id_prefix="t@"))
        assert found[:2] == ["t@2026-03-01T13:30:00.500000Z", "t@2026-03-01T15:00:01Z"]
        assert len(found) == 15


async def test_jitter_is_the_same_each_time() -> None:
    started: list[list[datetime]] = []
    for _ in range(2):
        async with world() as env:
            await env.client.schedules.create("s", "quick", cron="0 0 * * * *", jitter=timedelta(minutes=10))
            await env.advance(8 * HOUR)
            found = (await look(env)).recent
            assert [one.scheduled_time.hour for one in found] == [19, 18, 17, 16, 15, 14, 13]
            late = [one.started_time - one.scheduled_time for one in found]
            assert all(timedelta(0) <= one <= timedelta(minutes=10) for one in late)
            assert len(set(late)) > 3
            started.append([one.started_time for one in found])
    assert started[0] == started[1]


# --- overlap ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overlap", "fn", "started", "counts"),
    [
        ("skip", ("slow", 2.5), hours(13, 16, 19), (3, 4)),
        ("allow", ("slow", 2.5), hours(13, 14, 15, 16, 17, 18, 19), (7, 0)),
        ("buffer_one", ("slow", 2.5), hours(13, 14, 16, 19), (3, 3)),
        ("buffer_all", ("slow", 2.5), hours(13, 14, 15), (3, 0)),
        ("terminate_other", ("slow", 2.5), hours(13, 14, 15, 16, 17, 18, 19), (7, 0)),
        ("cancel_other", ("stubborn", None), hours(13, 14, 15, 16, 17, 18, 19), (7, 0)),
        ("skip", ("twice", 0), hours(13, 15, 17, 19), (4, 3)),
    ],
)
async def test_overlap(
    overlap: Any, fn: tuple[str, Any], started: list[str], counts: tuple[int, int]
) -> None:
    async with world() as env:
        await env.client.schedules.create("s", *fn, cron="0 0 * * * *", overlap=overlap)
        await env.advance(timedelta(hours=7, minutes=5))
        found = await runs(env.client)
        described = await look(env)
        if overlap == "buffer_one":  # 13:00 to 15:30, 15:30 to 18:00, and the next one
            started = [*hours(13, 14), *hours(16)]
            assert described.buffered == 1
        if overlap == "cancel_other":  # the one before needs ten minutes to end
            started = started[:-1]
            assert described.buffered == 1
        if overlap == "buffer_all":
            assert described.buffered == 4
        assert list(found) == started
        assert described.running == [one for one, status in found.items() if status == "Running"]
        if overlap != "allow":
            assert len(described.running) == 1
        if overlap == "terminate_other":
            assert list(found.values()) == ["Terminated"] * 6 + ["Running"]
            assert described.failed == 6
        expected = len(started), counts[1]
        if overlap == "buffer_one":
            expected = 3, 3
        assert (described.started, described.skipped) == expected


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("durably.schedules.runs.BUFFER_MAX", 5)
    monkeypatch.setattr("durably.schedules.runs.RUNNING_MAX", 5)
    async with world() as env:
        schedules = env.client.schedules
        await schedules.create("s", "stubborn", interval=60, overlap="buffer_all")
        await schedules.create("t", "stubborn", interval=60, overlap="allow")
        await env.advance(timedelta(minutes=20))
        described = await look(env)
        assert (described.started, described.buffered, described.dropped) == (1, 5, 14)
        described = await schedules.describe("t")
        assert (described.started, len(described.running), len(described.recent)) == (20, 5, 10)


async def test_the_end_of_an_instance_is_told_however_it_ends() -> None:
    async with world() as env:
        client, schedules = env.client, env.client.schedules
        await schedules.create("s", "stubborn", cron="0 0 * * * *")
        await env.advance(HOUR)
        await client.raise_event(hours(13)[0], "Go")
        await env.settle()
        await client.purge(hours(13)[0])  # it has ended, and that was told before
        await env.advance(HOUR)
        await client.terminate(hours(14)[0], "enough")
        await env.advance(HOUR)
        await client.cancel(hours(15)[0])
        await env.advance(HOUR)
        await client.suspend(hours(16)[0])
        await env.kill()
        await env.advance(HOUR)  # 17:00 is skipped
        await client.resume(hours(16)[0])
        await client.raise_event(hours(16)[0], "Go")
        await schedules.update("s", "broken")
        await env.advance(2 * HOUR)
        await schedules.update("s", "nobody")  # no host knows it
        await env.advance(2 * HOUR)
        described = await look(env)
        assert [one.status for one in reversed(described.recent)] == [
            "Completed",
            "Terminated",
            "Completed",
            "Completed",
            "Failed",
            "Failed",
            "Failed",
            "Failed",
        ]
        assert (described.started, described.skipped, described.failed) == (8, 1, 5)
        assert described.running == []


async def test_an_instance_that_waits_for_its_code_runs() -> None:
    async with world(options=EngineOptions(unknown_functions="wait", slow_turn_s=0)) as env:
        await env.client.schedules.create("s", "later", cron="0 0 * * * *")
        await env.advance(3 * HOUR)
        described = await look(env)
        assert (described.running, described.skipped) == (hours(13), 2)
        app = works()
        app.orchestrator(name="later")(_later)
        await env.restart(app)
        await env.settle()
        described = await look(env)
        assert (described.running, described.recent[0].status) == ([], "Completed")


async def _later(ctx: OrchestrationContext) -> None:
    pass


async def test_an_id_that_is_taken_is_left_alone() -> None:
    async with world() as env:
        stranger = await env.client.start("quick", "mine", instance_id=hours(13)[0])
        await env.client.schedules.create("s", "quick", "its", cron="0 0 * * * *")
        await env.advance(2 * HOUR)
        assert await stranger.result() == "mine"
        described = await look(env)
        assert [one.status for one in described.recent] == ["Completed", "AlreadyRan"]
        assert (described.started, described.failed) == (1, 0)


async def test_cancel_and_terminate_reach_nobody_else() -> None:
    async with world() as env:
        client = env.client
        await client.schedules.create("s", "stubborn", cron="0 0 * * * *", overlap="terminate_other")
        await env.advance(HOUR)
        await client.terminate(hours(13)[0])
        await client.start("stubborn", instance_id=hours(13)[0])  # another one takes the id
        await env.advance(HOUR)
        assert await runs(client) == {hours(13)[0]: "Running", hours(14)[0]: "Running"}


# --- entities --------------------------------------------------------------------------------------------------------


async def test_an_entity_is_signaled() -> None:
    async with world() as env:
        schedules = env.client.schedules
        await schedules.create("s", entity=EntityId("tally", "a"), operation="add", input=3, interval=60)
        await env.advance(timedelta(minutes=10))
        await env.kill()
        await env.advance(timedelta(minutes=10))
        assert await env.client.read_entity("@tally@a") == 60
        assert await schedules.trigger("s") is None
        await schedules.update("s", input=40)
        await env.advance(60)
        assert await env.client.read_entity("@tally@a") == 103
        described = await look(env)
        assert (described.entity_id, described.operation) == (EntityId("tally", "a"), "add")
        assert (described.started, described.input, described.orchestrator) == (22, 40, None)
        assert [one.instance_id for one in described.recent] == [None] * 10


# --- orders ----------------------------------------------------------------------------------------------------------


async def test_it_is_paused_and_resumed() -> None:
    async with world() as env:
        schedules = env.client.schedules
        await schedules.create("s", "quick", cron="0 0 * * * *", paused=True, note="not yet")
        described = await look(env)
        assert (described.paused, described.note, described.next_time) == (True, "not yet", None)
        await env.advance(5 * HOUR)
        assert await schedules.trigger("s") is not None  # asked for by itself
        await schedules.resume("s", "now")
        await schedules.resume("s", "now")
        assert (await look(env)).note == "now"
        await env.advance(2 * HOUR)
        await schedules.pause("s")
        await env.advance(5 * HOUR)
        await schedules.resume("s")
        await env.advance(HOUR)
        found = list(await runs(env.client))
        assert found[1:] == [*hours(18, 19), *hours(1, day=2)]
        assert found[0].startswith("s@2026-03-01T17:00:00Z-")
        described = await look(env)
        assert (described.missed, described.note) == (0, None)


async def test_what_waits_while_it_is_paused() -> None:
    async with world() as env:
        schedules = env.client.schedules
        await schedules.create("s", "slow", 1.5, cron="0 0 * * * *", overlap="buffer_all")
        await env.advance(timedelta(hours=2.2))
        await schedules.pause("s")
        triggered = await schedules.trigger("s")
        await env.advance(3 * HOUR)
        assert list(await runs(env.client)) == [*hours(13), triggered]
        await schedules.backfill("s", utc(2026, 3, 1, 9), utc(2026, 3, 1, 10))
        await env.advance(4 * HOUR)
        assert list(await runs(env.client)) == [*hours(13), triggered, *hours(9, 10)]
        await schedules.resume("s")
        await env.settle()
        assert list(await runs(env.client)) == [*hours(13), triggered, *hours(9, 10), *hours(14)]


async def test_it_is_triggered() -> None:
    async with world() as env:
        schedules = env.client.schedules
        await schedules.create("s", "stubborn", cron="0 0 0 1 1 *", tags={"team": "blue"}, version="7")
        first = await schedules.trigger("s")
        assert first is not None
        assert await schedules.trigger("s") is None  # skipped
        second = await schedules.trigger("s", overlap="allow")
        assert second not in (None, first)
        await env.settle()
        status = await env.client.get_status(first)
        assert status is not None
        assert (status.version, status.name, status.parent_instance_id) == (
            "7",
            "stubborn",
            "@durably.schedule@s",
        )
        assert status.tags == {
            "team": "blue",
            "schedule.id": "s",
            "schedule.time": "2026-03-01T12:00:00Z",
            "schedule.kind": "manual",
        }
        assert set((await look(env)).running) == {first, second}
        parented = await runs(env.client, parent_instance_id="@durably.schedule@s")
        assert set(parented) == {first, second}
        third = await schedules.trigger("s", overlap="terminate_other")
        await env.settle()
        assert (await look(env)).running == [third]


async def test_a_past_range_is_filled() -> None:
    async with world() as env:
        client, schedules = env.client, env.client.schedules
        await schedules.create("s", "slow", 0.1, cron="0 0 * * * *")
        await env.advance(2 * HOUR)
        await schedules.backfill("s", env.now - 4 * HOUR, env.now)
        await env.advance(
            timedelta(minutes=8)
        )  # its own one ends after six, and then it is one after the other
        assert list(await runs(client, tags={"schedule.kind": "backfill"})) == hours(10)
        assert (await look(env)).backfilling == 1
        await env.kill()
        await env.advance(timedelta(minutes=30))
        assert list(await runs(client, tags={"schedule.kind": "backfill"})) == hours(10, 11, 12)
        assert list(await runs(client, tags={"schedule.kind": "scheduled"})) == hours(13, 14)
        await schedules.pause("s")
        await schedules.backfill("s", utc(2026, 2, 20), utc(2026, 2, 28), at_once=True)
        await env.settle()
        assert len((await look(env)).running) == 100
        await env.advance(HOUR)
        described = await look(env)
        assert (described.started, described.running, described.backfilling) == (198, [], 0)
        with pytest.raises(InvalidScheduleError, match="to come"):
            await schedules.backfill("s", env.now, env.now + HOUR)
        with pytest.raises(InvalidScheduleError, match="before it starts"):
            await schedules.backfill("s", env.now, env.now - HOUR)


async def test_it_is_updated() -> None:
    async with world() as env:
        schedules = env.client.schedules
        await schedules.create("s", "quick", 1, cron="0 0 * * * *")
        await env.advance(timedelta(hours=2.5))
        await schedules.update("s", input={"a": 2}, overlap="allow")
        described = await look(env)
        assert (described.input, described.overlap, described.started) == ({"a": 2}, "allow", 2)
        assert described.next_time == utc(2026, 3, 1, 15)
        await schedules.update("s", interval=timedelta(minutes=20))
        described = await look(env)
        assert (described.cron, described.interval) == (None, timedelta(minutes=20))
        assert described.next_time == env.now + timedelta(minutes=20)
        await schedules.update("s", cron="0 0 9 * * *", time_zone="Asia/Tokyo", end_at=env.now + 3 * DAY)
        assert (await look(env)).upcoming == [utc(2026, 3, day) for day in (2, 3, 4)]
        with pytest.raises(InvalidScheduleError, match="never comes due"):
            await schedules.update("s", cron="0 0 0 31 2 *")
        assert (await look(env)).cron == "0 0 9 * * *"
        with pytest.raises(InvalidScheduleError, match="expected fn"):
            await schedules.update("s", version="2")


async def test_schedules_are_listed_and_deleted(hub: Deployment) -> None:
    async with hub.host(works()) as host:
        schedules = host.client.schedules
        for number in range(5):
            await schedules.create(f"s-{number}", "stubborn", interval=3600)
        await schedules.create("other", "stubborn", interval=3600)
        with pytest.raises(ScheduleAlreadyExistsError, match="'s-3' already exists"):
            await schedules.create("s-3", "stubborn", interval=3600)
        running = await schedules.trigger("s-3")
        await schedules.delete("s-3")
        with pytest.raises(ScheduleNotFoundError):
            await schedules.delete("s-3")
        with pytest.raises(ScheduleNotFoundError):
            await schedules.describe("s-3")
        page = await schedules.list(prefix="s-", page_size=3)
        assert [one.schedule_id for one in page.schedules] == ["s-0", "s-1", "s-2"]
        page = await schedules.list(prefix="s-", page_size=3, continuation_token=page.continuation_token)
        assert [one.schedule_id for one in page.schedules] == ["s-4"]
        assert page.continuation_token is None
        await schedules.create("s-3", "stubborn", interval=3600)  # another one, that knows of nothing
        await host.client.terminate(running or "")
        await eventually(is_gone_by(host.client, running or ""))
        assert (await schedules.describe("s-3")).started == 0
        assert await host.client.get_entity("@durably.schedule@s-0") is not None
        for page_size in (0, 1_001):
            with pytest.raises(UsageError, match="page_size"):
                await schedules.list(page_size=page_size)


async def test_one_that_is_damaged_is_listed_with_the_others(memory: Deployment) -> None:
    async with memory.host(works()) as host:
        schedules = host.client.schedules
        for schedule_id in "abc":
            await schedules.create(schedule_id, "quick", interval=3600)
        assert isinstance(memory.hub, MemoryHubOfTest)
        rows = memory.hub.hub.entities
        damaged = "@durably.schedule@b"
        rows[damaged] = rows[damaged]._replace(state=b"{}")
        found = (await schedules.list()).schedules
        assert [one.trouble is None for one in found] == [True, False, True]
        assert "checksum" in (found[1].trouble or "")
        with pytest.raises(EntityCorruptError):
            await schedules.describe("b")


async def test_nothing_is_left_of_what_was_deleted() -> None:
    async with world() as env:
        for _ in range(3):
            await env.client.schedules.create("s", "quick", cron="0 0 0 1 1 *")
            await env.client.schedules.pause("s")
            await env.client.schedules.resume("s")
            info = await env.client.get_entity("@durably.schedule@s")
            assert info is not None
            assert info.scheduled == 1
            await env.client.schedules.delete("s")
        assert await env.client.get_entity("@durably.schedule@s") is None


async def test_without_a_host_it_is_accepted(tmp_path: Path) -> None:
    hub = FileHub(tmp_path / "hub.db")
    client = Client(hub.store())
    async with client:
        with pytest.raises(HubNotFoundError):
            await client.schedules.pause("s")
        await client.schedules.create("s", "quick", cron="0 0 * * * *")
        async with works().host(hub.store()):
            await eventually(has_schedules(client))
            assert (await client.schedules.describe("s")).origin == "client"
        with pytest.raises(ScheduleAlreadyExistsError):
            await client.schedules.create("s", "quick", cron="0 0 * * * *")
        with pytest.raises(ScheduleNotFoundError):
            await client.schedules.pause("t")
        await client.schedules.pause("s", "tonight")
        async with works().host(hub.store()):
            await eventually(is_paused(client))


def has_schedules(client: Client) -> Any:
    async def probe() -> bool:
        return bool((await client.schedules.list()).schedules)

    return probe


def is_paused(client: Client) -> Any:
    async def probe() -> bool:
        return (await client.schedules.describe("s")).note == "tonight"

    return probe


# --- code ------------------------------------------------------------------------------------------------------------


async def test_code_declares(hub: Deployment) -> None:
    app = works()
    app.schedule("a", "quick", cron="0 0 4 * * *")
    app.schedule("b", entity="@tally@x", operation="add", input=1, interval=DAY)
    async with hub.host(app) as host:
        schedules = host.client.schedules
        first = await schedules.describe("a")
        assert (first.origin, first.declared) == ("code", True)
        await schedules.trigger("a")
        await schedules.pause("a", "by hand")
        await schedules.create("mine", "quick", interval=60)
    async with hub.host(app) as host:  # nothing has changed
        second = await host.client.schedules.describe("a")
        assert (second.paused, second.started, second.created_time) == (True, 1, first.created_time)

    later = works()

    @later.schedule("a", cron="0 0 5 * * *", input="early")
    @later.orchestrator(name="renamed")
    async def report(ctx: OrchestrationContext, given: str) -> str:
        return given

    assert report.__name__ == "report"
    whole = App()
    whole.include(later)
    async with hub.host(whole) as host:
        changed = await host.client.schedules.describe("a")
        assert (changed.cron, changed.orchestrator, changed.input) == ("0 0 5 * * *", "renamed", "early")
        assert (changed.paused, changed.note, changed.started) == (True, "by hand", 1)

        async def is_forgotten() -> bool:
            return not (await host.client.schedules.describe("b")).declared

        await eventually(is_forgotten)
        left = await host.client.schedules.describe("b")
        assert (left.origin, left.next_time is not None) == ("code", True)
        mine = await host.client.schedules.describe("mine")
        assert (mine.origin, mine.declared) == ("client", False)


async def test_what_was_missed_before_a_change_is_not_lost() -> None:
    app, later = works(), works()
    app.schedule("s", "quick", "old", cron="0 0 13 * * *")
    later.schedule("s", "quick", "new", cron="0 0 18 * * *")
    async with world(app, auto_skip=False) as env:
        life = env._life
        assert life is not None
        await env.settle()
        env._clock.jump(env._clock.now() + 2 * 3_600_000_000)  # its alarm has not rung yet
        await env.restart(later)
        await env.settle()
        await env.advance(4 * HOUR)
        assert list(await runs(env.client)) == hours(13, 18)


def test_what_cannot_be_declared() -> None:
    app = works()
    app.schedule("s", "quick", interval=60)
    with pytest.raises(RegistrationError, match="declared twice"):
        app.schedule("s", "quick", interval=60)
    other = works()
    other.schedule("s", "quick", interval=60)
    whole = App()
    whole.include(app)
    whole.include(app)
    with pytest.raises(RegistrationError, match="in both apps"):
        whole.include(other)
    with pytest.raises(InvalidScheduleError, match="neither"):
        app.schedule("t", interval=60)(None)
    with pytest.raises(RegistrationError, match=r"begin with 'durably\.'"):
        app.entity(name="durably.Schedule")(dict)


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"fn": "quick"}, InvalidScheduleError, "neither"),
    ({"fn": "quick", "cron": "* * * * * *", "interval": 1}, InvalidScheduleError, "both cron and interval"),
    ({"fn": "quick", "cron": "nonsense"}, InvalidScheduleError, "has 1 fields"),
    ({"fn": "quick", "interval": 0.5}, InvalidScheduleError, "1 s or more"),
    ({"fn": "quick", "interval": -1}, UsageError, "interval is -1"),
    ({"fn": "quick", "interval": "1h"}, UsageError, "expected a timedelta"),
    ({"fn": "quick", "interval": 60, "time_zone": "Europe/Berlin"}, InvalidScheduleError, "with cron only"),
    ({"fn": "quick", "cron": "* * * * * *", "time_zone": "Mars/Base"}, InvalidScheduleError, "IANA"),
    ({"fn": "quick", "interval": 60, "overlap": "maybe"}, InvalidScheduleError, "overlap='maybe'"),
    ({"fn": "quick", "interval": 60, "catch_up": "maybe"}, InvalidScheduleError, "catch_up='maybe'"),
    ({"fn": "quick", "interval": 60, "jitter": -1}, UsageError, "jitter"),
    ({"fn": "quick", "interval": 60, "start_at": "now"}, InvalidScheduleError, "expected a datetime"),
    (
        {"fn": "quick", "interval": 60, "start_at": utc(2027, 1, 1), "end_at": utc(2026, 1, 1)},
        InvalidScheduleError,
        "ends before",
    ),
    ({"fn": "quick", "interval": 60, "entity": "@a@b", "operation": "c"}, InvalidScheduleError, "or neither"),
    ({"interval": 60, "entity": "@a@b"}, InvalidScheduleError, "expected both"),
    ({"interval": 60, "entity": "a", "operation": "b"}, InvalidIdError, "EntityId"),
    ({"interval": 60, "entity": "@a@b", "operation": "c", "tags": {"a": "b"}}, InvalidScheduleError, "instances only"),
    ({"fn": "quick", "interval": 60, "schedule_id": ""}, InvalidIdError, "not empty"),
    ({"fn": "quick", "interval": 60, "schedule_id": "@s"}, InvalidIdError, "starts with '@'"),
    ({"fn": "quick", "interval": 60, "schedule_id": "a/b"}, InvalidIdError, "holds '/'"),
    ({"fn": "quick", "interval": 60, "schedule_id": "x" * 209}, InvalidIdError, "208 at most"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "kind", "said"), WRONG)
async def test_what_cannot_work_is_refused(given: dict[str, Any], kind: type[Exception], said: str) -> None:
    async with world() as env:
        arguments = {"schedule_id": "s", **given}
        with pytest.raises(kind, match=said):
            await env.client.schedules.create(**arguments)
        declared = dict(arguments)
        positional = [declared.pop("schedule_id"), declared.pop("fn", None)]
        with pytest.raises(kind, match=said):
            works().schedule(*positional, **declared)
        assert (await env.client.schedules.list()).schedules == []
