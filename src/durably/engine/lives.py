"""How instances begin, continue as new, end by order, and are removed."""

from __future__ import annotations

import msgspec

from durably.core.commit import Removal
from durably.core.events import ExecutionCanceled, ExecutionFailed, ExecutionStarted, Rewound
from durably.core.messages import (
    TIMER_START,
    Cancel,
    ChildDone,
    Continue,
    Purge,
    RaiseEvent,
    StartInstance,
    Terminate,
)
from durably.engine.desk import Desk
from durably.engine.families import children
from durably.engine.residents import Delivery, Resident
from durably.errors import FailureDetails, InstanceAlreadyExistsError, InstanceStateError, InvariantError


class Lives:
    """The ends of an instance's life, both of them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def create(self, delivery: Delivery, start: StartInstance, now: int, *, ordinal: int = 0) -> Resident:
        """Make the resident of a new instance, with its start as the first message of its first turn.

        It was created when its start was accepted: while that waited for a host, it was listed under that instant.
        """
        around, start = self._desk.around, self._desk.versioned(start)
        created_at = now if delivery.at is None else delivery.at
        resident = Resident(delivery.target, around.new_execution(), ordinal, start.execution_id, created_at)
        resident.pending = start
        resident.queue.append(delivery)
        around.replace(resident)
        return resident

    def start(
        self, resident: Resident, delivery: Delivery, start: StartInstance, now: int
    ) -> Resident | None:
        """Deal with a start: begin, wait for its time, or see what the policy says about an id that is taken.

        Returns:
            Another resident that took the place of this one and wants its first turn, or None.
        """
        pending = resident.pending
        if pending is None or pending.execution_id != start.execution_id:
            return self._start_taken(resident, delivery, start, now)
        if self._desk.must_wait_for(pending.name, pending.version):
            resident.blocked = self._desk.no_code(pending.name, pending.version)
            self._desk.touch(resident, now)
            self._desk.hold(resident, delivery)
            return None
        resident.blocked = None
        if start.start_at is None or (start.start_at <= now and resident.is_new):
            self.begin(resident, delivery, pending)
            return None
        if resident.is_new:
            commit = self._desk.commit_of(resident)
            commit.state.now = now
            commit.timers[-1, TIMER_START] = start.start_at
        self._desk.hold(resident, delivery)  # its timer begins it
        return None

    def begin(self, resident: Resident, delivery: Delivery, start: StartInstance) -> None:
        """Run the first turn of the first execution."""
        resident.pending = None
        started = self._desk.started_event(resident, start)
        self._desk.consumed(delivery)
        self.first_turn(resident, started)

    def begin_pending(self, resident: Resident) -> None:
        """The time of a scheduled start has come; where nobody knows its orchestrator, it waits for who does."""
        desk, start = self._desk, resident.pending
        if start is not None and desk.must_wait_for(start.name, start.version):
            resident.blocked = desk.no_code(start.name, start.version)
            desk.touch(resident, resident.state.now)
            return  # its timer stays, and rings when the next host starts
        resident.blocked = None
        desk.commit_of(resident).timers[-1, TIMER_START] = None
        first, *rest = resident.held
        resident.held = rest
        if start is None or not isinstance(first.body, StartInstance):
            raise InvariantError(
                "I8", resident.instance_id, "its scheduled start came due without its message"
            )
        self.begin(resident, first, start)
        desk.go_on(resident)

    def continue_as_new(self, resident: Resident, delivery: Delivery, body: Continue, now: int) -> None:
        """Begin the next execution, once there is code for it; the rows of the one before go in the same commit."""
        desk = self._desk
        if not resident.state.continuing:
            desk.consumed(delivery)
            return
        before = resident.state.begun
        version = before.version if body.version is None else body.version or None
        if desk.must_wait_for(before.name, version):
            resident.blocked = desk.no_code(before.name, version)
            desk.touch(resident, now)
            desk.hold(resident, delivery)
            return
        desk.abandon(resident)
        desk.committer.gathering.executions_dropped += (resident.execution, *resident.bases)
        resident.begin_execution(desk.around.new_execution(), body.execution_id)
        desk.commit_of(resident).turn(now)
        resident.turns += 1
        desk.consumed(delivery)
        resident.queue.extendleft(reversed(resident.held))
        resident.held = []
        self.first_turn(resident, desk.continued_event(resident, before, body, version))
        self._inherit(resident, body)

    def _inherit(self, resident: Resident, body: Continue) -> None:
        """Give the new execution the events of the one before, in the same commit.

        As messages of their own they would get new places in the inbox, behind events that came later.
        """
        desk = self._desk
        carried = list(body.carried)
        while carried and resident.normal and resident.run is not None:
            event = carried.pop(0)
            commit = desk.commit_of(resident)
            arrival = commit.receive(RaiseEvent(event.name, event.input))
            if arrival is not None:
                desk.advance(resident, resident.run, commit, arrival)
        if carried and resident.state.continuing:  # it went on before it saw them all: so does the rest
            heir = resident.queue[0]
            if isinstance(heir.body, Continue):
                heir.body = msgspec.structs.replace(heir.body, carried=(*heir.body.carried, *carried))

    def first_turn(
        self, resident: Resident, started: ExecutionStarted, rewound: Rewound | None = None
    ) -> None:
        """Record the first event of an execution, and let the code see it."""
        desk = self._desk
        commit = desk.commit_of(resident)
        if started.input is not None:
            desk.committer.gathering.size += len(started.input)
        commit.begin(started)
        if rewound is not None:
            commit.record(rewound)
        if desk.executor.runs(started.name, started.version):
            resident.run = desk.executor.begin(started)
            desk.advance(resident, resident.run, commit, started)
        else:
            commit.decide(ExecutionFailed(desk.no_code_failure(started)))
            desk.dispatch(resident, commit)

    # --- ends --------------------------------------------------------------------------------------------------------

    def terminate(self, resident: Resident, delivery: Delivery, body: Terminate) -> None:
        """Stop the code at once, whatever state the instance is in."""
        desk = self._desk
        commit = desk.commit_of(resident)
        if resident.parked is not None and not resident.is_poisonous:
            commit.terminate_unrecorded(body, resident.parent)
            if resident.pending is not None:
                resident.pending = None
                commit.timers[-1, TIMER_START] = None
        else:
            if resident.pending is not None:
                self._begin_to_end(resident)
            commit.receive(body)
        resident.blocked = resident.parked = None
        self._ended(resident, delivery)

    def cancel_pending(self, resident: Resident, delivery: Delivery, body: Cancel) -> None:
        """A start that has not come due needs no code to be cancelled."""
        self._begin_to_end(resident)
        self._desk.commit_of(resident).decide(ExecutionCanceled(body.reason))
        self._ended(resident, delivery)

    def _begin_to_end(self, resident: Resident) -> None:
        """The history of a start that ends before its time says that it was started, and then what ended it."""
        start = resident.pending
        if start is None:
            raise InvariantError("I8", resident.instance_id, "it is Pending without its start")
        resident.pending = None
        commit = self._desk.commit_of(resident)
        commit.timers[-1, TIMER_START] = None
        commit.begin(self._desk.started_event(resident, start))

    def _ended(self, resident: Resident, delivery: Delivery) -> None:
        desk = self._desk
        resident.close()
        desk.consumed(delivery)
        desk.dispatch(resident, desk.commit_of(resident))
        desk.discard_held(resident)

    def purge(self, resident: Resident, delivery: Delivery, body: Purge) -> None:
        """Delete a finished instance; its descendants get a message in the same commit."""
        desk, status = self._desk, resident.state.status
        if not resident.state.ended:
            expected = "a finished instance; terminate it first"
            desk.consumed(delivery, InstanceStateError(resident.instance_id, status, "purge", expected))
            return
        if body.recursive:
            if resident.stored is None:
                desk.around.reread(resident, delivery)
                return
            for child, call, lineage in children(resident.stored):
                desk.around.send(child, Purge(recursive=True, parent=call, lineage=lineage))
        self._remove(resident)
        desk.consumed(delivery)
        for other in reversed(
            resident.queue
        ):  # they find what is there now: nothing, or what one of them starts
            desk.around.redirect(other)
        resident.queue.clear()

    def _remove(self, resident: Resident) -> None:
        desk = self._desk
        gathering = desk.committer.gathering
        desk.abandon(resident)
        gathering.removed.append(Removal(resident.instance_id, resident.execution))
        gathering.executions_dropped += resident.bases
        gathering.vanishing.append(resident.instance_id)
        desk.around.drop(resident)

    # --- ids that are taken ------------------------------------------------------------------------------------------

    def _start_taken(
        self, resident: Resident, delivery: Delivery, start: StartInstance, now: int
    ) -> Resident | None:
        state = resident.state
        if resident.execution_id == start.execution_id:
            self._desk.consumed(delivery)  # it was done before
            return None
        if start.on_existing == "attach":
            stranger = resident.name if resident.name not in (None, start.name) else None
            error = stranger and InstanceAlreadyExistsError(resident.instance_id, state.status, stranger)
            self._desk.consumed(delivery, error or None)
            return None
        if start.on_existing == "fail" or (start.on_existing == "replace_finished" and not state.ended):
            self._refuse(resident, delivery, start)
            return None
        if not state.ended:
            order = Terminate("replaced by a new start")
            self.terminate(resident, Delivery(resident.instance_id, order), order)
        self._remove(resident)
        successor = self.create(delivery, start, now, ordinal=resident.ordinal + 1)
        successor.queue.extend(resident.queue)
        resident.queue.clear()
        return successor

    def _refuse(self, resident: Resident, delivery: Delivery, start: StartInstance) -> None:
        error = InstanceAlreadyExistsError(resident.instance_id, resident.state.status)
        self._desk.consumed(delivery, error)
        parent = start.parent
        if parent is not None:
            done = ChildDone(parent.execution_id, parent.seq, parent.attempt, None, FailureDetails.of(error))
            self._desk.around.send(parent.instance_id, done)
