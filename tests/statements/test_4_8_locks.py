"""FEATURES 4.8.13–4.8.17: critical sections."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durably import (
    AppHost,
    EntityId,
    EntityOperationFailedError,
    LockingRulesViolationError,
    OrchestrationContext,
)
from tests.support.counters import STYLES, A, B, C, counters, holder, value
from tests.support.hubs import Deployment
from tests.support.waiting import eventually, is_quiet, reaches


async def locked(host: AppHost, instance_id: str = "i") -> None:
    """Return when the code of "hold" is in its block."""

    async def look() -> bool:
        status = await host.client.get_status(instance_id)
        return status is not None and status.custom_status == "locked"

    await eventually(look, f"{instance_id} in its critical section")


async def holds(host: AppHost, instance_id: str = "i", *keys: str) -> None:
    """Start "hold" and return when it is in its block."""
    await host.client.start("hold", {"keys": keys or ["a", "b"]}, instance_id=instance_id)
    await locked(host, instance_id)


async def is_free(host: AppHost) -> None:
    """Nothing is locked any more, and others' operations are performed."""
    await is_quiet(host)
    page = await host.client.query_entities(include_transient=True)
    assert [one.locked_by for one in page.entities] == [None] * len(page.entities)
    for entity in (A, B):
        await host.client.call_entity(entity, "add", 0)
    cleaned = await host.client.clean_entity_storage()
    assert (cleaned.removed, cleaned.released) == (0, 0)


# --- entering --------------------------------------------------------------------------------------------------------


async def test_4_8_13_the_same_entities_in_any_order_never_deadlock(hub: Deployment) -> None:
    orders = [["a", "b", "c"], ["c", "b", "a"], ["b", "a", "c", "b"], ["c", "c", "a", "b"]] * 3
    async with hub.host(counters()) as host:
        for number, keys in enumerate(orders):
            await host.client.start("hold", {"keys": keys}, instance_id=f"i{number}")
            await host.client.raise_event(f"i{number}", "go", "return")
        for number in range(len(orders)):
            assert (await host.client.wait_for_completion(f"i{number}")).runtime_status == "Completed"
        assert [await value(host, entity) for entity in (A, B, C)] == [len(orders)] * 3
        await is_free(host)


async def test_4_8_13_locks_are_taken_in_one_order_and_once(hub: Deployment) -> None:
    async with hub.host(counters()) as host:
        await holds(host, "i", "c", "a", "c", "b", "a")
        history = await host.client.get_history("i")
        (asked,) = [entry for entry in history if entry.event_type == "EntityLockRequested"]
        assert list(asked.details["entities"]) == ["@counter@a", "@counter@b", "@counter@c"]
        assert sum(entry.event_type == "EntityLockGranted" for entry in history) == 3


async def test_4_8_13_who_waits_for_a_lock_that_is_held_holds_the_ones_before(hub: Deployment) -> None:
    app = counters()
    host = await hub.start(app)
    await holds(host, "first", "b")
    await host.client.start("hold", {"keys": ["b", "a"]}, instance_id="second")
    await is_quiet(host)
    host = await hub.recover(host, app)
    await is_quiet(host)
    assert (await holder(host, A), await holder(host, B)) == ("second", "first")
    await host.client.raise_event("first", "go", "return")
    await locked(host, "second")
    assert (await holder(host, A), await holder(host, B)) == ("second", "second")


# --- inside ----------------------------------------------------------------------------------------------------------


async def test_4_8_14_what_is_forbidden_inside(hub: Deployment) -> None:
    app = counters()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> list[Any]:
        refused: list[str] = []

        def refuse(what: str, attempt: Any) -> None:
            try:
                attempt()
            except LockingRulesViolationError:
                refused.append(what)

        async with ctx.lock_entities(A, B):
            refuse("call of another", lambda: ctx.call_entity(C, "add", 1))
            refuse("signal to a locked one", lambda: ctx.signal_entity(A, "add", 1))
            refuse("nested lock", lambda: ctx.lock_entities(C))
            refuse("child", lambda: ctx.call_sub_orchestrator("noted"))
            ctx.signal_entity(C, "add", 1)
            first, other = ctx.call_entity(A, "add", 1), ctx.call_entity(B, "add", 1)
            refuse("second call", lambda: ctx.call_entity(A, "add", 1))
            results = [await first, await other, await ctx.call_entity(A, "add", 1)]
        await ctx.call_sub_orchestrator("noted")
        async with ctx.lock_entities(C):
            results.append(await ctx.call_entity(C, "get"))
        return [refused, results]

    async with hub.host(app) as host:
        handle = await host.client.start(flow)
        refused, results = await handle.result()
        assert refused == ["call of another", "signal to a locked one", "nested lock", "child", "second call"]
        assert results == [1, 1, 2, 1]


# --- leaving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize(
    "ending", ["block", "return", "raise", "again", "terminate", "cancel", "restart", "purge"]
)
async def test_4_8_15_locks_are_released_with_whatever_ends_the_block(
    hub: Deployment, style: str, crash: bool, ending: str
) -> None:
    app = counters(style)
    host = await hub.start(app)
    await holds(host)
    if crash:
        host = await hub.recover(host, app)
        assert (await holder(host, A), await holder(host, B)) == ("i", "i")
    waits = asyncio.ensure_future(host.client.call_entity(A, "add", 10))
    await is_quiet(host)
    assert not waits.done()
    match ending:
        case "block" | "return" | "raise" | "again":
            await host.client.raise_event("i", "go", ending)
        case "cancel":
            await host.client.cancel("i")
        case "restart":
            await host.client.terminate("i")
            await host.client.restart("i")
        case _:
            await host.client.terminate("i")
    assert await waits == (11 if ending in ("block", "return", "raise", "again") else 10)
    if ending == "purge":
        assert await host.client.purge("i")
    if ending in ("again", "restart"):  # its next execution locks them, too
        await eventually_holds(host)
        await host.client.terminate("i")
    if crash:
        host = await hub.recover(host, app)
    await is_free(host)


