"""FEATURES 4.8.4 and 4.10.6: calls of entities that were under way when their orchestration failed, and was rewound."""

from __future__ import annotations

import asyncio
from itertools import product
from typing import Any

import pytest

from durably import App, AppHost, EntityContext, EntityId, OrchestrationContext
from tests.support.clock import ManualClock
from tests.support.counters import Gate
from tests.support.hubs import Deployment
from tests.support.waiting import eventually, has_event, is_quiet, reaches

TILL, OTHER = EntityId("till", "t"), EntityId("till", "o")


class Shop:
    """An app with tills that count what they were given, some of it slowly; and activities that fail while broken."""

    def __init__(self) -> None:
        self.app = App()
        self.broken = True
        self.gate = Gate()

        @self.app.entity
        class Till:
            took: list[str] = []  # noqa: RUF012 - each till begins with a list of its own

            def take(self, what: str) -> int:
                self.took.append(what)
                return len(self.took)

            async def slow(inner, what: str) -> int:  # noqa: N805
                await self.gate.pass_through(what)
                return inner.take(what)

            async def refuse(inner, what: str) -> int:  # noqa: N805
                await self.gate.pass_through(what)
                if self.broken:
                    raise ValueError("closed")
                return inner.take(what)

        @self.app.activity
        async def check() -> str:
            if self.broken:
                raise ValueError("broken")
            return "checked"

        @self.app.orchestrator
        async def gathers(ctx: OrchestrationContext, operation: str) -> list[Any]:
            """The call is under way when the execution fails."""
            call = ctx.call_entity(TILL, operation, "coin")
            checked = await ctx.call_activity("check")
            return [await call, checked]

        @self.app.orchestrator
        async def groups(ctx: OrchestrationContext, operation: str) -> list[Any]:
            """The call is cancelled by the code, which hears of it while it cleans up; then the execution fails."""
            try:
                async with asyncio.TaskGroup() as group:
                    call = group.create_task(_taken(ctx, operation))
                    checked = group.create_task(_checked(ctx))
            except ExceptionGroup:
                await ctx.wait_for_external_event("fail")
                raise
            return [call.result(), checked.result()]

        @self.app.orchestrator
        async def locks(ctx: OrchestrationContext, operation: str) -> list[Any]:
            """The same in a critical section."""
            async with ctx.lock_entities(TILL, OTHER):
                call = ctx.call_entity(TILL, operation, "coin")
                checked = await ctx.call_activity("check")
                await ctx.call_entity(OTHER, "take", "note")
                return [await call, checked]

        del Till, check, gathers, groups, locks


async def _taken(ctx: OrchestrationContext, operation: str) -> Any:
    return await ctx.call_entity(TILL, operation, "coin")


async def _checked(ctx: OrchestrationContext) -> Any:
    return await ctx.call_activity("check")


async def took(host: AppHost, entity: EntityId = TILL) -> list[str] | None:
    state: Any = await host.client.read_entity(entity)
    return None if state is None else state["took"]


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize(
    ("flow", "answered"),
    [
        *product(("gathers", "groups", "locks"), ("before the rewind", "after the rewind")),
        ("groups", "before it fails"),
    ],
)
async def test_4_8_4_a_call_that_is_under_way_when_its_caller_fails_is_performed_once(
    hub: Deployment, flow: str, answered: str, crash: bool
) -> None:
    shop = Shop()
    host = await hub.start(shop.app)
    await host.client.start(flow, "slow", instance_id="i")
    await eventually(lambda: shop.gate.inside, "the operation under way")
    if flow == "groups":
        await has_event(host, "i", "EventAwaited")
        if answered == "before it fails":
            shop.gate.open.set()
            await is_quiet(host)
        await host.client.raise_event("i", "fail")
    await reaches(host, "i", "Failed")
    if answered == "before the rewind":
        shop.gate.open.set()
        await is_quiet(host)
        assert await took(host) == ["coin"]
    if crash:
        host = await hub.recover(host, shop.app)
    shop.broken = False
    await host.client.rewind("i")
    await has_event(host, "i", "ExecutionRewound")
    shop.gate.open.set()
    assert (await host.client.wait_for_completion("i")).output == [1, "checked"]
    await is_quiet(host)
    assert await took(host) == ["coin"]


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("answered", [0, 1, 2, 3])
@pytest.mark.parametrize("flow", ["gathers", "locks"])
async def test_4_8_4_a_call_outlives_any_number_of_rewinds(
    hub: Deployment, flow: str, answered: int, crash: bool
) -> None:
    """The answer comes after so many of them; each rewind but the last is in vain."""
    shop = Shop()
    host = await hub.start(shop.app)
    await host.client.start(flow, "slow", instance_id="i")
    await eventually(lambda: shop.gate.inside, "the operation under way")
    for number in range(4):
        await reaches(host, "i", "Failed")
        if number == answered:
            shop.gate.open.set()
            await is_quiet(host)
        if crash:
            host = await hub.recover(host, shop.app)
        before = (await host.client.get_history("i"))[1].details["execution_id"]
        shop.broken = number < 3
        await host.client.rewind("i")

        async def is_another(host: AppHost = host, before: str = before) -> bool:
            return (await host.client.get_history("i"))[1].details["execution_id"] != before

        await eventually(is_another, "the rewind")
    assert (await host.client.wait_for_completion("i")).output == [1, "checked"]
    assert await took(host) == ["coin"]


async def test_4_8_4_answers_behind_the_end_keep_the_order_of_time(
    hub: Deployment, clock: ManualClock
) -> None:
    """Also when the clock is set back between two of them, and nothing is left in memory."""
    app, gates = App(), {"a": Gate(), "b": Gate()}

    @app.entity
    async def slow(ctx: EntityContext) -> str:
        await gates[ctx.entity_key].pass_through(ctx.operation_name)
        ctx.set_state(ctx.entity_key)
        return ctx.entity_key

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> None:
        for key in gates:
            ctx.call_entity(EntityId("slow", key), "run")
        raise ValueError("broken")

    host = await hub.start(app, clock=clock)
    await host.client.start(flow, instance_id="i")
    await reaches(host, "i", "Failed")
    for number, key in enumerate(gates, 1):
        clock.jump(clock.now() + (100 if key == "a" else -50) * 1_000_000)
        gates[key].open.set()
        if number == 1:
            await has_event(host, "i", "EntityOperationAnswered")
            host = await hub.recover(host, app, clock=clock)
        await has_event(host, "i", "EntityOperationAnswered", number)
    times = [entry.timestamp for entry in await host.client.get_history("i")]
    assert times == sorted(times)


@pytest.mark.parametrize("flow", ["gathers", "locks"])
async def test_4_8_4_an_operation_that_failed_behind_its_caller_is_called_again(
    hub: Deployment, flow: str
) -> None:
    shop = Shop()
    async with hub.host(shop.app) as host:
        await host.client.start(flow, "refuse", instance_id="i")
        await eventually(lambda: shop.gate.inside, "the operation under way")
        await reaches(host, "i", "Failed")
        shop.gate.open.set()
        await is_quiet(host)
        shop.broken = False
        await host.client.rewind("i")
        assert (await host.client.wait_for_completion("i")).output == [1, "checked"]
        assert await took(host) == ["coin"]
