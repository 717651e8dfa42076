"""Timers: order, moving, disarming, and clocks that do not behave."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from durably.core.commit import TimerRow
from durably.engine.timers import Timers
from tests.support.clock import START, ManualClock, micros

SECOND = 1_000_000


class Bell:
    """Timers and what they fired."""

    def __init__(self, clock: ManualClock) -> None:
        self.fired: list[list[TimerRow]] = []
        self.timers = Timers(clock, self.fired.append)
        self._clock = clock

    def arm(self, execution: int, seq: int, in_s: float, kind: int = 0) -> TimerRow:
        row = TimerRow(execution, seq, kind, micros(START) + int(in_s * SECOND), f"i{execution}")
        self.timers.arm(row)
        return row

    async def at(self, in_s: float) -> list[TimerRow]:
        """What fires when the clock is set to an instant."""
        self.fired.clear()
        self._clock.set(START + timedelta(seconds=in_s))
        for _ in range(3):
            await asyncio.sleep(0)
        return [row for rows in self.fired for row in rows]


async def test_timers_fire_by_due_time_and_those_of_one_instant_in_order_of_creation(
    clock: ManualClock,
) -> None:
    bell = Bell(clock)
    late, second, first, other = bell.arm(1, 0, 3), bell.arm(1, 2, 1), bell.arm(1, 1, 1), bell.arm(2, 0, 1)
    assert await bell.at(10) == [first, second, other, late]
    assert len(bell.fired) == 1
    assert len(bell.timers) == 0


async def test_a_timer_never_fires_early(clock: ManualClock) -> None:
    bell = Bell(clock)
    row = bell.arm(1, 0, 1)
    assert await bell.at(0.999999) == []
    assert await bell.at(1) == [row]


async def test_a_timer_fires_once(clock: ManualClock) -> None:
    bell = Bell(clock)
    row = bell.arm(1, 0, 1)
    assert await bell.at(1) == [row]
    assert await bell.at(100) == []


async def test_a_timer_that_is_due_already_fires_at_once(clock: ManualClock) -> None:
    bell = Bell(clock)
    row = bell.arm(1, 0, -5)
    assert await bell.at(0) == [row]


async def test_an_earlier_timer_moves_the_wake_up_forward(clock: ManualClock) -> None:
    bell = Bell(clock)
    late, early = bell.arm(1, 0, 100), bell.arm(2, 0, 1)
    assert await bell.at(1) == [early]
    assert await bell.at(100) == [late]


async def test_a_disarmed_timer_does_not_fire(clock: ManualClock) -> None:
    bell = Bell(clock)
    bell.arm(1, 0, 1)
    row = bell.arm(1, 1, 2)
    bell.timers.disarm(1, 0, 0)
    bell.timers.disarm(9, 9, 9)
    assert len(bell.timers) == 1
    assert await bell.at(5) == [row]


async def test_arming_again_moves_a_timer_back_and_forth(clock: ManualClock) -> None:
    bell = Bell(clock)
    bell.arm(1, 0, 5)
    bell.arm(1, 0, 9)
    assert len(bell.timers) == 1
    assert await bell.at(8) == []
    row = bell.arm(1, 0, 8.5)
    assert await bell.at(8.5) == [row]
    assert await bell.at(20) == []


async def test_arming_the_same_row_twice_arms_it_once(clock: ManualClock) -> None:
    bell = Bell(clock)
    row = bell.arm(1, 0, 5)
    bell.arm(1, 0, 5)
    assert await bell.at(5) == [row]


async def test_a_timer_that_was_disarmed_and_armed_for_the_same_instant_fires_once(
    clock: ManualClock,
) -> None:
    bell = Bell(clock)
    bell.arm(1, 0, 5)
    bell.timers.disarm(1, 0, 0)
    row = bell.arm(1, 0, 5)
    assert await bell.at(5) == [row]
    assert await bell.at(9) == []


async def test_kinds_are_timers_of_their_own(clock: ManualClock) -> None:
    bell = Bell(clock)
    first, second = bell.arm(1, 0, 5, kind=0), bell.arm(1, 0, 5, kind=2)
    assert await bell.at(5) == [first, second]


async def test_a_clock_that_is_set_back_delays_and_loses_nothing(clock: ManualClock) -> None:
    bell = Bell(clock)
    row = bell.arm(1, 0, 5)
    assert await bell.at(-3_600) == []
    later = bell.arm(1, 1, 6)
    assert await bell.at(4.9) == []
    assert await bell.at(6) == [row, later]


async def test_a_clock_that_is_set_back_between_the_wake_up_and_the_look_fires_nothing_early(
    clock: ManualClock,
) -> None:
    bell = Bell(clock)
    row = bell.arm(1, 0, 5)
    clock.set(START + timedelta(seconds=5))  # rings in the next turn of the loop
    clock.set(START + timedelta(seconds=4))
    await asyncio.sleep(0)
    assert bell.fired == []
    assert await bell.at(5) == [row]


async def test_closed_timers_are_silent(clock: ManualClock) -> None:
    bell = Bell(clock)
    bell.arm(1, 0, 1)
    bell.timers.close()
    bell.timers.close()
    assert await bell.at(10) == []


async def test_what_is_armed_while_others_fire_is_not_forgotten(clock: ManualClock) -> None:
    fired: list[int] = []

    def fire(rows: list[TimerRow]) -> None:
        fired.extend(row.seq for row in rows)
        if len(fired) < 3:
            timers.arm(TimerRow(1, len(fired), 0, clock.now(), "i"))

    timers = Timers(clock, fire)
    timers.arm(TimerRow(1, 0, 0, clock.now() + SECOND, "i"))
    clock.advance(1)
    for _ in range(5):
        await asyncio.sleep(0)
    assert fired == [0, 1, 2]


async def test_ten_thousand_timers_come_in_order(clock: ManualClock) -> None:
    bell = Bell(clock)
    for n in range(10_000):
        bell.arm(n, 0, (n * 7_919) % 10_000 / 1_000)
    for n in range(0, 10_000, 2):
        bell.timers.disarm(n, 0, 0)
    fired = await bell.at(10)
    assert len(fired) == 5_000
    assert fired == sorted(fired, key=lambda row: (row.due_at, row.execution))
