"""History events, one frozen struct each, and their union; the persisted format of a history.

A history is a sequence of turns. A turn is `TurnStarted`, then for each thing that arrived the event that records it,
followed by the decisions that user code took on it. A decision (an *action* that user code asked for) is recorded as
it was produced: the action and the event are the same struct, so a replay compares like with like.

FORMAT: each struct is stored as a msgpack array that starts with its tag. Tags are never reused, fields are never
reordered or removed; new fields go to the end with a default. Instants are microseconds since 1970 UTC, payloads are
JSON text as UTF-8 bytes, or None for no payload.
"""

from __future__ import annotations

from typing import TypeAlias, dataclass_transform

import msgspec

from durably.core.retry import RetrySpec
from durably.errors import FailureDetails

Payload: TypeAlias = bytes | None


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Event(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all history events."""


class ParentRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where the result of a child goes.

    Attributes:
        instance_id: The parent.
        execution_id: The execution of the parent that asked; a later one is not told.
        seq: The call in that execution.
        attempt: Which attempt of the call this child is; the first is 1.
        life: `ExecutionStarted.life` of the parent, or None: the child is from before that was recorded.
        name: The orchestrator of the parent, for the code of the child; None elsewhere, and as above.
    """

    instance_id: str
    execution_id: str
    seq: int
    attempt: int = 1
    life: str | None = None
    name: str | None = None


class TraceContext(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The span in which something was asked for (W3C Trace Context), handed through as it came.

    Attributes:
        parent: The header ``traceparent``.
        state: The header ``tracestate``, or None.
    """

    parent: str
    state: str | None = None


# --- what arrives ------------------------------------------------------------------------------------------------


class TurnStarted(Event, tag=1):
    """A turn began at an instant; the orchestration time of all events up to the next one."""

    at: int


class ExecutionStarted(Event, tag=2):
    """First event of an execution, behind its `TurnStarted`.

    Attributes:
        instance_id: The instance, so that a history can be read on its own.
        name: The orchestrator.
        input: Its input.
        execution_id: Random, new for each execution.
        ordinal: 0 for the first execution of the instance, then 1, 2, … over continue-as-new and replacement.
        created_at: When the instance was created; kept over continue-as-new.
        python: Minor version of the Python that ran the first turn, for example ``"3.12"``; some scheduling of asyncio
            differs between versions.
        version: The version of the instance, or None.
        parent: Who waits for the result, or None.
        tags: Set by the caller at start.
        custom_status: As the execution before left it.
        seed: What ids and chance come from, and what the code sees as the id of its execution, when that is not
            `execution_id`: an execution that was rewound is to its code the one that it was. None: `execution_id`.
        reason: Why the instance was restarted, for people.
        began_as: `life` of an execution that continues another one as new; None: `origin`.
        remote: Its code runs in workers, which see what arrives in batches and answer later; see `Answered`.
        trace: Of whoever started the instance, or None.
    """

    instance_id: str
    name: str
    input: Payload
    execution_id: str
    ordinal: int
    created_at: int
    python: str
    version: str | None = None
    parent: ParentRef | None = None
    tags: dict[str, str] | None = None
    custom_status: Payload = None
    seed: str | None = None
    reason: str | None = None
    began_as: str | None = None
    remote: bool = False
    trace: TraceContext | None = None

    @property
    def origin(self) -> str:
        """The id of the first execution of a line of rewinds; its own when it was not rewound."""
        return self.execution_id if self.seed is None else self.seed

    @property
    def life(self) -> str:
        """The id of the first execution since the instance was started, restarted or replaced: all that follow share it."""
        return self.origin if self.began_as is None else self.began_as


class TaskCompleted(Event, tag=3):
    """The activity or child that `seq` scheduled returned."""

    seq: int
    result: Payload


class TaskFailed(Event, tag=4):
    """The activity or child that `seq` scheduled failed for good."""

    seq: int
    failure: FailureDetails


class AttemptFailed(Event, tag=5):
    """An attempt failed and the policy has another one, due at `retry_at`."""

    seq: int
    attempt: int
    failure: FailureDetails
    retry_at: int


class AttemptStarted(Event, tag=6):
    """The delay is over: attempt number `attempt` (the first is 1) was scheduled."""

    seq: int
    attempt: int


class TimerFired(Event, tag=7):
    """The timer `seq`, or the time-out of the wait `seq`, came due."""

    seq: int


class EventRaised(Event, tag=8):
    """An external event arrived at the instance."""

    name: str
    input: Payload


class CancelRequested(Event, tag=9):
    """Somebody asked the instance to cancel itself; user code sees `asyncio.CancelledError`."""

    reason: str | None = None


class ExecutionSuspended(Event, tag=10):
    """No turn runs until `ExecutionResumed`; what arrives is kept."""

    reason: str | None = None


class ExecutionResumed(Event, tag=11):
    """Turns run again."""

    reason: str | None = None


class ExecutionTerminated(Event, tag=12):
    """The code was stopped at once; terminal.

    Attributes:
        reason: For people.
        output: Of the instance; None: the reason.
    """

    reason: str | None = None
    output: Payload = None


class Dropped(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An action that a rewind dropped: the code will ask again, for this or for something else.

    Attributes:
        seq: Its number, which a later action of the execution may have again.
        kind: The name of its event, for example ``"TaskScheduled"``.
        name: Of what was called, awaited or sent; None for a timer.
        child: The id of the instance that a call of a sub-orchestration started, or None.
        attempts: How many attempts the call had.
    """

    seq: int
    kind: str
    name: str | None = None
    child: str | None = None
    attempts: int = 1


class Rewound(Event, tag=13):
    """The instance failed and was rewound: what stands before is kept of the execution that failed, the rest is new.

    User code does not see it. It stands where the kept part ends, so that a history is in order of time, and a later
    rewind to a point before it drops it.

    Attributes:
        base_execution: Number of the execution that failed; its rows stay.
        base_checksum: Of its newest row, as hex digits.
        reason: For people.
        failed: Calls whose failure is void; they are open again, with their whole policy.
        dropped: What was asked for behind the failure.
        late: Actions that were completed behind the failure; these results follow, one by one.
        shift_us: Timers that are open here are due so much later: nobody's time ran while the instance had failed.
        lineage: Executions of which this one is the continuation, by id: up to which number calls are the same.
        custom_status: As it was; it stays.
        in_flight: Calls of entities that were sent, and whose answers are still to come: they are not sent again.
    """

    base_execution: int
    base_checksum: str
    reason: str | None
    failed: tuple[int, ...]
    dropped: tuple[Dropped, ...]
    late: tuple[int, ...]
    shift_us: int
    lineage: dict[str, int]
    custom_status: Payload = None
    in_flight: tuple[int, ...] = ()


class AttemptInterrupted(Event, tag=14):
    """The process ended while it ran an attempt: suspected, see `durably.engine.suspicion`. User code does not see it.

    Attributes:
        seq: The call.
        attempt: The attempt.
        deliveries: How often the attempt was handed to a host that did not survive it; 0: an operator wants it tried anew.
        parked: That was once too often: the instance is parked.
    """

    seq: int
    attempt: int
    deliveries: int
    parked: bool = False


class TurnInterrupted(Event, tag=15):
    """The process ended while it ran code of the orchestrator: suspected. May come before what started the execution.

    Attributes:
        deliveries: How often in a row the turn was handed to a host that did not survive it; 0 as above. Any other event
            of the execution behind this one says that it got over it.
        parked: As above.
    """

    deliveries: int
    parked: bool = False


class Answered(Event, tag=17):
    """A worker has answered: what it decided follows. Only in executions that are `ExecutionStarted.remote`.

    What arrives meanwhile stands before it and is not seen by the code yet: an answer belongs to the arrivals that it takes.

    Attributes:
        at: The time that the code was told, microseconds since 1970 UTC.
        taken: So many arrivals the code has seen, the oldest of those that no answer before has taken.
        answer: What the answer says beyond the events that follow, in the form of whoever speaks with the workers.
    """

    at: int
    taken: int
    answer: bytes


class LockGranted(Event, tag=44):
    """One of the entities of the lock `seq` is locked. User code sees the last one only, as completion of the lock."""

    seq: int
    entity: str


class EntityAnswered(Event, tag=45):
    """The answer to a call of an entity that the code had given up, or that the execution did not live to see.

    User code does not see it. Should the execution be rewound to a point before that, it is what the call returns: what an
    entity has done is done.
    """

    seq: int
    result: Payload = None
    failure: FailureDetails | None = None


# --- what user code decided --------------------------------------------------------------------------------------


class TaskScheduled(Event, tag=20):
    """An activity was called.

    Attributes:
        seq: Number of the action in its execution, in call order, from 0.
        name: The activity.
        input: Its input.
        retry: The policy, or None for a single attempt.
        timeout_us: Each attempt fails this long after it was scheduled, or None.
        tags: Set by the caller.
        detail: What the protocol of a worker that calls says beyond this, or None.
    """

    seq: int
    name: str
    input: Payload
    retry: RetrySpec | None = None
    timeout_us: int | None = None
    tags: dict[str, str] | None = None
    detail: bytes | None = None


class ChildScheduled(Event, tag=21):
    """A sub-orchestration was called; `instance_id` is the id of its first attempt, `trace` that of the call, or None."""

    seq: int
    name: str
    instance_id: str
    input: Payload
    version: str | None = None
    retry: RetrySpec | None = None
    tags: dict[str, str] | None = None
    trace: TraceContext | None = None


class TimerCreated(Event, tag=22):
    """A durable timer was set."""

    seq: int
    fire_at: int


class EventAwaited(Event, tag=23):
    """The code waits for an external event; `fire_at` is the end of its patience, or None."""

    seq: int
    name: str
    fire_at: int | None = None


class EventSent(Event, tag=24):
    """An event was sent to another instance; nothing is awaited."""

    seq: int
    instance_id: str
    name: str
    input: Payload


class StartSent(Event, tag=25):
    """Another orchestration was started and is not awaited."""

    seq: int
    name: str
    instance_id: str
    input: Payload
    version: str | None = None
    tags: dict[str, str] | None = None
    start_at: int | None = None


class EntityCalled(Event, tag=40):
    """An operation of an entity was called; `entity` is its id as text."""

    seq: int
    entity: str
    operation: str
    input: Payload


class EntitySignaled(Event, tag=41):
    """An operation of an entity was asked for, and nobody waits for its result; not before `due_at`, if there is one."""

    seq: int
    entity: str
    operation: str
    input: Payload
    due_at: int | None = None


class LockRequested(Event, tag=42):
    """The code asked for a critical section: these entities, one after the other in this order, which all callers use."""

    seq: int
    entities: tuple[str, ...]


class LockReleased(Event, tag=43):
    """The critical section that the lock `seq` began is over."""

    seq: int


class ActionCanceled(Event, tag=26):
    """The open action `seq` was given up: by code, or because its execution ended."""

    seq: int


class RetryDeclined(Event, tag=27):
    """The predicate of the policy of `seq` refused the next attempt; the failure of the last one stands."""

    seq: int


class CustomStatusSet(Event, tag=28):
    """The custom status of the instance changed."""

    value: Payload


class ExecutionCompleted(Event, tag=29):
    """The code returned; terminal."""

    result: Payload


class ExecutionFailed(Event, tag=30):
    """The code raised; terminal.

    Attributes:
        failure: What.
        tasks: The calls whose failure led to it, as far as the exception tells (its causes, its context, its group).
    """

    failure: FailureDetails
    tasks: tuple[int, ...] = ()


class ExecutionCanceled(Event, tag=31):
    """The code let a cancellation through; terminal."""

    reason: str | None = None


class ContinuedAsNew(Event, tag=32):
    """The code returned after asking for a new execution; events that nobody consumed move on unless told otherwise.

    Attributes:
        input: Of the new execution.
        preserve_events: False drops events that nobody consumed.
        version: The version of the instance from then on; None keeps the one that it has, and "" takes it away.
        carried: The events that move on, where only the code of a worker knows them; None: those that nobody consumed.
    """

    input: Payload
    preserve_events: bool = True
    version: str | None = None
    carried: tuple[EventRaised, ...] | None = None


class UndoAdded(Event, tag=34):
    """A step of a saga completed, and says what undoes it.

    Attributes:
        number: Of all undos of the execution; the first is 1.
        saga: The saga that it belongs to; the first of the execution is 1.
        name: The activity.
        input: Its input.
        retry: Its policy, or None for a single attempt.
    """

    number: int
    saga: int
    name: str
    input: Payload
    retry: RetrySpec | None = None


class UndoEnded(Event, tag=35):
    """An undo ran, or failed for good: nobody has to run it any more."""

    number: int


class CompensationStarted(Event, tag=36):
    """A saga failed, and undoes what it has done."""

    saga: int
    failure: FailureDetails


class SagaEnded(Event, tag=16):
    """A saga is over: what it has done stays, or is undone as far as that could be."""

    saga: int


class PatchApplied(Event, tag=33):
    """The code asked whether a change applies to this execution, and was told that it does.

    What it was told, not something that it decided: a replay hands it out again, and compares nothing. So the question
    may be taken out of the code, or asked at another place.
    """

    change_id: str


Arrival: TypeAlias = (
    TurnStarted
    | ExecutionStarted
    | TaskCompleted
    | TaskFailed
    | AttemptFailed
    | AttemptStarted
    | TimerFired
    | EventRaised
    | CancelRequested
    | ExecutionSuspended
    | ExecutionResumed
    | ExecutionTerminated
    | Rewound
    | AttemptInterrupted
    | TurnInterrupted
    | Answered
    | LockGranted
    | EntityAnswered
)
"""Events that record something from outside."""

Action: TypeAlias = (
    TaskScheduled
    | ChildScheduled
    | TimerCreated
    | EventAwaited
    | EventSent
    | StartSent
    | EntityCalled
    | EntitySignaled
    | LockRequested
    | LockReleased
    | ActionCanceled
    | RetryDeclined
    | CustomStatusSet
    | ExecutionCompleted
    | ExecutionFailed
    | ExecutionCanceled
    | ContinuedAsNew
    | UndoAdded
    | UndoEnded
    | CompensationStarted
    | SagaEnded
    | PatchApplied
)
"""Events that record a decision of user code, or what it was told."""

HistoryEvent: TypeAlias = Arrival | Action

ACTIONS: frozenset[type[Event]] = frozenset(
    (
        TaskScheduled,
        ChildScheduled,
        TimerCreated,
        EventAwaited,
        EventSent,
        StartSent,
        EntityCalled,
        EntitySignaled,
        LockRequested,
        LockReleased,
        ActionCanceled,
        RetryDeclined,
        CustomStatusSet,
        ExecutionCompleted,
        ExecutionFailed,
        ExecutionCanceled,
        ContinuedAsNew,
        UndoAdded,
        UndoEnded,
        CompensationStarted,
        SagaEnded,
    )
)
"""Decisions: what a replay compares."""

NUMBERED: frozenset[type[Event]] = frozenset(
    (
        TaskScheduled,
        ChildScheduled,
        TimerCreated,
        EventAwaited,
        EventSent,
        StartSent,
        EntityCalled,
        EntitySignaled,
        LockRequested,
    )
)
"""Actions with a number of their own; the others refer to one of these, or have none."""

OUTCOMES: frozenset[type[Event]] = frozenset(
    (ExecutionCompleted, ExecutionFailed, ExecutionCanceled, ContinuedAsNew)
)
"""Actions that end the execution; always the last decision of a turn."""