async def eventually_holds(host: AppHost) -> None:
    async def look() -> bool:
        return await holder(host, A) == "i" and await holder(host, B) == "i"

    await eventually(look, "the locks of the next execution")


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("ending", ["terminate", "cancel"])
async def test_4_8_15_what_was_only_asked_for_is_given_up(hub: Deployment, crash: bool, ending: str) -> None:
    app = counters()
    host = await hub.start(app)
    await holds(host, "first", "b")
    await host.client.start("hold", {"keys": ["a", "b", "c"]}, instance_id="second")
    await is_quiet(host)
    if crash:
        host = await hub.recover(host, app)
    await (host.client.terminate("second") if ending == "terminate" else host.client.cancel("second"))
    await is_quiet(host)
    assert (await holder(host, A), await holder(host, B)) == (None, "first")
    if crash:
        host = await hub.recover(host, app)
    await host.client.raise_event("first", "go", "return")
    await reaches(host, "first", "Completed")
    await is_free(host)


async def test_4_8_15_an_error_raised_in_the_block_during_replay_releases_too(hub: Deployment) -> None:
    app = counters()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        try:
            async with ctx.lock_entities(A, B):
                await ctx.call_entity(A, "fail", 1)
        except EntityOperationFailedError as error:
            await ctx.wait_for_external_event("go")
            return str(error)
        return "no error"

    host = await hub.start(app)
    await host.client.start(flow, instance_id="i")
    for _ in range(2):
        await is_quiet(host)
        await is_free(host)
        host = await hub.recover(host, app)
    await host.client.raise_event("i", "go")
    assert "no 1" in (await host.client.wait_for_completion("i")).output
    await is_free(host)


async def test_4_8_15_a_lock_that_comes_too_late_for_its_timeout_is_released(hub: Deployment) -> None:
    app = counters()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        try:
            async with asyncio.timeout(0.001), ctx.lock_entities(A, B):
                return "locked"
        except TimeoutError:
            await ctx.call_entity(C, "add", 1)
            async with ctx.lock_entities(A):
                await ctx.wait_for_external_event("go")
            return "late"

    async with hub.host(app) as host:
        await holds(host, "first", "b")
        await host.client.start(flow, instance_id="i")

        async def look() -> bool:
            return await holder(host, A) == "i" and await value(host, C) == 1

        await eventually(look, "the second lock")
        await host.client.raise_event("first", "go", "return")
        await host.client.raise_event("i", "go")
        assert (await host.client.wait_for_completion("i")).output == "late"
        await is_free(host)


async def test_4_8_16_others_wait_and_come_in_the_order_of_their_arrival(hub: Deployment) -> None:
    app = counters()

    @app.entity
    class Notes:
        kept: list[str] = []  # noqa: RUF012 - a default, copied for each entity

        def note(self, what: str) -> list[str]:
            self.kept.append(what)
            return self.kept

    notes = EntityId("notes", "")

    @app.orchestrator
    async def owner(ctx: OrchestrationContext) -> None:
        async with ctx.lock_entities(notes):
            await ctx.wait_for_external_event("go")
            await ctx.call_entity(notes, "note", "owner")

    @app.orchestrator
    async def other(ctx: OrchestrationContext, name: str) -> None:
        ctx.signal_entity(notes, "note", f"{name} signals")
        await ctx.call_entity(notes, "note", f"{name} calls")

    host = await hub.start(app)
    await host.client.start(owner, instance_id="owner")

    async def is_held() -> bool:
        return await holder(host, notes) == "owner"

    await eventually(is_held)
    for name in ("x", "y"):
        await host.client.start(other, name, instance_id=name)
        await is_quiet(host)
        await host.client.signal_entity(notes, "note", f"client after {name}")
    found = await host.client.get_entity(notes)
    assert found is not None
    assert (found.waiting, found.exists, found.locked_by) == (6, False, "owner")
    host = await hub.recover(host, app)
    await host.client.raise_event("owner", "go")
    for name in ("owner", "x", "y"):
        await reaches(host, name, "Completed")
    await is_quiet(host)
    assert (await host.client.read_entity(notes))["kept"] == [
        "owner",
        "x signals",
        "x calls",
        "client after x",
        "y signals",
        "y calls",
        "client after y",
    ]


# --- crashes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ticks", range(0, 60, 3))
async def test_4_8_17_a_crash_at_any_moment_leaves_no_lock_without_owner(hub: Deployment, ticks: int) -> None:
    """The process dies between start and end of two critical sections that lock the same entities."""
    app = counters()
    host = await hub.start(app)
    for name in ("x", "y"):
        await host.client.start("hold", {"keys": ["a", "b"]}, instance_id=name)
        await host.client.raise_event(name, "go", "return")
    for _ in range(ticks):
        await asyncio.sleep(0)
    host = await hub.recover(host, app)
    for _ in range(ticks):
        await asyncio.sleep(0)
    host = await hub.recover(host, app)
    for name in ("x", "y"):
        await reaches(host, name, "Completed")
    assert [await value(host, entity) for entity in (A, B)] == [2, 2]
    await is_free(host)
