"""FEATURES 4.14: durability, on stores that fail (`tests.support.stores`). Killed processes: see tests/integration."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from durably import (
    App,
    AppHost,
    EngineOptions,
    HubClosedError,
    HubLockedError,
    InstanceStatus,
    OrchestrationContext,
    RetryPolicy,
    StoreRefusedError,
    StoreUnavailableError,
    UsageError,
)
from durably.core.commit import Batch
from durably.errors import LeaseLostError, StoreFailedError
from tests.support.clock import ManualClock
from tests.support.hubs import Deployment, MemoryHubOfTest
from tests.support.stores import FaultyStore, fail_times
from tests.support.waiting import all_within, eventually, is_quiet, reaches


@pytest.fixture
def store(memory: Deployment) -> FaultyStore:
    """The first store of the hub of the test."""
    assert isinstance(memory.hub, MemoryHubOfTest)
    return FaultyStore(memory.hub.hub)


def unavailable() -> Exception:
    return StoreUnavailableError("the disk is full")


class Everything:
    """An app that uses every kind of action, and the same result whatever happens to its hosts."""

    RESULT = (1, 2, ["child", 3], "from the other", "timer", 2)

    def __init__(self) -> None:
        self.app = App()
        self.runs: Counter[str] = Counter()

        @self.app.activity
        async def add(value: int) -> int:
            self.runs[f"add {value}"] += 1
            return value + 1

        @self.app.activity
        async def flaky(value: int) -> int:
            self.runs["flaky"] += 1
            if self.runs["flaky"] < 3:
                raise ValueError("not yet")
            return value

        @self.app.orchestrator
        async def child(ctx: OrchestrationContext, value: int) -> Any:
            return ["child", await ctx.call_activity(add, value)]

        @self.app.orchestrator
        async def other(ctx: OrchestrationContext, target: str) -> str:
            await ctx.send_event(target, "hello", "from the other")
            return "sent"

        @self.app.orchestrator
        async def main(ctx: OrchestrationContext, execution: int) -> Any:
            first = await ctx.call_activity(add, 0)
            second = await ctx.call_activity(flaky, 2, retry=RetryPolicy(timedelta(0), 99))
            born = await ctx.call_sub_orchestrator(child, 2)
            if execution == 1:
                await ctx.start_orchestration(other, ctx.instance_id, instance_id="other")
                ctx.continue_as_new(2)
                return None
            heard = await ctx.wait_for_external_event("hello")
            await ctx.create_timer(0)
            return [first, second, born, heard, "timer", execution]

    async def finish(self, host: AppHost) -> None:
        handle = await host.client.start("main", 1, instance_id="main", on_existing="attach")
        done = await handle.wait_for_completion()
        assert (done.runtime_status, done.output) == ("Completed", list(self.RESULT))
        await self._check(host, done)

    async def _check(self, host: AppHost, done: InstanceStatus) -> None:
        await reaches(host, "other", "Completed")
        await is_quiet(host)
        page = await host.client.query_instances()
        assert sorted(one.instance_id for one in page.instances) == [
            "main",
            "main:0:0002",
            "main:1:0002",
            "other",
        ]
        for one in page.instances:
            history = await host.client.get_history(one.instance_id)
            ended = Counter(
                entry.task_id
                for entry in history
                if entry.event_type.endswith(("Completed", "Fired", "Failed"))
                and entry.task_id is not None
                and not entry.event_type.startswith("TaskAttempt")
            )
            assert all(count == 1 for count in ended.values())
            assert [entry.event_type for entry in history].count("ExecutionCompleted") == 1
        assert len(host.engine.pool) == 0
        assert done.blocked is None


@pytest.mark.parametrize("where", ["before", "after"])
async def test_4_14_1_a_crash_around_any_commit_loses_nothing_and_adds_nothing(where: str) -> None:
    commit = 0
    while True:
        commit += 1
        deployment = Deployment(MemoryHubOfTest())
        assert isinstance(deployment.hub, MemoryHubOfTest)
        store = FaultyStore(deployment.hub.hub)
        stops = asyncio.Event()
        left = [commit]

        def stop(
            call: str, store: FaultyStore = store, left: list[int] = left, stops: asyncio.Event = stops
        ) -> None:
            if call == "commit":
                left[0] -= 1
            if left[0] == 0 and call == "commit":
                if where == "before":
                    store.hold = asyncio.Event()
                else:
                    store.gate = asyncio.Event()
                stops.set()

        store.before = stop
        everything = Everything()
        first = await deployment.start(everything.app, store=store)
        running = asyncio.create_task(everything.finish(first))
        stopped = asyncio.create_task(stops.wait())
        await asyncio.wait([running, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not stops.is_set():
            stopped.cancel()
            await running
            await deployment.close()
            break
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await deployment.crash(first)
        with pytest.raises(HubClosedError):
            await running
        second = await deployment.start(everything.app)
        await everything.finish(second)
        await deployment.close()
    assert commit > 10  # else it was no sweep


@pytest.mark.parametrize("crash", [False, True])
async def test_4_14_1_everything_goes_on_when_the_host_changes_and_nothing_stays_in_memory(
    hub: Deployment, crash: bool
) -> None:
    everything = Everything()
    host = await hub.start(everything.app, options=EngineOptions(max_resident_instances=1))
    await host.client.start("main", 1, instance_id="main")
    change_host = hub.recover if crash else hub.restart
    host = await change_host(host, everything.app, options=EngineOptions(max_resident_instances=1))
    await everything.finish(host)
    assert everything.runs["add 0"] >= 2


async def test_4_14_1_what_was_acknowledged_is_there_after_a_crash(
    hub: Deployment, clock: ManualClock
) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        return [await ctx.wait_for_external_event("item") for _ in range(5)]

    for number in range(5):
        host = await hub.start(app, clock=clock)
        await host.client.start(flow, instance_id=f"i{number}")
        for target in range(number + 1):
            await host.client.raise_event(f"i{target}", "item", number)
        await hub.crash(host)
    host = await hub.start(app, clock=clock)
    assert (await host.client.wait_for_completion("i0")).output == [0, 1, 2, 3, 4]
    await host.client.raise_event("i1", "item", 5)
    assert (await host.client.wait_for_completion("i1")).output == [1, 2, 3, 4, 5]
    assert len((await host.client.query_instances()).instances) == 5


async def test_4_14_1_an_orderly_stop_lets_activities_end_and_keeps_their_results(hub: Deployment) -> None:
    ran: list[int] = []
    running, gate = asyncio.Event(), asyncio.Event()
    app = App()

    @app.activity
    async def work() -> str:
        ran.append(1)
        running.set()
        await gate.wait()
        return "kept"

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        return [await ctx.call_activity(work), await ctx.wait_for_external_event("go")]

    host = await hub.start(app)
    await host.client.start(flow, instance_id="i")
    await running.wait()
    stopping = asyncio.create_task(hub.stop(host))
    await asyncio.sleep(0)
    if not hub.outside:  # from outside it would be accepted, and wait for the next host
        with pytest.raises(HubClosedError):
            await host.client.raise_event("i", "go", 1)
    gate.set()
    await stopping
    host = await hub.start(app)
    await host.client.raise_event("i", "go", 1)
    assert (await host.client.wait_for_completion("i")).output == ["kept", 1]
    assert len(ran) == 1


async def test_4_14_1_what_runs_longer_than_the_drain_runs_again_and_is_no_failure(
    hub: Deployment, clock: ManualClock
) -> None:
    ran: list[int] = []
    running = asyncio.Event()
    app = App()

    @app.activity
    async def work() -> str:
        ran.append(1)
        running.set()
        if len(ran) == 1:
            await asyncio.Event().wait()
        return "second time"

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        return await ctx.call_activity(work)

    host = await hub.start(app, clock=clock, options=EngineOptions(drain_timeout_s=5))
    await host.client.start(flow, instance_id="i")
    await running.wait()
    stopping = asyncio.create_task(hub.stop(host))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not stopping.done()
    clock.advance(5)
    await stopping
    host = await hub.start(app, clock=clock)
    done = await host.client.wait_for_completion("i")
    assert (done.output, done.failure) == ("second time", None)


async def test_4_14_2_history_messages_timers_and_status_change_in_one_commit(
    memory: Deployment, store: FaultyStore
) -> None:
    app = App()

    @app.orchestrator
    async def sleeper(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("hello")

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        await ctx.wait_for_external_event("go")
        ctx.create_timer(3600)
        ctx.send_event("asleep", "hello", 1)
        ctx.set_custom_status("went")
        await ctx.wait_for_external_event("never")

    async with memory.host(app, store=store) as host:
        await host.client.start(sleeper, instance_id="asleep")
        await host.client.suspend("asleep")
        await host.client.start(flow, instance_id="i")
        store.commits.clear()
        await host.client.raise_event("i", "go")
        await is_quiet(host)
        touching = [batch for batch in store.commits if batch.history]
        assert len(touching) == 1
        (batch,) = touching
        assert len(batch.history) == 1
        assert [row.instance_id for row in batch.timers_set] == ["i"]
        assert [row.instance_id for row in batch.inbox_put] == ["asleep"]
        assert [(change.instance_id, change.custom_status) for change in batch.changes] == [("i", b'"went"')]


async def test_4_14_2_nothing_leaves_before_its_commit_is_durable(
    memory: Deployment, store: FaultyStore
) -> None:
    ran: list[str] = []
    app = App()

    @app.activity
    async def work(value: str) -> str:
        ran.append(value)
        return value

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        return await ctx.call_activity(work, await ctx.wait_for_external_event("go"))

    async with memory.host(app, store=store) as host:
        await host.client.start(flow, instance_id="i")
        waiting = asyncio.create_task(host.client.handle("i").result())
        store.hold = asyncio.Event()
        raising = asyncio.create_task(host.client.raise_event("i", "go", "x"))
        await eventually(lambda: host.engine.partition and host.engine.partition.committer.busy)
        for _ in range(20):
            await asyncio.sleep(0)
        assert (ran, raising.done()) == ([], False)
        assert "EventRaised" not in [entry.event_type for entry in await host.client.get_history("i")]
        store.hold.set()
        store.hold = asyncio.Event()
        await raising
        await eventually(lambda: ran == ["x"])
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()  # it has ended in memory, but not on disk
        store.hold.set()
        assert await waiting == "x"


async def test_4_14_2_a_result_is_told_after_its_own_commit_not_after_the_one_before(
    memory: Deployment, store: FaultyStore
) -> None:
    """The turn that ends the instance is gathered while the batch of an earlier turn is on its way."""
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        await ctx.wait_for_external_event("one")
        return await ctx.wait_for_external_event("two")

    async with memory.host(app, store=store) as host:
        await host.client.start(flow, instance_id="i")
        waiting = asyncio.create_task(host.client.handle("i").result())
        await is_quiet(host)
        first_batch = store.hold = asyncio.Event()
        first = asyncio.create_task(host.client.raise_event("i", "one", 1))
        await eventually(lambda: host.engine.partition and host.engine.partition.committer._in_flight)
        await asyncio.sleep(0)
        second = asyncio.create_task(host.client.raise_event("i", "two", 2))
        for _ in range(20):
            await asyncio.sleep(0)
        second_batch = store.hold = asyncio.Event()
        first_batch.set()
        await first
        for _ in range(20):
            await asyncio.sleep(0)
        status = await host.client.get_status("i")
        assert status is not None
        assert status.runtime_status == "Running"
        assert (waiting.done(), second.done()) == (False, False)
        second_batch.set()
        await all_within(second)
        assert await all_within(waiting) == [2]


async def test_4_14_3_a_store_that_is_busy_for_a_while_costs_time_and_nothing_else(
    memory: Deployment, clock: ManualClock, store: FaultyStore
) -> None:
    everything = Everything()
    host = await memory.start(everything.app, store=store, clock=clock)
    store.before = fail_times(6, unavailable, "commit")
    starting = asyncio.create_task(host.client.start("main", 1, instance_id="main"))
    for _ in range(6):
        await is_stuck(host)
        assert not starting.done()
        clock.advance(60)
    await starting
    assert everything.runs["add 0"] <= 1
    store.before = fail_times(1, unavailable, "commit")
    finishing = asyncio.create_task(everything.finish(host))
    while not finishing.done():
        for _ in range(20):
            await asyncio.sleep(0)
        clock.advance(1)
    await finishing
    assert host.engine.failure is None


async def is_stuck(host: AppHost) -> None:
    for _ in range(20):
        await asyncio.sleep(0)
    assert host.engine.partition is not None
    assert host.engine.partition.committer.busy


async def test_4_14_3_a_lost_answer_is_settled_by_the_same_batch_again(
    memory: Deployment, clock: ManualClock, store: FaultyStore
) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        first = await ctx.wait_for_external_event("go")
        await ctx.wait_for_external_event("end")
        return [first, await ctx.wait_for_external_event("go", timeout=0, default="once")]

    async with memory.host(app, store=store, clock=clock) as host:
        await host.client.start(flow, instance_id="i")
        store.after = fail_times(3, unavailable, "commit")
        raising = asyncio.create_task(host.client.raise_event("i", "go", 1))
        for _ in range(3):
            await is_stuck(host)
            clock.advance(60)
        await raising
        store.after = lambda call: None
        await host.client.raise_event("i", "end")
        await is_quiet(host)
        clock.advance(1)
        assert (await host.client.wait_for_completion("i")).output == [1, "once"]


async def test_4_14_3_a_failed_read_of_timers_loses_no_timer(
    memory: Deployment, clock: ManualClock, store: FaultyStore
) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        await ctx.create_timer(1_000)
        return "fired"

    async with memory.host(app, store=store, clock=clock, options=EngineOptions(timer_horizon_s=100)) as host:
        handle = await host.client.start(flow)
        store.before = fail_times(1, unavailable, "read_timers")
        for _ in range(101):
            clock.advance(10)
            for _ in range(10):
                await asyncio.sleep(0)
        await is_quiet(host)
        assert await asyncio.wait_for(handle.result(), 60) == "fired"


async def test_4_14_3_failed_reads_are_tried_again_however_many_there_were_before(
    memory: Deployment, clock: ManualClock, store: FaultyStore
) -> None:
    """Thirty hiccups, with successful commits between them, are no reason to give up."""
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go")

    host = await memory.start(app, store=store, clock=clock, options=EngineOptions(max_resident_instances=1))
    for number in range(30):
        await host.client.start(flow, instance_id=f"i{number}")
        await host.client.start(flow, instance_id=f"j{number}")
    await is_quiet(host)
    for number in range(30):
        store.before = fail_times(1, unavailable, "read_instances")
        raising = asyncio.create_task(host.client.raise_event(f"i{number}", "go", number))
        while not raising.done():
            for _ in range(10):
                await asyncio.sleep(0)
            clock.advance(1)
        await raising
        assert (await host.client.wait_for_completion(f"i{number}")).output == number
    assert host.engine.failure is None


async def test_4_14_3_data_that_the_store_refuses_parks_its_instance_and_all_others_go_on(
    memory: Deployment, store: FaultyStore
) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        while True:
            event = await ctx.wait_for_external_event("go")
            if event == "end":
                return "done"
            ctx.set_custom_status(event)

    def refuses(batch: Batch) -> bool:
        return any(change.custom_status == b'"poison"' for change in batch.changes)

    kept = store.commit

    def commit(lease: Any, batch: Batch) -> Any:
        if refuses(batch):
            failed = asyncio.get_running_loop().create_future()
            failed.set_exception(StoreRefusedError("too odd"))
            return failed
        return kept(lease, batch)

    store.commit = commit  # type: ignore[method-assign]
    async with memory.host(app, store=store) as host:
        for instance_id in ("a", "b", "c"):
            await host.client.start(flow, instance_id=instance_id)
        raises = [host.client.raise_event(one, "go", "poison" if one == "b" else "fine") for one in "abc"]
        await all_within(*(asyncio.gather(one, return_exceptions=True) for one in raises))

        async def parked() -> bool:
            status = await host.client.get_status("b")
            return status is not None and "too odd" in (status.blocked or "")

        await eventually(parked)
        for one in "ac":
            await host.client.raise_event(one, "go", "end")
            assert (await host.client.wait_for_completion(one)).output == "done"
        await host.client.terminate("b", "give up")
        assert (await reaches(host, "b", "Terminated")).blocked is None


async def test_4_14_3_a_broken_store_stops_the_host_and_tells_everybody(
    memory: Deployment, store: FaultyStore
) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go")

    host = await memory.start(app, store=store)
    await host.client.start(flow, instance_id="i")
    waiting = asyncio.create_task(host.client.wait_for_completion("i"))
    await is_quiet(host)
    store.before = fail_times(1, lambda: StoreFailedError("I/O error"), "commit")
    with pytest.raises(StoreFailedError):
        await host.client.raise_event("i", "go", 1)
    with pytest.raises(StoreFailedError):
        await waiting
    await all_within(host.engine.failed())
    await memory.stop(host)
    host = await memory.start(app)
    await host.client.raise_event("i", "go", 2)
    assert (await host.client.wait_for_completion("i")).output == 2


async def test_4_14_3_who_waits_is_answered_although_the_partition_was_lost_before_the_answer(
    memory: Deployment, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit that ends the instance is durable; the partition object dies of a bug before it heard so."""
    failed: list[bool] = []
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go")

    async with memory.host(app, store=store) as host:
        await host.client.start(flow, instance_id="i")
        await host.client.start(flow, instance_id="v")
        waiting = asyncio.create_task(host.client.handle("i").result())
        await is_quiet(host)
        assert host.engine.partition is not None
        run = host.engine.partition.residents["v"].run
        assert run is not None
        advance = type(run).advance

        def broken(self: Any, event: Any, now: int) -> Any:
            if self is run:
                failed.append(True)
                raise RuntimeError("a bug of the engine")
            return advance(self, event, now)

        monkeypatch.setattr(type(run), "advance", broken)
        store.gate = asyncio.Event()
        first = asyncio.create_task(host.client.raise_event("i", "go", 1))
        await reaches(host, "i", "Completed")
        second = asyncio.create_task(host.client.raise_event("v", "go", 2))
        await eventually(lambda: failed)
        store.gate.set()
        await all_within(second)
        assert await all_within(first) == [None]  # it was applied: the one who raised it is told so
        assert await all_within(waiting) == [1]
        assert (await host.client.wait_for_completion("v")).output == 2


