"""Virtual time: skipped while somebody waits and nothing happens, still otherwise."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from durably import RuntimeStatus, UsageError
from durably.testing import DurableEnvironment, StuckError
from tests.testkit.programs import MONTH, app, approval, days, eternal, month, parent, simple, threaded


@pytest.fixture(params=["memory", "sqlite"])
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'hub.db'}"


async def test_thirty_days_pass_while_somebody_waits(durable_env: Any, hub: str) -> None:
    async with durable_env(app, hub=hub) as env:
        began = env.now
        assert await env.run(month) == "2026-03-31"
        assert env.now - began == MONTH


async def test_time_stands_still_between_two_lines(durable_env: Any, hub: str) -> None:
    async with durable_env(app, hub=hub) as env:
        handle = await env.start(approval, 5.0)
        began = env.now
        for _ in range(20):
            assert (await handle.status()).runtime_status == RuntimeStatus.Running
            assert len(await handle.history()) == 3
        assert env.now == began
        await handle.raise_event("Approved", "yes")
        assert await handle.result() == "yes"
        assert env.now == began


async def test_what_comes_due_on_the_way_comes_in_order(durable_env: Any) -> None:
    async with durable_env(app) as env:
        late, early = await env.start(days, 20), await env.start(days, 3)
        await env.advance(timedelta(days=3))
        assert (await early.status()).runtime_status == RuntimeStatus.Completed
        assert (await late.status()).custom_status == 3
        assert (await early.status()).last_updated_time == env.now


async def test_without_auto_skip_only_advance_moves_the_clock(durable_env: Any) -> None:
    async with durable_env(app, auto_skip=False, stuck_after_s=0.001) as env:
        handle = await env.start(month)
        waiting = asyncio.create_task(handle.result())
        await env.settle()
        await env.advance(MONTH - timedelta(microseconds=1))
        assert not waiting.done()
        await env.advance(timedelta(microseconds=1))
        assert waiting.done()
        assert await waiting == "2026-03-31"


async def test_several_may_wait_for_different_moments(durable_env: Any) -> None:
    async with durable_env(app) as env:
        began = env.now

        async def approve(handle: Any) -> None:
            await env.advance(timedelta(days=2))
            await handle.raise_event("Approved", "late")

        handle = await env.start(approval, 30 * 86_400.0)
        results = await asyncio.gather(handle.result(), approve(handle), env.run(days, 5))
        assert results == ["late", None, 5]
        assert env.now - began == timedelta(days=5)


async def test_a_client_gives_up_in_virtual_time(durable_env: Any) -> None:
    async with durable_env(app) as env:
        began = env.now
        with pytest.raises(TimeoutError):
            await env.run(month, timeout=timedelta(days=29))
        assert env.now - began == timedelta(days=29)
        with pytest.raises(TimeoutError):
            await env.run(eternal, 0, timeout=timedelta(days=10))


async def test_time_waits_for_what_really_runs(durable_env: Any) -> None:
    async with durable_env(app) as env:
        handle = await env.start(month)
        began = env.now
        assert await env.run(threaded, 0.05) is True
        assert env.now == began
        assert await handle.result() == "2026-03-31"


async def test_a_wait_for_nothing_is_given_up_and_explained(durable_env: Any) -> None:
    async with durable_env(app, stuck_after_s=0.01) as env:
        handle = await env.start(approval, instance_id="order-7")
        with pytest.raises(StuckError, match=r"order-7 \(approval\): Waits for event 'Approved'"):
            await handle.result()
        await handle.raise_event("Approved", "yes")  # nothing is lost by it
        assert await handle.result() == "yes"


async def test_what_comes_from_outside_in_time_is_waited_for(durable_env: Any) -> None:
    async with durable_env(app, stuck_after_s=60.0) as env:
        handle = await env.start(approval)

        async def approve() -> None:
            await asyncio.sleep(0.05)
            await handle.raise_event("Approved", "yes")

        assert await asyncio.gather(handle.result(), approve()) == ["yes", None]


async def test_settle_returns_when_everybody_waits(durable_env: Any) -> None:
    async with durable_env(app) as env:
        handles = [await env.start(parent, 40) for _ in range(3)]
        await env.settle()
        for handle in handles:
            assert (await handle.status()).runtime_status == RuntimeStatus.Completed


async def test_time_begins_where_the_test_says(durable_env: Any) -> None:
    async with durable_env(app, start=datetime(2024, 2, 28, tzinfo=UTC)) as env:
        assert await env.run(month) == "2024-03-29"


async def test_a_far_timer_is_waited_for_too(durable_env: Any) -> None:
    async with durable_env(app) as env:
        handle = await env.start(simple, 1, start_at=datetime(9000, 1, 1, tzinfo=UTC))
        assert await handle.result() == 2
        assert env.now.year == 9000


async def test_an_environment_is_opened_once(durable_env: Any) -> None:
    env = DurableEnvironment(app)
    with pytest.raises(UsageError, match="async with"):
        await env.run(simple, 1)
    async with env:
        assert await env.run(simple, 1) == 2
        with pytest.raises(UsageError, match="opened before"):
            await env.__aenter__()
