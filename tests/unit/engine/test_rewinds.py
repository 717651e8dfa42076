"""Rewind and restart within the engine: what shares a batch with them, what is in memory, what the rows hold."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durably import App, AppHost, EngineOptions, InstanceStateError, OrchestrationContext, TaskFailedError
from durably.core.commit import HistoryRow, InboxRow
from durably.core.events import EventRaised, ExecutionStarted, Rewound
from durably.core.history import decode_rows, encode_body
from durably.core.messages import ChildDone, Purge, RaiseEvent, Restart, Rewind, StartInstance
from durably.engine.residents import decode_bases
from durably.storage.memory import MemoryHub
from durably.storage.memory_hub import Execution
from tests.support.hubs import Deployment, MemoryHubOfTest
from tests.support.stores import FaultyStore
from tests.support.waiting import eventually, has_event, is_quiet, reaches


class Flaky:
    """An app whose activity fails as long as it is broken."""

    def __init__(self) -> None:
        self.app = App()
        self.broken = True
        self.hangs = False

        @self.app.activity
        async def work() -> str:
            if self.hangs:
                await asyncio.Event().wait()
            if self.broken:
                raise ValueError("broken")
            return "fine"

        @self.app.orchestrator
        async def flow(ctx: OrchestrationContext) -> list[Any]:
            first = await ctx.wait_for_external_event("go")
            return [first, await ctx.call_activity(work), await ctx.wait_for_external_event("on")]

        @self.app.orchestrator
        async def bare(ctx: OrchestrationContext) -> Any:
            if await ctx.wait_for_external_event("go") == "fail":
                raise ValueError("told to")
            return "done"

        @self.app.orchestrator
        async def parent(ctx: OrchestrationContext) -> Any:
            return await ctx.call_sub_orchestrator(flow, instance_id="c")


def rows_of(hub: Deployment) -> MemoryHub:
    assert isinstance(hub.hub, MemoryHubOfTest)
    return hub.hub.hub


async def submit(host: AppHost, *bodies: Any, target: str = "i") -> list[Any]:
    return await asyncio.gather(
        *(host.engine.submit(target, body) for body in bodies), return_exceptions=True
    )


# --- one batch -------------------------------------------------------------------------------------------------------


async def test_a_failure_and_its_rewind_in_one_batch(hub: Deployment) -> None:
    """The rows of what has just failed are not on the disk yet: the rewind waits for them, and what is behind it too."""
    flaky = Flaky()
    host = await hub.start(flaky.app)
    await host.client.start("bare", instance_id="i")
    answers = await submit(
        host,
        RaiseEvent("go", b'"fail"'),
        Rewind("at once", "e2"),
        RaiseEvent("go", b'"too late"'),
        Rewind(None, "e3"),
    )
    # the rewound one sees its last event once more, and fails again; what came behind finds it failed
    assert [type(answer) for answer in answers] == [type(None), type(None), InstanceStateError, type(None)]
    await reaches(host, "i", "Failed")
    row = rows_of(hub).instances["i"][1]
    assert (row.execution, decode_bases(row.bases or b"")) == (3, (1, 2))
    assert [len(rows_of(hub).history[Execution(0, number)]) > 0 for number in (1, 2, 3)] == [True] * 3


async def test_an_end_and_a_restart_in_one_batch(hub: Deployment) -> None:
    flaky = Flaky()
    host = await hub.start(flaky.app)
    await host.client.start("bare", instance_id="i")
    answers = await submit(host, RaiseEvent("go", b"1"), Restart("e2"), RaiseEvent("go", b"2"))
    assert answers == [None] * 3
    assert (await host.client.wait_for_completion("i")).output == "done"
    assert rows_of(hub).instances["i"][1].execution_id == "e2"
    assert list(rows_of(hub).history) == [Execution(0, 2)]


async def test_an_end_and_a_recursive_purge_in_one_batch(hub: Deployment) -> None:
    host = await hub.start(Flaky().app)
    await host.client.start("bare", instance_id="i")
    assert await submit(host, RaiseEvent("go", b"1"), Purge(recursive=True)) == [None, None]
    assert rows_of(hub).instances == {}


async def test_a_start_its_failure_and_its_rewind_while_a_batch_is_on_its_way(
    hub: Deployment, store: FaultyStore
) -> None:
    app = App()

    @app.orchestrator
    async def fails(ctx: OrchestrationContext) -> None:
        raise ValueError("at once")

    host = await hub.start(app, store=store)
    start = StartInstance("fails", None, "e1")
    store.hold = asyncio.Event()
    asked = asyncio.ensure_future(submit(host, start, Rewind(None, "e2"), Rewind(None, "e3")))
    await eventually(
        lambda: host.engine.partition is not None and host.engine.partition._around.absent.waited_for
    )
    for _ in range(10):
        await asyncio.sleep(0)
    assert not asked.done()
    store.hold.set()
    assert await asked == [None] * 3
    await is_quiet(host)
    assert host.engine._own.holdings[0]._strikes.counts == {}
    assert rows_of(hub).instances["i"][1].execution_id == "e3"


@pytest.mark.parametrize("verb", ["rewind", "restart"])
async def test_a_repeated_message_changes_nothing(hub: Deployment, verb: str) -> None:
    flaky = Flaky()
    host = await hub.start(flaky.app)
    await host.client.start("flow", instance_id="i")
    await host.client.raise_event("i", "go", 1)
    await reaches(host, "i", "Failed")
    flaky.broken = False
    body: Any = Rewind("why", "e2") if verb == "rewind" else Restart("e2")
    assert await submit(host, body, body) == [None, None]
    await is_quiet(host)
    before = await host.client.get_history("i")
    assert await submit(host, body) == [None]
    assert await host.client.get_history("i") == before


# --- rows ------------------------------------------------------------------------------------------------------------


async def test_the_first_row_of_a_rewound_execution_is_enough_and_names_its_base(hub: Deployment) -> None:
    flaky = Flaky()
    host = await hub.start(flaky.app)
    await host.client.start("flow", instance_id="i")
    await host.client.raise_event("i", "go", 1)
    await reaches(host, "i", "Failed")
    base = list(rows_of(hub).history[Execution(0, 1)])
    row = rows_of(hub).instances["i"][1]
    old, _ = decode_rows("i", row.execution_id, base)
    flaky.hangs = True
    await host.client.rewind("i", "why")
    rewound_row = rows_of(hub).instances["i"][1]
    first: list[HistoryRow] = rows_of(hub).history[Execution(0, 2)]
    assert rows_of(hub).history[Execution(0, 1)] == base, "nothing old is rewritten"
    assert len(first) == 1
    new, _ = decode_rows("i", rewound_row.execution_id, first)
    started = next(event for event in new if isinstance(event, ExecutionStarted))
    assert (started.execution_id, started.seed, started.ordinal) == (
        rewound_row.execution_id,
        row.execution_id,
        0,
    )
    (rewound,) = [event for event in new if isinstance(event, Rewound)]
    assert (rewound.base_execution, rewound.base_checksum) == (1, base[-1].checksum.hex())
    assert rewound.lineage == {row.execution_id: 2}
    cut = new.index(rewound)
    assert new[2 : cut - 1] == old[2:][: cut - 3], "kept verbatim"
    assert not [event for event in new[cut:] if isinstance(event, EventRaised)]


@pytest.mark.parametrize("way", ["purge", "replace", "restart", "continue as new"])
async def test_the_rows_of_all_bases_go_with_their_instance(hub: Deployment, way: str) -> None:
    app = App()
    broken = True

    @app.activity
    async def work() -> None:
        if broken:
            raise ValueError("broken")

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, n: int) -> None:
        if not n:
            return
        await ctx.call_activity(work)
        if way == "continue as new":
            ctx.continue_as_new(0)

    host = await hub.start(app)
    await host.client.start(flow, 1, instance_id="i")
    for _ in range(3):
        await reaches(host, "i", "Failed")
        await host.client.rewind("i")
        host = await hub.recover(host, app)
    await reaches(host, "i", "Failed")
    assert [key.execution for key, rows in rows_of(hub).history.items() if rows] == [1, 2, 3, 4]
    if way == "continue as new":
        broken = False
        await host.client.rewind("i")
        await reaches(host, "i", "Completed")
    elif way == "purge":
        await host.client.purge("i")
    elif way == "replace":
        await host.client.start(flow, 0, instance_id="i")
    else:
        await host.client.restart("i")
        await reaches(host, "i", "Failed")
    await is_quiet(host)
    kept = [key.execution for key, rows in rows_of(hub).history.items() if rows]
    assert kept == ([] if way == "purge" else [max(kept)])
    assert min([5, *kept]) == 5


async def test_an_evicted_and_reloaded_partition_goes_on_with_a_rewound_instance(hub: Deployment) -> None:
    flaky = Flaky()
    host = await hub.start(flaky.app, options=EngineOptions(max_resident_instances=1))
    await host.client.start("flow", instance_id="i")
    await host.client.raise_event("i", "go", 1)
    await reaches(host, "i", "Failed")
    flaky.broken = False
    await host.client.rewind("i")
    await has_event(host, "i", "TaskCompleted")
    for n in range(3):
        await host.client.start("bare", instance_id=f"other{n}")
    host.engine.reload_partition("for a test")
    await host.client.raise_event("i", "on", 2)
    assert (await host.client.wait_for_completion("i")).output == [1, "fine", 2]


# --- what comes late -------------------------------------------------------------------------------------------------


async def test_a_result_of_the_execution_before_is_dropped(hub: Deployment) -> None:
    """A child of a dropped call, and one of a life that is over."""
    flaky = Flaky()
    host = await hub.start(flaky.app)
    await host.client.start("parent", instance_id="p")
    await reaches(host, "c", "Running")
    await host.client.raise_event("c", "go", 1)
    await reaches(host, "p", "Failed")
    old = rows_of(hub).instances["p"][1].execution_id
    flaky.hangs = True
    await host.client.rewind("p")
    await reaches(host, "c", "Running")
    assert (
        await submit(host, ChildDone(old, 7, 1, b"1"), ChildDone("stranger", 0, 1, b"1"), target="p")
        == [None] * 2
    )
    await is_quiet(host)
    assert ("TaskCompleted") not in [entry.event_type for entry in await host.client.get_history("p")]
    flaky.hangs = flaky.broken = False
    host = await hub.recover(host, flaky.app)
    await host.client.raise_event("c", "on", 2)
    assert (await host.client.wait_for_completion("p")).output == [1, "fine", 2]


class Collects(Flaky):
    """An orchestration that fails with events in its buffer; with another first event its code does not fit its history."""

    def __init__(self, first: str = "go", *, broken: bool = False) -> None:
        super().__init__()
        self.broken = broken

        @self.app.orchestrator
        async def collects(ctx: OrchestrationContext) -> list[Any]:
            await ctx.wait_for_external_event(first)
            try:
                await ctx.call_activity("work")
            except TaskFailedError:
                await ctx.wait_for_external_event("give up")
                raise
            return [await ctx.wait_for_external_event("item") for _ in range(3)]


async def fails_with_two_items(hub: Deployment) -> AppHost:
    """A host whose code does not fit the history of the instance, which has failed with two events in its buffer."""
    host = await hub.start(Collects(broken=True).app)
    await host.client.start("collects", instance_id="i")
    await host.client.raise_event("i", "go")
    await has_event(host, "i", "EventAwaited", 2)
    for n in (1, 2):
        await host.client.raise_event("i", "item", n)
    await host.client.raise_event("i", "give up")
    await reaches(host, "i", "Failed")
    return await hub.restart(host, Collects("another name").app)


async def is_blocked(host: AppHost) -> None:
    async def blocked() -> bool:
        status = await host.client.get_status("i")
        return status is not None and status.blocked is not None

    await eventually(blocked)


async def test_late_events_of_a_blocked_instance_are_kept_over_a_crash_in_their_order(
    hub: Deployment,
) -> None:
    host = await fails_with_two_items(hub)
    await host.client.rewind("i")
    await is_blocked(host)
    host = await hub.recover(host, Collects("another name").app)
    await host.client.raise_event("i", "item", 3)
    host = await hub.recover(host, Collects().app)
    assert (await host.client.wait_for_completion("i")).output == [1, 2, 3]
    assert rows_of(hub).inbox == {}


async def test_what_came_right_behind_a_rewind_stays_behind_the_late_events_over_a_crash(
    hub: Deployment,
) -> None:
    """It has its row already when those events get theirs."""
    host = await fails_with_two_items(hub)
    bodies = (Rewind(None, "another life"), RaiseEvent("item", b"3"))
    await host.engine.store.post(
        [InboxRow(f"client/{n}", "i", 0, encode_body(body)) for n, body in enumerate(bodies)]
    )
    await is_blocked(host)
    host = await hub.recover(host, Collects().app)
    assert (await host.client.wait_for_completion("i")).output == [1, 2, 3]
    assert rows_of(hub).inbox == {}


async def test_what_came_right_behind_a_restart_waits_with_it_over_a_crash(hub: Deployment) -> None:
    host = await hub.start(Flaky().app)
    await host.client.start("bare", instance_id="i")
    await host.client.terminate("i")
    waits = EngineOptions(unknown_functions="wait")
    host = await hub.restart(host, App(), options=waits)
    bodies = (Restart("another life"), RaiseEvent("go", b"1"))
    await host.engine.store.post(
        [InboxRow(f"client/{n}", "i", 0, encode_body(body)) for n, body in enumerate(bodies)]
    )
    await is_blocked(host)
    host = await hub.recover(host, Flaky().app, options=waits)
    assert (await host.client.wait_for_completion("i")).output == "done"
    assert rows_of(hub).inbox == {}
