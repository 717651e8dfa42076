"""Rules 3 and 6, and I11, on a whole host: what fails concerns the one who caused it, or stops the host for all to see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from durably import (
    App,
    AppHost,
    EngineOptions,
    HubClosedError,
    InvariantError,
    OperationError,
    OrchestrationContext,
    OrchestrationFailedError,
    StoreFailedError,
    StoreRefusedError,
    StoreUnavailableError,
    TaskFailedError,
)
from durably.core.commit import Batch, HistoryRow, InboxRow
from durably.core.events import TaskCompleted
from durably.core.history import chain, encode_body, encode_events
from durably.core.messages import StartInstance
from durably.core.orchestration import Commit
from durably.engine.desk import Desk
from durably.engine.executor import Run
from durably.engine.residents import Resident
from durably.engine.turns import Turns
from durably.errors import LeaseLostError
from durably.storage.api import Lease
from tests.support.clock import ManualClock
from tests.support.hubs import Deployment
from tests.support.stores import FaultyStore, fail_times
from tests.support.waiting import all_within, eventually, has_event, is_quiet, reaches

QUICK = EngineOptions(commit_retry_s=0.0001)


def build() -> App:
    app = App()

    @app.activity
    async def double(x: int) -> int:
        return 2 * x

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go")

    @app.orchestrator
    async def steps(ctx: OrchestrationContext, n: int) -> int:
        x = 1
        for _ in range(n):
            x = await ctx.call_activity(double, x)
        return x

    @app.orchestrator
    async def parent(ctx: OrchestrationContext, child: str) -> Any:
        return await ctx.call_sub_orchestrator("flow", instance_id=child)

    return app


async def others_go_on(host: AppHost) -> None:
    handle = await host.client.start("steps", 3, instance_id="bystander")
    assert (await all_within(handle.result())) == [8]


# --- the store -------------------------------------------------------------------------------------------------------


async def test_commits_that_fail_for_a_while_change_nothing_but_the_time(
    hub: Deployment, store: FaultyStore
) -> None:
    host = await hub.start(build(), store=store, options=QUICK)
    store.before = fail_times(5, lambda: StoreUnavailableError("busy"), "commit")
    handle = await host.client.start("steps", 5)
    assert await handle.result() == 32
    assert [batch.number for batch in store.commits] == list(range(1, len(store.commits) + 1))


async def test_a_commit_in_doubt_is_settled_by_the_same_batch(hub: Deployment, store: FaultyStore) -> None:
    host = await hub.start(build(), store=store, options=QUICK)
    store.after = fail_times(3, lambda: StoreUnavailableError("the answer was lost"), "commit")
    handle = await host.client.start("steps", 5)
    assert await handle.result() == 32
    assert host.engine.partition is not None
    assert store.hub.partitions[0].batch == host.engine.partition.committer.number


def refusing(culprit: str) -> Callable[[Lease, Batch], None]:
    def check(lease: Lease, batch: Batch) -> None:
        names = {row.instance_id for row in batch.instances} | {row.instance_id for row in batch.changes}
        if culprit in names and not any(row.parked for row in batch.changes):
            raise StoreRefusedError(f"the data of {culprit} is too long")

    return check


class Picky(FaultyStore):
    """Refuses what the test points at."""

    check: Callable[[Lease, Batch], None] | None = None

    def commit(self, lease: Lease, batch: Batch) -> Any:
        if self.check is not None:
            try:
                self.check(lease, batch)
            except StoreRefusedError as error:
                refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                refused.set_exception(error)
                return refused
        return super().commit(lease, batch)


@pytest.fixture
def picky(store: FaultyStore) -> Picky:
    return Picky(store.hub)


async def test_the_instance_whose_data_the_store_refuses_is_parked_and_all_others_go_on(
    hub: Deployment, picky: Picky
) -> None:
    host = await hub.start(build(), store=picky, options=QUICK)
    for name in ("a", "culprit", "b"):
        await host.client.start("flow", instance_id=name)
    picky.check = refusing("culprit")
    raising = [asyncio.create_task(host.client.raise_event(name, "go", 1)) for name in ("a", "culprit", "b")]
    for name in ("a", "b"):
        assert (await reaches(host, name, "Completed")).output == 1
    await all_within(raising[0], raising[2])
    status = await host.client.get_status("culprit")
    assert status is not None
    assert (status.runtime_status, "too long" in (status.blocked or "")) == ("Running", True)
    await all_within(raising[1])  # it is kept, durably, as long as the instance is parked
    assert len(picky.hub.inbox) == 1
    await others_go_on(host)


async def test_a_parked_instance_can_be_terminated(hub: Deployment, picky: Picky) -> None:
    host = await hub.start(build(), store=picky, options=QUICK)
    await host.client.start("flow", instance_id="culprit")
    picky.check = refusing("culprit")
    await all_within(host.client.raise_event("culprit", "go", 1))
    picky.check = None
    await host.client.terminate("culprit", "it is beyond help")
    assert (await reaches(host, "culprit", "Terminated")).blocked is None
    assert await host.client.purge("culprit")
    again = await host.client.start(
        "flow", instance_id="culprit"
    )  # another instance, with nothing against it
    await again.raise_event("go", 2)
    assert await again.result() == 2


async def test_a_start_that_the_store_refuses_is_refused_to_its_caller(hub: Deployment, picky: Picky) -> None:
    host = await hub.start(build(), store=picky, options=QUICK)
    picky.check = refusing("culprit")
    with pytest.raises(StoreRefusedError, match="too long"):
        await host.client.start("flow", instance_id="culprit")
    await others_go_on(host)
    picky.check = None
    again = await host.client.start(
        "flow", instance_id="culprit"
    )  # what was refused was that start, not the id
    await again.raise_event("go", 3)
    assert await again.result() == 3


async def test_a_child_that_the_store_refuses_fails_in_its_parent(hub: Deployment, picky: Picky) -> None:
    """Its parent waits for an answer; nobody else will ever give one."""
    host = await hub.start(build(), store=picky, options=QUICK)
    picky.check = refusing("culprit")
    handle = await host.client.start("parent", "culprit", instance_id="p")
    with pytest.raises(OrchestrationFailedError, match="too long"):
        await asyncio.wait_for(handle.result(), 60)


@pytest.mark.parametrize(
    "error", [StoreFailedError("the disk is gone"), LeaseLostError("somebody took it over")]
)
async def test_a_store_that_cannot_be_trusted_any_more_stops_the_host(
    hub: Deployment, store: FaultyStore, error: Exception
) -> None:
    host = await hub.start(build(), store=store)
    waiting = asyncio.create_task((await host.client.start("flow", instance_id="i")).result())
    await is_quiet(host)

    def broken(call: str) -> None:
        raise error

    store.before = broken
    with pytest.raises(type(error)):
        await all_within(host.client.raise_event("i", "go", 1))
    await all_within(host.engine.failed())
    assert host.engine.failure is error
    with pytest.raises(type(error)):
        await all_within(waiting)
    with pytest.raises(type(error)):
        await all_within(host.client.start("flow"))


async def test_a_host_that_cannot_load_its_partition_does_not_start(
    hub: Deployment, store: FaultyStore
) -> None:
    class Unloadable(FaultyStore):
        async def load(self, lease: Lease, timers_until: int) -> Any:
            raise StoreFailedError("the disk is gone")

    with pytest.raises(StoreFailedError):
        await build().host(Unloadable(store.hub)).start()
    await others_go_on(await hub.start(build()))


# --- broken invariants -----------------------------------------------------------------------------------------------


def breaks(monkeypatch: pytest.MonkeyPatch, culprit: str, times: int = 1_000) -> list[str]:
    """Let the code of one instance break an invariant with each event; returns where it is noted."""
    broken: list[str] = []
    advance = Desk.advance

    def sabotaged(self: Desk, resident: Resident, run: Run, commit: Commit, event: Any) -> None:
        if resident.instance_id == culprit and len(broken) < times:
            broken.append(type(event).__name__)
            raise InvariantError("I6", culprit, "sabotaged")
        advance(self, resident, run, commit, event)

    monkeypatch.setattr(Desk, "advance", sabotaged)
    return broken


async def test_an_instance_that_breaks_an_invariant_three_times_is_parked_and_all_others_go_on(
    hub: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = await hub.start(build(), options=QUICK)
    await host.client.start("flow", instance_id="other")
    await host.client.start("flow", instance_id="culprit")
    await hub.stop(host)
    broken = breaks(monkeypatch, "culprit")
    host = await hub.start(build(), options=QUICK)
    await all_within(host.client.raise_event("culprit", "go", 1), host.client.raise_event("other", "go", 2))
    assert len(broken) == 3
    assert (await reaches(host, "other", "Completed")).output == 2
    status = await host.client.get_status("culprit")
    assert status is not None
    assert status.runtime_status == "Running"
    assert "3 times" in (status.blocked or "")
    assert "sabotaged" in (status.blocked or "")
    assert len(host.engine.store.hub.inbox) == 1  # type: ignore[attr-defined]
    await others_go_on(host)


async def test_an_instance_that_breaks_an_invariant_twice_goes_on(
    hub: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = await hub.start(build(), options=QUICK)
    await host.client.start("flow", instance_id="i")
    await hub.stop(host)
    breaks(monkeypatch, "i", times=2)
    host = await hub.start(build(), options=QUICK)
    await all_within(host.client.raise_event("i", "go", 1))
    assert (await reaches(host, "i", "Completed")).output == 1


async def test_a_bug_of_the_engine_counts_as_a_broken_invariant(
    hub: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Turns.run

    def buggy(self: Any, resident: Any, now: int) -> None:
        if resident.instance_id == "culprit":
            raise KeyError("oops")
        run(self, resident, now)

    monkeypatch.setattr(Turns, "run", buggy)
    host = await hub.start(build(), options=QUICK)
    with pytest.raises(OperationError, match="KeyError"):
        await all_within(host.client.start("flow", instance_id="culprit"))
    await others_go_on(host)


async def test_a_child_that_breaks_invariants_in_its_first_turn_fails_in_its_parent(
    hub: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks(monkeypatch, "culprit")
    host = await hub.start(build(), options=QUICK)
    handle = await host.client.start("parent", "culprit", instance_id="p")
    with pytest.raises(OrchestrationFailedError, match="sabotaged"):
        await asyncio.wait_for(handle.result(), 60)


async def test_a_posted_start_of_a_condemned_instance_is_set_aside_and_can_be_redriven(
    hub: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was accepted is kept, and can be seen."""
    breaks(monkeypatch, "culprit", times=3)
    host = await hub.start(build(), options=QUICK)
    await host.engine.store.post(
        [InboxRow("s1", "culprit", 0, encode_body(StartInstance("flow", None, "e1")))]
    )
    await eventually(lambda: "culprit" in host.engine._own.holdings[0]._strikes.condemned)
    await is_quiet(host)
    assert not host.engine.store.hub.inbox  # type: ignore[attr-defined]
    (item,) = (await host.client.query_parked()).items
    assert (item.kind, item.id, item.instance_id) == ("message", "s1", "culprit")
    assert "sabotaged" in item.cause
    await all_within(host.client.redrive("s1"))
    await reaches(host, "culprit", "Running")
    assert (await host.client.query_parked()).items == []


