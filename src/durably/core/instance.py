"""InstanceState: a history folded into status, open actions and buffers.

`apply` is the only door: the same function folds a stored history and follows a live turn, so what is in memory is by
construction what a reload would give. The simulation compares the two after every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from durably.core.events import (
    ActionCanceled,
    Answered,
    AttemptFailed,
    AttemptInterrupted,
    AttemptStarted,
    CancelRequested,
    ChildScheduled,
    CompensationStarted,
    ContinuedAsNew,
    CustomStatusSet,
    EntityAnswered,
    EntityCalled,
    EntitySignaled,
    Event,
    EventAwaited,
    EventRaised,
    EventSent,
    ExecutionCanceled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    HistoryEvent,
    LockGranted,
    LockReleased,
    LockRequested,
    PatchApplied,
    Payload,
    RetryDeclined,
    Rewound,
    SagaEnded,
    StartSent,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
    TurnInterrupted,
    TurnStarted,
    UndoAdded,
    UndoEnded,
)
from durably.core.external_events import EventMatcher
from durably.core.messages import TIMER_DUE, TIMER_RETRY, TIMER_TIMEOUT
from durably.core.status import TERMINAL, RuntimeStatus
from durably.errors import FailureDetails, InvariantError

OpenAction = TaskScheduled | ChildScheduled | TimerCreated | EventAwaited | EntityCalled | LockRequested

_RUNNING = RuntimeStatus.Running.value


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """Where a call stands that has a policy or a time-out.

    Attributes:
        number: The attempt that runs, or that failed last; the first is 1.
        first_at: When the first attempt was scheduled.
        retry_at: When the next one is due, while it waits; None while one runs.
        deadline: When the running one times out, or None.
    """

    number: int
    first_at: int
    retry_at: int | None
    deadline: int | None


class Section(msgspec.Struct, frozen=True, gc=False):
    """The critical section of an execution.

    Attributes:
        seq: The lock that began it.
        entities: What it locks, in this order.
        granted: So many of them are locked. The next one has been asked for.
    """

    seq: int
    entities: tuple[str, ...]
    granted: int = 0

    @property
    def complete(self) -> bool:
        """True when all are locked."""
        return self.granted == len(self.entities)

    @property
    def asked(self) -> tuple[str, ...]:
        """The entities that are locked, and the one that was asked last."""
        return self.entities[: self.granted + 1]


class InstanceState(msgspec.Struct, eq=False):
    """One execution of an instance, as its history says.

    Attributes:
        started: The first event of the execution.
        now: Orchestration time of the newest turn.
        status: A `RuntimeStatus` value.
        open: Actions that nothing has completed yet, by seq, in the order of their calls.
        continuing: The execution has continued as new; the next one has not begun.
        moved: Due times that a rewind moved, by seq.
        lineage: See `Rewound.lineage`.
        let_go: Children that the code gave up while they ran: the call and its attempt. They may live on for a while.
        undos: What sagas have recorded and not undone, by number, in the order in which it was done.
        compensating: What sagas that undo their steps failed with, by saga.
        interrupted: The newest `AttemptInterrupted` of each call that has one; kept when the call ends.
        section: The critical section that the code has, or waits for.
        held_back: Calls of entities that are not sent: their critical section was rewound, and its locks are not back.
        answers: Answers of workers so far.
        untaken: Arrivals that the code of a worker has not seen yet.
    """

    instance_id: str
    started: ExecutionStarted | None = None
    now: int = 0
    status: str = RuntimeStatus.Pending.value
    open: dict[int, OpenAction] = {}
    attempts: dict[int, Attempt] = {}
    events: EventMatcher | None = None  # most instances never see an external event
    custom_status: Payload = None
    output: Payload = None
    failure: FailureDetails | None = None
    suspended: bool = False
    continuing: bool = False
    tasks_open: int = 0
    moved: dict[int, int] = {}
    lineage: dict[str, int] = {}
    let_go: list[tuple[ChildScheduled, int]] = []
    undos: dict[int, UndoAdded] = {}
    compensating: dict[int, FailureDetails] = {}
    interrupted: dict[int, AttemptInterrupted] | None = None
    section: Section | None = None
    held_back: frozenset[int] = frozenset()
    answers: int = 0
    untaken: int = 0

    @property
    def is_working(self) -> bool:
        """True while an activity of it runs, or a worker has to be asked: after a crash somebody has to see to that."""
        return (self.tasks_open > 0 or self.untaken > 0) and not self.ended

    @classmethod
    def fold(cls, instance_id: str, history: Iterable[HistoryEvent]) -> InstanceState:
        """The state after a history."""
        state = cls(instance_id)
        for event in history:
            state.apply(event)
        return state

    def apply(self, event: Event) -> None:
        """Move on by one event.

        Raises:
            InvariantError: The event cannot follow (I6: a completion without its open action).
        """
        TRANSITIONS[type(event)](self, event)

    @property
    def begun(self) -> ExecutionStarted:
        """The first event of the execution, of one that has begun."""
        if self.started is None:
            raise InvariantError("I1", self.instance_id, "its history does not begin with what started it")
        return self.started

    @property
    def ended(self) -> bool:
        """True when the instance is terminal."""
        return self.status in TERMINAL

    def timers(self) -> list[tuple[int, int, int]]:
        """The timers that must be armed: (seq, kind, due_at). All of them follow from the history."""
        armed: list[tuple[int, int, int]] = []
        for seq, action in self.open.items():
            if isinstance(action, TimerCreated | EventAwaited):
                due_at = self.due_at(action)
                if due_at is not None:
                    armed.append((seq, TIMER_DUE, due_at))
            else:
                attempt = self.attempts.get(seq)
                if attempt is not None and attempt.retry_at is not None:
                    armed.append((seq, TIMER_RETRY, attempt.retry_at))
                elif attempt is not None and attempt.deadline is not None:
                    armed.append((seq, TIMER_TIMEOUT, attempt.deadline))
        return armed

    def due_at(self, action: OpenAction) -> int | None:
        """When a timer, or the patience of a wait, is at its end; None for an action without such a time."""
        return self.moved.get(action.seq) or getattr(action, "fire_at", None)

    def former(self, seq: int) -> tuple[str, ...]:
        """The executions before this one in which the call `seq` is the same, by id."""
        return tuple(execution_id for execution_id, end in self.lineage.items() if seq < end)

    def must_wait(self, call: EntityCalled) -> bool:
        """True for a call from inside of a critical section that was rewound: its locks were released by the failure."""
        section = self.section
        if section is None or section.complete or section.seq in self.open:
            return False
        return call.seq > section.seq and call.entity in section.entities

    def attempt_number(self, seq: int) -> int:
        """The attempt of an open call that runs, or failed last; the first is 1."""
        attempt = self.attempts.get(seq)
        return 1 if attempt is None else attempt.number

    def running_tasks(self) -> list[tuple[TaskScheduled, int]]:
        """Activities that somebody has to be running: the call and the number of its attempt."""
        running: list[tuple[TaskScheduled, int]] = []
        for seq, action in self.open.items():
            if type(action) is TaskScheduled:
                attempt = self.attempts.get(seq)
                if attempt is None:
                    running.append((action, 1))
                elif attempt.retry_at is None:
                    running.append((action, attempt.number))
        return running

    def deliveries(self, seq: int, attempt: int) -> int:
        """How often an attempt was recorded as interrupted by the end of its process."""
        event = None if self.interrupted is None else self.interrupted.get(seq)
        return 0 if event is None or event.attempt != attempt else event.deliveries

    def poison(self) -> list[tuple[TaskScheduled, AttemptInterrupted]]:
        """Open activity calls that got the instance parked."""
        if self.interrupted is None:
            return []
        return [
            (action, event)
            for seq, event in self.interrupted.items()
            if event.parked and type(action := self.open.get(seq)) is TaskScheduled
        ]

    def retried(self, seq: int) -> Attempt:
        """Where an open call with a policy or a time-out stands."""
        attempt = self.attempts.get(seq)
        if attempt is None:
            raise InvariantError(
                "I6", self.instance_id, f"an attempt of action #{seq}, which is not open or not retried"
            )
        return attempt

    def take(self, seq: int, cause: Event) -> OpenAction:
        """Close an open action and return it."""
        action = self.open.pop(seq, None)
        if action is None:
            text = f"{type(cause).__name__} for action #{seq}, which is not open"
            raise InvariantError("I6", self.instance_id, text)
        kind = type(action)
        if kind is TaskScheduled:
            self.tasks_open -= 1
        elif kind is EventAwaited and self.events is not None:
            self.events.abandoned(seq)
        if self.attempts:
            self.attempts.pop(seq, None)
        return action


def turn_deliveries(history: Sequence[HistoryEvent]) -> TurnInterrupted | None:
    """The last interruption of a turn that nothing has got over since, or None."""
    for event in reversed(history):
        if type(event) is TurnInterrupted:
            return event if event.deliveries else None
        if type(event) not in _SAYS_NOTHING_OF_CODE:
            return None
    return None


_SAYS_NOTHING_OF_CODE: frozenset[type[Event]] = frozenset(
    (TurnStarted, AttemptStarted, AttemptInterrupted, EntityAnswered, ExecutionSuspended, ExecutionResumed)
)
"""What may be recorded without the code being run."""


def _turn_started(state: InstanceState, event: TurnStarted) -> None:
    state.now = event.at


def _execution_started(state: InstanceState, event: ExecutionStarted) -> None:
    state.started = event
    state.status = _RUNNING
    state.custom_status = event.custom_status
    if event.remote:
        state.untaken = 1


def _answered(state: InstanceState, event: Answered) -> None:
    state.answers += 1
    state.untaken -= event.taken


def _arrived(state: InstanceState) -> None:
    """Of a remote execution: one more thing that the code has to see."""
    if state.started is not None and state.started.remote:
        state.untaken += 1


def _task_scheduled(state: InstanceState, event: TaskScheduled) -> None:
    state.open[event.seq] = event
    state.tasks_open += 1
    if event.retry is not None or event.timeout_us is not None:
        deadline = None if event.timeout_us is None else state.now + event.timeout_us
        state.attempts[event.seq] = Attempt(1, state.now, None, deadline)


def _child_scheduled(state: InstanceState, event: ChildScheduled) -> None:
    state.open[event.seq] = event
    if event.retry is not None:
        state.attempts[event.seq] = Attempt(1, state.now, None, None)


def _timer_created(state: InstanceState, event: TimerCreated) -> None:
    state.open[event.seq] = event


def _event_awaited(state: InstanceState, event: EventAwaited) -> None:
    if state.events is None:
        state.events = EventMatcher()
    if state.events.awaited(event.seq, event.name) is None:
        state.open[event.seq] = event


def _event_raised(state: InstanceState, event: EventRaised) -> None:
    if state.started is not None and state.started.remote:
        state.untaken += 1  # who waits for it is known to the code alone
        return
    if state.events is None:
        state.events = EventMatcher()
    seq = state.events.raised(event)
    if seq is not None:
        state.take(seq, event)


def _task_ended(state: InstanceState, event: TaskCompleted | TaskFailed) -> None:
    state.take(event.seq, event)
    _arrived(state)


def _attempt_failed(state: InstanceState, event: AttemptFailed) -> None:
    first_at = state.retried(event.seq).first_at
    state.attempts[event.seq] = Attempt(event.attempt, first_at, event.retry_at, None)


def _attempt_started(state: InstanceState, event: AttemptStarted) -> None:
    first_at = state.retried(event.seq).first_at
    action = state.open.get(event.seq)
    timeout = action.timeout_us if isinstance(action, TaskScheduled) else None
    deadline = None if timeout is None else state.now + timeout
    state.attempts[event.seq] = Attempt(event.attempt, first_at, None, deadline)


def _closed(state: InstanceState, event: TimerFired | RetryDeclined) -> None:
    state.take(event.seq, event)
    _arrived(state)


def _given_up(state: InstanceState, event: ActionCanceled) -> None:
    attempt = state.attempts.get(event.seq)
    action = state.take(event.seq, event)
    if type(action) is ChildScheduled and (attempt is None or attempt.retry_at is None):
        state.let_go.append((action, 1 if attempt is None else attempt.number))
    elif type(action) is LockRequested:
        state.section = None


def _entity_called(state: InstanceState, event: EntityCalled) -> None:
    state.open[event.seq] = event
    if state.must_wait(event):
        state.held_back |= {event.seq}


def _lock_requested(state: InstanceState, event: LockRequested) -> None:
    state.open[event.seq] = event
    state.section = Section(event.seq, event.entities)


def _lock_granted(state: InstanceState, event: LockGranted) -> None:
    section = state.section
    if section is None or section.seq != event.seq or event.entity not in section.asked[section.granted :]:
        text = f"a lock of '{event.entity}' for #{event.seq}, which does not wait for it"
        raise InvariantError("I6", state.instance_id, text)
    state.section = Section(section.seq, section.entities, section.granted + 1)
    if state.section.complete:
        state.held_back -= state.open.keys()


def _lock_released(state: InstanceState, event: LockReleased) -> None:
    del event
    state.section = None
    state.held_back -= state.open.keys()


def _nothing(
    state: InstanceState,
    event: CancelRequested
    | EventSent
    | StartSent
    | EntitySignaled
    | EntityAnswered
    | TurnInterrupted
    | PatchApplied,
) -> None:
    del state, event  # recorded for replay; the state does not depend on it


def _attempt_interrupted(state: InstanceState, event: AttemptInterrupted) -> None:
    if state.interrupted is None:
        state.interrupted = {}
    state.interrupted[event.seq] = event


def _suspended(state: InstanceState, event: ExecutionSuspended) -> None:
    state.suspended = True
    state.status = RuntimeStatus.Suspended.value


def _resumed(state: InstanceState, event: ExecutionResumed) -> None:
    state.suspended = False
    state.status = _RUNNING


def _rewound(state: InstanceState, event: Rewound) -> None:
    """Nobody's time ran while the instance had failed, and what runs again begins now."""
    state.lineage = event.lineage
    state.custom_status = event.custom_status
    if state.section is not None:  # the failure released it: it is asked for anew
        state.section = Section(state.section.seq, state.section.entities)
    calls = [action for action in state.open.values() if isinstance(action, EntityCalled)]
    unsent = {call.seq for call in calls if state.must_wait(call)}
    state.held_back = frozenset(unsent.difference(event.in_flight, event.late))
    for seq, action in state.open.items():
        attempt = state.attempts.get(seq)
        if isinstance(action, TimerCreated | EventAwaited):
            due_at = state.due_at(action)
            if due_at is not None and seq not in event.late:
                state.moved[seq] = due_at + event.shift_us
        elif attempt is not None:
            state.attempts[seq] = _attempt_again(state.now, action, attempt, event)


