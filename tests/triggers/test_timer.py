"""Timers: functions that run at certain times, once for each of them."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from durably import App, Client, InvalidScheduleError, OrchestrationContext, RegistrationError, TimerRequest
from durably.testing import DurableEnvironment
from tests.triggers.test_queue import until

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def test_a_timer_runs_at_its_times_and_starts_what_it_likes() -> None:
    app = App()
    seen: list[TimerRequest] = []

    @app.orchestrator
    async def report(ctx: OrchestrationContext, day: str) -> str:
        return day

    @app.timer("0 30 2 * * *", time_zone="Europe/Berlin")
    async def nightly(timer: TimerRequest, client: Client) -> None:
        seen.append(timer)
        day = f"{timer.due:%Y-%m-%d}"
        await client.start(report, day, instance_id=f"report-{day}")

    async def main() -> list[str]:
        async with DurableEnvironment(app, start=NOON) as env:
            await env.advance(timedelta(days=3))
            page = await env.client.query_instances(name="report")
            found = await env.client.schedules.describe("timer:nightly")
            assert (found.started, found.origin) == (3, "code")
            return [one.instance_id for one in page.instances]

    assert asyncio.run(main()) == ["report-2026-03-03", "report-2026-03-04", "report-2026-03-05"]
    assert [one.due.hour for one in seen] == [1, 1, 1]  # UTC
    assert seen[0].next == datetime(2026, 3, 4, 1, 30, tzinfo=UTC)
    assert (seen[0].past_due, seen[0].schedule) == (False, "0 30 2 * * *")


def test_seconds_count_and_so_do_spans() -> None:
    """Statement 4.13.1, first half."""
    app = App()
    at: dict[str, list[int]] = {"cron": [], "span": []}

    @app.timer("*/20 * * * * *", name="cron")
    def by_cron(timer: TimerRequest) -> None:
        at["cron"].append(timer.due.second)

    @app.timer("00:00:30", name="span")
    def by_span(timer: TimerRequest) -> None:
        at["span"].append(timer.due.second)

    async def main() -> None:
        async with DurableEnvironment(app, start=NOON) as env:
            await env.advance(timedelta(seconds=65))

    asyncio.run(main())
    assert at == {"cron": [20, 40, 0], "span": [30, 0]}


@pytest.mark.parametrize("monitored", [True, False])
def test_a_time_at_which_no_host_ran_is_made_up_for_once_if_it_is_monitored(
    tmp_path: Path, monitored: bool
) -> None:
    """Statement 4.13.1, second half."""
    app = App()
    seen: list[tuple[str, bool]] = []

    @app.timer("0 0 * * * *", use_monitor=monitored)
    async def hourly(timer: TimerRequest) -> None:
        seen.append((f"{timer.due:%H:%M}", timer.past_due))

    hub = f"sqlite:///{tmp_path / 'hub.db'}"

    async def life(start: datetime, length: timedelta) -> None:
        async with DurableEnvironment(app, hub=hub, start=start) as env:
            await env.advance(length)

    asyncio.run(life(NOON, timedelta(minutes=61)))
    asyncio.run(life(NOON + timedelta(hours=5, minutes=30), timedelta(minutes=31)))
    assert seen == [("13:00", False), *([("17:00", True)] if monitored else []), ("18:00", False)]


def test_a_timer_that_fails_runs_again_when_it_is_due_next_and_runs_are_forgotten() -> None:
    app = App()
    runs: list[int] = []

    @app.timer("0 * * * * *")
    async def minutely(timer: TimerRequest) -> None:
        runs.append(timer.due.minute)
        if timer.due.minute == 2:
            raise ConnectionError("not now")

    async def main() -> dict[Any, int]:
        async with DurableEnvironment(app, start=NOON) as env:
            await env.advance(timedelta(minutes=30))
            found = await env.client.schedules.describe("timer:minutely")
            assert (found.started, found.failed) == (30, 1)
            return await env.client.count_instances(name="durably:timer", by="status")

    counts = asyncio.run(main())
    assert runs == list(range(1, 31))
    assert counts["Failed"] == 1
    assert counts["Completed"] <= 11  # those of the last ten minutes


def test_a_timer_may_run_at_the_start_of_a_host_and_its_schedule_may_be_a_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = App()
    runs: list[str] = []

    @app.timer("%CLEANUP_AT%", run_on_startup=True)
    async def cleanup(timer: TimerRequest, client: Client) -> None:
        runs.append(timer.schedule)

    with pytest.raises(RegistrationError, match="CLEANUP_AT"):
        app.host("memory://")
    monkeypatch.setenv("CLEANUP_AT", "0 0 3 * * *")

    async def main() -> None:
        async with app.host("memory://"):

            async def ran() -> list[str]:
                return list(runs)

            await until(ran, ["0 0 3 * * *"])

    asyncio.run(main())


def test_timers_that_cannot_be() -> None:
    app = App()

    @app.timer("0 * * * * *")
    def one() -> None: ...

    with pytest.raises(RegistrationError, match="registered already"):
        app.timer("0 * * * * *", name="one")(one)
    other = App()
    other.timer("0 0 * * * *")(one)
    with pytest.raises(RegistrationError, match="'one'"):
        app.include(other)
    with pytest.raises(RegistrationError, match="parameters"):
        app.timer("0 * * * * *", name="three")(lambda a, b, c: None)
    with pytest.raises(RegistrationError, match="function"):
        app.timer("0 * * * * *", name="four")(7)  # type: ignore[type-var]

    def typed(order: dict[str, Any]) -> None: ...

    wrong = App()
    wrong.timer("0 * * * * *")(typed)

    async def start() -> None:
        async with wrong.host("memory://"):
            pass

    with pytest.raises(RegistrationError, match="'order'"):
        asyncio.run(start())
    for schedule in ("0 0 0 30 2 *", "often", "00:00:00"):
        never = App()
        never.timer(schedule)(one)
        with pytest.raises((InvalidScheduleError, ValueError)):
            never.host("memory://")
