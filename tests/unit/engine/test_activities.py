"""The activity pool: limits, fairness, aborts, and results that are kept until they are durable."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from durably.core.events import TaskScheduled
from durably.core.messages import ActivityDone
from durably.engine.activities import ActivityPool
from durably.engine.company import Company
from durably.engine.executor import ActivityCall
from tests.support.clock import ManualClock
from tests.support.waiting import eventually


class Bench:
    """A pool whose activities run until the test lets them go. Implements the part of `Executor` that a pool uses."""

    def __init__(
        self,
        clock: ManualClock,
        limit: int = 10,
        limits: dict[str, int] | None = None,
        time_limit_s: float = 0.0,
    ) -> None:
        self.pool = ActivityPool(  # type: ignore[arg-type]
            self, clock, limit, self._deliver, company=Company(5), time_limit_s=time_limit_s
        )
        self.calls: list[ActivityCall] = []
        self.running: list[str] = []
        self.done: list[tuple[str, ActivityDone]] = []
        self.cancelled: list[int] = []
        self.most = 0
        self.at_once = False
        self._limits = limits or {}
        self._gates: dict[int, asyncio.Event] = {}
        self._seq = 0

    def _deliver(self, instance_id: str, done: ActivityDone) -> None:
        self.done.append((instance_id, done))

    def concurrency(self, name: str) -> int | None:
        return self._limits.get(name)

    async def perform(self, call: ActivityCall) -> ActivityDone:
        self.calls.append(call)
        self.running.append(call.name)
        self.most = max(self.most, len(self.running))
        try:
            if not self.at_once:
                await self.gate(call.seq).wait()
            if call.name == "broken":
                raise RuntimeError("a bug of the executor")
        except asyncio.CancelledError:
            self.cancelled.append(call.seq)
            if call.name != "deaf":
                raise
            await self.gate(call.seq).wait()
        finally:
            self.running.remove(call.name)
        return ActivityDone(call.execution_id, call.seq, call.attempt, b"%d" % call.seq)

    def on_loop(self, name: str) -> bool:
        return name != "plain"

    def elsewhere(self, kind: str, name: str) -> bool:
        return name.startswith("far")

    def gate(self, seq: int) -> asyncio.Event:
        return self._gates.setdefault(seq, asyncio.Event())

    def start(self, name: str = "work", attempt: int = 1, seq: int | None = None, **more: Any) -> None:
        if seq is None:
            seq, self._seq = self._seq, self._seq + 1
        self.pool.start("i", "e", TaskScheduled(seq, name, None), attempt, **more)

    async def settled(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)

    async def let_go(self, *seqs: int) -> None:
        for seq in seqs:
            self.gate(seq).set()
        await self.settled()

    def names(self) -> Sequence[str]:
        return [call.name for call in self.calls]


@pytest.fixture
def bench(clock: ManualClock) -> Bench:
    return Bench(clock)


async def test_a_result_is_delivered_to_its_instance(bench: Bench) -> None:
    bench.start()
    await bench.let_go(0)
    assert bench.done == [("i", ActivityDone("e", 0, 1, b"0"))]


async def test_no_more_run_at_once_than_the_host_allows(clock: ManualClock) -> None:
    bench = Bench(clock, limit=3)
    for _ in range(10):
        bench.start()
    await bench.settled()
    assert len(bench.running) == 3
    for seq in range(10):
        await bench.let_go(seq)
    assert len(bench.done) == 10
    assert bench.most == 3


async def test_no_more_of_a_function_run_at_once_than_it_allows(clock: ManualClock) -> None:
    bench = Bench(clock, limits={"narrow": 2})
    for _ in range(6):
        bench.start("narrow")
    bench.start("wide")
    await bench.settled()
    assert sorted(bench.running) == ["narrow", "narrow", "wide"]
    for seq in range(7):
        await bench.let_go(seq)
    assert len(bench.done) == 7
    assert bench.names().count("narrow") == 6


async def test_those_of_a_function_run_in_the_order_of_their_calls(clock: ManualClock) -> None:
    bench = Bench(clock, limit=1)
    for _ in range(5):
        bench.start()
    for seq in range(5):
        await bench.let_go(seq)
    assert [call.seq for call in bench.calls] == [0, 1, 2, 3, 4]


async def test_a_flood_of_one_function_does_not_starve_another(clock: ManualClock) -> None:
    bench = Bench(clock, limit=1)
    for _ in range(20):
        bench.start("flood")
    bench.start("rare")
    for seq in range(3):
        await bench.let_go(seq)
    assert "rare" in bench.names()[:4]
    for seq in range(21):
        await bench.let_go(seq)
    await eventually(lambda: len(bench.done) == 21)


async def test_a_limited_function_that_waits_holds_up_nobody(clock: ManualClock) -> None:
    bench = Bench(clock, limit=2, limits={"narrow": 1})
    bench.start("narrow")
    for _ in range(5):
        bench.start("narrow")
    bench.start("wide")
    await bench.settled()
    assert sorted(bench.running) == ["narrow", "wide"]


async def test_an_attempt_that_is_held_is_not_started_again(bench: Bench) -> None:
    bench.start(seq=0)
    await bench.settled()
    bench.start(seq=0, delivery=2)
    await bench.let_go(0)
    assert len(bench.calls) == 1


async def test_a_result_is_kept_until_it_is_settled(bench: Bench) -> None:
    bench.start(seq=0)
    await bench.let_go(0)
    assert len(bench.pool) == 1
    bench.start(seq=0, delivery=2)
    assert bench.pool.results() == [("i", ActivityDone("e", 0, 1, b"0"))]
    assert len(bench.calls) == 1
    bench.pool.settle(("e", 0), 1)
    assert len(bench.pool) == 0
    bench.pool.settle(("e", 0), 1)


async def test_settling_another_attempt_or_one_that_runs_forgets_nothing(bench: Bench) -> None:
    bench.start(seq=0, attempt=2)
    await bench.settled()
    bench.pool.settle(("e", 0), 1)
    bench.pool.settle(("e", 0), 2)
    assert len(bench.pool) == 1
    await bench.let_go(0)
    bench.pool.settle(("e", 0), 1)
    assert len(bench.pool) == 1


async def test_the_next_attempt_takes_the_place_of_one_that_still_runs(bench: Bench) -> None:
    bench.start(seq=0, attempt=1)
    await bench.settled()
    bench.start(seq=0, attempt=2)
    await bench.settled()
    assert bench.cancelled == [0]
    await bench.let_go(0)
    assert [done.attempt for _, done in bench.done] == [2]


async def test_a_redelivery_says_so(bench: Bench) -> None:
    bench.start()
    bench.start(delivery=2)
    await bench.settled()
    assert [call.delivery for call in bench.calls] == [1, 2]


async def test_an_aborted_attempt_is_cancelled_and_its_result_dropped(bench: Bench) -> None:
    bench.start(seq=0)
    await bench.settled()
    bench.pool.abort("e", 0)
    await bench.settled()
    assert (bench.cancelled, bench.done, len(bench.pool)) == ([0], [], 0)


async def test_an_aborted_attempt_that_ends_anyway_tells_nobody(clock: ManualClock) -> None:
    bench = Bench(clock)
    bench.start(seq=0)
    await bench.settled()
    bench.gate(0).set()
    bench.pool.abort("e", 0)
    await bench.settled()
    assert bench.done == []


async def test_an_aborted_attempt_gives_its_slot_to_the_next_one(clock: ManualClock) -> None:
    bench = Bench(clock, limit=1, limits={"work": 1})
    bench.start()
    bench.start()
    await bench.settled()
    bench.pool.abort("e", 0)
    await bench.let_go(1)
    assert [done.seq for _, done in bench.done] == [1]


async def test_an_attempt_that_is_aborted_before_it_began_gives_its_slot_back(clock: ManualClock) -> None:
    bench = Bench(clock, limit=1, limits={"work": 1})
    bench.start(seq=0)
    bench.pool.abort("e", 0)  # in the same turn of the loop
    bench.start(seq=1)
    await bench.let_go(0, 1)
    assert [done.seq for _, done in bench.done] == [1]


async def test_a_queued_attempt_that_is_aborted_never_runs(clock: ManualClock) -> None:
    bench = Bench(clock, limit=1)
    for _ in range(3):
        bench.start()
    bench.pool.abort("e", 1)
    await bench.let_go(0, 1, 2)
    assert [call.seq for call in bench.calls] == [0, 2]
    assert sorted(done.seq for _, done in bench.done) == [0, 2]


async def test_aborting_what_is_not_held_is_nothing(bench: Bench) -> None:
    bench.pool.abort("e", 7)


async def test_a_bug_of_the_executor_fails_the_attempt_and_not_the_pool(bench: Bench) -> None:
    bench.start("broken")
    await bench.let_go(0)
    ((_, done),) = bench.done
    assert done.failure is not None
    assert (done.failure.type, done.failure.message) == ("RuntimeError", "a bug of the executor")


async def test_five_thousand_queued_attempts_that_end_at_once_do_not_grow_the_stack(
    clock: ManualClock,
) -> None:
    bench = Bench(clock, limit=2)
    bench.start("gate")
    bench.start("gate")
    for _ in range(5_000):
        bench.start("work")
    await bench.settled()
    bench.at_once = True
    await bench.let_go(0, 1)
    await eventually(lambda: len(bench.done) == 5_002)
    assert [call.seq for call in bench.calls] == list(range(5_002))


async def test_stopping_waits_for_what_runs_and_starts_nothing_more(clock: ManualClock) -> None:
    bench = Bench(clock, limit=1)
    bench.start()
    bench.start()
    await bench.settled()
    stopping = asyncio.create_task(bench.pool.stop(10))
    await bench.settled()
    assert not stopping.done()
    await bench.let_go(0, 1)
    await stopping
    assert [done.seq for _, done in bench.done] == [0]
    assert [call.seq for call in bench.calls] == [0]
    bench.start(seq=9)
    await bench.settled()
    assert len(bench.calls) == 1


async def test_stopping_cancels_what_runs_for_too_long_and_drops_its_result(clock: ManualClock) -> None:
    bench = Bench(clock)
    bench.start()
    await bench.settled()
    stopping = asyncio.create_task(bench.pool.stop(10))
    await bench.settled()
    clock.advance(9.9)
    await bench.settled()
    assert not stopping.done()
    clock.advance(0.1)
    await stopping
    assert (bench.cancelled, bench.done) == ([0], [])


async def test_stopping_an_idle_pool_does_not_wait(bench: Bench) -> None:
    await asyncio.wait_for(bench.pool.stop(10), 60)


async def test_stopping_with_no_time_cancels_at_once(bench: Bench) -> None:
    bench.start()
    await bench.settled()
    await asyncio.wait_for(bench.pool.stop(0), 60)
    assert bench.cancelled == [0]


async def test_an_abandoned_pool_forgets_everything(bench: Bench) -> None:
    bench.start()
    await bench.settled()
    bench.pool.abandon()
    await bench.settled()
    assert (bench.cancelled, bench.done, len(bench.pool)) == ([0], [], 0)


# --- a time limit ----------------------------------------------------------------------------------------------------


def failures(bench: Bench) -> list[str]:
    return [done.failure.type for _, done in bench.done if done.failure is not None]


async def test_an_attempt_over_the_limit_fails_at_once_and_once(clock: ManualClock) -> None:
    bench = Bench(clock, limit=1, time_limit_s=5)
    bench.start("deaf")
    bench.start("next")
    await bench.settled()
    clock.advance(5)
    await bench.settled()
    assert (failures(bench), bench.cancelled) == (["FunctionTimeoutError"], [0])
    assert bench.names() == ["deaf"]  # it still has its place
    await bench.let_go(0)
    assert len(bench.done) == 1  # what it returns is dropped
    assert bench.names() == ["deaf", "next"]
    bench.pool.settle(("e", 0), 1)
    assert len(bench.pool) == 1


async def test_an_attempt_within_the_limit_leaves_no_wake_up(clock: ManualClock) -> None:
    bench = Bench(clock, time_limit_s=5)
    bench.start()
    await bench.let_go(0)
    bench.start("durably:queue:orders")
    await bench.settled()
    clock.advance(60)
    await bench.settled()
    assert (failures(bench), bench.cancelled) == ([], [])
    assert [done.result for _, done in bench.done] == [b"0"]


async def test_the_limit_of_a_retry_begins_with_it(clock: ManualClock) -> None:
    bench = Bench(clock, time_limit_s=5)
    bench.start(seq=7)
    await bench.settled()
    clock.advance(5)
    await bench.settled()
    bench.pool.settle(("e", 7), 1)
    bench.start(seq=7, attempt=2)
    await bench.settled()
    clock.advance(4)
    await bench.settled()
    assert len(failures(bench)) == 1
    clock.advance(1)
    await bench.settled()
    assert [(done.attempt, done.failure is not None) for _, done in bench.done] == [(1, True), (2, True)]


async def test_an_attempt_that_waits_for_a_thread_has_not_begun(clock: ManualClock) -> None:
    bench = Bench(clock, time_limit_s=5)
    bench.start("plain")
    await bench.settled()
    clock.advance(60)
    await bench.settled()
    assert failures(bench) == []
    begun = bench.calls[0].begun
    assert begun is not None
    begun()
    clock.advance(4)
    begun()  # once is enough
    clock.advance(0.9)
    await bench.settled()
    assert failures(bench) == []
    clock.advance(0.1)
    await bench.settled()
    assert (failures(bench), bench.cancelled) == (["FunctionTimeoutError"], [0])


async def test_what_begins_after_it_was_given_up_has_no_limit(clock: ManualClock) -> None:
    bench = Bench(clock, time_limit_s=5)
    bench.start("plain", seq=3)
    await bench.settled()
    bench.pool.abort("e", 3)
    begun = bench.calls[0].begun
    assert begun is not None
    begun()
    clock.advance(60)
    await bench.settled()
    assert bench.done == []


async def test_what_runs_elsewhere_takes_no_place_and_is_waited_for_once_a_worker_has_it(
    clock: ManualClock,
) -> None:
    bench = Bench(clock, limit=1)
    for name in ("far", "far", "work"):
        bench.start(name)
    await bench.settled()
    assert sorted(bench.running) == ["far", "far", "work"]
    assert bench.pool.running == 1
    begun = next(call for call in bench.calls if call.seq == 0).begun
    assert begun is not None
    begun()
    await bench.let_go(2)
    leaving = asyncio.create_task(bench.pool.finish(lambda _: True, 100))
    await bench.settled()
    assert bench.cancelled == [1]  # no worker has it: whoever serves its instance then asks for it
    assert not leaving.done()
    await bench.let_go(0)
    await leaving
    assert [done.seq for _, done in bench.done] == [2, 0]


async def test_a_stop_waits_for_what_workers_have_and_for_nothing_else_that_is_elsewhere(
    clock: ManualClock,
) -> None:
    bench = Bench(clock)
    bench.start("far")
    await bench.settled()
    await bench.pool.stop(100)
    assert bench.cancelled == [0]
