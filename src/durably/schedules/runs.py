"""How the occurrences of a schedule run: one after the other, beside each other, or not at all, as its policy says."""

from __future__ import annotations

import hashlib

from durably.core.events import ParentRef
from durably.core.messages import CallEntity, Cancel, MessageBody, StartInstance, Terminate
from durably.errors import FailureDetails
from durably.schedules.spec import SCHEDULE, Overlap, SignalAction, StartAction
from durably.schedules.state import (
    BUFFER_MAX,
    RECENT_MAX,
    RUNNING_MAX,
    Pending,
    Recent,
    Running,
    ScheduleState,
)
from durably.schedules.timing import iso

ALREADY_RAN = "AlreadyRan"
"""The `Recent.status` of an occurrence under whose id there is an instance."""

_STATUS = {
    "Terminated": "Terminated",
    "CancelledError": "Canceled",
    "InstanceAlreadyExistsError": ALREADY_RAN,
}
"""What the type of a failure says."""

_OVERLAPPED = "the next occurrence of schedule '{}' is due"


def occurrence_id(schedule_id: str, at: int) -> str:
    """The id of the instance of an occurrence: the same, however often it is asked for."""
    return f"{schedule_id}@{iso(at)}"


class Runs:
    """Starts what is due. Changes a state, and gathers what leaves with that change.

    Args:
        schedule_id: Whose.
        state: To change.
        now: The clock.
    """

    def __init__(self, schedule_id: str, state: ScheduleState, now: int) -> None:
        self.sent: list[tuple[str, MessageBody]] = []
        self._schedule_id = schedule_id
        self._entity = f"@{SCHEDULE}@{schedule_id}"
        self._state = state
        self._now = now

    def offer(self, pending: Pending, overlap: Overlap) -> bool:
        """An occurrence is due: start it, keep it, or leave it out; False: left out."""
        state = self._state
        if overlap == "allow" or not state.busy or isinstance(state.spec.action, SignalAction):
            self._start(pending)
        elif overlap == "buffer_all" and len(state.buffer) < BUFFER_MAX:
            state.buffer.append(pending)
        elif overlap == "buffer_all":
            state.counts.dropped += 1
            return False
        elif overlap == "buffer_one" and not state.buffer:
            state.buffer.append(pending)
        elif overlap in ("cancel_other", "terminate_other"):
            self._order_to_end(terminate=overlap == "terminate_other")
            state.counts.skipped += len(state.buffer)
            state.buffer = [pending]
        else:
            state.counts.skipped += 1
            return False
        return True

    def go_on(self) -> None:
        """Start what waits, as far as nothing runs. While the schedule is paused, only what was asked for by itself."""
        state = self._state
        while state.buffer and not state.running:
            at = next(
                (at for at, one in enumerate(state.buffer) if not state.paused or one.kind != "scheduled"),
                None,
            )
            if at is None:
                return
            self._start(state.buffer.pop(at))

    def ended(self, life: str, seq: int, child: str | None, failure: FailureDetails | None) -> None:
        """An instance has ended, or was refused. One that is not known any more is ignored."""
        state = self._state
        for run in state.running:
            if (life == state.life and run.seq == seq) or run.instance_id == child:
                break
        else:
            return
        state.running.remove(run)
        status = "Completed" if failure is None else _STATUS.get(failure.type, "Failed")
        if status == ALREADY_RAN:
            state.counts.started -= 1
        elif status != "Completed":
            state.counts.failed += 1
        for recent in state.recent:
            if recent.seq == run.seq:
                recent.status = status

    # --- inside ------------------------------------------------------------------------------------------------------

    def _start(self, pending: Pending) -> None:
        state, action = self._state, self._state.spec.action
        state.seq += 1
        state.counts.started += 1
        recent = Recent(
            at=pending.at,
            started_at=self._now,
            seq=state.seq,
            kind=pending.kind,
            past_due=pending.past_due,
        )
        state.recent = [*state.recent[1 - RECENT_MAX :], recent]
        if isinstance(action, SignalAction):
            payload = None if action.input is None else action.input.encode()
            self.sent.append((action.entity, CallEntity(action.operation, payload, sender=self._entity)))
            return
        recent.instance_id = pending.instance_id or occurrence_id(self._schedule_id, pending.at)
        self.sent.append((recent.instance_id, self._start_message(action, pending)))
        run = Running(recent.instance_id, state.seq, pending.at)
        state.running = [*state.running[1 - RUNNING_MAX :], run]

    def _start_message(self, action: StartAction, pending: Pending) -> StartInstance:
        tags = {
            **(action.tags or {}),
            "schedule.id": self._schedule_id,
            "schedule.time": iso(pending.at),
            "schedule.kind": pending.kind,
        }
        if pending.past_due:
            tags["schedule.past_due"] = "true"
        seq = self._state.seq
        return StartInstance(
            name=action.name,
            input=None if action.input is None else action.input.encode(),
            execution_id=hashlib.blake2b(f"{self._state.life}:{seq}".encode(), digest_size=16).hexdigest(),
            version=action.version,
            parent=self._reference(seq),
            tags=tags,
            on_existing="fail",
        )

    def _order_to_end(self, *, terminate: bool) -> None:
        reason = _OVERLAPPED.format(self._schedule_id)
        for run in self._state.running:
            if not run.ordered:
                run.ordered = True
                parent = self._reference(run.seq)
                order = Terminate(reason, parent=parent) if terminate else Cancel(reason, parent=parent)
                self.sent.append((run.instance_id, order))

    def _reference(self, seq: int) -> ParentRef:
        return ParentRef(self._entity, self._state.life, seq)
