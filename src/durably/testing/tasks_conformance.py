"""Conformance: the queue of activities that all hosts of a hub share. Only where hubs are shared."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import pytest

from durably.core.commit import Batch, TaskRow
from durably.errors import LeaseLostError
from durably.storage.api import HostReport, Store
from durably.storage.shared_tasks import Claim, SharedTasks, TaskResult
from durably.testing.partition_conformance import PARTITIONS, Owned
from durably.testing.store_scene import FOREVER, WAIT_S, StoreHooks, message

ROOMS = (512, 64, 8, 1)


class Queue(Owned):
    """A hub of several partitions with a queue, whose owner also runs activities, and another host."""

    def __init__(self, hooks: StoreHooks, store: Store, other: Store) -> None:
        super().__init__(hooks, store)
        self.other = other
        self._number: Counter[int] = Counter()

    @property
    def mine(self) -> SharedTasks:
        """The queue, as the owner sees it."""
        return _queue_of(self.store)

    @property
    def theirs(self) -> SharedTasks:
        """The queue, as the other host sees it."""
        return _queue_of(self.other)

    async def commit(self, number: int = 0, **fields: Any) -> None:
        """Commit the next batch of a partition."""
        self._number[number] += 1
        await self.store.commit(self.leases[number], Batch(self._number[number], **fields))

    def task(self, task_id: str, name: str = "work", *, number: int = 0, at: int = 0) -> TaskRow:
        """An attempt of an instance of a partition."""
        return TaskRow(task_id, self.ids[number], name, at, b"call of " + task_id.encode())

    async def offer(self, *task_ids: str, name: str = "work", number: int = 0) -> None:
        """Offer attempts."""
        await self.commit(
            number, tasks_offered=[self.task(task_id, name, number=number) for task_id in task_ids]
        )

    async def left(self, number: int = 0) -> frozenset[str]:
        """What is in the queue of a partition."""
        return (await self.store.load(self.leases[number], FOREVER)).tasks


def _queue_of(store: Store) -> SharedTasks:
    assert store.tasks is not None
    return store.tasks


Self = TypeVar("Self", bound=StoreHooks)


def queued(test: Callable[[Self, Queue], Coroutine[Any, Any, None]]) -> Callable[[Self], None]:
    """Make a plain test of a coroutine, with a fresh hub that several hosts share."""

    async def play(hooks: Self) -> None:
        store = await hooks.make_of(PARTITIONS)
        await store.open()
        other = await hooks.reopen(store)
        await other.open()
        await store.survey(HostReport("owner", "1"))
        await other.survey(HostReport("other", "1"))
        queue = Queue(hooks, store, other)
        try:
            await queue.own()
            await test(hooks, queue)
        finally:
            await other.close()
            await store.delete()

    def run(hooks: Self) -> None:
        asyncio.run(play(hooks))

    run.__name__, run.__qualname__, run.__doc__ = test.__name__, test.__qualname__, test.__doc__
    run.__module__ = test.__module__
    return run


def results(claims: Sequence[Claim]) -> list[TaskResult]:
    """An outcome for each."""
    return [
        TaskResult(claim, message(f"~{claim.row.task_id}", claim.row.instance_id, 7, b"done"))
        for claim in claims
    ]


def ids(claims: Sequence[Claim]) -> list[str]:
    """Which attempts they are."""
    return sorted(claim.row.task_id for claim in claims)


class TasksConformance(StoreHooks):
    """Offered, claimed, finished; withdrawn, given back, run out."""

    @queued
    async def test_what_is_offered_is_claimed_by_one_and_finished_into_the_inbox(self, queue: Queue) -> None:
        await queue.offer("a", "b", "c")
        await queue.offer("d", number=2)
        assert await queue.left() == {"a", "b", "c"}
        load = await queue.store.workload()
        assert (load.tasks, load.oldest_task_at) == (4, 0)
        first = await queue.theirs.claim({"work": 2}, 10)
        rest = await queue.mine.claim({"work": 10}, 10)
        assert len(first) == 2
        assert ids([*first, *rest]) == ["a", "b", "c", "d"]
        assert await queue.theirs.claim({"work": 10}, 10) == []
        load = await queue.store.workload()
        assert (load.tasks, load.oldest_task_at) == (0, None)
        (claim,) = [claim for claim in rest if claim.row.task_id == "d"]
        assert (claim.row, claim.delivery) == (queue.task("d", number=2), 1)
        assert await queue.left() == {"a", "b", "c"}, "claimed is still in the queue"
        assert await queue.mine.finish(results(rest)) == [True] * len(rest)
        assert await queue.theirs.finish(results(first)) == [True, True]
        assert sorted(await queue.inbox(0)) == ["~a", "~b", "~c"]
        (row,) = await queue.store.read_inbox(queue.leases[2])
        assert (row.message_id, row.instance_id, row.at, row.body) == ("~d", queue.ids[2], 7, b"done")
        assert await queue.left() == frozenset()
        assert await queue.left(2) == frozenset()

    @queued
    async def test_what_is_offered_twice_in_a_batch_is_in_the_queue_once(self, queue: Queue) -> None:
        await queue.offer("a", "b", "a")
        assert await queue.left() == {"a", "b"}

    @queued
    async def test_a_second_finish_does_nothing(self, queue: Queue) -> None:
        await queue.offer("a", "b")
        claims = await queue.theirs.claim({"work": 9}, 9)
        assert await queue.theirs.finish(results(claims[:1])) == [True]
        assert await queue.theirs.finish(results(claims)) == [False, True]
        assert len(await queue.inbox(0)) == 2
        assert await queue.theirs.finish([]) == []

    @queued
    async def test_only_what_is_wanted_is_claimed(self, queue: Queue) -> None:
        await queue.offer("a1", "a2", "a3", name="a")
        await queue.offer("b1", "b2", name="b")
        await queue.offer("c1", name="c")
        assert await queue.mine.claim({}, 5) == []
        found = await queue.mine.claim({"b": 1, "a": 2, "d": 7}, 5)
        assert Counter(claim.row.name for claim in found) == {"a": 2, "b": 1}
        assert len(await queue.mine.claim({"a": 5, "b": 5}, 1)) == 1
        assert len(await queue.mine.claim({"a": 5, "b": 5}, 0)) == 0
        assert ids(await queue.mine.claim({"a": 5, "b": 5, "c": 0}, 5)) in (
            ["a3"],
            ["b1"],
            ["b2"],
            ["a1"],
            ["a2"],
        )
        assert ids(await queue.theirs.claim({"c": 5}, 5)) == ["c1"]

    @queued
    async def test_an_offer_is_fenced_and_undone_with_its_batch(self, queue: Queue) -> None:
        stale = queue.leases[1]
        queue.leases[1] = await queue.store.acquire(1, "again")
        with pytest.raises(LeaseLostError):
            await queue.store.commit(stale, Batch(1, tasks_offered=[queue.task("a", number=1)]))
        assert await queue.left(1) == frozenset()
        await queue.offer("a", number=1)
        batch = Batch(2, tasks_withdrawn=["a"], tasks_offered=[queue.task("b", number=1)])
        with pytest.raises(LeaseLostError):
            await queue.store.commit(stale, batch)
        assert await queue.left(1) == {"a"}
        await queue.store.commit(queue.leases[1], batch)
        await queue.store.commit(queue.leases[1], batch)  # as one whose answer was lost
        assert await queue.left(1) == {"b"}

    @queued
    async def test_what_is_withdrawn_is_never_finished(self, queue: Queue) -> None:
        await queue.offer("a", "b", "c")
        claims = await queue.theirs.claim({"work": 2}, 2)
        await queue.commit(tasks_withdrawn=["a", "b", "c", "unknown"])
        assert ids(await queue.theirs.lost(claims)) == ids(claims)
        assert await queue.theirs.finish(results(claims)) == [False, False]
        await queue.theirs.give_back(claims)
        assert await queue.left() == frozenset()
        assert await queue.inbox(0) == []

    @queued
    async def test_what_is_given_back_is_as_if_it_had_not_been_claimed(self, queue: Queue) -> None:
        await queue.offer("a", "b")
        claims = await queue.theirs.claim({"work": 2}, 2)
        assert await queue.theirs.lost(claims) == []
        assert ids(await queue.mine.lost(claims)) == ["a", "b"], "it is not mine"
        await queue.mine.give_back(claims)
        assert await queue.mine.claim({"work": 2}, 2) == []
        await queue.theirs.give_back(claims[:1])
        (again,) = await queue.mine.claim({"work": 2}, 2)
        assert (again.row, again.delivery) == (claims[0].row, 1)
        assert again.token != claims[0].token
        assert await queue.theirs.finish(results(claims)) == [False, True]

    @queued
    async def test_what_a_host_has_claimed_and_does_not_know_of_goes_back(self, queue: Queue) -> None:
        await queue.offer("a", "b", "c")
        (kept,) = await queue.theirs.claim({"work": 1}, 1)
        await queue.theirs.claim({"work": 1}, 1)
        (mine,) = await queue.mine.claim({"work": 1}, 1)
        assert await queue.theirs.keep_only([kept, mine]) == 1
        assert await queue.theirs.keep_only([kept]) == 0
        (again,) = await queue.mine.claim({"work": 9}, 9)
        assert again.delivery == 1
        assert await queue.theirs.lost([kept]) == await queue.mine.lost([mine, again]) == []
        assert await queue.theirs.keep_only([kept._replace(token=kept.token - 1)]) == 1, (
            "an older claim of it"
        )
        assert await queue.theirs.keep_only([]) == 0

    @queued
    async def test_a_claim_of_a_dead_host_runs_out_and_is_counted(self, queue: Queue) -> None:
        await queue.offer("a", "b", "c")
        await queue.theirs.claim({"work": 2}, 2)
        await self.crash(queue.other)
        await queue.own()  # memory has one clock for all leases
        assert len(await queue.mine.claim({"work": 9}, 9)) == 1
        assert await queue.mine.claim({"work": 9}, 9) == [], "a process may have died of them"
        assert await queue.mine.claim_interrupted(["another"], ROOMS) == []
        (first,) = await queue.mine.claim_interrupted(["work"], [1])
        (second,) = await queue.mine.claim_interrupted(["another", "work"], [1])
        assert (first.delivery, second.delivery) == (2, 2)
        assert await queue.mine.claim_interrupted(["work"], ROOMS) == []
        await queue.mine.give_back([first])
        await queue.mine.give_back([second])
        assert len(await queue.mine.claim_interrupted(["work"], ROOMS)) == 2, "at once, and counted as before"
        (instance, *_) = await queue.mine.of_instance(queue.ids[0])
        assert instance.name == "work"

    @queued
    async def test_those_that_were_interrupted_most_often_come_alone(self, queue: Queue) -> None:
        await queue.offer("a", "b", "c")
        store = queue.other
        for count in (1, 2):
            if count == 1:
                await _queue_of(store).claim({"work": 1}, 1)
            else:
                (claim,) = await _queue_of(store).claim_interrupted(["work"], ROOMS)
                assert claim.delivery == 2
            await self.crash(store)
            store = await self.reopen(queue.store)
            await store.open()
        await _queue_of(store).claim({"work": 1}, 1)
        await self.crash(store)
        (worst,) = await queue.mine.claim_interrupted(["work"], ROOMS)
        assert worst.delivery == 3
        (next_one,) = await queue.mine.claim_interrupted(["work"], ROOMS)
        assert next_one.delivery == 2

    @queued
    async def test_a_host_that_closes_gives_its_claims_back(self, queue: Queue) -> None:
        await queue.offer("a")
        assert len(await queue.theirs.claim({"work": 1}, 1)) == 1
        (seen,) = await queue.mine.of_instance(queue.ids[0])
        other = next(host for host in (await queue.store.survey()).hosts if not host.is_me)
        assert (seen.task_id, seen.name, seen.host_id) == ("a", "work", other.host_id)
        await queue.other.close()
        (seen,) = await queue.mine.of_instance(queue.ids[0])
        assert seen.host_id is None
        (claim,) = await queue.mine.claim({"work": 1}, 1)
        assert claim.delivery == 1
        assert await queue.mine.of_instance(queue.ids[1]) == []

    @queued
    async def test_others_are_told_of_offers_and_of_what_is_withdrawn(self, queue: Queue) -> None:
        if not queue.hooks.tells:
            return
        offered, withdrawn = asyncio.Event(), asyncio.Event()
        queue.other.on_arrival(lambda: None)
        queue.theirs.on_change(offered=offered.set, withdrawn=withdrawn.set)
        async with asyncio.timeout(WAIT_S):
            while not queue.other.listening:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.02)
        await asyncio.sleep(0)  # whoever begins to listen is told to look
        offered.clear()
        withdrawn.clear()
        await queue.offer("a")
        await asyncio.wait_for(offered.wait(), WAIT_S)
        assert not withdrawn.is_set()
        await queue.commit(tasks_withdrawn=["a"])
        await asyncio.wait_for(withdrawn.wait(), WAIT_S)
