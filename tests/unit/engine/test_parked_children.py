"""A child that is set aside or blocked: whatever an operator does with it, its parent hears of its end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durably import App, AppHost, InstanceStateError, OrchestrationContext, TaskFailedError
from durably.core.commit import HistoryRow
from durably.core.events import TaskCompleted
from durably.core.history import chain, encode_events
from durably.storage.memory import MemoryHub
from tests.support.hubs import Deployment, MemoryHubOfTest
from tests.support.waiting import eventually, has_event, is_quiet, reaches


def build(first: str = "go") -> App:
    app = App()

    @app.activity
    async def hangs() -> None:
        await asyncio.Event().wait()

    @app.orchestrator
    async def child(ctx: OrchestrationContext) -> Any:
        grandchild = ctx.call_sub_orchestrator("grandchild", instance_id="g")
        got = await ctx.wait_for_external_event(first)
        return [got, await ctx.wait_for_external_event("on"), await grandchild]

    @app.orchestrator
    async def grandchild(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go")

    @app.orchestrator
    async def parent(ctx: OrchestrationContext) -> Any:
        try:
            return await ctx.call_sub_orchestrator("child", instance_id="c")
        except TaskFailedError as error:
            return error.details.type

    @app.orchestrator
    async def strict(ctx: OrchestrationContext) -> Any:
        return await ctx.call_sub_orchestrator("child", instance_id="c")

    return app


def rows_of(hub: Deployment) -> MemoryHub:
    assert isinstance(hub.hub, MemoryHubOfTest)
    return hub.hub.hub


def spoil(hub: Deployment, how: str) -> None:
    """Spoil the history of the child."""
    data = rows_of(hub)
    rows = data.history[data.execution_of("c", data.instances["c"][1].execution)]
    if how == "senseless":
        added = encode_events([TaskCompleted(7, None)])
        rows.append(
            HistoryRow(rows[0].execution, len(rows), rows[-1].at, added, chain(rows[-1].checksum, added))
        )
    else:
        at = 0 if how == "first" else -1
        rows[at] = rows[at]._replace(data=rows[at].data[:-1] + b"x")


async def is_parked(host: AppHost) -> bool:
    status = await host.client.get_status("c")
    return status is not None and status.blocked is not None


async def with_parked_child(hub: Deployment, how: str, caller: str = "parent") -> AppHost:
    host = await hub.start(build())
    await host.client.start(caller, instance_id="p")
    await has_event(host, "c", "EventAwaited")
    await host.client.raise_event("c", "go", 1)
    await is_quiet(host)
    await hub.stop(host)
    spoil(hub, how)
    host = await hub.start(build())
    await host.client.raise_event("c", "on", 1)
    await eventually(lambda: is_parked(host), "the child is parked")
    return host


SPOILED = pytest.mark.parametrize("how", ["first", "last", "senseless"])


@SPOILED
@pytest.mark.parametrize("order", ["terminate", "discard", "replace"])
@pytest.mark.parametrize("crash", [False, True])
async def test_the_parent_of_a_child_that_cannot_be_read_hears_of_its_end(
    hub: Deployment, how: str, order: str, crash: bool
) -> None:
    host = await with_parked_child(hub, how)
    if order == "replace":
        await host.client.start("grandchild", instance_id="c", on_existing="replace")
    else:
        await getattr(host.client, order)("c")
    if crash:
        host = await hub.recover(host, build())
    done = await asyncio.wait_for(host.client.wait_for_completion("p"), 60)
    assert (done.runtime_status, done.output) == ("Completed", "Terminated")
    await is_quiet(host)
    assert rows_of(hub).inbox == {}


@SPOILED
async def test_a_recursive_order_to_the_parent_reaches_a_child_that_cannot_be_read(
    hub: Deployment, how: str
) -> None:
    host = await with_parked_child(hub, how)
    await host.client.terminate("p", "enough", recursive=True)
    ended = await reaches(host, "c", "Terminated")
    assert ended.output == "enough"
    await host.client.purge("p", recursive=True)
    assert await host.client.get_status("c") is None


@SPOILED
async def test_a_parked_child_is_not_purged_nor_restarted_but_can_be_when_it_was_terminated(
    hub: Deployment, how: str
) -> None:
    host = await with_parked_child(hub, how)
    for refused in (host.client.purge("c"), host.client.restart("c"), host.client.rewind("c")):
        with pytest.raises(InstanceStateError):
            await refused
    await host.client.terminate("c")
    await host.client.terminate("g")
    await host.client.restart("c")
    await host.client.raise_event("c", "go", 1)
    await host.client.terminate("c")
    assert await host.client.purge("c")
    done = await asyncio.wait_for(host.client.wait_for_completion("p"), 60)
    assert done.output == "Terminated"


@SPOILED
async def test_a_parent_that_is_rewound_gets_another_child_for_one_that_could_not_be_read(
    hub: Deployment, how: str
) -> None:
    host = await with_parked_child(hub, how, "strict")
    await host.client.terminate("g")
    await host.client.terminate("c")
    await reaches(host, "p", "Failed")
    await host.client.rewind("p")
    await reaches(host, "c", "Running")
    for name, target in (("go", "c"), ("on", "c"), ("go", "g")):
        await host.client.raise_event(target, name, 1)
    done = await asyncio.wait_for(host.client.wait_for_completion("p"), 60)
    assert done.output == [1, 1, 1]


@pytest.mark.parametrize("crash", [False, True])
async def test_the_parent_of_a_blocked_child_hears_that_it_was_terminated(
    hub: Deployment, crash: bool
) -> None:
    host = await hub.start(build())
    await host.client.start("parent", instance_id="p")
    await has_event(host, "c", "EventAwaited")
    host = await hub.restart(host, build("another name"))
    await host.client.raise_event("c", "go", 1)
    await eventually(lambda: is_parked(host), "the child is blocked")
    if crash:
        host = await hub.recover(host, build("another name"))
    await host.client.terminate("c", recursive=True)
    done = await asyncio.wait_for(host.client.wait_for_completion("p"), 60)
    assert done.output == "Terminated"
    await reaches(host, "g", "Terminated")
    await is_quiet(host)
    assert rows_of(hub).inbox == {}
