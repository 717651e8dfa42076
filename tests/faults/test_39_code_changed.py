"""Scenario 39: the code changes under live instances."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durably import App, InstanceStatus, OrchestrationContext
from durably.core.invariants import check_instance
from durably.storage.open import open_store
from tests.faults.checker import check_file
from tests.faults.evidence import Evidence
from tests.support.waiting import eventually

Code = Callable[[OrchestrationContext, int], Any]


def deployed(code: Code, *names: str, version: str | None = None) -> App:
    """An app with one orchestrator, `trip`, and some activities that return their name with what they are given."""
    app = App()
    for name in names or ("book", "pay", "send"):

        async def act(x: int, name: str = name) -> str:
            return f"{name} {x}"

        act.__annotations__ = {"x": int, "return": str}
        app.activity(name=name)(_one_argument(act))
    app.orchestrator(name="trip", version=version)(code)
    return app


def _one_argument(act: Callable[..., Any]) -> Callable[[int], Any]:
    async def activity(x: int) -> str:
        return await act(x)

    return activity


async def v1(ctx: OrchestrationContext, n: int) -> list[Any]:
    booked = await ctx.call_activity("book", n)
    await ctx.create_timer(timedelta(milliseconds=1))
    paid = await asyncio.gather(*(ctx.call_activity("pay", x) for x in range(3)))
    await ctx.wait_for_external_event("Go")
    return [booked, *paid, await ctx.call_activity("send", n)]


RESULT = ["book 7", "pay 0", "pay 1", "pay 2", "send 7"]


async def renamed(ctx: OrchestrationContext, n: int) -> list[Any]:
    booked = await ctx.call_activity("reserve", n)
    await ctx.create_timer(timedelta(milliseconds=1))
    paid = await asyncio.gather(*(ctx.call_activity("pay", x) for x in range(3)))
    await ctx.wait_for_external_event("Go")
    return [booked, *paid, await ctx.call_activity("send", n)]


async def swapped(ctx: OrchestrationContext, n: int) -> list[Any]:
    await ctx.create_timer(timedelta(milliseconds=1))
    booked = await ctx.call_activity("book", n)
    paid = await asyncio.gather(*(ctx.call_activity("pay", x) for x in range(3)))
    await ctx.wait_for_external_event("Go")
    return [booked, *paid, await ctx.call_activity("send", n)]


async def without_timer(ctx: OrchestrationContext, n: int) -> list[Any]:
    booked = await ctx.call_activity("book", n)
    paid = await asyncio.gather(*(ctx.call_activity("pay", x) for x in range(3)))
    await ctx.wait_for_external_event("Go")
    return [booked, *paid, await ctx.call_activity("send", n)]


async def wider(ctx: OrchestrationContext, n: int) -> list[Any]:
    booked = await ctx.call_activity("book", n)
    await ctx.create_timer(timedelta(milliseconds=1))
    paid = await asyncio.gather(*(ctx.call_activity("pay", x) for x in range(4)))
    await ctx.wait_for_external_event("Go")
    return [booked, *paid, await ctx.call_activity("send", n)]


async def narrower(ctx: OrchestrationContext, n: int) -> list[Any]:
    booked = await ctx.call_activity("book", n)
    await ctx.create_timer(timedelta(milliseconds=1))
    paid = await asyncio.gather(*(ctx.call_activity("pay", x) for x in range(2)))
    await ctx.wait_for_external_event("Go")
    return [booked, *paid, await ctx.call_activity("send", n)]


async def later_step(ctx: OrchestrationContext, n: int) -> list[Any]:
    """Differs only behind what the instance has done: that is no conflict."""
    booked = await ctx.call_activity("book", n)
    await ctx.create_timer(timedelta(milliseconds=1))
    paid = await asyncio.gather(*(ctx.call_activity("pay", x) for x in range(3)))
    await ctx.wait_for_external_event("Go")
    return [booked, *paid, await ctx.call_activity("book", n)]


CHANGES: dict[str, tuple[Code, str, str]] = {
    "an activity renamed": (
        renamed,
        "history says:  activity 'book' (#0)",
        "code now does: activity 'reserve' (#0)",
    ),
    "the order swapped": (swapped, "history says:  activity 'book' (#0)", "code now does: timer (#0)"),
    "a timer removed": (without_timer, "history says:  timer (#1)", "code now does: activity 'pay' (#1)"),
    "a fan-out widened": (wider, "history says:  nothing more", "code now does: activity 'pay' (#5)"),
    "a fan-out narrowed": (narrower, "history says:  activity 'pay' (#4)", "code now does: nothing more"),
}


async def begin(evidence: Evidence, app: App, **start: Any) -> None:
    """Bring the instance to where it waits for `Go`."""
    async with app.host(evidence.url) as host:
        await host.client.start("trip", 7, instance_id="t", **start)
        await eventually(lambda: _waits(host), "the wait for Go")


async def _waits(host: Any) -> bool:
    return any(entry.event_type == "EventAwaited" for entry in await host.client.get_history("t"))


async def deploy_and_push(evidence: Evidence, app: App) -> InstanceStatus:
    """A deployment, and the event that makes the instance move; returns how it stands when it is blocked or over."""
    async with app.host(evidence.url) as host:
        await host.client.raise_event("t", "Go")

        async def settled() -> InstanceStatus | None:
            status = await host.client.get_status("t")
            return status if status and (status.blocked or status.runtime_status.is_terminal) else None

        return await eventually(settled, "the instance to be blocked or over")


async def outcome(evidence: Evidence, app: App) -> Any:
    async with app.host(evidence.url) as host:
        return await host.client.handle("t").result(timeout=60)


async def soundness(evidence: Evidence) -> None:
    store = open_store(evidence.url)
    await store.open(create=False)
    found = (await store.read_instances(await store.acquire(0, "judge"), ["t"]))[0]
    assert found is not None
    check_instance(found.row, found.history, [], found.inbox)
    await store.close()


@pytest.mark.parametrize("change", CHANGES)
def test_a_conflict_blocks_with_a_diff_and_a_rollback_ends_as_if_nothing_had_happened(
    tmp_path: Path, change: str
) -> None:
    code, recorded, produced = CHANGES[change]
    evidence = Evidence.in_folder(tmp_path)
    asyncio.run(begin(evidence, deployed(v1)))
    second = deployed(code, "book", "pay", "send", "reserve")
    status = asyncio.run(deploy_and_push(evidence, second))
    assert status.runtime_status == "Running"
    assert status.failure is None
    assert status.blocked is not None
    for words in (
        recorded,
        produced,
        "does not replay at step",
        "test_39_code_changed.py",
        "Deploy code that",
    ):
        assert words in status.blocked or (words.endswith(".py") and "nothing more" in produced), (
            status.blocked
        )
    asyncio.run(soundness(evidence))
    assert asyncio.run(outcome(evidence, deployed(v1))) == RESULT
    check_file(evidence)


def test_an_orchestrator_that_is_gone_blocks_its_instances_until_it_is_back(tmp_path: Path) -> None:
    evidence = Evidence.in_folder(tmp_path)
    asyncio.run(begin(evidence, deployed(v1)))
    status = asyncio.run(deploy_and_push(evidence, App()))
    assert status.blocked is not None
    assert "'trip' is not registered" in status.blocked
    assert asyncio.run(outcome(evidence, deployed(v1))) == RESULT


def test_a_change_behind_what_was_done_is_no_conflict(tmp_path: Path) -> None:
    evidence = Evidence.in_folder(tmp_path)
    asyncio.run(begin(evidence, deployed(v1)))
    status = asyncio.run(deploy_and_push(evidence, deployed(later_step)))
    assert status.blocked is None
    assert status.output == [*RESULT[:4], "book 7"]


def test_a_versioned_deployment_leaves_old_instances_to_the_old_code(tmp_path: Path) -> None:
    evidence = Evidence.in_folder(tmp_path)
    asyncio.run(begin(evidence, deployed(v1, version="1"), version="1"))
    both = deployed(v1, version="1")
    both.orchestrator(name="trip", version="2")(swapped)
    status = asyncio.run(deploy_and_push(evidence, both))
    assert (status.blocked, status.output, status.version) == (None, RESULT, "1")