async def test_a_history_that_does_not_fold_parks_its_instance_and_the_host_starts(hub: Deployment) -> None:
    """Its checksums are right and its events cannot be: only a bug writes that, and it must not take the hub along."""
    app = build()
    host = await hub.start(app)
    await host.client.start("flow", instance_id="culprit")
    await is_quiet(host)
    await hub.stop(host)
    spoil(hub, "culprit", in_flight=True)
    host = await hub.start(app)
    await others_go_on(host)
    status = await host.client.get_status("culprit")
    assert status is not None
    assert status.blocked is not None


async def test_a_history_that_does_not_fold_parks_its_instance_when_it_is_read(hub: Deployment) -> None:
    app = build()
    host = await hub.start(app)
    await host.client.start("flow", instance_id="culprit")
    await is_quiet(host)
    await hub.stop(host)
    spoil(hub, "culprit", in_flight=False)
    host = await hub.start(app, options=QUICK)
    await all_within(host.client.raise_event("culprit", "go", 1))
    status = await host.client.get_status("culprit")
    assert status is not None
    assert status.blocked is not None
    await others_go_on(host)


async def test_a_history_with_a_wrong_checksum_parks_its_instance(hub: Deployment) -> None:
    app = build()
    host = await hub.start(app)
    await host.client.start("flow", instance_id="culprit")
    await is_quiet(host)
    await hub.stop(host)
    rows = spoil(hub, "culprit", in_flight=False)
    rows[0] = rows[0]._replace(data=rows[0].data[:-1] + b"x")
    host = await hub.start(app)
    await all_within(host.client.raise_event("culprit", "go", 1))
    status = await host.client.get_status("culprit")
    assert status is not None
    assert "checksum" in (status.blocked or "")
    await others_go_on(host)