def _attempt_again(now: int, action: OpenAction, attempt: Attempt, event: Rewound) -> Attempt:
    if action.seq in event.late:  # its result follows
        return Attempt(attempt.number, attempt.first_at, None, None)
    if attempt.retry_at is not None:
        return Attempt(
            attempt.number, attempt.first_at + event.shift_us, attempt.retry_at + event.shift_us, None
        )
    timeout = action.timeout_us if isinstance(action, TaskScheduled) else None
    deadline = None if timeout is None else now + timeout
    first_at = now if action.seq in event.failed else attempt.first_at + event.shift_us
    return Attempt(attempt.number, first_at, None, deadline)


def _custom_status(state: InstanceState, event: CustomStatusSet) -> None:
    state.custom_status = event.value


def _completed(state: InstanceState, event: ExecutionCompleted) -> None:
    state.status = RuntimeStatus.Completed.value
    state.output = event.result
    state.failure = None


def _failed(state: InstanceState, event: ExecutionFailed) -> None:
    state.status = RuntimeStatus.Failed.value
    state.failure = event.failure


def _canceled(state: InstanceState, event: ExecutionCanceled) -> None:
    state.status = RuntimeStatus.Canceled.value
    state.failure = FailureDetails("CancelledError", event.reason or "the instance was canceled")


