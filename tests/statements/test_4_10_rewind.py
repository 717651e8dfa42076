"""FEATURES 4.10.6: a failed instance goes on from before its failure, and only failed work runs again."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from durably import (
    ActivityContext,
    App,
    AppHost,
    InstanceNotFoundError,
    InstanceStateError,
    OrchestrationContext,
    OrchestrationFailedError,
    RetryPolicy,
    TaskFailedError,
)
from tests.support.clock import ManualClock
from tests.support.hubs import Deployment
from tests.support.waiting import eventually, has_event, is_quiet, reaches


class Shop:
    """An app whose activities fail as long as they are broken; `ran` holds what ran, `keys` under which keys."""

    def __init__(self) -> None:
        self.app = App()
        self.ran: list[str] = []
        self.keys: list[str] = []
        self.broken: set[str] = set()
        self.hanging: set[str] = set()

        @self.app.activity
        async def work(what: str, ctx: ActivityContext) -> str:
            self.ran.append(what)
            self.keys.append(ctx.idempotency_key)
            if what in self.hanging:
                await asyncio.Event().wait()
            if what in self.broken:
                raise ValueError(f"no {what}")
            return what

        @self.app.orchestrator
        async def leaf(ctx: OrchestrationContext, what: str) -> str:
            before = await ctx.call_activity(work, f"before {what}")
            return f"{before}, {await ctx.call_activity(work, what)}"

        @self.app.orchestrator
        async def middle(ctx: OrchestrationContext, what: str) -> str:
            await ctx.call_activity(work, "middle")
            return await ctx.call_sub_orchestrator(leaf, what)

        @self.app.orchestrator
        async def top(ctx: OrchestrationContext, what: str) -> str:
            await ctx.call_activity(work, "top")
            return await ctx.call_sub_orchestrator(middle, what)


async def fails(host: AppHost, instance_id: str = "i") -> Any:
    return await reaches(host, instance_id, "Failed")


async def events_of(host: AppHost, instance_id: str = "i") -> list[tuple[str, int | None]]:
    history = await host.client.get_history(instance_id)
    return [
        (entry.event_type, entry.task_id) for entry in history if entry.event_type != "OrchestratorStarted"
    ]


# --- what is accepted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["Pending", "Running", "Suspended", "Completed", "Canceled", "Terminated"])
async def test_4_10_6_rewind_is_accepted_only_for_failed(
    hub: Deployment, clock: ManualClock, state: str
) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go")

    host = await hub.start(app, clock=clock)
    handle = await host.client.start(flow, instance_id="i", start_at=60.0 if state == "Pending" else None)
    match state:
        case "Suspended":
            await handle.suspend()
        case "Completed":
            await handle.raise_event("go", 1)
        case "Canceled":
            await handle.cancel()
        case "Terminated":
            await handle.terminate()
        case _:
            pass
    before = await reaches(host, "i", state)
    with pytest.raises(InstanceStateError, match="expected Failed") as caught:
        await handle.rewind()
    assert (caught.value.status, caught.value.operation) == (state, "rewind")
    assert await handle.status() == before
    with pytest.raises(InstanceNotFoundError):
        await host.client.rewind("unknown")


async def test_4_10_6_of_two_rewinds_at_the_same_time_one_wins(hub: Deployment) -> None:
    shop = Shop()
    shop.broken.add("a")
    host = await hub.start(shop.app)
    await host.client.start("leaf", "a", instance_id="i")
    await fails(host)
    shop.hanging.add("a")
    outcomes = await asyncio.gather(host.client.rewind("i"), host.client.rewind("i"), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), InstanceStateError]


# --- activities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crash", [False, True])
async def test_4_10_6_only_failed_work_runs_again_and_successful_results_stay(
    hub: Deployment, crash: bool
) -> None:
    shop = Shop()
    shop.broken.add("a")
    host = await hub.start(shop.app)
    handle = await host.client.start("leaf", "a", instance_id="i", tags={"team": "x"})
    failed = await fails(host)
    if crash:
        host = await hub.recover(host, shop.app)
    shop.broken.clear()
    await host.client.rewind("i", "mended")
    if crash:
        host = await hub.recover(host, shop.app)
    done = await host.client.wait_for_completion("i")
    assert (done.runtime_status, done.output, done.failure) == ("Completed", "before a, a", None)
    assert (done.created_time, done.tags, done.input) == (failed.created_time, {"team": "x"}, "a")
    assert shop.ran[:2] == ["before a", "a"]
    assert set(shop.ran[2:]) == {"a"}
    assert shop.keys[1] != shop.keys[2], "the key of a call is new after a rewind"
    assert await events_of(host) == [
        ("ExecutionStarted", None),
        ("TaskScheduled", 0),
        ("TaskCompleted", 0),
        ("TaskScheduled", 1),
        ("ExecutionRewound", None),
        ("TaskCompleted", 1),
        ("ExecutionCompleted", None),
    ]
    (rewound,) = [e for e in await host.client.get_history("i") if e.event_type == "ExecutionRewound"]
    assert rewound.details["reason"] == "mended"
    assert rewound.details["failed"] == [1]
    assert handle.instance_id == "i"


async def test_4_10_6_whoever_waits_for_the_result_waits_again(memory: Deployment) -> None:
    shop = Shop()
    shop.broken.add("a")
    async with memory.host(shop.app) as host:
        handle = await host.client.start("leaf", "a", instance_id="i")
        with pytest.raises(OrchestrationFailedError):
            await handle.result()
        shop.hanging.add("a")
        await handle.rewind()
        status = await handle.status()
        assert status is not None
        assert (status.runtime_status, status.failure, status.output) == ("Running", None, None)
        with pytest.raises(TimeoutError):
            await handle.result(timeout=0)
        shop.hanging.clear()
        result = asyncio.ensure_future(handle.result())
        await is_quiet(host)
        await handle.terminate("enough")
        with pytest.raises(OrchestrationFailedError, match="Terminated"):
            await result


async def test_4_10_6_a_rewound_instance_may_fail_and_be_rewound_again(hub: Deployment) -> None:
    shop = Shop()
    app = shop.app

    @app.orchestrator
    async def steps(ctx: OrchestrationContext) -> list[Any]:
        made = [str(ctx.new_uuid()), ctx.random.random(), ctx.execution_id]
        for name in "abc":
            made += [await ctx.call_activity("work", name)]
        return [*made, str(ctx.new_uuid()), ctx.random.random()]

    shop.broken |= {"a", "b", "c"}
    host = await hub.start(app)
    await host.client.start(steps, instance_id="i")
    for name in "abc":
        failed = await fails(host)
        assert failed.failure.message.endswith(f"no {name}")
        shop.broken.remove(name)
        await host.client.rewind("i", f"{name} is mended")
        host = await hub.recover(host, app)
    done = await host.client.wait_for_completion("i")
    assert done.output[3:6] == ["a", "b", "c"]
    rewinds = [e for e in await host.client.get_history("i") if e.event_type == "ExecutionRewound"]
    assert [entry.details["reason"] for entry in rewinds] == [f"{name} is mended" for name in "abc"]
    host = await hub.recover(host, app)
    assert await host.client.purge("i") is True
    assert await host.client.get_status("i") is None


async def test_4_10_6_a_retried_call_gets_its_whole_policy_again(hub: Deployment, clock: ManualClock) -> None:
    app = App()
    attempts: list[int] = []
    works = False

    @app.activity
    async def flaky(ctx: ActivityContext) -> int:
        attempts.append(ctx.attempt)
        if not works or ctx.attempt < 2:
            raise ValueError("not yet")
        return ctx.attempt

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> int:
        policy = RetryPolicy(timedelta(seconds=10), 3, retry_timeout=timedelta(seconds=60))
        return await ctx.call_activity(flaky, retry=policy, timeout=30)

    host = await hub.start(app, clock=clock)
    await host.client.start(flow, instance_id="i")
    for number in (1, 2):
        await has_event(host, "i", "TaskAttemptFailed", number)
        clock.advance(10)
    await fails(host)
    clock.advance(100_000)  # far beyond all time-outs of the policy
    works = True
    await host.client.rewind("i")
    await has_event(host, "i", "TaskAttemptFailed")
    host = await hub.recover(host, app, clock=clock)
    await is_quiet(host)
    assert attempts == [1, 2, 3, 1]
    clock.advance(10)
    assert (await host.client.wait_for_completion("i")).output == 2
    assert attempts == [1, 2, 3, 1, 2]


async def test_4_10_6_a_call_whose_policy_declined_is_open_again(hub: Deployment, clock: ManualClock) -> None:
    app = App()
    text = "fatal"

    @app.activity
    async def flaky() -> str:
        if text:
            raise ValueError(text)
        return "fine"

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        return await ctx.call_activity(
            flaky, retry=RetryPolicy(10.0, 5, handle=lambda failure: "fatal" not in failure.message)
        )

    host = await hub.start(app, clock=clock)
    await host.client.start(flow, instance_id="i")
    await fails(host)
    text = ""
    await host.client.rewind("i")
    assert (await host.client.wait_for_completion("i")).output == "fine"
    assert ("TaskAttemptFailed", 0) not in await events_of(host)


# --- what lies around the failure ------------------------------------------------------------------------------------


@pytest.mark.parametrize("crash", [False, True])
async def test_4_10_6_a_time_out_around_the_failure_gets_its_time_back(
    hub: Deployment, clock: ManualClock, crash: bool
) -> None:
    shop = Shop()

    @shop.app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        async with asyncio.timeout(60):
            await ctx.create_timer(20)
            return await ctx.call_activity("work", "a")

    shop.broken.add("a")
    host = await hub.start(shop.app, clock=clock)
    await host.client.start(flow, instance_id="i")
    await has_event(host, "i", "TimerCreated", 2)
    clock.advance(20)
    await fails(host)
    clock.advance(1000)
    shop.broken.clear()
    shop.hanging.add("a")
    await host.client.rewind("i")
    if crash:
        host = await hub.recover(host, shop.app, clock=clock)
    clock.advance(39)
    await is_quiet(host)
    status = await host.client.get_status("i")
    assert status is not None
    assert status.runtime_status == "Running"
    clock.advance(1)
    assert (await fails(host)).failure.type == "TimeoutError"


async def test_4_10_6_compensations_are_dropped_and_asked_for_again(hub: Deployment) -> None:
    shop = Shop()

    @shop.app.orchestrator
    async def trip(ctx: OrchestrationContext) -> list[str]:
        done: list[str] = []
        try:
            for name in ("hotel", "flight", "car"):
                done += [await ctx.call_activity("work", name)]
        except TaskFailedError:
            ctx.set_custom_status("undoing")
            for name in reversed(done):
                await ctx.call_activity("work", f"undo {name}")
            raise
        return done

    shop.broken.add("car")
    host = await hub.start(shop.app)
    await host.client.start(trip, instance_id="i")
    await fails(host)
    shop.ran.clear()
    await host.client.rewind("i")  # still broken
    failed = await fails(host)
    assert failed.custom_status == "undoing"
    assert shop.ran == ["car", "undo flight", "undo hotel"]
    shop.ran.clear()
    shop.broken.clear()
    await host.client.rewind("i")
    done = await host.client.wait_for_completion("i")
    assert (done.output, done.custom_status) == (["hotel", "flight", "car"], "undoing")
    assert shop.ran == ["car"]
    rewinds = [e for e in await host.client.get_history("i") if e.event_type == "ExecutionRewound"]
    assert [[one["name"] for one in entry.details["dropped"]] for entry in rewinds] == [["work", "work"]] * 2


async def test_4_10_6_later_successes_of_a_gather_stay(hub: Deployment) -> None:
    shop = Shop()

    @shop.app.orchestrator
    async def flow(ctx: OrchestrationContext) -> list[str]:
        calls = [ctx.call_activity("work", name) for name in ("bad", "good", "worse")]
        event = ctx.wait_for_external_event("go")
        return [*await ctx.when_all(calls), await event]

    shop.broken |= {"bad", "worse"}
    shop.hanging |= {"good", "worse"}
    host = await hub.start(shop.app)
    await host.client.start(flow, instance_id="i")
    await has_event(host, "i", "TaskFailed")
    host = await hub.recover(host, shop.app)
    shop.hanging.clear()
    host = await hub.recover(host, shop.app)
    await fails(host)
    assert shop.ran[:3] == ["bad", "good", "worse"]
    shop.ran.clear()
    shop.broken.clear()
    await host.client.rewind("i")
    await is_quiet(host)
    await host.client.raise_event("i", "go", "gone")
    assert (await host.client.wait_for_completion("i")).output == ["bad", "good", "worse", "gone"]
    assert sorted(shop.ran) == ["bad", "worse"]


async def test_4_10_6_an_event_that_came_behind_the_failure_belongs_to_the_instance(hub: Deployment) -> None:
    shop = Shop()

    @shop.app.orchestrator
    async def flow(ctx: OrchestrationContext) -> list[Any]:
        try:
            first = await ctx.call_activity("work", "a")
        except TaskFailedError:
            await ctx.wait_for_external_event("give up")
            raise
        return [first, await ctx.wait_for_external_event("item"), await ctx.wait_for_external_event("item")]

    shop.broken.add("a")
    host = await hub.start(shop.app)
    await host.client.start(flow, instance_id="i")
    await has_event(host, "i", "EventAwaited")
    for name, data in (("item", 1), ("item", 2), ("give up", None)):
        await host.client.raise_event("i", name, data)
    await fails(host)
    shop.broken.clear()
    await host.client.rewind("i")
    assert (await host.client.wait_for_completion("i")).output == ["a", 1, 2]


async def test_4_10_6_a_failure_that_was_dealt_with_before_stays(hub: Deployment) -> None:
    shop = Shop()

    @shop.app.orchestrator
    async def flow(ctx: OrchestrationContext) -> list[str]:
        try:
            first = await ctx.call_activity("work", "first")
        except TaskFailedError:
            first = await ctx.call_activity("work", "instead")
        return [first, await ctx.call_activity("work", "second")]

    shop.broken |= {"first", "second"}
    host = await hub.start(shop.app)
    await host.client.start(flow, instance_id="i")
    await fails(host)
    shop.broken.clear()
    await host.client.rewind("i")
    assert (await host.client.wait_for_completion("i")).output == ["instead", "second"]
    assert Counter(shop.ran) == {"first": 1, "instead": 1, "second": 2}


async def test_4_10_6_two_failures_that_were_gathered_are_both_void(hub: Deployment) -> None:
    shop = Shop()

    @shop.app.orchestrator
    async def flow(ctx: OrchestrationContext) -> list[str]:
        calls = [ctx.call_activity("work", name) for name in "abcd"]
        results = await asyncio.gather(*calls, return_exceptions=True)
        if any(isinstance(result, Exception) for result in results):
            raise RuntimeError("some failed")
        return [str(result) for result in results]

    shop.broken |= {"a", "c"}
    host = await hub.start(shop.app)
    await host.client.start(flow, instance_id="i")
    assert (await fails(host)).failure.message == "some failed"
    shop.broken.clear()
    shop.ran.clear()
    await host.client.rewind("i")
    assert (await host.client.wait_for_completion("i")).output == list("abcd")
    assert sorted(shop.ran) == ["a", "c"]


async def test_4_10_6_an_instance_that_continued_as_new_is_rewound_in_its_current_execution(
    hub: Deployment,
) -> None:
    shop = Shop()

    @shop.app.orchestrator
    async def ring(ctx: OrchestrationContext, n: int) -> str:
        result = await ctx.call_activity("work", f"lap {n}")
        if n < 2:
            ctx.continue_as_new(n + 1)
        return result

    shop.broken |= {"lap 1", "lap 2"}
    host = await hub.start(shop.app)
    await host.client.start(ring, 0, instance_id="i")
    await fails(host)
    shop.broken.remove("lap 1")
    await host.client.rewind("i")
    await eventually(lambda: "lap 2" in shop.ran)
    await fails(host)
    host = await hub.recover(host, shop.app)
    shop.broken.clear()
    await host.client.rewind("i")
    assert (await host.client.wait_for_completion("i")).output == "lap 2"
    assert shop.ran == ["lap 0", "lap 1", "lap 1", "lap 2", "lap 2"]


# --- failures of the code itself -------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["at once", "after a result"])
async def test_4_10_6_code_that_was_mended_goes_on_from_what_it_saw_last(hub: Deployment, when: str) -> None:
    def build(*, mended: bool) -> Shop:
        shop = Shop()

        @shop.app.orchestrator
        async def flow(ctx: OrchestrationContext) -> str:
            if when == "after a result":
                await ctx.call_activity("work", "a")
            if not mended:
                raise ZeroDivisionError("a bug")
            return await ctx.call_activity("work", "b")

        return shop

    shop = build(mended=False)
    host = await hub.start(shop.app)
    await host.client.start("flow", instance_id="i")
    await fails(host)
    await host.client.rewind("i")  # not mended: it fails again
    again = await fails(host)
    assert again.failure.type == "ZeroDivisionError"
    assert again.blocked is None
    mended = build(mended=True)
    host = await hub.restart(host, mended.app)
    await host.client.rewind("i")
    assert (await host.client.wait_for_completion("i")).output == "b"
    assert mended.ran == ["b"]


async def test_4_10_6_code_that_does_not_agree_with_what_was_kept_is_blocked_and_loses_nothing(
    hub: Deployment,
) -> None:
    def make(name: str) -> Shop:
        shop = Shop()
        shop.app.activity(name="other")(_other)

        @shop.app.orchestrator
        async def flow(ctx: OrchestrationContext) -> Any:
            made = [await ctx.call_activity(name, "first")]
            made += await ctx.when_all([ctx.call_activity("work", one) for one in ("a", "late")])
            return [*made, await ctx.wait_for_external_event("go")]

        return shop

    shop = make("work")
    shop.broken.add("a")
    host = await hub.start(shop.app)
    await host.client.start("flow", instance_id="i")
    await fails(host)
    wrong = make("other")
    host = await hub.restart(host, wrong.app)
    await host.client.rewind("i")
    status = await host.client.get_status("i")
    assert status is not None
    assert status.runtime_status == "Running"
    assert status.blocked is not None
    assert "does not replay" in status.blocked
    await host.client.raise_event("i", "go", "on")
    await is_quiet(host)
    right = make("work")
    host = await hub.restart(host, right.app)
    assert (await host.client.wait_for_completion("i")).output == ["first", "a", "late", "on"]
    assert (wrong.ran, right.ran) == (["a"], []), "what the history asks for runs, whatever the code says"


async def _other(what: str) -> str:
    return what


# --- children --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crash", [False, True])
async def test_4_10_6_children_are_rewound_too_down_to_the_failed_leaf(hub: Deployment, crash: bool) -> None:
    shop = Shop()
    shop.broken.add("a")
    host = await hub.start(shop.app)
    await host.client.start("top", "a", instance_id="i")
    await fails(host)
    assert shop.ran == ["top", "middle", "before a", "a"]
    shop.ran.clear()
    await host.client.rewind("i", "still broken")
    await fails(host)
    assert shop.ran == ["a"]
    shop.broken.clear()
    if crash:
        host = await hub.recover(host, shop.app)
    await host.client.rewind("i")
    if crash:
        host = await hub.recover(host, shop.app)
    assert (await host.client.wait_for_completion("i")).output == "before a, a"
    assert set(shop.ran) == {"a"}
    page = await host.client.query_instances()
    assert [(one.instance_id, one.runtime_status) for one in page.instances] == [
        ("i", "Completed"),
        ("i:0:0001", "Completed"),
        ("i:0:0001:0:0001", "Completed"),
    ]


async def test_4_10_6_a_child_that_was_cancelled_with_its_parent_is_started_anew(hub: Deployment) -> None:
    shop = Shop()

    @shop.app.orchestrator
    async def flow(ctx: OrchestrationContext) -> list[str]:
        child = ctx.call_sub_orchestrator("leaf", "child", instance_id="c")
        await ctx.wait_for_external_event("go")
        return [await ctx.call_activity("work", "a"), await child]

    shop.broken.add("a")
    shop.hanging.add("child")
    host = await hub.start(shop.app)
    await host.client.start(flow, instance_id="i")
    await eventually(lambda: "child" in shop.ran)
    await host.client.raise_event("i", "go")
    await fails(host)
    await reaches(host, "c", "Canceled")
    shop.broken.clear()
    shop.hanging.clear()
    shop.ran.clear()
    await host.client.rewind("i")
    assert (await host.client.wait_for_completion("i")).output == ["a", "before child, child"]
    assert sorted(shop.ran) == ["a", "before child", "child"]


@pytest.mark.parametrize("end", ["Completed", "Canceled", "Failed"])
@pytest.mark.parametrize("crash", [False, True])
async def test_4_10_6_a_child_that_still_runs_tells_the_rewound_parent(
    hub: Deployment, end: str, crash: bool
) -> None:
    """It was asked to cancel when its parent failed, and takes its time."""
    shop = Shop()
    lives: list[str] = []

    @shop.app.orchestrator
    async def stubborn(ctx: OrchestrationContext) -> str:
        lives.append(ctx.execution_id)
        first = ctx.wait_for_external_event("first")
        try:
            return await first
        except asyncio.CancelledError:
            match await ctx.wait_for_external_event("then"):
                case "Completed":
                    return "kept"
                case "Failed":
                    raise ValueError("broken on the way") from None
                case _:
                    raise

    @shop.app.orchestrator
    async def flow(ctx: OrchestrationContext) -> list[str]:
        child = ctx.call_sub_orchestrator(stubborn, instance_id="c")
        await ctx.wait_for_external_event("go")
        return [await ctx.call_activity("work", "a"), await child]

    shop.broken.add("a")
    host = await hub.start(shop.app)
    await host.client.start(flow, instance_id="i")
    await reaches(host, "c", "Running")
    await has_event(host, "c", "EventAwaited")
    await host.client.raise_event("i", "go")
    await fails(host)
    await has_event(host, "c", "CancelRequested")
    shop.broken.clear()
    await host.client.rewind("i")
    await is_quiet(host)
    if crash:
        host = await hub.recover(host, shop.app)
    await host.client.raise_event("c", "then", end)
    match end:
        case "Completed":
            wanted = "kept"
        case "Failed":  # rewound to what it saw last, which it now sees in its new life
            await has_event(host, "c", "ExecutionRewound")
            wanted = None
        case _:
            await eventually(lambda: len(set(lives)) == 2)
            await host.client.raise_event("c", "first", "anew")
            wanted = "anew"
    if wanted is None:
        failed = await fails(host)
        assert "broken on the way" in failed.failure.message
    else:
        assert (await host.client.wait_for_completion("i")).output == ["a", wanted]


async def test_4_10_6_a_child_called_behind_the_failure_is_ended_and_its_id_is_free(hub: Deployment) -> None:
    shop = Shop()

    @shop.app.orchestrator
    async def waits(ctx: OrchestrationContext, what: str) -> str:
        try:
            await ctx.wait_for_external_event("go")
        finally:
            await ctx.wait_for_external_event("cleaned up")
        return what

    @shop.app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_activity("work", "a")
        except TaskFailedError:
            ctx.call_sub_orchestrator(waits, "old", instance_id="c")
            await ctx.wait_for_external_event("fail")
            raise
        return await ctx.call_sub_orchestrator(waits, "new", instance_id="c")

    shop.broken.add("a")
    host = await hub.start(shop.app)
    await host.client.start(flow, instance_id="i")
    await reaches(host, "c", "Running")
    await has_event(host, "c", "EventAwaited")
    await host.client.raise_event("i", "fail")
    await fails(host)
    await has_event(host, "c", "CancelRequested")
    shop.broken.clear()
    await host.client.rewind("i")
    await is_quiet(host)
    for name in ("go", "cleaned up"):
        await host.client.raise_event("c", name)
    assert (await host.client.wait_for_completion("i")).output == "new"


async def test_4_10_6_a_retried_child_is_rewound_in_its_first_attempt(
    hub: Deployment, clock: ManualClock
) -> None:
    shop = Shop()

    @shop.app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        return await ctx.call_sub_orchestrator("leaf", "a", instance_id="c", retry=RetryPolicy(1.0, 2))

    shop.broken.add("a")
    host = await hub.start(shop.app, clock=clock)
    await host.client.start(flow, instance_id="i")
    await has_event(host, "i", "TaskAttemptFailed")
    clock.advance(1)
    await fails(host)
    shop.ran.clear()
    await host.client.rewind("i")
    await has_event(host, "i", "TaskAttemptFailed")
    assert shop.ran == ["a"]
    shop.broken.clear()
    clock.advance(1)
    assert (await host.client.wait_for_completion("i")).output == "before a, a"
    assert shop.ran == ["a", "before a", "a"], "the second attempt is a fresh instance"


async def test_4_10_6_a_child_that_is_gone_is_started_anew(hub: Deployment) -> None:
    shop = Shop()

    @shop.app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        return await ctx.call_sub_orchestrator("leaf", "a", instance_id="c")

    shop.broken.add("a")
    host = await hub.start(shop.app)
    await host.client.start(flow, instance_id="i")
    await fails(host)
    await host.client.purge("c")
    shop.broken.clear()
    shop.ran.clear()
    await host.client.rewind("i")
    assert (await host.client.wait_for_completion("i")).output == "before a, a"
    assert shop.ran == ["before a", "a"]


async def test_4_10_6_a_child_that_was_rewound_by_itself_reports_what_it_has(hub: Deployment) -> None:
    shop = Shop()

    @shop.app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        return await ctx.call_sub_orchestrator("leaf", "a", instance_id="c")

    shop.broken.add("a")
    host = await hub.start(shop.app)
    await host.client.start(flow, instance_id="i")
    await fails(host)
    shop.broken.clear()
    await host.client.rewind("c")
    assert (await host.client.wait_for_completion("c")).output == "before a, a"
    assert (await host.client.get_status("i")).runtime_status == "Failed"  # type: ignore[union-attr]
    shop.ran.clear()
    await host.client.rewind("i")
    assert (await host.client.wait_for_completion("i")).output == "before a, a"
    assert shop.ran == []


async def test_4_10_6_a_child_started_before_the_rewind_can_be_given_up_after_it(hub: Deployment) -> None:
    shop = Shop()

    @shop.app.orchestrator
    async def stubborn(ctx: OrchestrationContext) -> str:
        asked = 0
        while asked < 2:
            try:
                await ctx.wait_for_external_event("go")
            except asyncio.CancelledError:
                asked += 1
                ctx.set_custom_status(asked)
        return "asked twice"

    @shop.app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        child = ctx.call_sub_orchestrator(stubborn, instance_id="c")
        await ctx.wait_for_external_event("go")
        await ctx.call_activity("work", "a")
        child.cancel()
        return "done"

    shop.broken.add("a")
    host = await hub.start(shop.app)
    await host.client.start(flow, instance_id="i")
    await reaches(host, "c", "Running")
    await has_event(host, "c", "EventAwaited")
    await host.client.raise_event("i", "go")
    await fails(host)
    await has_event(host, "c", "CustomStatusSet")
    shop.broken.clear()
    await host.client.rewind("i")
    assert (await host.client.wait_for_completion("i")).output == "done"
    assert (await host.client.wait_for_completion("c")).output == "asked twice"