def spoil(hub: Deployment, instance_id: str, *, in_flight: bool) -> list[HistoryRow]:
    """Add a result of a task that nobody scheduled, properly chained."""
    data = hub.hub.hub  # type: ignore[attr-defined]
    place, row = data.instances[instance_id]
    data.instances[instance_id] = place, row._replace(in_flight=in_flight)
    rows: list[HistoryRow] = data.history[data.execution_of(instance_id, row.execution)]
    added = encode_events([TaskCompleted(7, None)])
    rows.append(HistoryRow(row.execution, len(rows), rows[-1].at, added, chain(rows[-1].checksum, added)))
    return rows


async def test_a_read_that_fails_for_a_while_loses_no_message(
    hub: Deployment, store: FaultyStore, clock: ManualClock
) -> None:
    host = await hub.start(build(), store=store, clock=clock, options=EngineOptions(max_resident_instances=1))
    for n in range(3):
        await host.client.start("flow", instance_id=f"i{n}")
    await is_quiet(host)
    store.before = fail_times(2, lambda: StoreUnavailableError("busy"), "read_instances")
    raising = asyncio.create_task(host.client.raise_event("i0", "go", 1))
    while not raising.done():
        clock.advance(0.1)
        await asyncio.sleep(0)
    await raising
    assert (await host.client.wait_for_completion("i0")).output == 1
    assert host.engine.failure is None


