"""Scenario 19: clocks are set forward and back, a leap day, ends of months: what is due on each store, and who runs it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from durably import App, AppHost, OrchestrationContext, TimerRequest
from tests.faults.checker import check_file
from tests.faults.clients import options_of
from tests.faults.evidence import Evidence
from tests.support.clock import ManualClock
from tests.support.waiting import eventually

Fired = defaultdict[str, list[datetime]]
"""By the id of a schedule: the times for which it ran, in the order in which it did."""

START = datetime(2024, 2, 28, tzinfo=UTC)
END = datetime(2024, 11, 11, tzinfo=UTC)
TICK_S = 0.01


class Case(NamedTuple):
    """What is due from the start to the end: a month, a day, an hour and a minute for each time (UTC)."""

    zone: str
    cron: str
    due: str

    @property
    def times(self) -> list[datetime]:
        return [datetime.strptime(f"2024-{one}Z", "%Y-%m-%dT%H:%M%z") for one in self.due.split()]


CASES = [  # the calendar of 2024, which nobody changes any more
    Case("UTC", "0 0 12 29 2 *", "02-29T12:00"),
    Case("UTC", "0 0 12 31 * *", "03-31T12:00 05-31T12:00 07-31T12:00 08-31T12:00 10-31T12:00"),
    # 31 March, 2:00 becomes 3:00
    Case("Europe/Berlin", "0 30 2 1,30-31 3-4 *", "03-01T01:30 03-30T01:30 03-31T01:00 04-01T00:30 04-30T00:30"),
    Case("Europe/Berlin", "0 0 0-4 31 3 *", "03-30T23:00 03-31T00:00 03-31T01:00 03-31T02:00"),
    # 27 October, 3:00 becomes 2:00
    Case("Europe/Berlin", "0 30 2 26-28 10 *", "10-26T00:30 10-27T00:30 10-28T01:30"),
    Case("Europe/Berlin", "0 */30 2 27 10 *", "10-27T00:00 10-27T00:30 10-27T01:00 10-27T01:30"),
    Case("America/New_York", "0 30 2 9-11 3 *", "03-09T07:30 03-10T07:00 03-11T06:30"),
    Case("America/St_Johns", "0 30 1 2-4 11 *", "11-02T04:00 11-03T04:00 11-04T05:00"),
    # at midnight
    Case("America/Havana", "0 0 0 9-11 3 *", "03-09T05:00 03-10T05:00 03-11T04:00"),
    Case("America/Havana", "0 30 0 2-4 11 *", "11-02T04:30 11-03T04:30 11-04T05:30"),
    # by half an hour
    Case("Australia/Lord_Howe", "0 45 1 6-8 4 *", "04-05T14:45 04-06T14:45 04-07T15:15"),
    Case("Australia/Lord_Howe", "0 15 2 5-7 10 *", "10-04T15:45 10-05T15:30 10-06T15:15"),
]  # fmt: skip
SCHEDULES = {f"s-{number}": case for number, case in enumerate(CASES)}
TIMERS = {f"timer:{number}": case for number, case in enumerate(CASES)}
ALL = {**SCHEDULES, **TIMERS}


def build(fired: Fired) -> App:
    """A schedule and a timer of each case; the schedules make up for whatever they missed."""
    app = App()

    @app.activity
    async def note(what: list[str]) -> None:
        name, due = what
        fired[name].append(datetime.fromisoformat(due))

    @app.orchestrator
    async def run(ctx: OrchestrationContext, name: str) -> None:
        await ctx.call_activity(note, [name, ctx.tags["schedule.time"]])

    for name, (zone, cron, _) in SCHEDULES.items():
        app.schedule(name, run, name, cron=cron, time_zone=zone, overlap="allow", catch_up="all")
    for name, (zone, cron, _) in TIMERS.items():
        app.timer(cron, name=name.removeprefix("timer:"), time_zone=zone)(ring_into(fired[name]))
    return app


def ring_into(times: list[datetime]) -> Callable[[TimerRequest], None]:
    def ring(timer: TimerRequest) -> None:
        times.append(timer.due)

    return ring


class Calendar:
    """Hosts that go by one clock, which goes on by itself, and which is moved to what is due next.

    Args:
        evidence: Says where their hub is.
        hosts: So many serve it at once.
    """

    def __init__(self, evidence: Evidence, hosts: int) -> None:
        self.fired: Fired = defaultdict(list)
        self.clock = ManualClock(START)
        self.live: list[AppHost] = []
        self._evidence = evidence
        self._hosts = hosts

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[None]:
        ticking = asyncio.ensure_future(self._tick())
        try:
            for _ in range(self._hosts):
                await self._begin()
            yield
        finally:
            while self.live:
                await self.live.pop().stop()
            ticking.cancel()
            with suppress(asyncio.CancelledError):
                await ticking

    async def relieve(self) -> None:
        """The host that has served longest goes, and another one comes."""
        await self.live.pop(0).stop()
        await self._begin()

    async def _begin(self) -> None:
        options = options_of(self._evidence)
        host = build(self.fired).host(self._evidence.url, clock=self.clock, options=options)
        await host.start()
        self.live.append(host)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.clock.advance(TICK_S)

    async def ran(self, cases: dict[str, Case], until: datetime) -> None:
        """Return when each has run so often as it is due until then, and has nothing more to do."""
        for name, case in cases.items():
            expected = [one for one in case.times if one <= until]
            await eventually(lambda n=name, e=expected: len(self.fired[n]) >= len(e), f"{name} at {until}")
        await self.are_done(cases, until)

    async def are_done(self, cases: dict[str, Case], until: datetime) -> None:
        """Return when nothing of them is under way, or due until then."""
        schedules = self.live[-1].client.schedules
        for name in cases:

            async def is_done(name: str = name) -> bool:
                found = await schedules.describe(name)
                return not found.running and (found.next_time is None or found.next_time > until)

            await eventually(is_done, f"{name} to be done at {until}")

    async def counts(self, cases: dict[str, Case]) -> list[tuple[int, int]]:
        """How often each has started a run, and has missed one."""
        schedules = self.live[-1].client.schedules
        found = [await schedules.describe(name) for name in cases]
        return [(one.started, one.missed) for one in found]


async def go_through(calendar: Calendar) -> None:
    """From time to time another host takes over, also between two times at which clocks show the same."""
    async with calendar.served():
        for number, moment in enumerate(sorted({one for case in CASES for one in case.times})):
            calendar.clock.set(moment)
            await calendar.ran({name: case for name, case in ALL.items() if moment in case.times}, moment)
            if number % 3 == 0:
                await calendar.relieve()
        calendar.clock.set(END)
        await calendar.ran(ALL, END)
        assert await calendar.counts(ALL) == [(len(case.times), 0) for case in ALL.values()]


async def sleep_through(calendar: Calendar) -> None:
    """Nobody serves the hub when anything is due."""
    async with calendar.served():
        pass
    calendar.clock.set(END)
    async with calendar.served():
        await calendar.are_done(ALL, END)
        assert await calendar.counts(SCHEDULES) == [(len(case.times), 0) for case in CASES]
        assert await calendar.counts(TIMERS) == [(1, len(case.times) - 1) for case in CASES]


def each_time_runs_once(folder: Path, hosts: int) -> None:
    evidence = Evidence.in_folder(folder)
    calendar = Calendar(evidence, hosts)
    asyncio.run(go_through(calendar))
    assert calendar.fired == {name: case.times for name, case in ALL.items()}
    check_file(evidence)


def what_was_missed_runs_once(folder: Path, hosts: int) -> None:
    """All of a schedule that makes up for all, the latest of a timer."""
    evidence = Evidence.in_folder(folder)
    calendar = Calendar(evidence, hosts)
    asyncio.run(sleep_through(calendar))
    made_up = {name: case.times for name, case in SCHEDULES.items()}
    made_up |= {name: case.times[-1:] for name, case in TIMERS.items()}
    assert {name: sorted(times) for name, times in calendar.fired.items()} == made_up  # they run side by side
    check_file(evidence)


@pytest.mark.slow_once
def test_each_time_runs_once_whatever_clocks_show(tmp_path: Path) -> None:
    each_time_runs_once(tmp_path, 1)


@pytest.mark.slow_once
def test_times_that_nobody_was_there_for_run_once_as_well(tmp_path: Path) -> None:
    what_was_missed_runs_once(tmp_path, 1)
