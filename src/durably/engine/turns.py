"""One turn: which way each message goes. It is applied, held, refused, or dropped as stale."""

from __future__ import annotations

from durably.core.messages import (
    TIMER_START,
    ActivityDone,
    AttemptLost,
    Cancel,
    ChildDone,
    Continue,
    Discard,
    EntityDone,
    MessageBody,
    Purge,
    RaiseEvent,
    Redrive,
    Restart,
    Resume,
    Rewind,
    StartInstance,
    Suspend,
    Terminate,
    TimerDue,
    WorkerAnswered,
    is_child_of,
    is_next_of,
)
from durably.engine.desk import Desk
from durably.engine.executor import Run
from durably.engine.lives import Lives
from durably.engine.parking import Parking
from durably.engine.residents import Delivery, Resident
from durably.engine.rewinds import Rewinds
from durably.engine.trials import Trials
from durably.errors import InstanceStateError, InvariantError

_OPERATIONS: dict[type, str] = {
    RaiseEvent: "raise an event to",
    Cancel: "cancel",
    Terminate: "terminate",
    Suspend: "suspend",
    Resume: "resume",
}

_FROM_PARENTS: frozenset[type] = frozenset((Cancel, Terminate, Purge))
"""What a parent may send to a child: only the one that it started is meant."""

_OF_LIFE: frozenset[type] = frozenset((StartInstance, Rewind, Restart, Purge, Redrive, Discard))
"""What begins or removes an instance, or deals with what is parked, whatever state it is in."""

_ORDERS: frozenset[type] = frozenset((Terminate, Suspend, Resume, StartInstance, Rewind, Restart, Purge))
"""What is not for the code of an instance, and need not wait for its next execution."""

_TO_PAUSE: frozenset[type] = frozenset((Suspend, Resume))
"""Orders after which the instance is the one that it was."""

_TO_OPERATORS: frozenset[type] = frozenset((Redrive, Discard))
"""What is not for this life of an instance, but for what is parked under its id."""