async def test_4_14_3_a_start_runs_once_although_its_partition_was_lost_before_the_answer(
    memory: Deployment, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[bool] = []
    began: list[str] = []
    app = App()

    @app.orchestrator
    async def victim(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go")

    @app.orchestrator
    async def quick(ctx: OrchestrationContext) -> Any:
        began.append(ctx.execution_id)
        return "done"

    async with memory.host(app, store=store) as host:
        await host.client.start(victim, instance_id="v")
        assert host.engine.partition is not None
        run = host.engine.partition.residents["v"].run
        assert run is not None
        advance = type(run).advance

        def broken(self: Any, event: Any, now: int) -> Any:
            if self is run:
                failed.append(True)
                raise RuntimeError("a bug of the engine")
            return advance(self, event, now)

        monkeypatch.setattr(type(run), "advance", broken)
        store.gate = asyncio.Event()
        first = asyncio.create_task(host.client.start(quick, instance_id="i"))
        await reaches(host, "i", "Completed")
        second = asyncio.create_task(host.client.raise_event("v", "go", 2))
        await eventually(lambda: failed)
        store.gate.set()
        await all_within(first, second)
        assert len(began) == 1


async def test_4_14_4_a_host_that_lost_its_lease_cannot_commit_and_asks_the_new_owner() -> None:
    shared = Deployment(MemoryHubOfTest(exclusive=False))
    ran: list[str] = []

    def app_named(which: str) -> App:
        app = App()

        @app.activity
        async def work() -> str:
            ran.append(which)
            return which

        @app.orchestrator
        async def flow(ctx: OrchestrationContext) -> Any:
            await ctx.wait_for_external_event("go")
            return await ctx.call_activity(work)

        return app

    old = await shared.start(app_named("old"))
    await old.client.start("flow", instance_id="i")
    waiting = asyncio.create_task(old.client.wait_for_completion("i"))
    await is_quiet(old)
    new = await shared.start(app_named("new"))
    lease = old.engine.partitions[0].committer._lease
    await new.engine._own.take(0)
    with pytest.raises(LeaseLostError):
        await old.engine.store.commit(lease, Batch(number=1_000))
    await old.client.raise_event("i", "go")
    assert (await waiting).output == "new"
    assert ran == ["new"]
    await eventually(lambda: not old.engine.serves("i"))  # the result may be there before it has heard
    assert old.engine.failure is None
    types = [entry.event_type for entry in await new.client.get_history("i")]
    assert types.count("EventRaised") == 1
    await shared.close()


async def test_4_14_4_two_hosts_cannot_own_one_file(hub: Deployment) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go")

    first = await hub.start(app)
    await first.client.start(flow, instance_id="i")
    with pytest.raises(HubLockedError):
        await hub.start(app)
    await first.client.raise_event("i", "go", 1)
    assert (await first.client.wait_for_completion("i")).output == 1
    await hub.stop(first)
    second = await hub.start(app)
    assert (await second.client.wait_for_completion("i")).output == 1


def without_the_functions() -> App:
    return App()


async def test_4_14_5_an_instance_whose_orchestrator_is_missing_waits_visibly(hub: Deployment) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        return [await ctx.wait_for_external_event("go") for _ in range(2)]

    host = await hub.start(app)
    await host.client.start(flow, instance_id="i")
    host = await hub.restart(host, without_the_functions())
    await host.client.raise_event("i", "go", 1)

    async def blocked() -> str | None:
        status = await host.client.get_status("i")
        return status.blocked if status is not None else None

    assert "'flow' is not registered" in await eventually(blocked)
    await host.client.raise_event("i", "go", 2)
    host = await hub.recover(host, app)
    done = await host.client.wait_for_completion("i")
    assert (done.output, done.blocked) == ([1, 2], None)


async def test_4_14_5_a_start_of_an_unknown_orchestrator_waits_for_a_deployment(hub: Deployment) -> None:
    """On a hub that says `unknown_functions="wait"`."""
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, value: int) -> Any:
        return value

    options = EngineOptions(unknown_functions="wait")
    host = await hub.start(without_the_functions(), options=options)
    await host.client.start("flow", 1, instance_id="i")
    await is_quiet(host)
    status = await host.client.get_status("i")
    assert status is not None
    assert not status.runtime_status.is_terminal
    assert status.failure is None
    host = await hub.restart(host, app, options=options)
    assert (await host.client.wait_for_completion("i")).output == 1


async def test_4_14_5_a_scheduled_start_that_comes_due_waits_for_a_deployment(hub: Deployment) -> None:
    """On a hub that says `unknown_functions="wait"`; it was scheduled while a host knew the orchestrator."""
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, value: int) -> Any:
        return value

    options, clock = EngineOptions(unknown_functions="wait"), ManualClock()
    host = await hub.start(app, options=options, clock=clock)
    await host.client.start("flow", 1, instance_id="i", start_at=timedelta(seconds=5))
    host = await hub.restart(host, without_the_functions(), options=options, clock=clock)
    await is_quiet(host)
    clock.advance(5)
    await is_quiet(host)
    status = await host.client.get_status("i")
    assert status is not None
    assert (status.runtime_status, status.failure) == ("Pending", None)
    assert "'flow' is not registered" in str(status.blocked)
    host = await hub.restart(host, app, options=options, clock=clock)
    done = await host.client.wait_for_completion("i")
    assert (done.output, done.blocked) == (1, None)


