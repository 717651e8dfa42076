"""FEATURES 4.10: suspend, resume, terminate, purge; and the cooperative cancel of DESIGN rule 17."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from durably import (
    App,
    AppHost,
    BulkResult,
    EngineOptions,
    InstanceNotFoundError,
    InstanceStateError,
    OrchestrationContext,
    UsageError,
)
from durably.engine import janitor
from tests.support.clock import ManualClock
from tests.support.hubs import Deployment
from tests.support.waiting import eventually, has_event, is_quiet, reaches


class Gated:
    """An app with an activity that ends when told."""

    def __init__(self) -> None:
        self.app = App()
        self.gate = asyncio.Event()
        self.running = asyncio.Event()
        self.ran: list[str] = []

        @self.app.activity
        async def work(value: str) -> str:
            self.ran.append(value)
            self.running.set()
            await self.gate.wait()
            return value

        @self.app.orchestrator
        async def flow(ctx: OrchestrationContext) -> list[str]:
            first = await ctx.call_activity(work, "first")
            second = await ctx.call_activity(work, "second")
            return [first, second]

        self.flow = flow


async def status_of(host: AppHost, instance_id: str = "i") -> str:
    status = await host.client.get_status(instance_id)
    assert status is not None
    return status.runtime_status


@pytest.mark.parametrize("crash", [False, True])
async def test_4_10_1_a_running_activity_finishes_during_a_suspend_and_its_result_is_kept(
    hub: Deployment, crash: bool
) -> None:
    gated = Gated()
    host = await hub.start(gated.app)
    await host.client.start(gated.flow, instance_id="i")
    await gated.running.wait()
    await host.client.suspend("i", "look")
    assert await status_of(host) == "Suspended"
    gated.gate.set()
    await is_quiet(host)
    await eventually(lambda: len(host.engine.pool) == 0, "the result in a row")
    if crash:
        host = await hub.recover(host, gated.app)
        await is_quiet(host)
    assert gated.ran == ["first"]
    types = [entry.event_type for entry in await host.client.get_history("i")]
    assert types[-1] == "ExecutionSuspended"
    await host.client.resume("i", "looked")
    assert (await host.client.wait_for_completion("i")).output == ["first", "second"]
    assert gated.ran == ["first", "second"]


async def test_4_10_1_a_suspend_survives_a_crash_and_activities_run_on(hub: Deployment) -> None:
    gated = Gated()
    host = await hub.start(gated.app)
    await host.client.start(gated.flow, instance_id="i")
    await gated.running.wait()
    await host.client.suspend("i")
    host = await hub.recover(host, gated.app)
    assert await status_of(host) == "Suspended"
    await eventually(lambda: gated.ran == ["first", "first"])  # the crash took the first one
    gated.gate.set()
    await is_quiet(host)
    assert await status_of(host) == "Suspended"
    await host.client.resume("i")
    assert (await host.client.wait_for_completion("i")).output == ["first", "second"]
    assert gated.ran == ["first", "first", "second"]


async def test_4_10_2_what_follows_from_a_suspended_turn_is_emitted_after_resume_and_once(
    hub: Deployment,
) -> None:
    gated = Gated()
    gated.gate.set()
    app = gated.app

    @app.orchestrator
    async def fan(ctx: OrchestrationContext) -> Any:
        await ctx.wait_for_external_event("go")
        return await ctx.when_all([ctx.call_activity("work", str(number)) for number in range(5)])

    host = await hub.start(app)
    await host.client.start(fan, instance_id="i")
    # both are in one drain: the suspend is seen first
    await asyncio.gather(host.client.suspend("i"), host.client.raise_event("i", "go"))
    await is_quiet(host)
    assert gated.ran == []
    host = await hub.recover(host, app)
    await is_quiet(host)
    assert gated.ran == []
    await host.client.resume("i")
    assert (await host.client.wait_for_completion("i")).output == list("01234")
    assert gated.ran == list("01234")


@pytest.mark.parametrize("crash", [False, True])
async def test_4_10_3_repeated_suspend_and_resume_are_idempotent(hub: Deployment, crash: bool) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go")

    host = await hub.start(app)
    await host.client.start(flow, instance_id="i")
    await host.client.resume("i")
    assert await status_of(host) == "Running"
    for _ in range(3):
        await host.client.suspend("i")
        if crash:
            host = await hub.recover(host, app)
        assert await status_of(host) == "Suspended"
    for _ in range(3):
        await host.client.resume("i")
        if crash:
            host = await hub.recover(host, app)
        assert await status_of(host) == "Running"
    types = [entry.event_type for entry in await host.client.get_history("i")]
    assert (types.count("ExecutionSuspended"), types.count("ExecutionResumed")) == (1, 1)
    await host.client.raise_event("i", "go", 1)
    assert (await host.client.wait_for_completion("i")).output == 1


@pytest.mark.parametrize("state", ["Pending", "Running", "Suspended"])
@pytest.mark.parametrize("crash", [False, True])
async def test_4_10_4_terminate_ends_pending_running_and_suspended_instances_at_once(
    hub: Deployment, clock: ManualClock, state: str, crash: bool
) -> None:
    app = App()
    begun: list[str] = []

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        begun.append(ctx.instance_id)
        await ctx.create_timer(60)

    host = await hub.start(app, clock=clock)
    await host.client.start(flow, instance_id="i", start_at=60.0 if state == "Pending" else None)
    if state == "Suspended":
        await host.client.suspend("i")
        await host.client.raise_event("i", "kept", 1)
    assert await status_of(host) == state
    if crash:
        host = await hub.recover(host, app, clock=clock)
    await host.client.terminate("i", "enough")
    done = await host.client.wait_for_completion("i")
    assert (done.runtime_status, done.output) == ("Terminated", "enough")
    history = await host.client.get_history("i")
    if crash:
        host = await hub.recover(host, app, clock=clock)
    clock.advance(3600)
    await is_quiet(host)
    assert await host.client.get_history("i") == history
    assert await status_of(host) == "Terminated"
    assert (begun == []) == (state == "Pending")
    host = await hub.recover(host, app, clock=clock)
    assert (await host.client.query_instances()).instances[0].runtime_status == "Terminated"


async def test_4_10_5_terminate_is_not_catchable_and_results_that_come_later_are_dropped(
    memory: Deployment,
) -> None:
    caught: list[str] = []
    late = asyncio.Event()
    finished = asyncio.Event()
    running = asyncio.Event()
    app = App()

    @app.activity
    async def work() -> str:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await late.wait()
        finished.set()
        return "late"

    @app.activity
    async def undo() -> None:
        caught.append("undo ran")

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        try:
            return await ctx.call_activity(work)
        except Exception as error:  # noqa: BLE001
            caught.append(type(error).__name__)
            return "caught"
        finally:
            await ctx.call_activity(undo)

    async with memory.host(app) as host:
        handle = await host.client.start(flow)
        await running.wait()
        await handle.terminate("enough")
        done = await handle.wait_for_completion()
        history = await handle.history()
        late.set()
        await finished.wait()
        await is_quiet(host)
        assert caught == []
        assert (done.runtime_status, done.output) == ("Terminated", "enough")
        assert await handle.status() == done
        assert await handle.history() == history
        assert host.engine.failure is None


@pytest.mark.parametrize("end", ["Completed", "Failed", "Terminated", "Canceled"])
@pytest.mark.parametrize("crash", [False, True])
async def test_4_10_8_purge_removes_a_finished_instance_and_frees_its_id(
    hub: Deployment, end: str, crash: bool
) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, fail: bool) -> Any:
        event = await ctx.wait_for_external_event("go", timeout=3600)
        if fail:
            raise ValueError("broken")
        return event

    host = await hub.start(app)
    handle = await host.client.start(flow, end == "Failed", instance_id="i")
    if end == "Terminated":
        await handle.terminate()
    elif end == "Canceled":
        await handle.cancel()
    else:
        await handle.raise_event("go", 1)
    assert (await handle.wait_for_completion()).runtime_status == end
    if crash:
        host = await hub.recover(host, app)
    assert await host.client.purge("i") is True
    if crash:
        host = await hub.recover(host, app)
    assert await host.client.get_status("i") is None
    with pytest.raises(InstanceNotFoundError):
        await host.client.get_history("i")
    with pytest.raises(InstanceNotFoundError):
        await host.client.raise_event("i", "go", 1)
    assert (await host.client.query_instances()).instances == []
    assert await host.client.purge("i") is False
    await host.client.start(flow, False, instance_id="i", on_existing="fail")
    await host.client.raise_event("i", "go", 2)
    assert (await host.client.wait_for_completion("i")).output == 2
    assert len([e for e in await host.client.get_history("i") if e.event_type == "ExecutionStarted"]) == 1


@pytest.mark.parametrize("state", ["Pending", "Running", "Suspended"])
async def test_4_10_8_purge_is_refused_before_the_end(
    hub: Deployment, clock: ManualClock, state: str
) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go")

    async with hub.host(app, clock=clock) as host:
        await host.client.start(flow, instance_id="i", start_at=60.0 if state == "Pending" else None)
        if state == "Suspended":
            await host.client.suspend("i")
        with pytest.raises(InstanceStateError, match="terminate it first") as caught:
            await host.client.purge("i")
        assert (caught.value.status, caught.value.operation) == (state, "purge")
        assert await status_of(host) == state
        if state == "Suspended":
            await host.client.resume("i")
        clock.advance(60)
        await host.client.raise_event("i", "go", 1)
        assert (await host.client.wait_for_completion("i")).output == 1


async def test_4_10_8_a_purge_a_start_and_an_event_in_one_batch_keep_their_order(hub: Deployment) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, value: int) -> Any:
        if value == 0:
            return "old"
        return [value, await ctx.wait_for_external_event("go")]

    async with hub.host(app) as host:
        await (await host.client.start(flow, 0, instance_id="i")).result()
        outcomes = await asyncio.gather(
            host.client.purge("i"),
            host.client.start(flow, 1, instance_id="i"),
            host.client.raise_event("i", "go", "on"),
        )
        assert outcomes[0] is True
        assert (await host.client.wait_for_completion("i")).output == [1, "on"]


@pytest.mark.parametrize("crash", [False, True])
async def test_4_10_5_cancel_is_cooperative_the_code_cleans_up_and_ends_as_canceled(
    hub: Deployment, crash: bool
) -> None:
    """Not Durable Functions: DESIGN rule 17."""
    cleaned: list[str] = []
    app = App()

    @app.activity
    async def undo(what: str) -> None:
        cleaned.append(what)

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> None:
        try:
            await ctx.wait_for_external_event("never")
        finally:
            await ctx.call_activity(undo, "booking")

    host = await hub.start(app)
    await host.client.start(flow, instance_id="i")
    await has_event(host, "i", "EventAwaited")
    if crash:
        host = await hub.recover(host, app)
    await host.client.cancel("i", "please")
    done = await host.client.wait_for_completion("i")
    assert done.failure is not None
    assert (done.runtime_status, done.failure.message) == ("Canceled", "please")
    assert cleaned == ["booking"]


async def test_4_10_4_a_pending_instance_can_be_cancelled_and_suspended(
    hub: Deployment, clock: ManualClock
) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go")

    async with hub.host(app, clock=clock) as host:
        await host.client.start(flow, instance_id="c", start_at=60.0)
        await host.client.cancel("c", "please")
        done = await host.client.wait_for_completion("c")
        assert done.runtime_status == "Canceled"
        await host.client.start(flow, instance_id="s", start_at=60.0)
        await host.client.suspend("s")
        clock.advance(60)
        await reaches(host, "s", "Suspended")
        await host.client.raise_event("s", "go", 1)
        await host.client.resume("s")
        assert (await host.client.wait_for_completion("s")).output == 1
        assert await status_of(host, "c") == "Canceled"


# --- many at once ----------------------------------------------------------------------------------------------------


def quick() -> App:
    app = App()

    @app.orchestrator
    async def ends(ctx: OrchestrationContext, fail: bool = False) -> None:
        if fail:
            raise ValueError("told to")

    @app.orchestrator
    async def waits(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("go")

    return app


async def test_4_10_9_purge_by_filter_respects_the_filters_and_reports_the_count(
    hub: Deployment, clock: ManualClock
) -> None:
    host = await hub.start(quick(), clock=clock)
    client = host.client
    for day in range(3):
        for number in range(4):
            await client.start("ends", number == 3, instance_id=f"{day}-{number}", tags={"day": f"{day}"})
        await client.start("waits", instance_id=f"{day}-waits")
        for number in range(4):
            await client.wait_for_completion(f"{day}-{number}")
        clock.advance(86_400)

    async def left() -> list[str]:
        return [one.instance_id for one in (await client.query_instances(page_size=1_000)).instances]

    seen: list[int] = []
    planned = await client.purge_instances(dry_run=True, progress=lambda so_far: seen.append(so_far.matched))
    assert (planned.matched, planned.done, planned.failed, planned.dry_run) == (12, 0, 0, True)
    assert seen == [12]
    assert len(await left()) == 15

    done = await client.purge_instances(created_to=clock.moment - timedelta(days=2.5))
    assert (done.matched, done.done, done.failed) == (4, 4, 0)
    done = await client.purge_instances(runtime_status="Failed")
    assert (done.matched, done.done) == (2, 2)
    done = await client.purge_instances(tags={"day": "2"}, instance_id_prefix="2-1")
    assert (done.matched, done.done) == (1, 1)
    assert await left() == ["0-waits", "1-0", "1-1", "1-2", "1-waits", "2-0", "2-2", "2-waits"]

    # Those that have not ended refuse it, and say so.
    done = await client.purge_instances(runtime_status=["Running", "Completed"])
    assert (done.matched, done.done, done.failed) == (8, 5, 3)
    assert sorted(done.errors) == ["0-waits", "1-waits", "2-waits"]
    assert "expected a finished instance" in done.errors["0-waits"]
    assert await left() == ["0-waits", "1-waits", "2-waits"]


async def test_4_10_4_many_are_suspended_resumed_and_terminated_by_filter(hub: Deployment) -> None:
    host = await hub.start(quick())
    client = host.client
    ids = [f"i{number:04}" for number in range(1_100)]  # three pages
    await asyncio.gather(*(client.start("waits", instance_id=key) for key in ids))
    pages: list[int] = []

    async def progress(so_far: BulkResult) -> None:
        pages.append(so_far.done)

    done = await client.bulk("suspend", progress=progress, share=1, reason="pause")
    assert (done.matched, done.done, done.failed, done.errors) == (1_100, 1_100, 0, {})
    assert pages == [500, 1_000, 1_100]
    assert (await client.bulk("suspend")).matched == 0
    assert (await client.bulk("resume", instance_id_prefix="i00")).done == 100
    assert (await client.bulk("terminate", reason="enough", max_in_flight=100, share=1)).done == 1_100
    assert {one.runtime_status for one in (await client.query_instances(page_size=1_000)).instances} == {
        "Terminated"
    }


async def test_4_10_9_a_bulk_operation_that_cannot_be_is_refused(memory: Deployment) -> None:
    host = await memory.start(quick())
    with pytest.raises(UsageError, match="expected one of purge"):
        await host.client.bulk("delete")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no filter 'state'"):
        await host.client.bulk("purge", state="Failed")  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="unknown status"):
        await host.client.purge_instances(runtime_status="Dead")
    with pytest.raises(UsageError, match="max_in_flight"):
        await host.client.bulk("purge", max_in_flight=0)
    with pytest.raises(UsageError, match="share"):
        await host.client.bulk("purge", share=0)


async def test_4_10_9_finished_instances_are_kept_as_long_as_the_hub_says(
    hub: Deployment, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(janitor, "PAGE", 10)
    options = EngineOptions(keep_finished_s=3_600)
    host = await hub.start(quick(), clock=clock, options=options)
    client = host.client
    for number in range(25):
        await client.start("ends", instance_id=f"old-{number}")
    await client.start("waits", instance_id="waits")
    await client.wait_for_completion("old-24")
    clock.advance(3_000)
    await client.start("ends", instance_id="young")
    await client.start("waits", instance_id="ends-late")
    await client.raise_event("ends-late", "go")
    await client.wait_for_completion("ends-late")

    async def left() -> set[str]:
        clock.advance(0.1)
        return {one.instance_id for one in (await client.query_instances(page_size=1_000)).instances}

    clock.advance(590)
    assert len(await left()) == 28
    clock.advance(100)
    await eventually(lambda: _only(left, {"waits", "young", "ends-late"}), "retention")
    clock.advance(3_600)
    await eventually(lambda: _only(left, {"waits"}), "retention")
    await client.raise_event("waits", "go")
    await client.wait_for_completion("waits")


async def _only(look: Callable[[], Awaitable[set[str]]], expected: set[str]) -> bool:
    return await look() == expected
