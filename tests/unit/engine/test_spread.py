"""Activities over hosts: what stays, what is shared, and that each runs once, whoever dies, stops or comes."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from durably import ActivityContext, App, AppHost, EngineOptions, OrchestrationContext, RetryPolicy
from durably.clock import SystemClock
from durably.core.commit import InboxRow, Unreadable
from durably.core.history import encode_body
from durably.core.messages import ActivityDone, AttemptLost
from durably.core.shared_tasks import call_in
from durably.engine.committer import Gathering
from durably.engine.spread import Spread
from durably.errors import StoreRefusedError, StoreUnavailableError
from durably.storage.memory import MemoryHub
from durably.storage.shared_tasks import Claim, TaskResult
from tests.support.hubs import Deployment
from tests.support.stores import FaultyStore
from tests.support.waiting import eventually, reaches

LEASE_US = 400_000
PARTITIONS = 4


class SharedHub:
    """A hub in memory that hosts share, with leases that run out soon."""

    def __init__(self) -> None:
        self.hub = MemoryHub(exclusive=False, partitions=PARTITIONS, clock=SystemClock(), lease_us=LEASE_US)

    def store(self) -> FaultyStore:
        return FaultyStore(self.hub)


class World:
    """Hosts of one program, and what its activities did where."""

    def __init__(self) -> None:
        self.shared = SharedHub()
        self.deployment = Deployment(self.shared)
        self.hosts: dict[str, AppHost] = {}
        self.began: list[tuple[str, int]] = []
        self.cancelled: list[tuple[str, int]] = []
        self.deliveries: dict[int, list[int]] = {}
        self.keys: set[str] = set()
        self.gate = asyncio.Event()

    def app(self, name: str, *, knows: str = "fan work") -> App:
        app = App()
        if "fan" in knows:

            @app.orchestrator
            async def fan(ctx: OrchestrationContext, count: int) -> list[int]:
                retry = RetryPolicy(timedelta(milliseconds=1), 3)
                return await asyncio.gather(
                    *(ctx.call_activity("work", number, retry=retry) for number in range(count))
                )

        if "work" in knows:

            @app.activity
            async def work(ctx: ActivityContext, number: int) -> int:
                self.began.append((name, number))
                self.keys.add(ctx.idempotency_key)
                self.deliveries.setdefault(number, []).append(ctx.delivery)
                try:
                    await self.gate.wait()
                except asyncio.CancelledError:
                    self.cancelled.append((name, number))
                    raise
                await asyncio.sleep(0.001)
                if number == 30 and ctx.attempt == 1:
                    raise ValueError("not the first time")
                return number

        return app

    async def start(self, name: str, *, knows: str = "fan work", **options: Any) -> AppHost:
        given = {"max_concurrent_activities": 8, "share_above": 4, "lease_s": LEASE_US / 1e6} | options
        limits = EngineOptions(inbox_poll_s=0.02, drain_timeout_s=0.2, **given)
        host = self.hosts[name] = await self.deployment.start(self.app(name, knows=knows), options=limits)
        return host

    async def fair(self, *names: str) -> None:
        """Return when these hosts own the hub in equal shares, and know of each other."""
        hosts = [self.hosts[name] for name in names]
        share = PARTITIONS // len(hosts)

        def is_fair() -> bool:
            return all(
                len(host.engine.partitions) == share and _others(host) == len(hosts) - 1 for host in hosts
            )

        await eventually(is_fair, "equal shares")

    def owner(self) -> tuple[str, str]:
        """An instance id, and which of the hosts serves it: the first one."""
        first = next(iter(self.hosts))
        served = (f"i{number}" for number in range(1_000) if self.hosts[first].engine.serves(f"i{number}"))
        return next(served), first

    @property
    def queued(self) -> int:
        """How many attempts are in the queue."""
        return len(self.shared.hub.tasks)

    def ran(self) -> Counter[str]:
        return Counter(name for name, _ in self.began)


def _others(host: AppHost) -> int:
    return 0 if host.engine._keeps is None else host.engine._keeps.others


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    made = World()
    try:
        yield made
    finally:
        await made.deployment.close()


async def test_what_exceeds_the_local_backlog_is_shared_and_each_attempt_runs_once() -> None:
    async with world() as scene:
        await scene.start("a")
        await scene.start("b")
        await scene.fair("a", "b")
        instance, owner = scene.owner()
        handle = await scene.hosts[owner].client.start("fan", 200, instance_id=instance)
        await eventually(lambda: len(scene.began) == 16, "both are busy")
        offered = [row for batch in scene.hosts[owner].engine.store.commits for row in batch.tasks_offered]  # type: ignore[attr-defined]
        assert len(offered) == 200 - 8 - 4, "what runs here and the backlog have no rows"
        assert scene.ran() == {"a": 8, "b": 8}
        claimed = {task.row.task_id for task in scene.shared.hub.tasks.values() if task.claimer}
        assert len(claimed) in range(8, 200 - 8 - 4), "little is claimed in advance"
        scene.gate.set()
        assert await handle.result(timeout=30) == list(range(200))
        assert Counter(number for _, number in scene.began) == dict.fromkeys(range(200), 1) | {30: 2}
        assert min(scene.ran().values()) >= 60
        assert len(scene.keys) == 200
        assert scene.queued == 0
        assert scene.hosts[owner].engine._keeps.offered == 0  # type: ignore[union-attr]


async def test_a_host_alone_shares_nothing_and_takes_what_others_have_left_behind() -> None:
    async with world() as scene:
        host = await scene.start("a")
        scene.gate.set()
        assert await (await host.client.start("fan", 60)).result(timeout=30) == list(range(60))
        commits = host.engine.store.commits  # type: ignore[attr-defined]
        assert not any(batch.tasks_offered for batch in commits)
        scene.gate.clear()
        await scene.start("b")
        await scene.fair("a", "b")
        instance, _ = scene.owner()
        handle = await host.client.start("fan", 60, instance_id=instance)
        await eventually(lambda: scene.queued == 48 and scene.ran()["b"] == 8)
        await scene.deployment.stop(scene.hosts["b"])
        await eventually(lambda: _others(host) == 0)
        scene.gate.set()
        assert await handle.result(timeout=30) == list(range(60))
        assert scene.queued == 0


async def test_an_activity_that_only_another_host_has_runs_there_and_one_that_nobody_has_waits() -> None:
    async with world() as scene:
        scene.gate.set()
        await scene.start("a", knows="fan")
        await scene.start("b", knows="other")
        await scene.fair("a", "b")
        instance, owner = scene.owner()
        handle = await scene.hosts[owner].client.start("fan", 3, instance_id=instance)
        await eventually(lambda: scene.queued == 3)
        assert "activity 'work' #0 waiting for a host that has it since" in await handle.why()
        await scene.start("c", knows="work")  # the deployment that adds it
        assert await handle.result(timeout=30) == [0, 1, 2]
        assert scene.ran() == {"c": 3}
        assert scene.queued == 0


async def test_what_is_given_up_is_withdrawn_also_from_those_who_run_it() -> None:
    async with world() as scene:
        await scene.start("a")
        await scene.start("b")
        await scene.fair("a", "b")
        instance, owner = scene.owner()
        client = scene.hosts[owner].client
        await client.start("fan", 40, instance_id=instance)
        await eventually(lambda: len(scene.began) == 16)
        await client.terminate(instance)
        await reaches(scene.hosts[owner], instance, "Terminated")
        assert scene.queued == 0
        await eventually(lambda: Counter(name for name, _ in scene.cancelled) == {"a": 8, "b": 8})
        await client.start("fan", 40, instance_id=instance)
        await eventually(lambda: len(scene.began) == 32)
        await client.cancel(instance)
        await reaches(scene.hosts[owner], instance, "Canceled")
        await eventually(lambda: len(scene.cancelled) == 32)
        assert scene.queued == 0


async def test_a_host_that_dies_loses_nothing_of_what_it_has_claimed() -> None:
    async with world() as scene:
        await scene.start("a")
        await scene.start("b")
        await scene.fair("a", "b")
        instance, owner = scene.owner()
        handle = await scene.hosts[owner].client.start("fan", 40, instance_id=instance)
        await eventually(lambda: len(scene.began) == 16)
        await scene.deployment.crash(scene.hosts["b"])
        scene.gate.set()
        assert await handle.result(timeout=30) == list(range(40))
        twice = Counter(number for _, number in scene.began)
        assert sum(twice.values()) == 40 + 8 + 1, "only what ran there ran again, and what failed"
        again = {number for number, count in twice.items() if count == 2} - {30}
        assert again == {number for name, number in scene.began if name == "b"} - {30}
        assert all(scene.deliveries[number] == [1, 2] for number in again)
        completed = [
            entry.event_type for entry in await scene.hosts[owner].client.get_history(instance)
        ].count("TaskCompleted")
        assert completed == 40


async def test_the_next_owner_leaves_to_the_queue_what_is_in_it() -> None:
    async with world() as scene:
        await scene.start("a")
        await scene.start("b")
        await scene.fair("a", "b")
        instance, owner = scene.owner()
        await scene.hosts[owner].client.start("fan", 40, instance_id=instance)
        await eventually(lambda: len(scene.began) == 16)
        of_b = [number for name, number in scene.began if name == "b"]
        await scene.deployment.crash(scene.hosts[owner])
        b = scene.hosts["b"]
        await eventually(lambda: len(b.engine.partitions) == PARTITIONS)
        scene.gate.set()
        assert (await b.client.wait_for_completion(instance, timeout=30)).output == list(range(40))
        counts = Counter(number for _, number in scene.began)
        assert all(counts[number] == 1 for number in of_b), "what b had claimed went on"
        assert sum(counts.values()) == 40 + 8 + 1


async def test_a_partition_that_is_loaded_anew_leaves_to_its_host_what_that_runs() -> None:
    async with world() as scene:
        await scene.start("a")
        await scene.start("b")
        await scene.fair("a", "b")
        instance, owner = scene.owner()
        engine = scene.hosts[owner].engine
        handle = await scene.hosts[owner].client.start("fan", 29, instance_id=instance)
        await eventually(lambda: len(scene.began) == 16)
        before = next(part for part in engine.partitions if instance in part.residents)
        engine.reload_partition("a test asks for it", scene.shared.hub.partition_of(instance))
        await eventually(
            lambda: any(instance in part.residents for part in engine.partitions if part is not before)
        )
        scene.gate.set()
        assert await handle.result(timeout=30) == list(range(29))
        offered = [row for batch in engine.store.commits for row in batch.tasks_offered]  # type: ignore[attr-defined]
        assert len(offered) == 29 - 8 - 4
        assert len(scene.began) == 29


async def test_a_result_that_did_not_come_by_the_row_of_its_attempt_takes_that_away() -> None:
    async with world() as scene:
        a = await scene.start("a", knows="fan")
        await scene.start("b", knows="other")
        await scene.fair("a", "b")
        instance, _ = scene.owner()
        handle = await a.client.start("fan", 1, instance_id=instance)
        await eventually(lambda: scene.queued == 1)
        (task,) = scene.shared.hub.tasks.values()
        call = call_in(task.row)
        a.engine._activity_done(instance, ActivityDone(call.execution_id, call.seq, call.attempt, b"7"))
        assert await handle.result(timeout=30) == [7]
        assert scene.queued == 0


async def test_what_is_told_in_the_inbox_is_not_started_and_what_is_told_of_an_older_attempt_is() -> None:
    async with world() as scene:
        a = await scene.start("a")
        await a.client.start("fan", 3, instance_id="i")
        await eventually(lambda: len(scene.began) == 3)
        resident = next(part.residents["i"] for part in a.engine.partitions if "i" in part.residents)
        assert resident.state.started is not None
        execution = resident.state.started.execution_id
        numbers = {action.seq: number for number, action in enumerate(resident.state.open.values())}
        lost, older, running = numbers
        await scene.deployment.crash(a)
        told = [AttemptLost(execution, lost, 1, 9), ActivityDone(execution, older, 0, b"")]
        scene.shared.hub.post([InboxRow(f"~{body.seq}", "i", 1, encode_body(body)) for body in told])
        b = await scene.start("b")
        await eventually(lambda: len(scene.began) == 5)

        async def parked() -> Any:
            return (await b.client.query_parked()).items

        await eventually(parked)
        assert sorted(scene.began[3:]) == [("b", numbers[older]), ("b", numbers[running])]


async def test_a_host_that_stops_gives_back_what_it_has_claimed() -> None:
    async with world() as scene:
        await scene.start("a")
        b = await scene.start("b")
        await scene.fair("a", "b")
        instance, owner = scene.owner()
        handle = await scene.hosts[owner].client.start("fan", 40, instance_id=instance)
        await eventually(lambda: len(scene.began) == 16)
        await scene.deployment.stop(b)
        tasks = scene.shared.hub.tasks.values()
        assert all(not task.claimer and not task.deliveries for task in tasks), (
            "at once, not when they run out"
        )
        scene.gate.set()
        assert await handle.result(timeout=30) == list(range(40))
        assert all(scene.deliveries[number] == [1, 1] for name, number in scene.began if name == "b")


async def test_what_kills_each_host_that_claims_it_is_parked_and_can_be_redriven() -> None:
    async with world() as scene:
        scene.gate.set()
        a = await scene.start("a", knows="fan", max_deliveries=2)
        await scene.start("other", knows="none")
        await scene.fair("a", "other")
        instance, _ = scene.owner()
        scene.gate.clear()
        await a.client.start("fan", 1, instance_id=instance)
        for number in range(2):
            killed = await scene.start(f"b{number}", knows="work")
            await eventually(lambda: len(scene.began) == number + 1)  # noqa: B023 - of this round
            await scene.deployment.crash(killed)
        await scene.start("c", knows="work", max_deliveries=2)

        async def parked() -> Any:
            return (await a.client.query_parked()).items

        (found,) = await eventually(parked, "it is parked")
        assert scene.deliveries[0] == [1, 2]
        assert "activity 'work' (#0) was running each of the 2 times" in found.cause
        scene.gate.set()
        await a.client.redrive(instance)
        assert (await a.client.wait_for_completion(instance, timeout=30)).output == [0]
        assert [name for name, _ in scene.began] == ["b0", "b1", "c"]


async def test_a_function_with_a_limit_of_its_own_shares_what_has_to_wait_for_long() -> None:
    async with world() as scene:
        apps: list[App] = []
        ran: Counter[int] = Counter()
        for number in range(2):
            app = App()

            @app.activity(max_concurrent=1)
            async def one(at: int, number: int = number) -> int:
                ran[number] += 1
                await asyncio.sleep(0.002)
                return at

            @app.orchestrator
            async def many(ctx: OrchestrationContext, count: int) -> list[int]:
                return await asyncio.gather(*(ctx.call_activity("one", at) for at in range(count)))

            apps.append(app)
        options = EngineOptions(inbox_poll_s=0.02, lease_s=LEASE_US / 1e6)
        for name, app in zip("ab", apps, strict=True):
            scene.hosts[name] = await scene.deployment.start(app, options=options)
        await scene.fair("a", "b")
        instance, owner = scene.owner()
        handle = await scene.hosts[owner].client.start("many", 40, instance_id=instance)
        assert await handle.result(timeout=30) == list(range(40))
        assert min(ran.values()) >= 12


async def test_activities_in_threads_are_spread_and_those_that_wait_for_one_in_vain_go_back() -> None:
    async with world() as scene:
        ran: Counter[str] = Counter()
        gates = {"a": threading.Event(), "b": threading.Event()}
        for name in "ab":
            app = App()

            @app.activity
            def block(at: int, name: str = name) -> int:
                ran[name] += 1
                gates[name].wait(30)
                return at

            @app.orchestrator
            async def many(ctx: OrchestrationContext, count: int) -> list[int]:
                return await asyncio.gather(*(ctx.call_activity("block", at) for at in range(count)))

            options = EngineOptions(
                inbox_poll_s=0.02, lease_s=LEASE_US / 1e6, activity_threads=2, drain_timeout_s=0.01
            )
            scene.hosts[name] = await scene.deployment.start(app, options=options)
        await scene.fair("a", "b")
        instance, owner = scene.owner()
        handle = await scene.hosts[owner].client.start("many", 24, instance_id=instance)
        await eventually(lambda: ran == {"a": 2, "b": 2})
        assert scene.queued == 20, "two run and two wait where they were scheduled"
        gates["b"].set()  # what a has claimed in vain, as its threads are busy, comes to b in the end
        await eventually(lambda: ran == {"a": 2, "b": 20})
        gates["a"].set()
        assert await handle.result(timeout=30) == list(range(24))
        assert ran == {"a": 4, "b": 20}


async def test_a_store_that_fails_costs_time_and_no_result() -> None:
    async with world() as scene:
        scene.gate.set()
        await scene.start("a", knows="fan")
        b = await scene.start("b", knows="fan work")
        await scene.fair("a", "b")
        queue = b.engine.store.tasks
        assert queue is not None
        failures = Counter({"claim": 2, "before": 2, "after": 2})
        claim, finish = queue.claim, queue.finish

        async def claim_in_vain(*given: Any) -> list[Claim]:
            if failures["claim"]:
                failures["claim"] -= 1
                raise StoreUnavailableError("the server is away")
            return await claim(*given)

        async def finish_in_doubt(results: Sequence[TaskResult]) -> list[bool]:
            if failures["before"]:
                failures["before"] -= 1
                raise StoreUnavailableError("the server is away")
            done = await finish(results)
            if failures["after"]:
                failures["after"] -= 1
                raise StoreUnavailableError("its answer was lost")
            return done

        queue.claim, queue.finish = claim_in_vain, finish_in_doubt  # type: ignore[method-assign]
        instance, owner = scene.owner()
        handle = await scene.hosts[owner].client.start("fan", 20, instance_id=instance)
        assert await handle.result(timeout=30) == list(range(20))
        assert not failures.total()
        assert len(scene.began) == 20
        assert scene.queued == 0


async def test_a_suspect_that_its_owner_does_not_know_goes_to_a_host_that_does() -> None:
    async with world() as scene:
        a = await scene.start("a")
        await a.client.start("fan", 1, instance_id="i")
        await eventually(lambda: len(scene.began) == 1)
        await scene.deployment.crash(a)
        scene.gate.set()
        b = await scene.start("b", knows="fan")
        await eventually(lambda: scene.queued == 1)
        assert b.engine.pool.waiting() == (0, None)
        assert len(b.engine.pool) == 0
        await scene.start("c", knows="work")
        assert (await b.client.wait_for_completion("i", timeout=30)).output == [0]
        assert scene.began == [("a", 0), ("c", 0)]
        assert scene.deliveries == {0: [1, 2]}


async def test_what_a_host_cannot_read_is_left_to_those_who_can() -> None:
    async with world() as scene:
        await scene.start("a", knows="fan")
        b = await scene.start("b", knows="fan work")
        await scene.fair("a", "b")
        queue = b.engine.store.tasks
        assert queue is not None
        claim, claimed = queue.claim, Counter[int]()

        async def claim_in_vain(*given: Any) -> list[Claim]:
            claims = await claim(*given)
            claimed[bool(claims)] += 1
            return [
                one._replace(row=one.row._replace(body=Unreadable(b"?", "its key is missing")))
                for one in claims
            ]

        queue.claim = claim_in_vain  # type: ignore[method-assign]
        instance, owner = scene.owner()
        handle = await scene.hosts[owner].client.start("fan", 100, instance_id=instance)
        await eventually(lambda: claimed[True] > 1)
        await asyncio.sleep(0.05)
        tasks = scene.shared.hub.tasks.values()
        await eventually(
            lambda: not any(task.claimer or task.deliveries for task in tasks), "it is given back"
        )
        scene.gate.set()
        await scene.start("c", knows="work")
        assert await handle.result(timeout=30) == list(range(100))
        assert scene.ran() == {"c": 101}
        assert set(map(tuple, scene.deliveries.values())) == {(1,), (1, 1)}


async def test_a_result_whose_failure_is_refused_too_stays_claimed_and_is_the_only_one() -> None:
    async with world() as scene:
        scene.gate.set()
        await scene.start("a", knows="fan")
        b = await scene.start("b", knows="fan work")
        await scene.fair("a", "b")
        queue = b.engine.store.tasks
        assert queue is not None
        finish, refused = queue.finish, list[int]()

        async def refuse(results: Sequence[TaskResult]) -> list[bool]:
            if any(call_in(result.claim.row).seq == first for result in results):
                refused.append(len(results))
                raise StoreRefusedError("no store takes anything of it")
            return await finish(results)

        instance, owner = scene.owner()
        first = 0
        queue.finish = refuse  # type: ignore[method-assign]
        await scene.hosts[owner].client.start("fan", 5, instance_id=instance)
        await eventually(lambda: scene.queued == 1 and refused.count(1) == 2)
        await asyncio.sleep(0.15)
        (left,) = scene.shared.hub.tasks.values()
        assert left.claimer
        assert refused.count(1) == 2, "its result, and its failure"
        assert len(scene.began) == 5


async def test_what_was_claimed_in_vain_goes_back_and_what_runs_is_not_claimed_again_by_its_host() -> None:
    async with world() as scene:
        await scene.start("a", knows="fan")
        b = await scene.start("b", knows="fan work")
        await scene.fair("a", "b")
        queue = b.engine.store.tasks
        assert queue is not None
        lost: list[Claim] = []
        claim = queue.claim

        async def claim_in_doubt(*given: Any) -> list[Claim]:
            claims = await claim(*given)
            if claims and not lost:
                lost.extend(claims)
                raise StoreUnavailableError("its answer was lost")
            return claims

        queue.claim = claim_in_doubt  # type: ignore[method-assign]
        instance, owner = scene.owner()
        handle = await scene.hosts[owner].client.start("fan", 8, instance_id=instance)
        await eventually(lambda: len(scene.began) == 8)
        assert lost
        for _ in range(3):  # nobody could renew them in time
            for task in scene.shared.hub.tasks.values():
                task.until = 0
            await asyncio.sleep(0.05)
        assert (len(scene.began), scene.cancelled) == (8, [])
        scene.gate.set()
        assert await handle.result(timeout=30) == list(range(8))
        assert set(map(tuple, scene.deliveries.values())) == {(1,)}


async def test_what_was_claimed_so_long_ago_that_others_have_it_is_not_begun() -> None:
    async with world() as scene:
        await scene.start("a", knows="fan")
        b = await scene.start("b", knows="fan work")
        await scene.fair("a", "b")
        queue = b.engine.store.tasks
        assert queue is not None
        late: list[Claim] = []
        answered = asyncio.Event()
        claim = queue.claim

        async def claim_late(*given: Any) -> list[Claim]:
            claims = await claim(*given)
            if claims and not late:
                late.extend(claims)
                for task in scene.shared.hub.tasks.values():  # nobody could renew them in time
                    task.until = 0
                await asyncio.sleep(2 * LEASE_US / 1e6)
                answered.set()
            return claims

        queue.claim = claim_late  # type: ignore[method-assign]
        instance, owner = scene.owner()
        handle = await scene.hosts[owner].client.start("fan", 8, instance_id=instance)
        await eventually(lambda: late)
        await scene.start("c", knows="work")
        scene.gate.set()
        assert await handle.result(timeout=30) == list(range(8))
        await answered.wait()
        await asyncio.sleep(0.05)
        assert Counter(number for _, number in scene.began) == dict.fromkeys(range(8), 1)


async def test_a_result_that_the_store_never_takes_is_a_failure_of_its_activity_alone() -> None:
    async with world() as scene:
        scene.gate.set()
        await scene.start("a", knows="fan")
        b = await scene.start("b", knows="fan work")
        await scene.fair("a", "b")
        queue = b.engine.store.tasks
        assert queue is not None
        finish = queue.finish

        async def refuse(results: Sequence[TaskResult]) -> list[bool]:
            if any(result.message.body.endswith(b"\xc4\x017\xc0") for result in results):
                raise StoreRefusedError("no store takes a seven")
            return await finish(results)

        queue.finish = refuse  # type: ignore[method-assign]
        instance, owner = scene.owner()
        client = scene.hosts[owner].client
        await client.start("fan", 12, instance_id=instance)
        status = await reaches(scene.hosts[owner], instance, "Failed")
        assert status.failure is not None
        assert "no store takes a seven" in status.failure.message
        assert scene.queued == 0


async def test_a_batch_that_lands_behind_the_end_of_its_partition_object_takes_nothing_from_others() -> None:
    async with world() as scene:
        engine = (await scene.start("a")).engine
        room = engine._keeps
        assert room is not None
        spread, late, kept = Spread(room, engine.pool), Gathering(), Counter({"work": 1})
        late.expected = kept
        spread._expected.append(kept)
        room.expect(kept)
        room.expect(Counter({"work": 1}))  # of another partition
        spread.close()
        spread.landed(late)
        assert room.held == 1
