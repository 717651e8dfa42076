"""Orchestrations: messages in, decisions of user code in; history and consequences out.

A `Commit` gathers what the turns of one instance in one batch decided: the events for its history row, and the effects
that may leave once that row is durable. It performs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from durably.core.calls import order_child, rewind_child, start_child
from durably.core.entity_calls import (
    ask_next,
    call_entity,
    calls_held_back,
    leave,
    release_all,
    signal_entity,
)
from durably.core.events import (
    OUTCOMES,
    Action,
    ActionCanceled,
    Answered,
    Arrival,
    AttemptFailed,
    AttemptStarted,
    CancelRequested,
    ChildScheduled,
    CompensationStarted,
    ContinuedAsNew,
    EntityAnswered,
    EntityCalled,
    EntitySignaled,
    Event,
    EventAwaited,
    EventRaised,
    EventSent,
    ExecutionFailed,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    HistoryEvent,
    LockGranted,
    LockReleased,
    LockRequested,
    ParentRef,
    RetryDeclined,
    Rewound,
    SagaEnded,
    StartSent,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
    TurnStarted,
)
from durably.core.ids import attempt_id, derived_execution_id, next_execution_id
from durably.core.instance import TRANSITIONS, InstanceState, OpenAction
from durably.core.messages import (
    TIMER_DUE,
    TIMER_RETRY,
    TIMER_TIMEOUT,
    ActivityDone,
    Cancel,
    ChildDone,
    Continue,
    EntityDone,
    EntityLocked,
    MessageBody,
    RaiseEvent,
    Resume,
    StartInstance,
    Suspend,
    Terminate,
    TimerDue,
    WorkerAnswered,
    unknown_call_of,
)
from durably.core.notices import NO_NOTICES, NoticeRules, notice_of
from durably.core.retry import RetrySpec, retry_at
from durably.core.undo import start_undo
from durably.errors import FailureDetails, InvariantError

_GIVEN_UP = Cancel("its caller gave it up")

TIMED_OUT = "TaskTimeoutError"
"""`FailureDetails.type` of an attempt that did not end in time."""


class Commit(msgspec.Struct, eq=False):
    """What the turns of one instance in one batch add up to.

    Attributes:
        state: The instance; it has moved on already when an event is in `events`.
        events: For the history, in order.
        activities: Attempts to start: the call and the number of the attempt.
        aborted: Activities to cancel, by seq.
        timers: What becomes of timers, by (seq, kind): the instant they are due, or None for cleared. Net of the batch.
        messages: To send, in order: target and body.
        turns: How many turns it holds.
        ended: The instance ended in it.
        shown: Something changed that the row of the instance shows.
        notices: What is told to others.
    """

    state: InstanceState
    notices: NoticeRules = NO_NOTICES
    events: list[Event] = []
    activities: list[tuple[TaskScheduled, int]] = []
    aborted: list[int] = []
    timers: dict[tuple[int, int], int | None] = {}
    messages: list[tuple[str, MessageBody]] = []
    turns: int = 0
    ended: bool = False
    shown: bool = False
    _now: int = 0
    _turn_open: bool = False

    def turn(self, now: int) -> None:
        """Begin a turn. It is recorded with the first event in it, so a turn in which nothing happens leaves no trace.

        Args:
            now: The clock. The orchestration time is this or the time of the turn before, whichever is later.
        """
        self._now = now if now > self.state.now else self.state.now
        self._turn_open = False
        self.turns += 1

    def record(self, event: Event) -> None:
        """Append an event to the history and move the state on."""
        if not self._turn_open:
            self._turn_open = True
            self.events.append(TurnStarted(self._now))
            self.state.now = self._now
        TRANSITIONS[type(event)](
            self.state, event
        )  # `InstanceState.apply`, spelled out: this is the hot path
        self.events.append(event)

    # --- messages in -------------------------------------------------------------------------------------------------

    def receive(self, body: MessageBody) -> Arrival | None:
        """Record what a message means for this instance.

        Returns:
            The event to hand to user code, or None: the message is stale, or the code does not see it.
        """
        match body:
            case ActivityDone():
                return self._activity_done(body)
            case ChildDone():
                return self._child_done(body)
            case TimerDue():
                return self._timer_due(body)
            case EntityDone():
                return self._entity_done(body)
            case EntityLocked():
                return self._entity_locked(body)
            case WorkerAnswered():
                return self._worker_answered(body)
            case RaiseEvent():
                return self._raise_event(body)
            case Cancel():
                return self._cancel(body)
            case Suspend():
                return self._suspend(body)
            case Resume():
                return self._resume(body)
            case Terminate():
                return self._terminate(body)
            case _:
                text = f"a {type(body).__name__} reached a running instance"
                raise InvariantError("I5", self.state.instance_id, text)

    def _worker_answered(self, body: WorkerAnswered) -> Arrival | None:
        state = self.state
        if body.execution_id != state.begun.execution_id or body.number != state.answers + 1:
            return None  # somebody else has answered
        event = Answered(body.at, body.taken, body.answer)
        self.record(event)
        return event

    def begin(self, started: ExecutionStarted) -> ExecutionStarted:
        """Record the first event of an execution."""
        self.record(started)
        if started.began_as is None:  # else it continued as new
            self.tell("started")
        return started

    def tell(self, event: str, cause: str | None = None) -> None:
        """Tell those who want to know."""
        notice = notice_of(self.state, event, self.notices, cause)
        if notice is not None:
            self.messages.append(notice)

    def begin_again(self, kept: Sequence[HistoryEvent], rewound: Rewound) -> None:
        """Record the part of a history that a rewind kept, and do again what has to be done again.

        What `rewound.late` names is left alone: its result is on its way.
        """
        state = self.state
        for event in kept:
            state.apply(event)
        self.events.extend(kept)
        self._turn_open = False
        self.record(rewound)
        for seq, kind, due_at in state.timers():
            self.timers[seq, kind] = due_at
        self.activities.extend(
            (action, number) for action, number in state.running_tasks() if action.seq not in rewound.late
        )
        for seq, action in state.open.items():
            attempt = state.attempts.get(seq)
            waits = attempt is not None and attempt.retry_at is not None
            if isinstance(action, ChildScheduled) and not waits and seq not in rewound.late:
                self.messages.append(rewind_child(self.state, action, state.attempt_number(seq)))
            elif isinstance(action, EntityCalled) and seq not in (*rewound.late, *rewound.in_flight):
                self.messages += call_entity(state, action)
        self.messages += ask_next(state)

    def _activity_done(self, body: ActivityDone) -> Arrival | None:
        state = self.state
        scheduled = state.open.get(body.seq)
        if scheduled is None or state.started is None or body.execution_id != state.started.execution_id:
            return None
        if state.attempts and not self._is_current(body.seq, body.attempt):
            return None
        if body.failure is None:
            return self._succeeded(body.seq, body.result)
        return self._failed(scheduled, body.attempt, body.failure)

    def _child_done(self, body: ChildDone) -> Arrival | None:
        state = self.state
        if body.child is not None:
            body = self._identified(body, body.child)
        scheduled = state.open.get(body.seq)
        if type(scheduled) is not ChildScheduled or state.started is None:
            return None
        if not self._is_current(body.seq, body.attempt):
            return None
        if body.execution_id != state.started.execution_id:
            if body.seq >= state.lineage.get(body.execution_id, 0):
                return None
            if body.failure is not None:  # it was given up when its caller failed; now it is wanted again
                self.messages.append(rewind_child(self.state, scheduled, body.attempt))
                return None
        if body.failure is None:
            return self._succeeded(body.seq, body.result)
        return self._failed(scheduled, body.attempt, body.failure)

    def _identified(self, body: ChildDone, child: str) -> ChildDone:
        """The same from the child that runs for one of our calls; unchanged when there is no such call."""
        for seq, action in self.state.open.items():
            number = self.state.attempt_number(seq)
            if isinstance(action, ChildScheduled) and attempt_id(action.instance_id, number) == child:
                execution_id = self.state.begun.execution_id
                return msgspec.structs.replace(body, execution_id=execution_id, seq=seq, attempt=number)
        return body

    def _entity_done(self, body: EntityDone) -> Arrival | None:
        state = self.state
        former = state.lineage.get(body.execution_id, 0)  # of a call that was under way when it was rewound
        if body.execution_id != state.begun.execution_id and body.seq >= former:
            return None
        called = state.open.get(body.seq)
        if type(called) is not EntityCalled:
            self.record(EntityAnswered(body.seq, body.result, body.failure))
            return None
        if body.failure is None:
            return self._succeeded(body.seq, body.result)
        return self._failed(called, 1, body.failure)

    def _entity_locked(self, body: EntityLocked) -> Arrival | None:
        state = self.state
        section = state.section
        if section is None or section.seq != body.seq or body.execution_id != state.begun.execution_id:
            return None  # it was given up meanwhile, and its release is on the way
        held_back = calls_held_back(state)  # the code is in the block already: it was rewound
        self.record(LockGranted(body.seq, body.entity))
        if state.section is not None and not state.section.complete:
            self.messages += ask_next(state)
            return None
        if body.seq in state.open:
            return self._succeeded(body.seq, None)
        for call in held_back:
            self.messages += call_entity(state, call)
        return None

    def _is_current(self, seq: int, attempt: int) -> bool:
        at = self.state.attempts.get(seq)
        return attempt == 1 if at is None else at.number == attempt and at.retry_at is None

    def _succeeded(self, seq: int, result: bytes | None) -> Arrival:
        if self.state.attempts:
            self._drop_attempt_timers(seq)
        event = TaskCompleted(seq, result)
        self.record(event)
        return event

    def _failed(self, scheduled: OpenAction, number: int, failure: FailureDetails) -> Arrival:
        seq = scheduled.seq
        retry: RetrySpec | None = getattr(scheduled, "retry", None)
        attempt = self.state.attempts.get(seq)
        self._drop_attempt_timers(seq)
        event: AttemptFailed | TaskFailed = TaskFailed(seq, failure)
        if retry is not None and attempt is not None and not failure.non_retryable:
            seed = f"{self.state.begun.execution_id}:{seq}"
            least = failure.retry_after_us
            due = retry_at(retry, number, attempt.first_at, self._now, seed, at_least_us=least)
            if due is not None:
                event = AttemptFailed(seq, number, failure, due)
                self.timers[seq, TIMER_RETRY] = due
        self.record(event)
        return event

    def _timer_due(self, body: TimerDue) -> Arrival | None:
        state, seq = self.state, body.seq
        action = state.open.get(seq)
        if action is None:
            return None
        self.timers[seq, body.kind] = None
        if body.kind == TIMER_DUE:
            self._reach(state.due_at(action))
            event = TimerFired(seq)
            self.record(event)
            return event
        attempt = state.attempts.get(seq)
        if attempt is None:
            return None
        if body.kind == TIMER_RETRY and attempt.retry_at is not None:
            self._reach(attempt.retry_at)
            return self._next_attempt(action, attempt.number + 1)
        if body.kind == TIMER_TIMEOUT and attempt.deadline is not None and isinstance(action, TaskScheduled):
            self._reach(attempt.deadline)
            self.aborted.append(seq)
            seconds = (action.timeout_us or 0) / 1_000_000
            text = f"activity '{action.name}' (#{seq}), attempt {attempt.number}, did not end within {seconds:g} s"
            bases = ("durably.errors.TaskTimeoutError", "builtins.TimeoutError", "builtins.Exception")
            return self._failed(action, attempt.number, FailureDetails(TIMED_OUT, text, bases=bases))
        return None

    def _reach(self, due_at: int | None) -> None:
        """A timer rang, so its instant has come, even if the clock was set back between then and now (I7)."""
        if due_at is not None and due_at > self._now:
            self._now = due_at
            self._turn_open = False

    def _next_attempt(self, action: OpenAction, number: int) -> Arrival:
        event = AttemptStarted(action.seq, number)
        self.record(event)
        if isinstance(action, TaskScheduled):
            self._start_attempt(action, number)
        elif isinstance(action, ChildScheduled):
            self.messages.append(start_child(self.state, action, number))
        return event

    def _raise_event(self, body: RaiseEvent) -> Arrival:
        event = EventRaised(body.name, body.input)
        matcher = self.state.events
        seq = None if matcher is None else matcher.first_wait(body.name)
        if seq is not None:
            self._undo(self.state.open[seq], None)
        self.record(event)
        return event

    def _cancel(self, body: Cancel) -> Arrival:
        event = CancelRequested(body.reason)
        self.record(event)
        return event

    def _suspend(self, body: Suspend) -> None:
        if not self.state.suspended:
            self.record(ExecutionSuspended(body.reason))

    def _resume(self, body: Resume) -> None:
        if self.state.suspended:
            self.record(ExecutionResumed(body.reason))

    def _terminate(self, body: Terminate) -> None:
        self.record(ExecutionTerminated(body.reason, body.output))
        order = self._order_let_go(body)
        self._end(order)
        if body.compensate:
            self._undo_rest()

    def terminate_unrecorded(self, body: Terminate, parent: ParentRef | None) -> None:
        """End an instance whose history must not grow, because it cannot be read or is what breaks us.

        Args:
            body: The order.
            parent: The call that waits for the instance.
        """
        state = self.state
        state.now = self._now
        order = self._order_let_go(body)
        for action in state.open.values():
            self._undo(action, order)
        state.apply(ExecutionTerminated(body.reason, body.output))
        self._tell_of_end(parent)
        if body.compensate:
            self._undo_rest()

    def _order_let_go(self, body: Terminate) -> Terminate | None:
        """What children have to be told. Some were asked to cancel long ago, and are perhaps still at it."""
        if not body.recursive:
            return None
        order = Terminate(body.reason, recursive=True, compensate=body.compensate, output=body.output)
        for child, attempt in self.state.let_go:
            self.messages.append(order_child(self.state, child, attempt, order))
        return order

    # --- decisions in ------------------------------------------------------------------------------------------------

    def decide(self, action: Action) -> None:
        """Record a decision of user code, and what follows from it."""
        if type(action) is TaskScheduled:  # the hot path
            self.record(action)
            if action.timeout_us is None:
                self.activities.append((action, 1))
            else:
                self._start_attempt(action, 1)
            return
        if type(action) in OUTCOMES:
            self.record(action)
            self._end(_GIVEN_UP)
            if not isinstance(
                action, ExecutionFailed
            ):  # that one may be rewound, and then it goes on with its saga
                self._undo_rest()
            if isinstance(action, ContinuedAsNew):
                self._continue(action)
            return
        match action:
            case ChildScheduled():
                self._child_scheduled(action)
            case TimerCreated():
                self._timer_created(action)
            case EventAwaited():
                self._event_awaited(action)
            case EventSent():
                self._event_sent(action)
            case StartSent():
                self._start_sent(action)
            case EntityCalled():
                self.record(action)
                self.messages += call_entity(self.state, action)
            case EntitySignaled():
                self.record(action)
                self.messages.append(signal_entity(self.state, action))
            case LockRequested():
                self.record(action)
                self.messages += ask_next(self.state)
            case LockReleased():
                self.messages += leave(self.state)
                self.record(action)
            case ActionCanceled():
                self._action_canceled(action)
            case RetryDeclined():
                self._retry_declined(action)
            case CompensationStarted() | SagaEnded():
                self.record(action)
                self.shown = True
            case _:
                self.record(action)

    def _child_scheduled(self, action: ChildScheduled) -> None:
        self.record(action)
        self.messages.append(start_child(self.state, action, 1))

    def _timer_created(self, action: TimerCreated) -> None:
        self.record(action)
        self.timers[action.seq, TIMER_DUE] = action.fire_at

    def _event_awaited(self, action: EventAwaited) -> None:
        self.record(action)
        if action.fire_at is not None and action.seq in self.state.open:
            self.timers[action.seq, TIMER_DUE] = action.fire_at

    def _event_sent(self, action: EventSent) -> None:
        self.record(action)
        self.messages.append((action.instance_id, RaiseEvent(action.name, action.input)))

    def _start_sent(self, action: StartSent) -> None:
        self.record(action)
        body = StartInstance(
            name=action.name,
            input=action.input,
            execution_id=self._derived(f"start:{action.seq}"),
            version=action.version,
            tags=action.tags,
            start_at=action.start_at,
        )
        self.messages.append((action.instance_id, body))

    def _action_canceled(self, action: ActionCanceled) -> None:
        opened = self.state.open.get(action.seq)
        if opened is None:
            raise InvariantError(
                "I6", self.state.instance_id, f"code cancelled action #{action.seq}, which is not open"
            )
        self._undo(opened, _GIVEN_UP)
        self.record(action)

    def _retry_declined(self, action: RetryDeclined) -> None:
        self.timers[action.seq, TIMER_RETRY] = None
        self.record(action)

    # --- consequences ------------------------------------------------------------------------------------------------

    def _derived(self, what: str) -> str:
        return derived_execution_id(self.state.begun.execution_id, what)

    def _start_attempt(self, action: TaskScheduled, number: int) -> None:
        attempt = self.state.attempts.get(action.seq)
        if attempt is not None and attempt.deadline is not None:
            self.timers[action.seq, TIMER_TIMEOUT] = attempt.deadline
        self.activities.append((action, number))

    def _drop_attempt_timers(self, seq: int) -> None:
        attempt = self.state.attempts.get(seq)
        if attempt is not None and attempt.deadline is not None:
            self.timers[seq, TIMER_TIMEOUT] = None

    def _undo(self, action: OpenAction, order: Cancel | Terminate | None) -> None:
        """Take back what an open action has set in motion. A child gets the order, if there is one."""
        seq = action.seq
        attempt = self.state.attempts.get(seq)
        if isinstance(action, TimerCreated | EventAwaited):
            if action.fire_at is not None:
                self.timers[seq, TIMER_DUE] = None
            return
        if isinstance(action, EntityCalled):
            return  # it is performed, and nobody is told
        if isinstance(action, LockRequested):
            self.messages += release_all(self.state)
            return
        if attempt is not None and attempt.retry_at is not None:
            self.timers[seq, TIMER_RETRY] = None
            return
        self._drop_attempt_timers(seq)
        if isinstance(action, TaskScheduled):
            self.aborted.append(seq)
        elif order is not None:
            self.messages.append(
                order_child(self.state, action, 1 if attempt is None else attempt.number, order)
            )

    def _end(self, order: Cancel | Terminate | None) -> None:
        """The execution ended: give up what is open, and tell the parent when the instance ended with it.

        Calls of the code of a worker go on when it ended by itself: with its protocol nobody gives them up.
        """
        state = self.state
        goes_on = order is _GIVEN_UP and state.started is not None and state.started.remote
        for action in list(state.open.values()):
            if goes_on and isinstance(action, TaskScheduled | ChildScheduled):
                continue
            self._undo(action, order)
            self.record(ActionCanceled(action.seq))
        self.messages += release_all(self.state)
        self._tell_of_end(state.started.parent if state.started is not None else None)

    def _tell_of_end(self, parent: ParentRef | None) -> None:
        state = self.state
        self.ended = state.ended
        if state.ended and parent is not None:
            done = ChildDone(parent.execution_id, parent.seq, parent.attempt, state.output, state.failure)
            if parent == unknown_call_of(parent.instance_id):
                done = msgspec.structs.replace(done, child=state.instance_id)
            self.messages.append((parent.instance_id, done))
        if state.ended:
            self.tell(state.status.lower())

    def _undo_rest(self) -> None:
        """What sagas have left is undone by an instance of its own: the code that would do it is gone."""
        if self.state.undos:
            self.messages.append(start_undo(self.state))

    def _continue(self, action: ContinuedAsNew) -> None:
        events = self.state.events
        carried = action.carried
        if carried is None:
            carried = tuple(events.unconsumed()) if events is not None and action.preserve_events else ()
        body = Continue(
            action.input,
            next_execution_id(self.state.begun.execution_id),
            carried,
            self.state.custom_status,
            action.version,
        )
        self.messages.append((self.state.instance_id, body))
