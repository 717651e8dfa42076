"""Residents, run-ahead, eviction, and the way each message goes, on a whole host with a store that can be held up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durably import (
    ActivityContext,
    App,
    AppHost,
    EngineOptions,
    HubClosedError,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    InstanceStateError,
    OrchestrationContext,
    OrchestrationFailedError,
    UnknownFunctionError,
)
from durably.core.commit import InboxRow, TimerRow
from durably.core.events import TurnStarted
from durably.core.history import decode_rows, encode_body
from durably.core.ids import derived_execution_id
from durably.core.messages import Continue, StartInstance
from durably.engine.residents import Resident
from durably.storage.api import Lease
from durably.storage.memory import MemoryHub, MemoryStore
from tests.support.clock import ManualClock
from tests.support.hubs import Deployment, MemoryHubOfTest
from tests.support.stores import FaultyStore
from tests.support.waiting import all_within, eventually, has_event, is_quiet, reaches


def build() -> App:
    app = App()

    @app.activity
    def grow(x: int) -> int:
        return x + 1

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go")

    @app.orchestrator
    async def collects(ctx: OrchestrationContext, n: int) -> list[Any]:
        return [await ctx.wait_for_external_event("go") for _ in range(n)]

    @app.orchestrator
    async def sleeps(ctx: OrchestrationContext, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "awake"

    @app.orchestrator
    async def spins(ctx: OrchestrationContext, n: int = 0) -> None:
        ctx.continue_as_new(n + 1)

    @app.orchestrator
    async def ring(ctx: OrchestrationContext, n: int) -> int:
        if n:
            ctx.continue_as_new(n - 1)
        return n

    return app


def residents(host: AppHost) -> dict[str, Any]:
    assert host.engine.partition is not None
    return host.engine.partition.residents


# --- residents -------------------------------------------------------------------------------------------------------


async def test_no_more_instances_than_allowed_stay_in_memory_and_none_is_lost(hub: Deployment) -> None:
    host = await hub.start(build(), options=EngineOptions(max_resident_instances=10))
    for n in range(50):
        await host.client.start("flow", instance_id=f"i{n}")
    await is_quiet(host)
    assert len(residents(host)) <= 10
    for n in range(50):
        await host.client.raise_event(f"i{n}", "go", n)
    for n in range(50):
        assert (await host.client.wait_for_completion(f"i{n}")).output == n


async def test_a_host_of_many_partitions_keeps_no_more_than_one_of_a_single_one() -> None:
    """A million waiting instances on 32 partitions took 5 GB: each partition had a limit of its own."""
    store = MemoryStore(MemoryHub(exclusive=False, partitions=8))
    options = EngineOptions(max_resident_instances=80)
    async with build().host(store, options=options) as host:
        for n in range(400):
            await host.client.start("flow", instance_id=f"i{n}")
        own = [holding.partition for holding in host.engine._own.holdings.values()]
        assert len(own) == 8
        # Those that were busy in the last pump of their partition are still there.
        assert sum(len(partition.residents) for partition in own if partition is not None) <= 120
        for n in range(400):
            await host.client.raise_event(f"i{n}", "go", n)
        for n in range(400):
            assert (await host.client.wait_for_completion(f"i{n}")).output == n


async def test_the_longest_idle_instances_leave_first(hub: Deployment) -> None:
    host = await hub.start(build(), options=EngineOptions(max_resident_instances=10))
    for n in range(10):
        await host.client.start("collects", 2, instance_id=f"i{n}")
    await is_quiet(host)
    await host.client.raise_event("i0", "go", 1)
    await is_quiet(host)
    await host.client.start("flow", instance_id="one too many")
    await is_quiet(host)
    assert "i1" not in residents(host)
    assert "one too many" in residents(host)


async def test_an_instance_with_work_in_flight_is_not_evicted(hub: Deployment) -> None:
    app = build()
    end = asyncio.Event()

    @app.activity
    async def work(ctx: ActivityContext) -> None:
        await end.wait()

    @app.orchestrator
    async def works(ctx: OrchestrationContext) -> str:
        await ctx.call_activity(work)
        return "done"

    host = await hub.start(app, options=EngineOptions(max_resident_instances=2))
    handles = [await host.client.start("works", instance_id=f"w{n}") for n in range(5)]
    for n in range(5):
        await host.client.start("flow", instance_id=f"i{n}")
    await is_quiet(host)
    assert {f"w{n}" for n in range(5)} <= set(residents(host))
    end.set()
    assert await all_within(*(handle.result() for handle in handles)) == ["done"] * 5


async def test_a_memory_full_of_busy_instances_is_not_searched_in_every_pump(
    hub: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them can leave: to look at each of them again and again makes every step cost as much as all."""
    app = build()

    @app.activity
    async def hangs() -> None:
        await asyncio.Event().wait()

    @app.orchestrator
    async def works(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(hangs)

    looks: list[str] = []
    idle = Resident.idle.fget
    assert idle is not None

    def look(resident: Resident) -> bool:
        looks.append(resident.instance_id)
        return idle(resident)

    host = await hub.start(app, options=EngineOptions(max_resident_instances=50, drain_timeout_s=0))
    for _ in range(200):
        await host.client.start(works)
    await is_quiet(host)
    monkeypatch.setattr(Resident, "idle", property(look))
    for _ in range(20):
        assert await (await host.client.start("ring", 0)).result() == 0
    assert len(looks) < 20 * 100


async def test_what_was_too_busy_to_leave_leaves_when_it_waits(hub: Deployment) -> None:
    app = build()
    end = asyncio.Event()

    @app.activity
    async def work() -> None:
        await end.wait()

    @app.orchestrator
    async def works(ctx: OrchestrationContext) -> str:
        await ctx.call_activity(work)
        return await ctx.wait_for_external_event("go")

    host = await hub.start(app, options=EngineOptions(max_resident_instances=10))
    handles = [await host.client.start(works, instance_id=f"w{n}") for n in range(50)]
    await is_quiet(host)
    assert len(residents(host)) == 50
    end.set()
    for handle in handles:
        await has_event(host, handle.instance_id, "EventAwaited")
    for _ in range(20):
        assert await (await host.client.start("ring", 0)).result() == 0
    assert len(residents(host)) <= 10
    for handle in handles:
        await handle.raise_event("go", "home")
        assert await handle.result() == "home"


async def test_entities_that_were_too_busy_to_leave_leave_when_they_are_idle(hub: Deployment) -> None:
    app = App()
    end = asyncio.Event()

    @app.entity
    class Slow:
        done: int = 0

        async def work(self) -> int:
            await end.wait()
            self.done += 1
            return self.done

    host = await hub.start(app, options=EngineOptions(max_resident_entities=10))
    calls = [asyncio.ensure_future(host.client.call_entity(f"@slow@{n}", "work")) for n in range(50)]
    assert host.engine.partition is not None
    entities = host.engine.partition._entities.residents
    await eventually(lambda: len(entities) == 50)
    end.set()
    assert await all_within(*calls) == [1] * 50
    for n in range(20):
        assert await host.client.call_entity("@slow@one more", "work") == n + 1
    assert len(entities) <= 10


async def test_an_evicted_instance_keeps_its_timer(hub: Deployment, clock: ManualClock) -> None:
    host = await hub.start(build(), clock=clock, options=EngineOptions(max_resident_instances=1))
    handle = await host.client.start("sleeps", 60, instance_id="i")
    for n in range(3):
        await host.client.start("flow", instance_id=f"other{n}")
    await is_quiet(host)
    assert "i" not in residents(host)
    clock.advance(60)
    assert await handle.result() == "awake"


async def test_a_finished_instance_leaves_the_memory(hub: Deployment) -> None:
    host = await hub.start(build())
    handle = await host.client.start("ring", 3, instance_id="i")
    assert await handle.result() == 0
    await is_quiet(host)
    assert "i" not in residents(host)


# --- timers beyond the horizon ---------------------------------------------------------------------------------------


async def test_a_timer_beyond_the_horizon_fires_in_time(hub: Deployment, clock: ManualClock) -> None:
    host = await hub.start(build(), clock=clock, options=EngineOptions(timer_horizon_s=10))
    handle = await host.client.start("sleeps", 1_000)
    await is_quiet(host)
    for _ in range(999):
        clock.advance(1)
        for _ in range(8):
            await asyncio.sleep(0)
    assert (await host.client.get_status(handle.instance_id)).runtime_status == "Running"  # type: ignore[union-attr]
    clock.advance(1)
    assert await handle.result() == "awake"


async def test_a_timer_that_is_set_while_the_next_stretch_is_being_read_fires(
    hub: Deployment, store: FaultyStore, clock: ManualClock
) -> None:
    """The read has looked and not found it; its commit lands before the answer of the read, which moves the horizon."""

    class Late(MemoryStore):
        gate: asyncio.Event | None = None
        looked = 0

        def read_timers(self, lease: Lease, after: int, until: int) -> asyncio.Future[list[TimerRow]]:
            return asyncio.ensure_future(self._answer(self.hub.due(lease.partition, after, until)))

        async def _answer(self, rows: list[TimerRow]) -> list[TimerRow]:
            self.looked += 1
            if self.gate is not None:
                await self.gate.wait()
            return rows

    late = Late(store.hub)
    host = await hub.start(build(), store=late, clock=clock, options=EngineOptions(timer_horizon_s=10))
    late.gate = asyncio.Event()
    clock.advance(5)  # half of the horizon: what is due from second 10 to second 15 is read
    await eventually(lambda: late.looked)
    handle = await host.client.start("sleeps", 7)
    await is_quiet(host)
    late.gate.set()
    for _ in range(8):
        clock.advance(1)
        for _ in range(8):
            await asyncio.sleep(0)
    assert await asyncio.wait_for(handle.result(), 60) == "awake"


# --- run-ahead -------------------------------------------------------------------------------------------------------


def turns_by_batch(store: FaultyStore, instance_id: str) -> list[int]:
    """How many turns of one instance each batch holds."""
    _, row = store.hub.instances[instance_id]
    found: list[int] = []
    for batch in store.commits:
        for history in batch.history:
            if history.execution == row.execution:
                events, _ = decode_rows(instance_id, row.execution_id, store.hub.history_of(row))
                del events
                found.append(_turns(history.data))
    return found


def _turns(data: bytes) -> int:
    import msgspec

    from durably.core.events import HistoryEvent

    events = msgspec.msgpack.decode(data, type=list[HistoryEvent])
    return sum(isinstance(event, TurnStarted) for event in events)


async def test_an_instance_has_no_more_turns_in_a_batch_than_allowed(
    hub: Deployment, store: FaultyStore
) -> None:
    host = await hub.start(build(), store=store, options=EngineOptions(turns_per_batch=3))
    handle = await host.client.start("collects", 20, instance_id="i")
    await is_quiet(host)
    store.gate = asyncio.Event()
    raising = []
    for n in range(20):
        raising.append(asyncio.create_task(host.client.raise_event("i", "go", n)))
        for _ in range(4):
            await asyncio.sleep(0)  # a pump each
    store.gate.set()
    store.gate = None
    await all_within(*raising)
    assert await handle.result() == list(range(20))
    turns = turns_by_batch(store, "i")
    assert max(turns) == 3
    assert sum(turns) <= 21


async def test_a_ring_of_executions_does_not_run_ahead_without_bounds(
    hub: Deployment, store: FaultyStore
) -> None:
    host = await hub.start(build(), store=store, options=EngineOptions(turns_per_batch=4))
    assert await (await host.client.start("ring", 40, instance_id="i")).result() == 0
    assert max(row.ordinal for batch in store.commits for row in batch.instances) == 40
    assert len(store.commits) >= 40 // 4


async def test_a_full_batch_takes_no_more_turns(hub: Deployment, store: FaultyStore) -> None:
    app = build()

    @app.activity
    async def big() -> str:
        return "x" * 1_000

    @app.orchestrator
    async def one(ctx: OrchestrationContext) -> int:
        return len(await ctx.call_activity(big, returns=str))

    host = await hub.start(app, store=store, options=EngineOptions(batch_bytes=5_000))
    store.gate = asyncio.Event()
    starting = [asyncio.create_task(host.client.start(one)) for _ in range(50)]
    await eventually(lambda: store.commits)
    store.gate.set()
    handles: list[Any] = await all_within(*starting)
    assert await all_within(*(handle.result() for handle in handles)) == [1_000] * 50
    sizes = [sum(len(row.data) for row in batch.history) for batch in store.commits]
    assert max(sizes) < 8_000
    assert max(sizes) > 4_000


async def test_a_batch_that_is_full_of_events_takes_no_more_turns(
    hub: Deployment, store: FaultyStore
) -> None:
    """What arrives by an event is as heavy as what an activity returns."""
    host = await hub.start(build(), store=store, options=EngineOptions(batch_bytes=5_000))
    for n in range(50):
        await host.client.start("flow", instance_id=f"i{n}")
    await is_quiet(host)
    store.commits.clear()
    await all_within(*(host.client.raise_event(f"i{n}", "go", "x" * 1_000) for n in range(50)))
    sizes = [sum(len(row.data) for row in batch.history) for batch in store.commits]
    assert max(sizes) < 20_000


async def test_one_batch_is_on_its_way_and_one_gathers(hub: Deployment, store: FaultyStore) -> None:
    host = await hub.start(build(), store=store)
    for n in range(10):
        await host.client.start("flow", instance_id=f"i{n}")
    await is_quiet(host)
    calls: list[str] = []
    store.before = calls.append
    store.gate = asyncio.Event()
    raising = []
    for n in range(10):
        raising.append(asyncio.create_task(host.client.raise_event(f"i{n}", "go", n)))
        for _ in range(4):
            await asyncio.sleep(0)
    assert calls == ["commit"]
    store.gate.set()
    await all_within(*raising)
    assert calls == ["commit", "commit"]


async def test_messages_that_come_together_are_one_turn(hub: Deployment, store: FaultyStore) -> None:
    host = await hub.start(build(), store=store)
    handle = await host.client.start("collects", 10, instance_id="i")
    await is_quiet(host)
    await all_within(*(host.client.raise_event("i", "go", n) for n in range(10)))
    assert await handle.result() == list(range(10))
    assert turns_by_batch(store, "i") == [1, 1]


# --- starts, and functions nobody knows (rule 16) --------------------------------------------------------------------


async def test_a_start_of_an_unknown_orchestrator_is_refused_by_name(hub: Deployment) -> None:
    host = await hub.start(build())
    with pytest.raises(UnknownFunctionError, match=r"nobody.*flow"):
        await host.client.start("nobody")


async def test_a_posted_start_of_an_unknown_orchestrator_fails_the_instance(hub: Deployment) -> None:
    host = await hub.start(build())
    await host.engine.store.post([InboxRow("s", "i", 0, encode_body(StartInstance("nobody", None, "e")))])
    status = await reaches(host, "i", "Failed")
    assert status.failure is not None
    assert "nobody" in status.failure.message


async def test_an_unknown_activity_fails_the_call_by_name(hub: Deployment) -> None:
    app = build()

    @app.orchestrator
    async def calls(ctx: OrchestrationContext) -> Any:
        return await ctx.call_activity("nobody")

    host = await hub.start(app)
    with pytest.raises(OrchestrationFailedError, match="nobody"):
        await (await host.client.start(calls)).result()


# --- cancel and terminate (rule 17) ----------------------------------------------------------------------------------


async def test_a_cancelled_instance_may_clean_up_and_a_terminated_one_may_not(hub: Deployment) -> None:
    app = App()
    cleaned: list[str] = []

    @app.activity
    async def clean(name: str) -> None:
        cleaned.append(name)

    @app.orchestrator
    async def careful(ctx: OrchestrationContext, name: str) -> None:
        try:
            await ctx.wait_for_external_event("never")
        finally:
            await ctx.call_activity(clean, name)

    host = await hub.start(app)
    for name in ("cancelled", "terminated"):
        await host.client.start(careful, name, instance_id=name)
    await host.client.cancel("cancelled", "enough")
    await host.client.terminate("terminated", "enough")
    assert (await host.client.wait_for_completion("cancelled")).runtime_status == "Canceled"
    assert (await host.client.wait_for_completion("terminated")).runtime_status == "Terminated"
    await is_quiet(host)
    assert cleaned == ["cancelled"]


async def test_who_addresses_nobody_or_a_finished_instance_is_told(hub: Deployment) -> None:
    host = await hub.start(build())
    await (await host.client.start("ring", 0, instance_id="done")).result()
    for order in (host.client.cancel, host.client.terminate, host.client.suspend, host.client.resume):
        with pytest.raises(InstanceNotFoundError):
            await order("nobody")
        with pytest.raises(InstanceStateError):
            await order("done")
    assert not await host.client.purge("nobody")


# --- blocked instances (I10) -----------------------------------------------------------------------------------------


def version(first: str) -> App:
    app = App()

    @app.activity(name=first)
    async def step() -> str:
        return first

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> list[Any]:
        return [await ctx.call_activity(step), await ctx.wait_for_external_event("go")]

    return app


async def test_a_mismatch_blocks_with_a_diff_keeps_messages_and_ends_with_a_fixed_deployment(
    hub: Deployment,
) -> None:
    host = await hub.start(version("old"))
    await host.client.start("flow", instance_id="i")
    await has_event(host, "i", "EventAwaited")
    host = await hub.restart(host, version("new"))
    await host.client.raise_event("i", "go", 1)
    status = await host.client.get_status("i")
    assert status is not None
    assert "old" in (status.blocked or "")
    assert "new" in (status.blocked or "")
    assert status.runtime_status == "Running"
    await host.client.raise_event("i", "go", 2)
    host = await hub.restart(host, version("new"))
    await is_quiet(host)
    status = await host.client.get_status("i")
    assert status is not None
    assert status.blocked is not None
    host = await hub.restart(host, version("old"))
    done = await host.client.wait_for_completion("i", 2)
    assert (done.output, done.blocked) == (["old", 1], None)


async def test_an_orchestrator_that_is_not_deployed_blocks_its_instances(hub: Deployment) -> None:
    host = await hub.start(version("old"))
    await host.client.start("flow", instance_id="i")
    await has_event(host, "i", "EventAwaited")
    host = await hub.restart(host, App())
    await host.client.raise_event("i", "go", 1)
    status = await host.client.get_status("i")
    assert status is not None
    assert "'flow' is not registered" in (status.blocked or "")
    host = await hub.restart(host, version("old"))
    assert (await host.client.wait_for_completion("i", 2)).output == ["old", 1]


async def test_a_blocked_instance_can_be_terminated_and_forgets_its_messages(hub: Deployment) -> None:
    host = await hub.start(version("old"))
    await host.client.start("flow", instance_id="i")
    await has_event(host, "i", "EventAwaited")
    host = await hub.restart(host, version("new"))
    await host.client.raise_event("i", "go", 1)
    await host.client.terminate("i")
    assert (await host.client.wait_for_completion("i", 2)).blocked is None
    assert not host.engine.store.hub.inbox  # type: ignore[attr-defined]


# --- stopping and backpressure ---------------------------------------------------------------------------------------


class Busy:
    """An app with an activity that ends when told."""

    def __init__(self) -> None:
        self.app = build()
        self.end = asyncio.Event()
        self.began: list[int] = []
        self.cancelled: list[int] = []

        @self.app.activity
        async def work(n: int) -> int:
            self.began.append(n)
            try:
                await self.end.wait()
            except asyncio.CancelledError:
                self.cancelled.append(n)
                raise
            return n

        @self.app.orchestrator
        async def works(ctx: OrchestrationContext, n: int) -> list[int]:
            return [await ctx.call_activity(work, n), await ctx.call_activity(work, n + 1)]


async def test_a_stopping_host_commits_the_results_it_waited_for_and_begins_nothing_more(
    hub: Deployment,
) -> None:
    busy = Busy()
    host = await hub.start(busy.app)
    await host.client.start("works", 1, instance_id="i")
    await eventually(lambda: busy.began)
    stopping = asyncio.create_task(hub.stop(host))
    await asyncio.sleep(0)
    with pytest.raises(HubClosedError):
        await host.client.start("flow")
    busy.end.set()
    await all_within(stopping)
    assert busy.began == [1]
    host = await hub.start(busy.app)
    assert (await host.client.wait_for_completion("i", 2)).output == [1, 2]
    assert busy.began == [1, 2]


async def test_what_runs_longer_than_the_drain_is_cancelled_and_runs_again(
    hub: Deployment, clock: ManualClock
) -> None:
    busy = Busy()
    host = await hub.start(busy.app, clock=clock, options=EngineOptions(drain_timeout_s=3))
    await host.client.start("works", 1, instance_id="i")
    await eventually(lambda: busy.began)
    stopping = asyncio.create_task(hub.stop(host))
    for _ in range(10):
        await asyncio.sleep(0)
    clock.advance(2.9)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not stopping.done()
    clock.advance(0.1)
    await all_within(stopping)
    assert busy.cancelled == [1]
    busy.end.set()
    host = await hub.start(busy.app)
    assert (await host.client.wait_for_completion("i", 2)).output == [1, 2]
    assert busy.began == [1, 1, 2]


async def test_a_stop_ends_although_the_store_does_not_answer(
    hub: Deployment, store: FaultyStore, clock: ManualClock
) -> None:
    from durably import StoreUnavailableError

    host = await hub.start(build(), store=store, clock=clock, options=EngineOptions(drain_timeout_s=3))

    def busy(call: str) -> None:
        raise StoreUnavailableError("busy")

    store.before = busy
    starting = asyncio.create_task(host.client.start("flow"))
    for _ in range(10):
        await asyncio.sleep(0)
    stopping = asyncio.create_task(hub.stop(host))
    while not stopping.done():
        clock.advance(0.5)
        await asyncio.sleep(0)
    with pytest.raises(HubClosedError):
        await all_within(starting)


async def test_stopping_twice_is_as_good_as_once_and_waiters_are_told(hub: Deployment) -> None:
    host = await hub.start(build())
    waiting = asyncio.create_task((await host.client.start("flow")).result())
    await is_quiet(host)
    await host.stop()
    await hub.stop(host)
    with pytest.raises(HubClosedError):
        await all_within(waiting)


async def test_no_more_commands_than_allowed_are_under_way(hub: Deployment, store: FaultyStore) -> None:
    host = await hub.start(build(), store=store, options=EngineOptions(max_commands=3))
    handle = await host.client.start("collects", 20, instance_id="i")
    await is_quiet(host)
    store.gate = asyncio.Event()
    raising = [asyncio.create_task(host.client.raise_event("i", "go", n)) for n in range(20)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(host.engine._commands) == 3
    store.gate.set()
    await all_within(*raising)
    assert sorted(await handle.result()) == list(range(20))
    assert not host.engine._commands


async def test_a_caller_that_gives_up_frees_its_place(hub: Deployment, store: FaultyStore) -> None:
    host = await hub.start(build(), store=store, options=EngineOptions(max_commands=1))
    await host.client.start("collects", 2, instance_id="i")
    await is_quiet(host)
    store.gate = asyncio.Event()
    first = asyncio.create_task(host.client.raise_event("i", "go", 1))
    for _ in range(5):
        await asyncio.sleep(0)
    second = asyncio.create_task(host.client.raise_event("i", "go", 2))
    for _ in range(5):
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    store.gate.set()
    await all_within(second)
    assert (await host.client.wait_for_completion("i", 2)).output == [1, 2]


async def test_starts_wait_while_too_many_activities_are_open(hub: Deployment, clock: ManualClock) -> None:
    busy = Busy()
    host = await hub.start(busy.app, clock=clock, options=EngineOptions(max_open_activities=2))
    for n in range(3):
        await host.client.start("works", 10 * n)
    await eventually(lambda: len(busy.began) == 3)
    starting = asyncio.create_task(host.client.start("works", 90))
    for _ in range(5):
        clock.advance(1)
        for _ in range(5):
            await asyncio.sleep(0)
    assert not starting.done()
    busy.end.set()
    while not starting.done():
        clock.advance(1)
        await asyncio.sleep(0)
    await starting


async def test_callers_that_wait_for_a_place_are_told_when_the_host_stops(
    hub: Deployment, store: FaultyStore
) -> None:
    host = await hub.start(build(), store=store, options=EngineOptions(max_commands=1))
    await host.client.start("flow", instance_id="i")
    await is_quiet(host)
    store.gate = asyncio.Event()
    raising = [asyncio.create_task(host.client.suspend("i")) for _ in range(5)]
    for _ in range(5):
        await asyncio.sleep(0)
    stopping = asyncio.create_task(hub.stop(host))
    for _ in range(5):
        await asyncio.sleep(0)
    store.gate.set()
    await all_within(stopping)
    answers = await asyncio.wait_for(asyncio.gather(*raising, return_exceptions=True), 2)
    assert answers[0] is None
    assert all(answer is None or isinstance(answer, HubClosedError) for answer in answers)


# --- who never rests -------------------------------------------------------------------------------------------------


async def test_orders_reach_an_instance_that_continues_as_new_for_ever(hub: Deployment) -> None:
    host = await hub.start(build())
    client = host.client
    for name in ("a", "b", "c", "d"):
        await client.start("spins", 0, instance_id=name)
    async with asyncio.timeout(60):
        await client.suspend("a")
        at_rest = await client.get_status("a")
        assert at_rest is not None
        assert at_rest.runtime_status == "Suspended"
        assert (await client.start("flow", instance_id="other")).instance_id == "other"
        assert (await client.get_status("a")).input == at_rest.input  # it rests
        await client.resume("a")
        await eventually(lambda: _is_beyond(host, "a", at_rest.input), "it goes on")
        await client.terminate("a", "enough")
        assert (await client.get_status("a")).runtime_status == "Terminated"
        with pytest.raises(InstanceStateError):
            await client.purge("b")
        with pytest.raises(InstanceStateError):
            await client.restart("b")
        with pytest.raises(InstanceStateError):
            await client.rewind("b")
        with pytest.raises(InstanceAlreadyExistsError):
            await client.start("flow", instance_id="b")
        await client.start("ring", 3, instance_id="b", on_existing="replace")
        assert (await client.wait_for_completion("b", 30)).output == 0
        host = await hub.recover(host, build())  # they go on, and are as open to orders as before
        client = host.client
        await all_within(client.suspend("c"), client.resume("c"), client.suspend("c"))
        assert (await client.get_status("c")).runtime_status == "Suspended"
        both = await asyncio.gather(client.purge("c"), client.terminate("c"), return_exceptions=True)
        assert (type(both[0]), both[1]) == (InstanceStateError, None)
        await host.client.suspend("d")
        await host.client.terminate("d")
        assert (await host.client.get_status("d")).runtime_status == "Terminated"


async def _is_beyond(host: AppHost, instance_id: str, count: Any) -> bool:
    return (await host.client.get_status(instance_id)).input > count


@pytest.mark.parametrize("by", ["start", "restart", "purge"])
async def test_a_new_life_is_not_continued_by_the_one_before(hub: Deployment, by: str) -> None:
    """What the old life was about to go on with lay in the inbox, before what the new one goes on with."""
    host = await hub.start(build())
    client = host.client
    await client.start("spins", 0, instance_id="i")
    await eventually(lambda: _is_beyond(host, "i", 5), "it spins")
    if by == "start":
        await client.start("spins", 1_000_000, instance_id="i", on_existing="replace")
    elif by == "restart":
        await all_within(client.terminate("i"), client.restart("i"))
    else:
        await all_within(
            client.terminate("i"),
            client.purge("i"),
            client.start("spins", 1_000_000, instance_id="i", on_existing="replace"),
        )
    began = 0 if by == "restart" else 1_000_000
    await eventually(lambda: _is_beyond(host, "i", began + 5), "the new life spins")
    assert isinstance(host.engine.store, MemoryStore)
    rows = [row for row in host.engine.store.hub.inbox.values() if row.instance_id == "i"]
    assert len(rows) == 1, "only what it goes on with is in the inbox"
    host = await hub.recover(host, build())
    await eventually(lambda: _is_beyond(host, "i", began + 5), "it goes on after the crash")
    await host.client.terminate("i")


async def test_what_an_older_hub_kept_of_a_former_life_does_not_continue_the_new_one(hub: Deployment) -> None:
    """Such hubs have the message of a life that is gone in the inbox, before that of the life that is there."""
    host = await hub.start(build())
    await host.client.start("flow", instance_id="waits", start_at=3_600)
    await host.client.start("spins", 1_000_000, instance_id="spins")
    await eventually(lambda: _is_beyond(host, "spins", 1_000_005), "it spins")
    await hub.crash(host)
    assert isinstance(hub.hub, MemoryHubOfTest)
    inbox = hub.hub.hub.inbox
    live = dict(inbox)
    inbox.clear()
    for name in ("waits", "spins"):
        body = encode_body(Continue(b"7", derived_execution_id("of a life that is gone", "next")))
        inbox[f"stale {name}"] = InboxRow(f"stale {name}", name, 0, body)
    inbox.update(live)
    host = await hub.start(build())
    await eventually(lambda: not [row for row in inbox if "stale" in row], "they are consumed")
    assert await _is_beyond(host, "spins", 1_000_000)
    assert [row.instance_id for row in inbox.values()].count("waits") == 1
    await host.client.terminate("spins")
    await host.client.terminate("waits")


async def test_what_came_before_an_order_belongs_to_the_life_that_it_ends(hub: Deployment) -> None:
    host = await hub.start(build())
    client = host.client
    for name in ("a", "b"):
        await client.start("spins", 0, instance_id=name)
        await eventually(lambda name=name: _is_beyond(host, name, 5), "it spins")
    await all_within(
        client.raise_event("a", "go", "old"),
        client.start("flow", instance_id="a", on_existing="replace"),
        client.raise_event("a", "go", "new"),
    )
    assert (await client.wait_for_completion("a", 30)).output == "new"
    answers = await asyncio.gather(
        client.raise_event("b", "go", "before"),
        client.terminate("b"),
        client.raise_event("b", "go", "after"),
        return_exceptions=True,
    )
    assert answers[:2] == [None, None]
    assert isinstance(answers[2], InstanceStateError)


async def test_what_came_before_an_order_that_is_refused_keeps_its_place(hub: Deployment) -> None:
    app = build()
    may_rest = False

    @app.orchestrator
    async def restless(ctx: OrchestrationContext) -> Any:
        if not may_rest:
            ctx.continue_as_new(None)
            return None
        return [await ctx.wait_for_external_event("go") for _ in range(3)]

    host = await hub.start(app)
    client = host.client
    await client.start("restless", instance_id="i")
    await is_beyond_executions(host, "i", 3)
    answers = await asyncio.gather(
        client.raise_event("i", "go", 1),
        client.purge("i"),
        client.raise_event("i", "go", 2),
        client.suspend("i"),
        client.restart("i"),
        client.raise_event("i", "go", 3),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers[1::3]] == [InstanceStateError, InstanceStateError]
    may_rest = True
    await client.resume("i")
    assert (await client.wait_for_completion("i", 30)).output == [1, 2, 3]


async def is_beyond_executions(host: AppHost, instance_id: str, count: int) -> None:
    await eventually(lambda: residents(host)[instance_id].ordinal > count, "it spins")
