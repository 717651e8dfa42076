"""Scenarios 17 and 20: the wall clock jumps; a hub wakes up after three days with everything overdue."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from durably import App, EngineOptions, OrchestrationContext
from durably.core.commit import InboxRow
from durably.core.events import TimerFired
from durably.core.history import encode_body
from durably.core.messages import RaiseEvent
from durably.storage.sqlite.store import SqliteStore
from tests.faults.checker import check, read_events
from tests.faults.clients import Clients, jobs, serving
from tests.faults.evidence import Evidence
from tests.faults.injectors.clocks import JumpingClock
from tests.support.waiting import eventually, has_event

HOUR = 3_600.0
LATE_S = 2.0
"""The bound of G9: a timer is at most the poll interval and one second late."""

WORK = jobs(8, first=8)


def sleeper() -> App:
    app = App()

    @app.orchestrator
    async def sleep(ctx: OrchestrationContext, seconds: float) -> list[str]:
        seen = [ctx.current_utc_datetime.isoformat()]
        await ctx.create_timer(timedelta(seconds=seconds))
        seen.append(ctx.current_utc_datetime.isoformat())
        await ctx.wait_for_external_event("go", timeout=seconds, default=None)
        return [*seen, ctx.current_utc_datetime.isoformat()]

    return app


@pytest.mark.slow_once
@pytest.mark.parametrize("offset_s", [HOUR, -HOUR, -24 * HOUR])
def test_jobs_end_as_ever_whatever_the_clock_is_set_to_meanwhile(tmp_path: Path, offset_s: float) -> None:
    evidence = Evidence.in_folder(tmp_path)
    clock = JumpingClock()

    async def run() -> None:
        async with serving(evidence, clock=clock) as host:
            work = asyncio.ensure_future(Clients(evidence, WORK).drive(host))
            await eventually(lambda: evidence.started, "a start")
            clock.offset_s = offset_s
            late = [job for job in WORK if job.program in ("naps", "retried") and offset_s < 0]
            # Timers that were set before the clock went back are due by the clock, and so much later.
            await eventually(lambda: len(evidence.results) >= len(WORK) - len(late), "the others to end")
            clock.offset_s = 0
            assert await work

    asyncio.run(run())
    assert check(evidence, floor=1.0).completed == len(WORK)


async def _after_a_jump(evidence: Evidence) -> tuple[float, list[str]]:
    clock = JumpingClock()
    async with sleeper().host(evidence.url, clock=clock, options=EngineOptions()) as host:
        handle = await host.client.start("sleep", HOUR, instance_id="s")
        clock.offset_s = HOUR - 0.5
        began = time.monotonic()
        await has_event(host, "s", "TimerFired")
        took = time.monotonic() - began
        clock.offset_s = 0  # back by an hour: time within the execution stands still
        await handle.raise_event("go")
        return took, await handle.result(timeout=60)


def test_a_clock_that_is_set_ahead_fires_what_is_due_soon_and_not_before(tmp_path: Path) -> None:
    evidence = Evidence.in_folder(tmp_path)
    took, seen = asyncio.run(_after_a_jump(evidence))
    sys.stdout.write(f"an hour ahead: fired {took:.2f} s after the jump, due after 0.5 s\n")
    assert 0.5 <= took <= 0.5 + 3 * LATE_S
    assert seen == sorted(seen)
    events = asyncio.run(read_events(evidence, "s"))
    assert sum(isinstance(event, TimerFired) for event in events) == 1


def test_a_clock_that_is_set_back_holds_up_no_poll_no_retry_and_no_client(tmp_path: Path) -> None:
    """Patience is measured by another clock: an hour back must not mean an hour of waiting."""
    evidence = Evidence.in_folder(tmp_path)

    async def run() -> None:
        clock = JumpingClock()
        options = EngineOptions(inbox_poll_s=0.1, max_open_activities=1, drain_timeout_s=0.2)
        app = sleeper()
        gate = asyncio.Event()

        @app.activity
        async def hold() -> None:
            await gate.wait()

        @app.orchestrator
        async def held(ctx: OrchestrationContext) -> None:
            await asyncio.gather(*(ctx.call_activity(hold) for _ in range(3)))

        store = SqliteStore(str(evidence.hub))
        async with asyncio.timeout(60):
            async with app.host(store, clock=clock, options=options) as host:
                handle = await host.client.start("held", instance_id="h")
                waiting = asyncio.ensure_future(host.client.start("sleep", 0.0, instance_id="room"))
                asyncio.get_running_loop().call_later(0.02, lambda: setattr(clock, "offset_s", -HOUR))
                with pytest.raises(TimeoutError):
                    await handle.result(timeout=0.1)
                assert not waiting.done()
                gate.set()
                await handle.result()
                asleep = await waiting
                store.on_arrival(lambda: None)
                host.engine._arrived = lambda: None  # only the poll is left to find it
                store._arrivals._callbacks.clear()
                body = encode_body(RaiseEvent("go", None))
                await store.post([InboxRow("m", "room", 0, body)])
                assert len(await asleep.result()) == 3

    asyncio.run(run())


# --- three days ------------------------------------------------------------------------------------------------------


async def _three_days(evidence: Evidence, count: int) -> tuple[float, float]:
    """Returns how long all overdue timers took, and the slowest status query meanwhile."""
    day = 24 * HOUR
    options = EngineOptions(max_resident_instances=count // 5)  # they do not all fit into memory
    async with sleeper().host(evidence.url, options=options) as host:
        await asyncio.gather(
            *(host.client.start("sleep", day + n, instance_id=f"s-{n}") for n in range(count))
        )
    async with sleeper().host(evidence.url, clock=JumpingClock(3 * day), options=options) as host:
        began = time.monotonic()
        ends = asyncio.gather(*(host.client.handle(f"s-{n}").result() for n in range(count)))
        slowest = 0.0
        probe = 0
        while True:
            asked = time.monotonic()
            await host.client.get_status(f"s-{probe % count}")
            slowest = max(slowest, time.monotonic() - asked)
            probe += 97
            done = (await host.client.query_instances(runtime_status="Running", page_size=1)).instances
            pending = await host.client.get_history(f"s-{count - 1}")
            if any(entry.event_type == "TimerFired" for entry in pending) and probe > 970:
                break
            assert done
        for n in range(count):
            await host.client.raise_event(f"s-{n}", "go")
        await ends
        return time.monotonic() - began, slowest


def overdue(evidence: Evidence, count: int) -> None:
    took, slowest = asyncio.run(_three_days(evidence, count))
    sys.stdout.write(f"{count} overdue timers: all over after {took:.2f} s, slowest query {slowest:.3f} s\n")
    for n in range(0, count, count // 20):
        events = asyncio.run(read_events(evidence, f"s-{n}"))
        assert sum(isinstance(event, TimerFired) for event in events) == 1
    assert slowest < 3 * 1.0


@pytest.mark.slow_once
def test_after_three_days_every_overdue_timer_fires_once(tmp_path: Path) -> None:
    overdue(Evidence.in_folder(tmp_path), 500)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_after_three_days_ten_thousand_overdue_timers_fire_once(tmp_path: Path) -> None:
    overdue(Evidence.in_folder(tmp_path), 10_000)
