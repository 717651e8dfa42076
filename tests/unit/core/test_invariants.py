"""The invariants have teeth: each rule is broken once, and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from durably.core.commit import HistoryRow, InboxRow, InstanceRow, TimerRow
from durably.core.events import (
    ExecutionCompleted,
    ExecutionStarted,
    ExecutionSuspended,
    HistoryEvent,
    TaskCompleted,
    TaskScheduled,
    TimerCreated,
    TimerFired,
    TurnStarted,
)
from durably.core.history import chain, chain_start, encode_body, encode_events
from durably.core.invariants import check_instance
from durably.core.messages import TIMER_DUE, TIMER_START, RaiseEvent, StartInstance
from durably.errors import HistoryCorruptError, InvariantError

STARTED = (TurnStarted(100), ExecutionStarted("i", "flow", None, "e", 0, 100, "3.13"))


class Stored:
    """All that is stored of one instance; a test breaks a part of it."""

    def __init__(self, *events: HistoryEvent, status: str = "Running", in_flight: bool = False) -> None:
        self.row = InstanceRow(
            "i", 1, 0, "e", "flow", None, status, 100, 100, None, None, None, None, None, None, in_flight, None, None,
            None,
        )  # fmt: skip
        data = encode_events([*STARTED, *events])
        self.history = [HistoryRow(1, 0, 100, data, chain(chain_start("e"), data))]
        self.timers: list[TimerRow] = []
        self.inbox: list[InboxRow] = []

    def check(self) -> list[HistoryEvent]:
        return check_instance(self.row, self.history, self.timers, self.inbox)

    def row_says(self, **fields: Any) -> Stored:
        self.row = self.row._replace(**fields)
        return self

    def armed(self, seq: int, kind: int, due_at: int, execution: int = 1) -> Stored:
        self.timers.append(TimerRow(execution, seq, kind, due_at, "i"))
        return self

    def with_message(self, body: Any) -> Stored:
        self.inbox.append(InboxRow("m", "i", 0, encode_body(body), 1))
        return self


def pending() -> Stored:
    stored = (
        Stored(status="Pending").armed(-1, TIMER_START, 900).with_message(StartInstance("flow", None, "e"))
    )
    stored.history = []
    return stored


TASK = TaskScheduled(0, "work", None)
TIMER = TimerCreated(0, 900)

SOUND: dict[str, Callable[[], Stored]] = {
    "running": lambda: Stored(TASK, in_flight=True),
    "sleeping": lambda: Stored(TIMER).armed(0, TIMER_DUE, 900),
    "fired": lambda: Stored(
        TIMER, TurnStarted(900), TimerFired(0), ExecutionCompleted(None), status="Completed"
    ),
    "ended": lambda: Stored(ExecutionCompleted(b"1"), status="Completed").row_says(output=b"1"),
    "suspended": lambda: Stored(TIMER, ExecutionSuspended(), status="Suspended").armed(0, TIMER_DUE, 900),
    "blocked": lambda: Stored(TASK, in_flight=True).row_says(blocked="a diff"),
    "has a message": lambda: Stored().with_message(RaiseEvent("go", None)),
    "pending": pending,
}


@pytest.mark.parametrize("stored", SOUND.values(), ids=SOUND.keys())
def test_a_sound_instance_passes(stored: Callable[[], Stored]) -> None:
    stored().check()


def headless() -> Stored:
    stored = Stored()
    data = encode_events([TurnStarted(100), TASK])
    stored.history = [HistoryRow(1, 0, 100, data, chain(chain_start("e"), data))]
    return stored


def without(stored: Stored, what: str) -> Stored:
    setattr(stored, what, [])
    return stored


BROKEN: dict[str, tuple[str, Callable[[], Stored]]] = {
    "it does not begin with its start": ("I1", headless),
    "time ran backwards": ("I7", lambda: Stored(TIMER, TurnStarted(50)).armed(0, TIMER_DUE, 900)),
    "a timer fired early": ("I7", lambda: Stored(TIMER, TurnStarted(899), TimerFired(0))),
    "a timer is missing": ("I7", lambda: Stored(TIMER)),
    "a timer is too many": ("I7", lambda: Stored(TASK, in_flight=True).armed(5, TIMER_DUE, 900)),
    "a timer has another time": ("I7", lambda: Stored(TIMER).armed(0, TIMER_DUE, 901)),
    "a timer is of another execution": (
        "I7",
        lambda: Stored(TIMER).armed(0, TIMER_DUE, 900).armed(0, TIMER_DUE, 900, execution=7),
    ),
    "an action has a number twice": ("I6", lambda: Stored(TASK, TASK, in_flight=True)),
    "a result comes twice": ("I6", lambda: Stored(TASK, TaskCompleted(0, None), TaskCompleted(0, None))),
    "the row tells another status": ("I2", lambda: Stored(TASK, in_flight=True, status="Suspended")),
    "the row tells another output": ("I2", lambda: Stored(ExecutionCompleted(b"1"), status="Completed")),
    "the row tells another custom status": (
        "I2",
        lambda: Stored(TASK, in_flight=True).row_says(custom_status=b"1"),
    ),
    "a recovery would not load it": ("I8", lambda: Stored(TASK)),
    "a recovery would not load what is blocked": ("I8", lambda: Stored(TASK).row_says(blocked="a diff")),
    "nothing will move it": ("I8", Stored),
    "pending with a history": ("I2", lambda: Stored(status="Pending")),
    "pending without its start": ("I8", lambda: without(pending(), "inbox")),
    "pending without its timer": ("I8", lambda: without(pending(), "timers")),
}


@pytest.mark.parametrize(("rule", "stored"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_rule_is_named(rule: str, stored: Callable[[], Stored]) -> None:
    with pytest.raises(InvariantError) as caught:
        stored().check()
    assert caught.value.rule == rule


def test_damaged_rows_are_found_before_any_rule() -> None:
    stored = Stored(TASK)
    stored.history[0] = stored.history[0]._replace(checksum=b"wrong sum")
    with pytest.raises(HistoryCorruptError):
        stored.check()


def test_of_a_parked_instance_only_the_rows_are_checked() -> None:
    assert len(Stored(TASK).row_says(parked="set aside").check()) == 3
