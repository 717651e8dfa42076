"""A schedule as an entity, without a host: what it makes of orders, alarms and reports, and what it survives."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from durably.core.entities import EntityId
from durably.core.messages import Cancel, StartInstance, Terminate
from durably.core.operations import (
    ALARM,
    CHILD_ENDED,
    KEEP_ALARM,
    NO_ALARM,
    ChildEnded,
    Operation,
    OperationOutcome,
)
from durably.errors import FailureDetails
from durably.schedules import orders
from durably.schedules.entity import TOLERANCE_US, ScheduleCode
from durably.schedules.spec import SCHEDULE, Spec, SpecChange, StartAction
from durably.schedules.state import VERSION, decode_state, encode_state
from durably.schedules.timing import COUNT_MAX, Timing

MINUTE = 60_000_000
NOON = 1_772_366_400_000_000  # 2026-03-01T12:00Z


class Schedule:
    """One schedule, and what it has sent."""

    def __init__(self, **spec: Any) -> None:
        self.code = ScheduleCode(EntityId(SCHEDULE, "s"))
        self.row: tuple[bytes | None, int] = (None, 0)
        self.alarm = NO_ALARM
        self.sent: list[tuple[str, Any]] = []
        self._operations = 0
        given: dict[str, Any] = {"action": StartAction("work"), "cron": "0 * * * * *", **spec}
        self.ask(orders.CREATE, orders.CreateOrder(Spec(**given)))

    def ask(self, name: str, order: Any = None, *, at: int = NOON) -> OperationOutcome:
        self._operations += 1
        payload = None if order is None else msgspec.json.encode(order)
        outcome = self.code.operate(*self.row, Operation(name, payload, None, at, f"t:{self._operations}"))
        self.row = outcome.state, outcome.version
        self.sent += outcome.messages
        if outcome.alarm != KEEP_ALARM:
            self.alarm = outcome.alarm
        return outcome

    def ring(self, until: int) -> None:
        """Let alarms ring until an instant, each in its time."""
        while self.alarm != NO_ALARM and self.alarm <= until:
            self.ask(ALARM, at=self.alarm)

    @property
    def state(self):
        assert self.row[0] is not None
        return decode_state(self.row[0], "s")

    @property
    def started(self) -> list[str]:
        return [target for target, body in self.sent if isinstance(body, StartInstance)]


def test_an_alarm_that_rings_early_or_twice_does_nothing() -> None:
    schedule = Schedule(overlap="allow")
    for at in (NOON, NOON + 1, NOON + MINUTE - 1):
        schedule.ask(ALARM, at=at)
    assert (schedule.started, schedule.alarm) == ([], NOON + MINUTE)
    for _ in range(3):
        schedule.ask(ALARM, at=NOON + MINUTE)
    schedule.ask(ALARM, at=NOON - 60 * MINUTE)  # the clock was set back
    assert (schedule.started, schedule.alarm) == (["s@2026-03-01T12:01:00Z"], NOON + 2 * MINUTE)


def test_it_has_one_alarm_however_often_it_is_asked() -> None:
    schedule = Schedule()
    schedule.ask(orders.PAUSE)
    assert schedule.alarm == NO_ALARM
    schedule.ask(orders.RESUME, at=NOON + 90 * 1_000_000)
    assert schedule.alarm == NOON + 2 * MINUTE
    schedule.ask(orders.DELETE)
    assert (schedule.alarm, schedule.row[0]) == (NO_ALARM, None)
    for name in (ALARM, orders.UNDECLARE):
        assert schedule.ask(name).failure is None
    assert schedule.row[0] is None


def test_reports_are_of_one_life_and_one_start() -> None:
    schedule = Schedule()
    schedule.ring(NOON + MINUTE)
    ref = schedule.sent[0][1].parent
    assert ref.instance_id == f"@{SCHEDULE}@s"
    failure = FailureDetails("ValueError", "no")
    for life, seq in (("other", ref.seq), (ref.execution_id, ref.seq + 1), ("", -1)):
        schedule.ask(CHILD_ENDED, ChildEnded(life, seq, None, failure), at=NOON + MINUTE)
        assert len(schedule.state.running) == 1
    schedule.ask(CHILD_ENDED, ChildEnded("", -1, "s@2026-03-01T12:01:00Z", failure), at=NOON + MINUTE)
    assert (schedule.state.running, schedule.state.counts.failed) == ([], 1)
    schedule.ask(CHILD_ENDED, ChildEnded(ref.execution_id, ref.seq, None, failure), at=NOON + MINUTE)
    assert schedule.state.counts.failed == 1


@pytest.mark.parametrize(("overlap", "kind"), [("cancel_other", Cancel), ("terminate_other", Terminate)])
def test_one_is_asked_to_end_once(overlap: Any, kind: type) -> None:
    schedule = Schedule(overlap=overlap)
    schedule.ring(NOON + 4 * MINUTE)
    ended = [(target, body) for target, body in schedule.sent if isinstance(body, kind)]
    assert [target for target, _ in ended] == schedule.started == ["s@2026-03-01T12:01:00Z"]
    assert ended[0][1].parent == schedule.sent[0][1].parent
    assert [one.at for one in schedule.state.buffer] == [NOON + 4 * MINUTE]
    assert schedule.state.counts.skipped == 2


def test_the_newest_of_very_many_is_found() -> None:
    schedule = Schedule(cron="* * * * * *", catch_up="latest")
    schedule.ask(ALARM, at=NOON + 86_400_000_000 * 300)
    assert schedule.started == ["s@2026-12-26T12:00:00Z"]
    assert schedule.state.counts.missed == COUNT_MAX
    assert schedule.state.recent[0].past_due is False  # it is due just now
    schedule = Schedule(cron="* * 0-11 * * *", catch_up="latest")
    schedule.ask(ALARM, at=NOON + 86_400_000_000 * 300 + 11 * 3_600_000_000)
    assert schedule.started == ["s@2026-12-26T11:59:59Z"]
    assert schedule.state.recent[0].past_due is True


def test_what_is_caught_up_is_done_in_pieces() -> None:
    schedule = Schedule(catch_up="all", overlap="allow")
    late = NOON + 250 * MINUTE
    for done in (100, 200, 250):
        schedule.ask(ALARM, at=late)
        assert len(schedule.started) == done
        assert schedule.alarm == (late if done < 250 else late + MINUTE)
    assert len(set(schedule.started)) == 250


@pytest.mark.parametrize("late", [TOLERANCE_US, TOLERANCE_US + 1])
def test_what_is_skipped_when_it_is_late(late: int) -> None:
    schedule = Schedule(catch_up="skip", cron="0 * * * * *", jitter=20_000_000)
    due = schedule.alarm
    assert NOON + MINUTE <= due <= NOON + MINUTE + 20_000_000
    schedule.ask(ALARM, at=due + late)
    assert len(schedule.started) == (1 if late == TOLERANCE_US else 0)
    assert schedule.state.counts.missed == 1 - len(schedule.started)
    assert schedule.alarm >= NOON + 2 * MINUTE


def test_the_latest_of_any_timing_is_what_walking_finds() -> None:
    for spec in (
        Spec(action=StartAction("w"), interval=1_500_000),
        Spec(
            action=StartAction("w"), interval=7_000_000, start_at=NOON + 10_000_000, end_at=NOON + 90_000_000
        ),
        Spec(action=StartAction("w"), cron="*/7 3-5,9 12 * * *"),
    ):
        timing = Timing(spec, NOON)
        walked: list[int] = []
        moment = timing.after(NOON)
        while moment is not None and moment < NOON + 15 * MINUTE:
            walked.append(moment)
            moment = timing.after(moment)
        for until in range(NOON, NOON + 15 * MINUTE, 1_300_000):
            before = [one for one in walked if one <= until]
            assert timing.latest(NOON, until) == (before[-1] if before else None)
            assert timing.count(NOON, until) == len(before)


def test_a_zone_that_is_not_known_here_is_waited_for() -> None:
    schedule = Schedule()
    state = schedule.state
    state.spec = msgspec.structs.replace(state.spec, time_zone="Mars/Base")
    schedule.row = encode_state(state), VERSION
    assert schedule.ask(ALARM, at=NOON + MINUTE).failure is None
    assert schedule.alarm == NOON + 2 * MINUTE
    assert "Mars/Base" in (schedule.state.trouble or "")
    schedule.ask(orders.PAUSE, at=NOON + MINUTE)  # what needs no time is done
    schedule.ask(orders.RESUME, at=NOON + MINUTE)
    change = orders.UpdateOrder(SpecChange(time_zone="UTC"))
    assert schedule.ask(orders.UPDATE, change, at=NOON + MINUTE).failure is None
    assert (schedule.state.trouble, schedule.alarm) == (None, NOON + 2 * MINUTE)


@pytest.mark.parametrize("row", [(b"{", VERSION), (b"{}", VERSION), (b"{}", VERSION + 1)])
def test_a_state_of_others_is_left_alone_and_looked_at_again(row: tuple[bytes, int]) -> None:
    schedule = Schedule()
    schedule.row = row
    outcome = schedule.ask(ALARM)
    assert outcome.failure is not None
    assert "newer version" in outcome.failure.message
    assert (schedule.row, schedule.alarm) == (row, NOON + MINUTE)
    assert schedule.ask(orders.PAUSE).alarm == KEEP_ALARM


def test_what_is_no_order_is_refused() -> None:
    schedule = Schedule()
    for name, order in (("nonsense", None), (orders.UPDATE, None), (orders.CREATE, {"spec": 5})):
        outcome = schedule.ask(name, order)
        assert outcome.failure is not None
        assert outcome.messages == []


def test_the_state_stays_readable() -> None:
    """FORMAT: what was written yesterday can be read tomorrow."""
    stored = (
        b'{"spec":{"action":{"type":"start","name":"work","input":"5","tags":{"a":"b"}},"cron":"0 0 3 * * *",'
        b'"time_zone":"Europe/Berlin","overlap":"buffer_all","catch_up":"all","catch_up_window":1},"life":"t:1",'
        b'"created_at":1,"updated_at":2,"anchor":3,"cursor":4,"from_code":true,"declared":true,"paused":true,"note":"n",'
        b'"seq":7,"running":[["s@1",7,5,true]],"buffer":[[6,"manual",true,"s@2"]],"backfills":[[1,2,false]],'
        b'"recent":[{"at":1,"started_at":2,"seq":7,"kind":"backfill","past_due":true,"instance_id":"s@1","status":"Failed"}],'
        b'"counts":{"started":7,"failed":1,"skipped":2,"missed":3,"dropped":4},"trouble":"t"}'
    )
    assert encode_state(decode_state(stored, "s")) == stored
