"""The built-in entity that is a schedule: one operation is one commit of its state and of all that it starts.

It has one alarm, for its next occurrence. When that rings, or anything else is asked of it, it first deals with all that has
come due by then: so an alarm that rings twice, early, late or not at all changes nothing but the time.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any, Final

import msgspec

from durably.core.entities import EntityId
from durably.core.events import Payload
from durably.core.messages import MessageBody
from durably.core.operations import (
    ALARM,
    CHILD_ENDED,
    KEEP_ALARM,
    NO_ALARM,
    ChildEnded,
    Operation,
    OperationOutcome,
)
from durably.errors import (
    FailureDetails,
    InvalidScheduleError,
    ScheduleAlreadyExistsError,
    ScheduleNotFoundError,
    UnknownFunctionError,
)
from durably.schedules import orders
from durably.schedules.runs import Runs
from durably.schedules.spec import SECOND_US, Spec, StartAction, check_schedule_id, check_spec
from durably.schedules.state import (
    BACKFILLS_MAX,
    VERSION,
    Backfill,
    Pending,
    ScheduleState,
    decode_state,
    encode_state,
)
from durably.schedules.timing import Timing, iso, jitter_of

TOLERANCE_US: Final = 10 * SECOND_US
"""An occurrence that is later than this is past due: the catch-up policy says what becomes of it."""

_AT_ONCE = 100
"""Occurrences that one operation deals with: more of them would hold everybody up."""

_ROUNDS = 100
"""So often that is repeated before the times of a schedule change."""

_RETRY_US = 60 * SECOND_US
"""When a schedule is looked at again that cannot go on (its time zone is not known to this host)."""

_log = logging.getLogger("durably.schedules")


class ScheduleCode:
    """Implements `durably.engine.executor.EntityCode` for one schedule.

    Args:
        entity_id: Its key is the id of the schedule.
    """

    idle_ttl_us: int | None = None

    def __init__(self, entity_id: EntityId) -> None:
        self._id = entity_id.key

    def reads_only(self, operation: str) -> bool:
        """See `EntityCode.reads_only`."""
        return False

    def operate(self, state: Payload, version: int, operation: Operation) -> OperationOutcome:
        """See `EntityCode.operate`."""
        try:
            if version > VERSION:
                raise InvalidScheduleError(
                    f"Schedule '{self._id}' was written by a newer version of durably: deploy that one again"
                )
            now = operation.now
            held = None if state is None else decode_state(state, self._id)
            work = _Work(self._id, held, now, operation.token)
            result = work.obey(operation.name, operation.input)
            if work.state is None:
                return OperationOutcome(None, VERSION, None, None, work.sent, NO_ALARM)
            alarm = work.alarm(work.state)
            payload = None if result is None else msgspec.json.encode(result)
            return OperationOutcome(encode_state(work.state), VERSION, payload, None, work.sent, alarm)
        except Exception as error:  # noqa: BLE001 - whoever asked is told; a schedule that fails must not take its host along
            alarm = KEEP_ALARM
            if operation.name == ALARM:  # nobody else would wake it up again
                _log.exception("schedule '%s' cannot go on; it is looked at again in a minute", self._id)
                alarm = operation.now + _RETRY_US
            return OperationOutcome(state, version, None, FailureDetails.of(error), [], alarm)


class _Work:
    """One operation on one schedule.

    Attributes:
        state: As it is now; None: the schedule does not exist.
        sent: What leaves with it.
    """

    def __init__(self, schedule_id: str, state: ScheduleState | None, now: int, token: str) -> None:
        self.state = state
        self.sent: list[tuple[str, MessageBody]] = []
        self._id = schedule_id
        self._now = now
        self._token = token

    def obey(self, name: str, payload: Payload) -> Any:
        """Do what is asked, and what is due; returns what the caller gets."""
        if name in (orders.CREATE, orders.DECLARE):
            if self.state is not None:
                self._catch_up(self.state)
            return self._create(payload) if name == orders.CREATE else self._declare(payload)
        state = self.state
        if state is None:
            if name in (ALARM, CHILD_ENDED, orders.UNDECLARE):
                return None  # of a schedule that was deleted
            raise ScheduleNotFoundError(self._id)
        if name == CHILD_ENDED:
            told = msgspec.json.decode(payload or b"", type=ChildEnded)
            self._runs(state).ended(told.execution_id, told.seq, told.child, told.failure)
        self._catch_up(state)
        match name:
            case orders.UPDATE:
                self._update(state, msgspec.json.decode(payload or b"", type=orders.UpdateOrder))
            case orders.PAUSE | orders.RESUME:
                order = msgspec.json.decode(payload or b"{}", type=orders.NoteOrder)
                self._pause(state, order.note, pause=name == orders.PAUSE)
            case orders.TRIGGER:
                return self._trigger(state, msgspec.json.decode(payload or b"{}", type=orders.TriggerOrder))
            case orders.BACKFILL:
                self._backfill(state, msgspec.json.decode(payload or b"", type=orders.BackfillOrder))
            case orders.UNDECLARE:
                state.declared = False
            case orders.DELETE:
                self.state = None
            case _ if name not in (ALARM, CHILD_ENDED):
                raise UnknownFunctionError(f"A schedule has no operation '{name}': use client.schedules")
            case _:
                pass
        return None

    def alarm(self, state: ScheduleState) -> int:
        """When the schedule has to be looked at next; `NO_ALARM`: only when it is asked for something."""
        if state.trouble is None:
            if state.backfills and (state.backfills[0].at_once or not state.busy):
                return self._now
            if state.paused:
                return NO_ALARM
            try:
                found = self._timing(state).after(state.cursor)
                return NO_ALARM if found is None else max(self._due(state, found), self._now)
            except InvalidScheduleError as error:
                self._in_trouble(state, error)
        return self._now + _RETRY_US

    # --- what is due -------------------------------------------------------------------------------------------------

    def _catch_up(self, state: ScheduleState) -> None:
        """Deal with all that is due by now, or with as much of it as one operation may."""
        runs = self._runs(state)
        runs.go_on()
        try:
            if not state.paused:
                self._occurrences(state, runs)
            self._backfills(state, runs)
            state.trouble = None
        except InvalidScheduleError as error:
            self._in_trouble(state, error)

    def _in_trouble(self, state: ScheduleState, error: InvalidScheduleError) -> None:
        """It was right elsewhere; here its time zone is not known."""
        state.trouble = str(error)
        _log.error("schedule '%s' cannot go on, and is looked at again in a minute: %s", self._id, error)

    def _occurrences(self, state: ScheduleState, runs: Runs) -> None:
        spec, timing = state.spec, self._timing(state)
        for _ in range(_AT_ONCE):
            found = timing.after(state.cursor)
            if found is None or self._due(state, found) > self._now:
                return
            late = self._due(state, found) < self._now - TOLERANCE_US
            if late:
                given_up = self._given_up(state, timing, found)
                if given_up is not None:
                    state.counts.missed += timing.count(state.cursor, given_up)
                    state.cursor = given_up
                    continue
            state.cursor = found
            runs.offer(Pending(found, past_due=late), spec.overlap)

    def _given_up(self, state: ScheduleState, timing: Timing, found: int) -> int | None:
        """Of occurrences behind the cursor of which the first is past due: the last one that does not run, or None."""
        spec, cursor = state.spec, state.cursor
        due = self._now - spec.jitter  # up to here all are due, whatever the jitter of each
        if spec.catch_up == "skip":
            return timing.latest(cursor, due - TOLERANCE_US - 1) or found
        given_up = None
        window = spec.catch_up_window
        if window is not None and self._due(state, found) < self._now - window:
            given_up = timing.latest(cursor, due - window - 1) or found
        if spec.catch_up == "latest":
            newest = timing.latest(cursor, due)
            before = None if newest is None else timing.latest(cursor, newest - 1)
            if before is not None:
                return before if given_up is None else max(before, given_up)
        return given_up

    def _backfills(self, state: ScheduleState, runs: Runs) -> None:
        left = _AT_ONCE
        while state.backfills and left:
            backfill = state.backfills[0]
            if not backfill.at_once and state.busy:
                return
            left -= 1
            found = self._timing(state, bounded=False).after(backfill.cursor)
            if found is None or found > backfill.until:
                state.backfills = state.backfills[1:]
                continue
            backfill.cursor = found
            runs.offer(Pending(found, "backfill"), "allow")

    # --- orders ------------------------------------------------------------------------------------------------------

    def _create(self, payload: Payload) -> None:
        if self.state is not None:
            raise ScheduleAlreadyExistsError(self._id)
        order = msgspec.json.decode(payload or b"", type=orders.CreateOrder)
        self.state = self._new(order.spec)
        self.state.paused, self.state.note = order.paused, order.note

    def _declare(self, payload: Payload) -> None:
        spec = msgspec.json.decode(payload or b"", type=orders.DeclareOrder).spec
        if self.state is None:
            self.state = self._new(spec)
        elif self.state.spec != spec:
            self._change(self.state, spec)
        self.state.from_code = self.state.declared = True

    def _new(self, spec: Spec) -> ScheduleState:
        check_schedule_id(self._id)
        now = self._now
        return ScheduleState(
            spec=check_spec(spec, self._id),
            life=self._token,
            created_at=now,
            updated_at=now,
            anchor=now - now % SECOND_US,
            cursor=now,
        )

    def _update(self, state: ScheduleState, order: orders.UpdateOrder) -> None:
        self._change(state, order.change.applied(state.spec))

    def _change(self, state: ScheduleState, spec: Spec) -> None:
        check_spec(spec, self._id)
        old = state.spec
        goes_on = old.end_at is not None and old.end_at < self._now and spec.end_at != old.end_at
        if spec.timing != old.timing or goes_on:
            self._finish_as_it_was(state)
            state.cursor = max(state.cursor, self._now)  # no occurrence of the new times is missed yet
            state.anchor = self._now - self._now % SECOND_US
            state.trouble = None
        state.spec, state.updated_at = spec, self._now

    def _finish_as_it_was(self, state: ScheduleState) -> None:
        """Deal with all that is due, if it is not too much for that."""
        for _ in range(_ROUNDS):
            before = state.cursor
            self._catch_up(state)
            if state.cursor == before:
                return

    def _pause(self, state: ScheduleState, note: str | None, *, pause: bool) -> None:
        if state.paused and not pause:
            state.cursor = max(state.cursor, self._now)
        if pause != state.paused:
            state.updated_at = self._now
        state.paused, state.note = pause, note
        if not pause:
            self._runs(state).go_on()

    def _trigger(self, state: ScheduleState, order: orders.TriggerOrder) -> str | None:
        unique = hashlib.blake2b(self._token.encode(), digest_size=4).hexdigest()
        instance_id = f"{self._id}@{iso(self._now)}-{unique}"
        pending = Pending(self._now, "manual", instance_id=instance_id)
        taken = self._runs(state).offer(pending, order.overlap or state.spec.overlap)
        return instance_id if taken and isinstance(state.spec.action, StartAction) else None

    def _backfill(self, state: ScheduleState, order: orders.BackfillOrder) -> None:
        if order.end > self._now:
            raise InvalidScheduleError(
                f"The backfill of schedule '{self._id}' ends at {iso(order.end)}, which is to come: expected an end in the past"
            )
        if len(state.backfills) >= BACKFILLS_MAX:
            raise InvalidScheduleError(
                f"Schedule '{self._id}' has {BACKFILLS_MAX} backfills under way: expected fewer; ask again when some are done"
            )
        state.backfills = [*state.backfills, Backfill(order.start - 1, order.end, order.at_once)]
        self._backfills(state, self._runs(state))

    # --- inside ------------------------------------------------------------------------------------------------------

    def _runs(self, state: ScheduleState) -> Runs:
        runs = Runs(self._id, state, self._now)
        runs.sent = self.sent
        return runs

    def _timing(self, state: ScheduleState, *, bounded: bool = True) -> Timing:
        return Timing(state.spec, state.anchor, bounded=bounded)

    def _due(self, state: ScheduleState, occurrence: int) -> int:
        return occurrence + jitter_of(state.spec, self._id, occurrence)