class Turns:
    """Applies messages to residents.

    Args:
        desk: What is shared with the other parts of a turn.
        lives: Begins and ends instances.
        parking: Deals with what is parked.
        turns_max: Turns of one instance in one batch.
        trials: Told of a detained instance that has something to do, and of attempts whose hosts died.
    """

    def __init__(
        self,
        desk: Desk,
        lives: Lives,
        parking: Parking,
        turns_max: int,
        *,
        trials: Trials,
    ) -> None:
        self._desk = desk
        self._lives = lives
        self._rewinds = Rewinds(desk, lives)
        self._parking = parking
        self._turns_max = turns_max
        self._trials = trials

    def run(self, resident: Resident, now: int) -> None:
        """Give an instance everything that waits for it, as one turn; what exceeds the limit stays in its queue.

        Raises:
            InvariantError: Something is wrong with us; the partition must be thrown away.
        """
        self._desk.commit_of(resident).turn(now)
        resident.turns += 1
        queue = resident.queue
        if len(queue) > 1 and type(queue[0].body) is Continue:
            self._let_orders_pass(resident, now)
        while queue and resident.turns <= self._turns_max:
            delivery = queue.popleft()
            if resident.normal and type(delivery.body) is ActivityDone:
                self._apply(resident, delivery)
            else:
                self._handle(resident, delivery, now)

    def _let_orders_pass(self, resident: Resident, now: int) -> None:
        """Obey orders before the next execution begins: who goes on from one to the next without rest has no other time.

        What stood before an order that ends this life was for this life, and goes with it: not to the life that comes next,
        and it is not refused as something that came too late.
        """
        queue, state = resident.queue, resident.state
        while not state.ended:
            order = next((delivery for delivery in queue if type(delivery.body) in _ORDERS), None)
            if order is None:
                return
            if type(order.body) in _TO_PAUSE:
                queue.remove(order)
                self._handle(resident, order, now)
                continue
            overtaken: list[Delivery] = []
            while (first := queue.popleft()) is not order:
                overtaken.append(first)
            self._handle(resident, order, now)
            state = resident.state
            if state.ended:
                self._bury(overtaken)
            else:
                queue.extendleft(reversed(overtaken))

    def _bury(self, deliveries: list[Delivery]) -> None:
        """Consume what was for a life that has ended. It was accepted; nobody is there to see it."""
        for delivery in reversed(deliveries):
            if type(delivery.body) in _TO_OPERATORS:
                self._desk.around.redirect(delivery)
            else:
                self._desk.consumed(delivery)

    def retry_blocked(self, resident: Resident, now: int) -> None:
        """A host started: see whether the code agrees with the history now, and go on when it does."""
        diff, resident.blocked = resident.blocked, None
        if resident.state.continuing or self._desk.run_of(resident) is not None:
            self._desk.touch(resident, now)
            self._desk.go_on(resident)
        elif diff != resident.blocked:
            self._desk.touch(resident, now)

    def _handle(self, resident: Resident, delivery: Delivery, now: int) -> None:
        body = delivery.body
        if type(body) in _FROM_PARENTS and _is_for_another(body, resident):
            self._desk.consumed(delivery)  # its id was taken by a stranger
        elif type(body) in _OF_LIFE:
            successor = self._begin(resident, delivery, now)
            if successor is not None:
                self.run(successor, now)
        elif isinstance(body, TimerDue) and body.execution != resident.execution:
            return  # of an execution that is gone, and its row with it
        elif type(body) is Continue and not is_next_of(resident.execution_id, body):
            self._desk.consumed(delivery)  # of a life that was ended before it went on
        elif resident.state.ended:
            self._refuse_ended(resident, delivery)
        elif isinstance(body, AttemptLost):
            self._trials.lost(resident, body, now)
            self._desk.consumed(delivery)
        elif isinstance(body, Terminate):
            self._lives.terminate(resident, delivery, body)
        elif (
            isinstance(body, Cancel) and resident.state.started is not None and resident.state.started.remote
        ):
            # No worker knows what a cancellation is.
            self._lives.terminate(resident, delivery, Terminate(body.reason, recursive=True))
        elif isinstance(body, Resume):
            self._resume(resident, delivery, body)
        elif resident.closed:
            self._while_closed(resident, delivery, now)
        elif isinstance(body, Continue):
            self._lives.continue_as_new(resident, delivery, body, now)
        elif resident.state.continuing and not isinstance(body, Suspend):
            self._between_executions(resident, delivery)
        else:
            self._apply(resident, delivery)

    def _begin(self, resident: Resident, delivery: Delivery, now: int) -> Resident | None:
        """Deal with what begins or removes an instance; returns another resident that wants its first turn, or None."""
        match delivery.body:
            case StartInstance() as start:
                return self._start(resident, delivery, start, now)
            case Rewind() as rewind:
                return self._rewinds.rewind(resident, delivery, rewind, now)
            case Restart() as restart:
                return self._rewinds.restart(resident, delivery, restart, now)
            case Purge() as purge:
                self._lives.purge(resident, delivery, purge)
                return None
            case Redrive() | Discard() as order:
                self._obey(resident, delivery, order, now)
                return None
            case _:
                raise InvariantError("I5", resident.instance_id, "a message went the way of another kind")

    def _start(
        self, resident: Resident, delivery: Delivery, start: StartInstance, now: int
    ) -> Resident | None:
        if resident.lacks_start and resident.execution_id == start.execution_id:
            return self._found_start(resident, delivery, start, now)
        if resident.pending is not None and resident.pending.execution_id == start.execution_id:
            if resident.detained:
                self._while_detained(resident, delivery)
                return None
            if resident.parked is not None:
                self._desk.hold(resident, delivery)
                return None
        return self._lives.start(resident, delivery, start, now)

    def _found_start(
        self, resident: Resident, delivery: Delivery, start: StartInstance, now: int
    ) -> Resident | None:
        """The start that could not be read is back: the instance is parked no more, and waits for its time again."""
        successor = resident.with_start(start)
        if successor is None:
            self._desk.hold(resident, delivery)
            return None
        self._desk.around.replace(successor)
        self._desk.touch(successor, now)
        self._desk.around.rearm(successor)
        self._trials.look_at(successor)
        successor.queue.extend(
            (delivery, *resident.held, *resident.queue)
        )  # the start before what was held meanwhile
        resident.held = []
        resident.queue.clear()
        return successor

    def _obey(self, resident: Resident, delivery: Delivery, order: Redrive | Discard, now: int) -> None:
        if order.message_id is not None:
            self._parking.message(delivery, order)
        elif isinstance(order, Redrive):
            self._parking.redrive(resident, delivery, now)
        else:
            self._parking.discard(resident, delivery, now)

    def _apply(self, resident: Resident, delivery: Delivery) -> None:
        """The usual way: record it, let the code see it, record what the code decides."""
        body = delivery.body
        desk = self._desk
        run = resident.run
        if run is None and type(body) is not Suspend:
            run = desk.run_of(resident)
            if run is None:
                if resident.state.ended:
                    self._refuse_ended(resident, delivery)
                else:
                    desk.hold(resident, delivery)
                return
        if run is not None and type(body) is WorkerAnswered:
            self._answered(resident, run, delivery, body)
            return
        commit = resident.commit or desk.commit_of(resident)
        event = commit.receive(body)
        desk.consumed(delivery)
        if event is not None and run is not None:
            desk.advance(resident, run, commit, event)
        elif commit.messages:
            desk.dispatch(resident, commit)

    def _answered(self, resident: Resident, run: Run, delivery: Delivery, body: WorkerAnswered) -> None:
        """Record what a worker has decided; it counts only when the worker has seen what the history says."""
        desk = self._desk
        commit = resident.commit or desk.commit_of(resident)
        answer = run.answered(body)
        desk.consumed(delivery)
        if answer is not None and commit.receive(answer) is not None:
            desk.decide(resident, commit, answer.actions)

    def _while_closed(self, resident: Resident, delivery: Delivery, now: int) -> None:
        """Suspended, blocked, parked, or waiting for its time."""
        body = delivery.body
        if resident.detained:
            self._while_detained(resident, delivery)
            return
        if resident.pending is not None and resident.parked is None:
            if isinstance(body, TimerDue) and body.kind == TIMER_START:
                self._lives.begin_pending(resident)
                return
            if isinstance(body, Cancel):
                self._lives.cancel_pending(resident, delivery, body)
                return
        if isinstance(body, TimerDue):
            return  # its row stays, and it is armed again when the instance goes on
        if isinstance(body, Suspend) and resident.pending is None and resident.parked is None:
            self._desk.commit_of(resident).receive(body)
            self._desk.consumed(delivery)
            return
        self._desk.hold(resident, delivery)

    def _while_detained(self, resident: Resident, delivery: Delivery) -> None:
        if not isinstance(delivery.body, TimerDue):  # a timer is found due when the instance is tried
            self._desk.hold(resident, delivery)
        self._trials.knock(resident)

    def _resume(self, resident: Resident, delivery: Delivery, body: Resume) -> None:
        if resident.detained:
            self._while_detained(resident, delivery)
            return
        if resident.pending is not None or resident.parked is not None:
            self._desk.hold(resident, delivery)
            return
        was_suspended = resident.state.suspended
        self._desk.commit_of(resident).receive(body)
        self._desk.consumed(delivery)
        if was_suspended and not resident.closed:
            self._desk.go_on(resident)

    def _between_executions(self, resident: Resident, delivery: Delivery) -> None:
        """What is for the execution that ended is stale; the rest waits for the next one."""
        if isinstance(delivery.body, ActivityDone | ChildDone | TimerDue | WorkerAnswered):
            self._desk.consumed(delivery)
        else:
            self._desk.hold(resident, delivery)

    def _refuse_ended(self, resident: Resident, delivery: Delivery) -> None:
        operation = _OPERATIONS.get(type(delivery.body))
        if isinstance(delivery.body, EntityDone):
            self._desk.keep_answer(resident, delivery.body)
        if operation is None:
            self._desk.consumed(delivery)  # a result that nobody wants any more
            return
        status, expected = resident.state.status, "an instance that has not ended"
        self._desk.consumed(delivery, InstanceStateError(resident.instance_id, status, operation, expected))


def _is_for_another(body: MessageBody, resident: Resident) -> bool:
    """True when a parent means the child that it started, and this is not that one."""
    if not isinstance(body, Cancel | Terminate | Purge):
        return False
    return body.parent is not None and not is_child_of(resident.parent, body.parent, body.lineage)