async def test_4_14_5_an_unknown_activity_of_a_shared_hub_runs_on_the_host_that_has_it() -> None:
    shared = Deployment(MemoryHubOfTest(exclusive=False))
    app, beside = App(), App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        return await ctx.call_activity("later", 1)

    @beside.activity
    async def later(value: int) -> int:
        return value + 1

    host = await shared.start(app)
    handle = await host.client.start("flow", instance_id="i")

    async def waits() -> bool:
        return "activity 'later' #0 waiting for a host that has it since" in await handle.why()

    await eventually(waits)
    await shared.start(beside)
    assert await handle.result(timeout=30) == 2
    await shared.close()


async def test_4_14_5_an_unknown_activity_waits_for_a_deployment(hub: Deployment) -> None:
    """On a hub that says `unknown_functions="wait"`."""

    def app_with(activity: bool) -> App:
        app = App()

        @app.orchestrator
        async def flow(ctx: OrchestrationContext) -> Any:
            return await ctx.call_activity("later", 1)

        if activity:
            app.activity(name="later")(lambda value: value + 1)
        return app

    options = EngineOptions(unknown_functions="wait")
    host = await hub.start(app_with(activity=False), options=options)
    await host.client.start("flow", instance_id="i")
    await is_quiet(host)
    status = await host.client.get_status("i")
    assert status is not None
    assert status.runtime_status == "Running"
    host = await hub.restart(host, app_with(activity=True), options=options)
    assert (await host.client.wait_for_completion("i")).output == 2


