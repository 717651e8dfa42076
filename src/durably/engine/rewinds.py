"""Second lives: how a failed instance is rewound, and a finished one restarted."""

from __future__ import annotations

import msgspec

from durably.core.events import (
    ChildScheduled,
    EntityCalled,
    EventRaised,
    HistoryEvent,
    ParentRef,
    Rewound,
    TimerFired,
)
from durably.core.history import decode_rows, readable
from durably.core.ids import attempt_id
from durably.core.messages import (
    TIMER_DUE,
    ActivityDone,
    ChildDone,
    EntityDone,
    MessageBody,
    RaiseEvent,
    Restart,
    Rewind,
    StartInstance,
    Terminate,
    TimerDue,
    is_child_of,
)
from durably.core.orchestration import Commit
from durably.core.rewind import Late, Plan, plan_rewind
from durably.core.status import RuntimeStatus
from durably.engine.desk import Desk
from durably.engine.lives import Lives
from durably.engine.residents import Delivery, Resident
from durably.errors import HistoryCorruptError, InstanceStateError, InvariantError
from durably.storage.api import StoredInstance

_FAILED = RuntimeStatus.Failed.value
_COMPLETED = RuntimeStatus.Completed.value


class Rewinds:
    """Gives instances another life under the same id."""

    def __init__(self, desk: Desk, lives: Lives) -> None:
        self._desk = desk
        self._lives = lives

    # --- restart -----------------------------------------------------------------------------------------------------

    def restart(self, resident: Resident, delivery: Delivery, body: Restart, now: int) -> Resident | None:
        """Replace a finished instance by one with the same input; returns that one."""
        desk, status = self._desk, resident.state.status
        if resident.execution_id == body.execution_id:
            desk.consumed(delivery)  # it was done before
            return None
        if not resident.state.ended:
            expected = "a finished instance; terminate it first, or restart it under a new id"
            desk.consumed(delivery, InstanceStateError(resident.instance_id, status, "restart", expected))
            return None
        if resident.stored is None:
            desk.around.reread(resident, delivery)
            return None
        row = resident.stored.row
        try:
            input_ = readable(row.instance_id, "input", row.input)
        except HistoryCorruptError as error:
            desk.consumed(delivery, error)
            return None
        tags = msgspec.json.decode(row.tags, type=dict[str, str]) if row.tags else None
        start = StartInstance(
            row.name, input_, body.execution_id, row.version or "", None, tags, reason=body.reason
        )
        return self._start_instead(resident, delivery, start, now)

    def _start_instead(
        self, resident: Resident, delivery: Delivery, start: StartInstance, now: int
    ) -> Resident | None:
        """Consume the message, and give the instance a start in its place."""
        self._desk.consumed(delivery)
        anew = Delivery(resident.instance_id, start)
        self._desk.around.keep(anew, first=True)
        return self._lives.start(resident, anew, start, now)

    # --- rewind ------------------------------------------------------------------------------------------------------

    def rewind(self, resident: Resident, delivery: Delivery, body: Rewind, now: int) -> Resident | None:
        """Let a failed instance go on from before its failure; returns the resident that does."""
        desk, status = self._desk, resident.state.status
        if resident.execution_id == body.execution_id:
            desk.consumed(delivery)  # it was done before
            return None
        if body.parent is not None:
            return self._rewind_child(resident, delivery, body, now)
        if status != _FAILED:
            desk.consumed(delivery, InstanceStateError(resident.instance_id, status, "rewind", _FAILED))
            return None
        if resident.stored is None:
            desk.around.reread(resident, delivery)
            return None
        try:
            return self._go_back(resident, resident.stored, delivery, body, now)
        except HistoryCorruptError as error:
            desk.consumed(delivery, error)
            return None

    def _rewind_child(
        self, resident: Resident, delivery: Delivery, body: Rewind, now: int
    ) -> Resident | None:
        """The parent was rewound and wants a result: of this life of the child, or of another one."""
        desk, state = self._desk, resident.state
        parent, start = body.parent, body.start
        if parent is None or start is None:
            raise InvariantError(
                "I5", resident.instance_id, "its parent wants it back and does not say who it is"
            )
        if resident.parent == parent:
            desk.consumed(delivery)  # it was done before
            return None
        if state.ended and resident.stored is None:
            desk.around.reread(resident, delivery)
            return None
        is_ours = is_child_of(resident.parent, parent, body.lineage)
        if is_ours and not state.ended:
            desk.consumed(delivery)  # when it ends, its parent hears of it, and asks again if need be
            return None
        if is_ours and state.status == _COMPLETED:
            desk.consumed(delivery)
            done = ChildDone(parent.execution_id, parent.seq, parent.attempt, state.output)
            desk.around.send(parent.instance_id, done)
            return None
        if is_ours and state.status == _FAILED and resident.stored is not None:
            try:
                return self._go_back(resident, resident.stored, delivery, body, now)
            except HistoryCorruptError:
                pass  # what cannot be rewound can be started anew
        return self._start_instead(resident, delivery, start, now)

    def _go_back(
        self, resident: Resident, stored: StoredInstance, delivery: Delivery, body: Rewind, now: int
    ) -> Resident:
        """Begin the execution that goes on from the cut. Its rows of before stay, and name each other."""
        desk = self._desk
        if stored.oversize is not None:
            raise HistoryCorruptError(
                f"Instance '{resident.instance_id}' cannot be rewound. {stored.oversize}"
            )
        history, checksum = decode_rows(resident.instance_id, resident.execution_id, stored.history)
        plan = plan_rewind(resident.instance_id, history)
        successor = Resident(
            resident.instance_id,
            desk.around.new_execution(),
            resident.ordinal,
            body.execution_id,
            resident.created_at,
        )
        successor.bases = (*resident.bases, resident.execution)
        desk.abandon(resident)
        desk.around.replace(successor)
        commit = desk.commit_of(successor)
        commit.turn(max(now, plan.ended_at))
        desk.committer.gathering.size += sum(len(row.data) for row in stored.history)
        rewound = Rewound(
            base_execution=resident.execution,
            base_checksum=checksum.hex(),
            reason=body.reason,
            failed=plan.failed,
            dropped=plan.dropped,
            late=plan.late_seqs,
            shift_us=max(now, plan.ended_at) - plan.failed_at,
            lineage={**plan.lineage, resident.execution_id: plan.next_seq},
            custom_status=resident.state.custom_status,
            in_flight=plan.in_flight,
        )
        self._end_orphans(resident, plan, commit)
        desk.consumed(delivery)
        self._begin(successor, commit, plan, body, rewound)
        successor.queue.extend(self._once_more(successor, plan.late))
        successor.queue.extend(resident.queue)
        resident.queue.clear()
        return successor

    def _begin(self, successor: Resident, commit: Commit, plan: Plan, body: Rewind, rewound: Rewound) -> None:
        desk = self._desk
        started = desk.rewound_event(plan.started, body.execution_id, body.parent)
        if not plan.kept:
            self._lives.first_turn(successor, started, rewound)
            return
        kept: list[HistoryEvent] = [started if event is plan.started else event for event in plan.kept]
        commit.begin_again(kept, rewound)
        desk.dispatch(successor, commit)
        successor.history = [*kept, rewound]
        desk.run_of(successor)  # when the code does not agree with what was kept, that shows now

    def _end_orphans(self, resident: Resident, plan: Plan, commit: Commit) -> None:
        """Children whose calls were dropped have nobody any more, and their ids may be wanted again."""
        for call, attempt in plan.orphans:
            parent = ParentRef(resident.instance_id, resident.execution_id, call.seq, attempt)
            order = Terminate("its caller was rewound", recursive=True, parent=parent, lineage=plan.former)
            commit.messages.append((attempt_id(call.instance_id, attempt), order))

    def _once_more(self, successor: Resident, late: list[Late]) -> list[Delivery]:
        """Results of the execution before, as messages to this one. A timer needs none of its own: it has a row."""
        deliveries: list[Delivery] = []
        for event in late:
            delivery = Delivery(successor.instance_id, _message(successor, event))
            if not isinstance(event, TimerFired):
                self._desk.around.keep(delivery, first=True)
            deliveries.append(delivery)
        return deliveries


def _message(successor: Resident, event: Late) -> MessageBody:
    if isinstance(event, TimerFired):
        return TimerDue(successor.execution, event.seq, TIMER_DUE)
    if isinstance(event, EventRaised):
        return RaiseEvent(event.name, event.input)
    number = successor.state.attempt_number(event.seq)
    call = successor.state.open.get(event.seq)
    if isinstance(call, EntityCalled):
        return EntityDone(successor.execution_id, event.seq, event.result, None)
    if isinstance(call, ChildScheduled):
        return ChildDone(successor.execution_id, event.seq, number, event.result)
    return ActivityDone(successor.execution_id, event.seq, number, event.result)