def _terminated(state: InstanceState, event: ExecutionTerminated) -> None:
    state.status = RuntimeStatus.Terminated.value
    state.suspended = False
    state.output = event.output
    if event.output is None and event.reason is not None:
        state.output = msgspec.json.encode(event.reason)
    state.failure = FailureDetails("Terminated", event.reason or "the instance was terminated")


def _continued(state: InstanceState, event: ContinuedAsNew) -> None:
    state.continuing = True


def _undo_added(state: InstanceState, event: UndoAdded) -> None:
    state.undos[event.number] = event


def _undo_ended(state: InstanceState, event: UndoEnded) -> None:
    state.undos.pop(event.number, None)


def _compensation_started(state: InstanceState, event: CompensationStarted) -> None:
    state.compensating[event.saga] = event.failure
    state.failure = event.failure  # in its row; what the instance ends with takes its place


def _saga_ended(state: InstanceState, event: SagaEnded) -> None:
    state.undos = {number: undo for number, undo in state.undos.items() if undo.saga != event.saga}
    state.compensating.pop(event.saga, None)
    state.failure = next(reversed(state.compensating.values()), None)


TRANSITIONS: dict[type[Event], Callable[[InstanceState, Event], None]] = {
    TurnStarted: _turn_started,
    ExecutionStarted: _execution_started,
    TaskScheduled: _task_scheduled,
    ChildScheduled: _child_scheduled,
    TimerCreated: _timer_created,
    EventAwaited: _event_awaited,
    EventRaised: _event_raised,
    TaskCompleted: _task_ended,
    TaskFailed: _task_ended,
    AttemptFailed: _attempt_failed,
    AttemptStarted: _attempt_started,
    TimerFired: _closed,
    ActionCanceled: _given_up,
    RetryDeclined: _closed,
    CancelRequested: _nothing,
    EventSent: _nothing,
    StartSent: _nothing,
    EntityCalled: _entity_called,
    EntitySignaled: _nothing,
    EntityAnswered: _nothing,
    LockRequested: _lock_requested,
    LockGranted: _lock_granted,
    LockReleased: _lock_released,
    ExecutionSuspended: _suspended,
    ExecutionResumed: _resumed,
    ExecutionTerminated: _terminated,
    Rewound: _rewound,
    CustomStatusSet: _custom_status,
    ExecutionCompleted: _completed,
    ExecutionFailed: _failed,
    ExecutionCanceled: _canceled,
    ContinuedAsNew: _continued,
    AttemptInterrupted: _attempt_interrupted,
    TurnInterrupted: _nothing,
    Answered: _answered,
    PatchApplied: _nothing,
    UndoAdded: _undo_added,
    UndoEnded: _undo_ended,
    CompensationStarted: _compensation_started,
    SagaEnded: _saga_ended,
}  # pyright: ignore[reportAssignmentType]  # each handler takes the type that is its key; no type can say that