HALF = "\ud800"
"""Half a surrogate pair: a Python string that no UTF-8 can hold."""


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.raise_event("i", HALF),
        lambda client: client.raise_event("i", "go", HALF),
        lambda client: client.suspend("i", HALF),
        lambda client: client.suspend("i", 5),
        lambda client: client.terminate("i", HALF),
        lambda client: client.terminate("i", {1}),
        lambda client: client.cancel("i", HALF),
        lambda client: client.start("flow", tags={"a": HALF}),
        lambda client: client.start("flow", tags={HALF: "a"}),
        lambda client: client.start("flow", version=HALF),
        lambda client: client.start("flow", version=5),
        lambda client: client.start("flow", HALF),
        lambda client: client.start("flow", start_at=timedelta(days=10**8)),
    ],
    ids=["event name", "event data", "suspend", "suspend number", "terminate", "terminate set", "cancel", "tag",
         "tag name", "version", "version number", "input", "start at"],
)  # fmt: skip
async def test_4_14_3_what_no_store_can_hold_is_refused_and_harms_nobody(hub: Deployment, call: Any) -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go")

    async with hub.host(app) as host:
        await host.client.start(flow, instance_id="i")
        await host.client.start(flow, instance_id="bystander")
        with pytest.raises((UsageError, OverflowError)):
            await all_within(call(host.client))
        for instance_id in ("i", "bystander"):
            await all_within(host.client.raise_event(instance_id, "go", 1))
            assert (await host.client.wait_for_completion(instance_id)).output == 1
        assert host.engine.failure is None


