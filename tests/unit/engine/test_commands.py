"""Client calls of one host: so many at once, the others in their turn, and each woken once."""

from __future__ import annotations

import asyncio

import pytest

from durably import App, EngineOptions, HubClosedError, OrchestrationContext
from tests.support.hubs import Deployment
from tests.support.stores import FaultyStore
from tests.support.waiting import all_within, eventually

TWO = EngineOptions(max_commands=2)


def waits() -> App:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("go")

    return app


async def test_calls_beyond_the_limit_come_in_their_turn(hub: Deployment, store: FaultyStore) -> None:
    store.gate = asyncio.Event()
    host = await hub.start(waits(), store=store, options=TWO)
    calls = [asyncio.ensure_future(host.client.start("flow", instance_id=str(n))) for n in range(9)]
    await eventually(lambda: store.commits)
    assert len(host.engine._commands) == 2
    store.gate.set()
    await all_within(*calls)
    assert not host.engine._commands
    page = await host.client.query_instances()
    assert [one.instance_id for one in page.instances] == [str(n) for n in range(9)]


async def test_a_call_that_is_cancelled_while_it_waits_does_not_hold_up_the_next(
    hub: Deployment, store: FaultyStore
) -> None:
    store.gate = asyncio.Event()
    host = await hub.start(waits(), store=store, options=TWO)
    calls = [asyncio.ensure_future(host.client.start("flow", instance_id=str(n))) for n in range(6)]
    await eventually(lambda: store.commits)
    calls[2].cancel()
    store.gate.set()
    await asyncio.wait(calls[:2])
    calls[3].cancel()  # perhaps when it has been woken already
    await all_within(*calls[4:])


async def test_calls_that_wait_are_refused_when_the_host_stops(hub: Deployment, store: FaultyStore) -> None:
    store.gate = asyncio.Event()
    host = await hub.start(waits(), store=store, options=TWO)
    calls = [asyncio.ensure_future(host.client.start("flow", instance_id=str(n))) for n in range(6)]
    await eventually(lambda: store.commits)
    stopping = asyncio.ensure_future(hub.stop(host))
    await eventually(lambda: host.engine._closing)
    store.gate.set()
    await stopping
    for call in calls[2:]:
        with pytest.raises(HubClosedError):
            await all_within(call)


async def test_a_flood_of_calls_wakes_each_of_them_once_or_twice(hub: Deployment) -> None:
    host = await hub.start(waits(), options=EngineOptions(max_commands=10))
    woken = 0
    commands = host.engine._commands
    wait_for_turn = commands._wait_for_turn

    async def counted() -> None:
        nonlocal woken
        woken += 1
        await wait_for_turn()

    commands._wait_for_turn = counted  # type: ignore[method-assign]
    await all_within(*(host.client.start("flow") for _ in range(500)))
    assert 490 <= woken <= 1_000
