"""FEATURES 4.8.17 and 4.10.6: critical sections of instances that failed in them, and are rewound."""

from __future__ import annotations

from typing import Any

import pytest

from durably import App, AppHost, EntityContext, EntityId, OrchestrationContext
from tests.support.counters import A, B, counters, holder, value
from tests.support.hubs import Deployment
from tests.support.waiting import eventually, is_quiet, reaches


async def held_by_other(host: AppHost) -> None:
    """Start another orchestration that locks the counters, and return when it has."""
    await host.client.start("hold", {"keys": ["a", "b"]}, instance_id="other")

    async def look() -> bool:
        return await holder(host, B) == "other"

    await eventually(look, "the locks of the other one")


async def is_free(host: AppHost) -> None:
    """Nothing is locked any more."""
    await is_quiet(host)
    page = await host.client.query_entities(include_transient=True)
    assert [one.locked_by for one in page.entities] == [None] * len(page.entities)


@pytest.mark.parametrize("crash", [False, True])
async def test_4_8_17_a_rewind_of_what_failed_inside_a_block_locks_again(
    hub: Deployment, crash: bool
) -> None:
    app = App()
    app.include(counters())
    broken = True

    @app.activity
    async def work() -> str:
        if broken:
            raise ValueError("broken")
        return "done"

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> list[Any]:
        async with ctx.lock_entities(A, B):
            first = await ctx.call_entity(A, "add", 1)
            done = await ctx.call_activity(work)
            return [first, done, await ctx.call_entity(B, "add", 1)]

    host = await hub.start(app)
    await host.client.start(flow, instance_id="i")
    await reaches(host, "i", "Failed")
    await is_free(host)
    await held_by_other(host)
    broken = False
    await host.client.rewind("i")
    await is_quiet(host)
    assert (await holder(host, A), await holder(host, B)) == ("other", "other")
    if crash:
        host = await hub.recover(host, app)
    await host.client.raise_event("other", "go", "return")
    assert (await host.client.wait_for_completion("i")).output == [1, "done", 2]
    assert [await value(host, entity) for entity in (A, B)] == [2, 2]
    await is_free(host)


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("rewinds", [1, 3])
async def test_4_8_17_a_call_that_a_rewind_repeats_waits_for_its_lock(
    hub: Deployment, crash: bool, rewinds: int
) -> None:
    """What is called in a block is performed in it: between two calls of the block nobody else comes in."""
    app = App()
    app.include(counters())
    broken = True
    log: list[str | None] = []

    @app.entity
    class Step:
        count: int = 0

        def go(self, ctx: EntityContext) -> int:
            log.append(ctx.caller_instance_id)
            if broken and ctx.caller_instance_id == "i":
                raise ValueError("broken")
            self.count += 1
            return self.count

    step = EntityId("step", "")

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> list[Any]:
        async with ctx.lock_entities(A, step):
            return [await ctx.call_entity(step, "go") for _ in range(3)]

    @app.orchestrator
    async def one(ctx: OrchestrationContext) -> int:
        return await ctx.call_entity(step, "go")

    host = await hub.start(app)
    await host.client.start(flow, instance_id="i")
    await reaches(host, "i", "Failed")
    for _ in range(rewinds - 1):
        log.clear()
        await host.client.rewind("i")
        await eventually(lambda: log, "the operation of the rewound block")
        await reaches(host, "i", "Failed")
        await is_free(host)
    broken = False
    log.clear()
    await held_by_other(host)  # has A, and not the step
    await host.client.rewind("i")
    await is_quiet(host)
    assert log == [], "it is not performed before its lock is back"
    await host.client.start(one, instance_id="one")
    await reaches(host, "one", "Completed")
    if crash:
        host = await hub.recover(host, app)
    await host.client.raise_event("other", "go", "return")
    assert (await host.client.wait_for_completion("i")).output == [2, 3, 4]
    assert log == ["one", "i", "i", "i"]
    await is_free(host)