@pytest.mark.parametrize(
    "act",
    [
        lambda ctx: ctx.call_activity(HALF),
        lambda ctx: ctx.call_activity("echo", HALF),
        lambda ctx: ctx.call_activity("echo", tags={"a": HALF}),
        lambda ctx: ctx.call_activity("echo", tags={"a": 5}),
        lambda ctx: ctx.call_sub_orchestrator(HALF),
        lambda ctx: ctx.call_sub_orchestrator("quick", version=HALF),
        lambda ctx: ctx.call_sub_orchestrator("quick", tags={"a": 5}),
        lambda ctx: ctx.start_orchestration("quick", tags={"a": HALF}),
        lambda ctx: ctx.start_orchestration("quick", version=5),
        lambda ctx: ctx.wait_for_external_event(HALF),
        lambda ctx: ctx.send_event("bystander", HALF),
        lambda ctx: ctx.set_custom_status(HALF),
        lambda ctx: ctx.continue_as_new(HALF),
    ],
    ids=["activity", "activity input", "activity tag", "activity tag number", "child", "child version",
         "child tag number", "start tag", "start version number", "event wait", "event sent", "custom status",
         "continue as new"],
)  # fmt: skip
async def test_4_14_3_what_no_store_can_hold_fails_the_orchestrator_and_harms_nobody(
    memory: Deployment, act: Any
) -> None:
    app = App()
    app.activity(name="echo")(lambda value: value)
    app.orchestrator(name="quick")(lambda ctx: None)

    @app.orchestrator
    async def odd(ctx: OrchestrationContext) -> str:
        try:
            await act(ctx)
        except Exception as error:  # noqa: BLE001
            return type(error).__name__
        return "went through"

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go")

    async with memory.host(app) as host:
        await host.client.start(flow, instance_id="bystander")
        (handle,) = await all_within(host.client.start(odd, instance_id="odd"))
        (done,) = await all_within(handle.wait_for_completion())  # type: ignore[attr-defined]
        assert done.output != "went through"  # type: ignore[attr-defined]
        await all_within(host.client.raise_event("bystander", "go", 1))
        assert (await host.client.wait_for_completion("bystander")).output == 1