async def test_an_activity_that_raises_a_cancellation_of_its_own_fails(hub: Deployment) -> None:
    app = App()

    @app.activity
    async def odd() -> None:
        raise asyncio.CancelledError

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_activity(odd)
        except TaskFailedError as error:
            return str(error)
        return "no error"

    host = await hub.start(app)
    handle = await host.client.start(flow)
    assert "Cancelled" in await asyncio.wait_for(handle.result(), 60)


async def test_after_a_failure_the_host_stops_in_order(hub: Deployment, store: FaultyStore) -> None:
    host = await hub.start(build(), store=store)
    store.before = fail_times(1, lambda: StoreFailedError("the disk is gone"), "commit")
    with pytest.raises(StoreFailedError):
        await host.client.start("flow")
    await all_within(hub.stop(host))
    with pytest.raises((StoreFailedError, HubClosedError)):
        await host.client.start("flow")


async def test_a_reload_while_the_store_cannot_load_is_tried_until_it_can(
    hub: Deployment, store: FaultyStore, clock: ManualClock
) -> None:
    failures = [StoreUnavailableError("busy")] * 3

    class Busy(FaultyStore):
        async def load(self, lease: Lease, timers_until: int) -> Any:
            if failures and self.hub.partitions[0].batch:
                raise failures.pop()
            return await super().load(lease, timers_until)

    host = await hub.start(build(), store=Busy(store.hub), clock=clock)
    handle = await host.client.start("flow", instance_id="i")
    await has_event(host, "i", "EventAwaited")
    host.engine.reload_partition("a test asks for it")
    while host.engine.partition is None:
        clock.advance(1)
        await asyncio.sleep(0)
    assert not failures
    await host.client.raise_event("i", "go", 1)
    assert await handle.result() == 1
