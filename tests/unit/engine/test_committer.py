"""The committer: one batch in flight, the next one gathering, and what each kind of failure leads to."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable

import pytest

from durably.core.commit import Batch
from durably.core.events import CustomStatusSet
from durably.core.history import chain, chain_start, decode_rows
from durably.core.messages import RaiseEvent
from durably.core.orchestration import Commit
from durably.engine.committer import Committer, Gathering, Staged
from durably.engine.options import EngineOptions
from durably.engine.residents import Delivery, Resident
from durably.errors import (
    InvariantError,
    LeaseLostError,
    StoreFailedError,
    StoreRefusedError,
    StoreUnavailableError,
)
from durably.storage.api import Lease
from tests.support.clock import ManualClock


class Desk:
    """A committer whose store answers when and as the test says. The store is the one method a committer calls."""

    def __init__(self, clock: ManualClock) -> None:
        self.sent: list[Batch] = []
        self.answers: deque[asyncio.Future[None]] = deque()
        self.released: list[Gathering] = []
        self.lost: list[tuple[Exception, list[Staged]]] = []
        self.kept: list[Delivery] = []
        self.raises: Exception | None = None
        self.clock = clock
        self.committer = Committer(
            self,  # type: ignore[arg-type]
            Lease(0, "test", 1),
            clock,
            EngineOptions(commit_retry_s=1),
            released=self.released.append,
            lost=lambda error, staged: self.lost.append((error, staged)),
            keep=self._keep,
            leaving=lambda: None,
        )

    def commit(self, lease: Lease, batch: Batch) -> Awaitable[None]:
        self.sent.append(batch)
        if self.raises is not None:
            raise self.raises
        answer = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        return answer

    def _keep(self) -> list[Delivery]:
        kept, self.kept = self.kept, []
        return kept

    def stage(self, instance_id: str = "i") -> Resident:
        """A turn of an instance that exists already."""
        resident = Resident(instance_id, 1, 0, "e", 0)
        resident.is_new = False
        return self.turn(resident)

    def turn(self, resident: Resident) -> Resident:
        commit = resident.commit
        if commit is None:
            commit = resident.commit = Commit(resident.state)
            self.committer.gathering.staged.append(Staged(resident, commit, resident.execution))
        commit.turn(self.clock.now())
        commit.record(CustomStatusSet(b"%d" % commit.turns))
        return resident

    async def answer(self, error: Exception | None = None) -> None:
        future = self.answers.popleft()
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
        await settle()


async def settle() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


@pytest.fixture
def desk(clock: ManualClock) -> Desk:
    return Desk(clock)


async def test_nothing_is_sent_when_nothing_was_gathered(desk: Desk) -> None:
    assert not desk.committer.flush()
    assert (desk.sent, desk.released, desk.committer.busy) == ([], [], False)


async def test_a_gathering_is_released_only_after_its_receipt(desk: Desk) -> None:
    desk.stage()
    assert desk.committer.flush()
    await settle()
    assert desk.released == []
    assert desk.committer.busy
    await desk.answer()
    assert len(desk.released) == 1
    assert (desk.committer.busy, desk.committer.number) == (False, 1)


async def test_while_one_batch_is_on_its_way_the_next_one_gathers(desk: Desk) -> None:
    desk.stage("a")
    desk.committer.flush()
    desk.stage("b")
    assert not desk.committer.flush()
    desk.stage("c")
    assert not desk.committer.flush()
    assert len(desk.sent) == 1
    await desk.answer()
    assert [batch.number for batch in desk.sent] == [1, 2]
    assert len(desk.sent[1].history) == 2
    await desk.answer()
    assert [len(gathering.staged) for gathering in desk.released] == [1, 2]


async def test_the_next_batch_is_sent_before_the_effects_of_the_last_one(clock: ManualClock) -> None:
    order: list[str] = []
    desk = Desk(clock)
    desk.committer = Committer(
        desk,  # type: ignore[arg-type]
        Lease(0, "test", 1),
        clock,
        EngineOptions(),
        released=lambda gathering: order.append(f"released, {len(desk.sent)} sent"),
        lost=lambda error, staged: None,
        keep=list,
        leaving=lambda: None,
    )
    desk.stage("a")
    desk.committer.flush()
    desk.stage("b")
    await desk.answer()
    assert order == ["released, 2 sent"]


async def test_turns_of_one_instance_become_one_history_row_and_rows_are_chained(desk: Desk) -> None:
    resident = desk.stage()
    desk.turn(resident)
    desk.committer.flush()
    await desk.answer()
    desk.turn(resident)
    desk.committer.flush()
    rows = [row for batch in desk.sent for row in batch.history]
    assert [row.seq for row in rows] == [0, 1]
    assert rows[0].checksum == chain(chain_start("e"), rows[0].data)
    events, checksum = decode_rows("i", "e", rows)
    assert checksum == resident.checksum
    assert [event.value for event in events if isinstance(event, CustomStatusSet)] == [b"1", b"2", b"1"]


async def test_a_batch_that_was_not_taken_is_sent_again_as_it_was_with_growing_delays(desk: Desk) -> None:
    desk.stage()
    desk.committer.flush()
    for delay in (1, 2, 2, 2):
        sent = len(desk.sent)
        await desk.answer(StoreUnavailableError("busy"))
        desk.clock.advance(delay - 0.001)
        await settle()
        assert len(desk.sent) == sent
        desk.clock.advance(0.001)
        await settle()
        assert len(desk.sent) == sent + 1
    assert all(batch is desk.sent[0] for batch in desk.sent)
    await desk.answer()
    assert (len(desk.released), desk.lost) == (1, [])


async def test_the_delay_begins_anew_after_a_success(desk: Desk) -> None:
    for _ in range(2):
        desk.stage()
        desk.committer.flush()
        for delay in (1, 2):
            await desk.answer(StoreUnavailableError("busy"))
            desk.clock.advance(delay)
            await settle()
        await desk.answer()
    assert len(desk.released) == 2


async def test_a_gathering_waits_behind_a_batch_that_is_tried_again(desk: Desk) -> None:
    desk.stage("a")
    desk.committer.flush()
    await desk.answer(StoreUnavailableError("busy"))
    desk.stage("b")
    assert not desk.committer.flush()
    desk.clock.advance(1)
    await settle()
    assert [batch.number for batch in desk.sent] == [1, 1]


async def test_a_commit_that_was_cancelled_is_in_doubt_and_sent_again(desk: Desk) -> None:
    desk.stage()
    desk.committer.flush()
    desk.answers.popleft().cancel()
    await settle()
    desk.clock.advance(1)
    await settle()
    assert desk.sent[0] is desk.sent[1]


@pytest.mark.parametrize(
    "error",
    [
        StoreFailedError("the disk is gone"),
        StoreRefusedError("too long"),
        LeaseLostError("fenced"),
        InvariantError("I2", "i", "broken"),
        RuntimeError("a bug of the provider"),
    ],
)
async def test_any_other_failure_ends_the_committer(desk: Desk, error: Exception) -> None:
    desk.stage()
    desk.committer.flush()
    desk.stage("b")
    await desk.answer(error)
    assert desk.lost[0][0] is error
    assert [staged.resident.instance_id for staged in desk.lost[0][1]] == ["i"]
    assert desk.committer.closed
    assert not desk.committer.flush()
    assert (len(desk.sent), desk.released) == (1, [])


async def test_callers_alone_need_no_batch_and_are_released_at_once(desk: Desk) -> None:
    reply: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    desk.committer.gathering.replies.append((reply, None))
    assert desk.committer.flush()
    assert desk.sent == []
    assert desk.released[0].replies == [(reply, None)]


async def test_a_turn_in_which_nothing_happened_needs_no_batch(desk: Desk) -> None:
    resident = Resident("i", 1, 0, "e", 0)
    resident.is_new = False
    resident.written = ("Pending", None, False)
    resident.commit = Commit(resident.state)
    resident.commit.turn(desk.clock.now())
    desk.committer.gathering.staged.append(Staged(resident, resident.commit, resident.execution))
    desk.committer.flush()
    assert desk.sent == []
    assert (resident.commit, resident.turns, resident.batches) == (None, 0, 1)


async def test_what_was_not_consumed_gets_a_row_in_the_batch(desk: Desk) -> None:
    desk.stage()
    delivery = Delivery("other", RaiseEvent("go", b"1"), row="~m1")
    desk.kept.append(delivery)
    desk.committer.flush()
    assert [(row.message_id, row.instance_id) for row in desk.sent[0].inbox_put] == [("~m1", "other")]
    assert delivery.stored


async def test_a_dropped_execution_leaves_no_rows(desk: Desk) -> None:
    desk.stage("a")
    desk.stage("b")
    desk.committer.gathering.staged[0].dropped = True
    desk.committer.flush()
    assert len(desk.sent[0].history) == 1


async def test_the_status_row_is_written_only_when_it_says_something_new(desk: Desk) -> None:
    resident = desk.stage()
    resident.written = ("Pending", b"1", False)
    desk.committer.flush()
    assert desk.sent[0].changes == []
    await desk.answer()
    desk.turn(resident)
    desk.turn(resident)
    desk.committer.flush()
    assert [change.custom_status for change in desk.sent[1].changes] == [b"2"]


async def test_nothing_happens_after_close(desk: Desk) -> None:
    desk.stage()
    desk.committer.flush()
    desk.committer.close()
    await desk.answer(StoreUnavailableError("busy"))
    desk.clock.advance(100)
    await settle()
    assert len(desk.sent) == 1
    desk.stage()
    assert not desk.committer.flush()


async def test_landed_waits_for_the_batch_on_its_way(desk: Desk) -> None:
    desk.stage()
    desk.committer.flush()
    desk.committer.close()
    landed = asyncio.create_task(desk.committer.landed())
    await settle()
    assert not landed.done()
    await desk.answer()
    await asyncio.wait_for(landed, 60)


async def test_tombstones_are_swept_once_an_eighth_of_their_window(desk: Desk) -> None:
    window = 3_600_000_000
    swept: list[int] = []
    for _ in range(10):
        desk.stage()
        desk.committer.flush()
        swept.append(desk.sent[-1].tombstones_before)
        await desk.answer()
        desk.clock.advance(300)
    assert [before != 0 for before in swept] == [True, False] * 5
    assert all(before <= desk.clock.now() - window for before in swept)


async def test_a_store_that_raises_at_once_refuses_as_one_that_answers_so_later(desk: Desk) -> None:
    desk.raises = StoreUnavailableError("busy")
    desk.stage()
    assert desk.committer.flush()
    await settle()
    assert (desk.lost, desk.released, desk.committer.busy) == ([], [], True)
    desk.raises = None
    desk.clock.advance(1)
    await settle()
    await desk.answer()
    assert [batch.number for batch in desk.sent] == [1, 1]
    assert len(desk.released) == 1
    desk.raises = StoreFailedError("broken")
    desk.stage()
    desk.committer.flush()
    await settle()
    assert [error for error, _ in desk.lost] == [desk.raises]
    assert desk.committer.closed


async def test_a_store_that_raises_while_a_batch_is_settled_is_asked_again(desk: Desk) -> None:
    desk.stage()
    desk.committer.flush()
    desk.committer.close()
    landing = asyncio.ensure_future(desk.committer.landed())
    await settle()
    desk.raises = StoreUnavailableError("busy")
    await desk.answer(StoreUnavailableError("lost the answer"))
    desk.clock.advance(1)
    await settle()
    desk.raises = None
    desk.clock.advance(2)
    await settle()
    await desk.answer()
    assert await landing is not None
