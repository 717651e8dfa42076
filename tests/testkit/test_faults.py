"""Deaths, duplicates, delays and other orders: arranged, and the same on every run."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durably import App, HubClosedError, NonDeterminismError, OrchestrationContext, UsageError
from tests.testkit.programs import (
    app,
    approvals,
    chain,
    double,
    fan,
    in_a_thread,
    month,
    parent,
    simple,
    threaded,
)


@pytest.fixture(params=["memory", "sqlite"])
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'hub.db'}"


@pytest.mark.parametrize("commit", range(1, 8))
async def test_a_death_after_any_commit_changes_nothing(durable_env: Any, hub: str, commit: int) -> None:
    async with durable_env(app, hub=hub) as env:
        fault = env.kill_after(commit)
        handle = await env.start(approvals, 3)
        for number in range(3):
            await handle.raise_event("Approved", number)
        assert await handle.result() == [0, 1, 2]
        assert await env.run(parent, 5) == 32
        assert (fault.happened, env.deaths) == (1, 1)


async def test_hosts_that_die_again_and_again_come_to_the_end(durable_env: Any) -> None:
    async with durable_env(app) as env:
        env.kill_after(2, times=None)
        assert await env.run(chain, 10) == 1024
        assert await env.run(month) == "2026-03-31"
        assert env.deaths >= 5


@pytest.mark.parametrize("when", ["started", "finished"])
async def test_an_activity_whose_process_dies_runs_again(durable_env: Any, hub: str, when: str) -> None:
    async with durable_env(app, hub=hub) as env:
        fault = env.kill_after(double, when=when)
        assert await env.run(chain, 3) == 8
        assert (fault.happened, env.deaths) == (1, 1)
        first, again = env.calls(double)[:2]
        assert first.idempotency_key == again.idempotency_key
        assert [first.delivery, again.delivery] == [1, 2]
        assert len(env.calls(double)) == 4


async def test_started_means_that_it_has_begun(durable_env: Any) -> None:
    began: list[str] = []
    other = App()

    @other.activity
    async def slow() -> str:
        began.append("begun")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        began.append("ended")
        return "done"

    @other.orchestrator
    async def caller(ctx: OrchestrationContext) -> str:
        return await ctx.call_activity(slow)

    async with durable_env(other) as env:
        env.kill_after(slow, when="started")
        assert await env.run(caller) == "done"
        assert began == ["begun", "begun", "ended"]


async def test_an_activity_in_a_thread_dies_with_the_process(durable_env: Any) -> None:
    async with durable_env(app) as env:
        env.kill_after(in_a_thread)
        assert await env.run(threaded, 0.01) is True
        assert len(env.calls(in_a_thread)) == 2


async def test_a_death_at_any_moment_on_demand(durable_env: Any, hub: str) -> None:
    async with durable_env(app, hub=hub) as env:
        handle = await env.start(month)
        await env.advance(timedelta(days=10))
        await env.kill()
        waiting = asyncio.create_task(handle.result())
        await asyncio.sleep(0)
        await env.kill()
        assert await waiting == "2026-03-31"
        assert env.deaths == 2


async def test_a_duplicate_runs_twice_and_counts_once(durable_env: Any) -> None:
    async with durable_env(app) as env:
        fault = env.duplicate(double, times=2)
        assert await env.run(chain, 3) == 8
        assert fault.happened == 2
        calls = env.calls(double)
        assert len(calls) == 5
        assert len({call.idempotency_key for call in calls}) == 3
        assert [call.delivery for call in calls] == [1, 2, 1, 2, 1]
        history = await env.history(calls[0].instance_id)
        assert [entry.event_type for entry in history].count("TaskCompleted") == 3


async def test_a_delay_takes_virtual_time(durable_env: Any) -> None:
    async with durable_env(app) as env:
        env.delay(double, by=timedelta(days=1), times=2)
        began = env.now
        assert await env.run(chain, 3) == 8
        assert env.now - began == timedelta(days=2)


async def test_results_are_reordered_by_the_seed(durable_env: Any) -> None:
    async def order_of(seed: int) -> list[int]:
        async with durable_env(app, seed=seed) as env:
            env.reorder()
            return await env.run(fan, 20)

    straight = [2 * number for number in range(20)]
    orders = [await order_of(seed) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert straight not in orders
    assert sorted(orders[0]) == straight


async def test_a_seed_is_a_whole_run(durable_env: Any) -> None:
    async def once() -> list[Any]:
        async with durable_env(app, seed=3) as env:
            env.reorder()
            env.kill_after(4)
            env.duplicate(times=3)
            handle = await env.start(fan, 10)
            await handle.result()
            return [handle.instance_id, (await env.history(handle.instance_id)).events, env.calls()]

    assert await once() == await once()


async def test_a_deployment_goes_on_with_what_is_there(durable_env: Any, hub: str) -> None:
    async with durable_env(app, hub=hub) as env:
        handle = await env.start(month)
        other = App()

        @other.orchestrator(name="month")
        async def longer(ctx: OrchestrationContext) -> str:
            await ctx.create_timer(timedelta(days=31))
            return "from the new code"

        await env.restart(other)
        assert await handle.result() == "from the new code"
        assert env.deaths == 0


async def test_who_waits_goes_on_waiting_through_a_deployment(durable_env: Any, hub: str) -> None:
    async with durable_env(app, hub=hub, auto_skip=False) as env:
        handle = await env.start(approvals, 1)
        waiting = asyncio.create_task(handle.result())
        await env.settle()
        await env.restart()
        await handle.raise_event("Approved", 7)
        assert await waiting == [7]


async def test_hosts_may_die_while_they_start(durable_env: Any, hub: str) -> None:
    async with durable_env(app, hub=hub) as env:
        env.kill_after(double, times=5)
        env.kill_after(double, when="started", times=5)
        assert sorted(await env.run(fan, 5)) == [0, 2, 4, 6, 8]
        assert 2 <= env.deaths <= 10


async def test_who_is_cancelled_waits_no_longer(durable_env: Any) -> None:
    async with durable_env(app, auto_skip=False) as env:
        handle = await env.start(month)
        waiting = asyncio.create_task(handle.result())
        await env.settle()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        waiting = asyncio.create_task(handle.result())
        await env.settle()
    with pytest.raises(HubClosedError):
        await waiting


async def test_code_that_is_not_deterministic_fails_whoever_waits(durable_env: Any) -> None:
    runs: list[int] = []
    careless = App()

    @careless.activity
    async def work(number: int) -> int:
        return number

    @careless.orchestrator
    async def moody(ctx: OrchestrationContext) -> None:
        runs.append(1)
        for number in range(len(runs)):
            await ctx.call_activity(work, number)

    async with durable_env(careless) as env:
        with pytest.raises(NonDeterminismError, match="code now does: activity 'work'"):
            await env.run(moody)
    runs.clear()

    async def nobody_waits() -> None:
        async with durable_env(careless) as env:
            await env.start(moody)
            await env.settle()

    with pytest.raises(NonDeterminismError, match="does not replay"):
        await nobody_waits()
    runs.clear()
    async with durable_env(careless, check_replay=False) as env:
        await env.run(moody)
        assert runs == [1]


async def test_a_long_history_is_not_replayed_at_each_turn(durable_env: Any) -> None:
    turns: list[int] = []
    other = App()

    @other.activity
    async def nothing() -> None:
        return None

    @other.orchestrator
    async def long(ctx: OrchestrationContext) -> None:
        for _ in range(1_000):
            turns.append(1)
            await ctx.call_activity(nothing)

    async with durable_env(other) as env:
        await env.run(long)
    assert len(turns) < 10_000


async def test_faults_that_make_no_sense_are_refused(durable_env: Any) -> None:
    env = durable_env(app)
    for step in (0, -1, True):
        with pytest.raises(UsageError, match="kill_after"):
            env.kill_after(step)
    with pytest.raises(UsageError, match="2 or more"):
        env.kill_after(1, times=None)
    with pytest.raises(UsageError, match="when"):
        env.kill_after(double, when="later")
    with pytest.raises(UsageError, match="by"):
        env.delay(double, by=0)
    async with env:
        assert await env.run(simple, 1) == 2


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_goes_wrong_together_changes_no_result(durable_env: Any, seed: int) -> None:
    async with durable_env(app, seed=seed) as env:
        env.kill_after(2 + seed % 7, times=None)
        env.kill_after(double, times=3)
        env.kill_after(double, when="started", times=2)
        env.duplicate(times=None)
        env.delay(by=7, times=5)
        env.reorder()

        async def approved(count: int) -> list[int]:
            handle = await env.start(approvals, count)
            for number in range(count):
                await handle.raise_event("Approved", number)
            return await handle.result()

        results = await asyncio.gather(
            *(approved(4) for _ in range(4)), *(env.run(parent, 6) for _ in range(4)), env.run(month)
        )
        assert results == [[0, 1, 2, 3]] * 4 + [64] * 4 + ["2026-03-31"]
        assert env.deaths > 2
