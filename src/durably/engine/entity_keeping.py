"""What an entity keeps: its row, signals that are due later, its alarm, and the end of its idle time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from durably.core.commit import TimerKey, TimerRow
from durably.core.entities import Delayed
from durably.core.messages import TIMER_IDLE, TIMER_SIGNAL, CallEntity, TimerDue
from durably.core.operations import ALARM
from durably.engine.desk import Desk
from durably.engine.entity_residents import EntityResident
from durably.engine.executor import EntityCode
from durably.engine.residents import Delivery
from durably.errors import UnknownFunctionError

_IDLE_SEQ: Final = -1
"""Number of the timer that looks whether an entity is idle; signals have numbers from 0."""

_ALARM_SEQ: Final = -2
"""Number of the signal that is the alarm of an entity."""


class EntityKeeping:
    """Rows and timers of entities, made with the batch that gathers.

    Args:
        desk: The batch that gathers.
        code: The code of an entity.
    """

    def __init__(self, desk: Desk, code: Callable[[EntityResident], EntityCode]) -> None:
        self._desk = desk
        self._clock = desk.clock
        self._code = code

    def stage(self, resident: EntityResident, now: int) -> None:
        """Have the row written with the batch that gathers."""
        state = resident.state
        if not state.execution:
            state.execution = self._desk.around.new_execution()
            state.created_at = now
            state.updated_at = max(now, state.updated_at)
        if not resident.staged:
            resident.staged = True
            self._desk.committer.gathering.entities.append(resident)

    def delay(self, resident: EntityResident, delivery: Delivery, call: CallEntity, due_at: int) -> None:
        """A signal is not due yet: its entity keeps it, and a timer."""
        state = resident.state
        seq = state.next_seq
        state.next_seq = seq + 1
        state.delayed[seq] = Delayed(seq, due_at, msgspec.structs.replace(call, due_at=None))
        self.stage(resident, self._clock.now())
        self._set_timer(resident, seq, TIMER_SIGNAL, due_at)
        self._desk.consumed(delivery)

    def set_alarm(self, resident: EntityResident, due_at: int, now: int) -> None:
        """Move the one alarm of an entity; 0: it has none. It is a signal to itself that is due later."""
        state = resident.state
        held = state.delayed.get(_ALARM_SEQ)
        if (0 if held is None else held.due_at) == due_at:
            return
        if due_at:
            self.stage(resident, now)
            call = CallEntity(ALARM, None, sender=resident.instance_id)
            state.delayed[_ALARM_SEQ] = Delayed(_ALARM_SEQ, due_at, call)
            self._set_timer(resident, _ALARM_SEQ, TIMER_SIGNAL, due_at)
        else:
            del state.delayed[_ALARM_SEQ]
            self._clear_timer(resident, _ALARM_SEQ, TIMER_SIGNAL)
            self.stage(resident, now)

    def ring(self, resident: EntityResident, due: TimerDue, now: int) -> None:
        """A timer of the entity is due."""
        state = resident.state
        if due.execution != state.execution:
            return  # of an entity that is gone, and its row with it
        if due.kind == TIMER_SIGNAL:
            delayed = state.delayed.pop(due.seq, None)
            if delayed is not None:
                self._clear_timer(resident, due.seq, TIMER_SIGNAL)
                self.stage(resident, now)
                delivery = Delivery(resident.instance_id, delayed.call)
                self._desk.around.keep(delivery)
                resident.queue.append(delivery)
        elif due.kind == TIMER_IDLE and state.idle_timer is not None:
            self._look_whether_idle(resident, now)

    def _look_whether_idle(self, resident: EntityResident, now: int) -> None:
        """Operations do not move the timer, which would cost a row each: it looks again as late as the last one says."""
        state = resident.state
        self._clear_timer(resident, _IDLE_SEQ, TIMER_IDLE)
        state.idle_timer = None
        self.stage(resident, now)
        try:
            ttl = self._code(resident).idle_ttl_us
        except UnknownFunctionError:
            return
        if ttl is None or state.state is None:
            return
        busy = resident.busy is not None or resident.waiting or state.holder is not None
        if busy or state.updated_at + ttl > now:
            self.set_idle_timer(
                resident, max(now, state.updated_at) + ttl if busy else state.updated_at + ttl
            )
            return
        state.state = None
        state.updated_at = now

    def set_idle_timer(self, resident: EntityResident, due_at: int) -> None:
        """Look then whether anybody has used the entity."""
        resident.state.idle_timer = due_at
        self._set_timer(resident, _IDLE_SEQ, TIMER_IDLE, due_at)

    def _set_timer(self, resident: EntityResident, seq: int, kind: int, due_at: int) -> None:
        key = TimerKey(resident.state.execution, seq, kind)
        row = TimerRow(*key, due_at, resident.instance_id)
        self._desk.committer.gathering.entity_timers[key] = row

    def _clear_timer(self, resident: EntityResident, seq: int, kind: int) -> None:
        key = TimerKey(resident.state.execution, seq, kind)
        self._desk.committer.gathering.entity_timers[key] = None
