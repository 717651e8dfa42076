"""What travels to an instance: a body, addressed; stored in the inbox as msgpack when it has to outlive a batch."""

from __future__ import annotations

from typing import TypeAlias, dataclass_transform

import msgspec

from durably.core.events import Action, EventRaised, ParentRef, Payload, TraceContext
from durably.core.ids import next_execution_id
from durably.errors import FailureDetails


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Body(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all message bodies. FORMAT: the rules of `durably.core.events` hold here too."""


class StartInstance(Body, tag=1):
    """Create the instance.

    Attributes:
        name: The orchestrator.
        input: Its input.
        execution_id: Drawn by the sender, so that a redelivered start creates the same execution.
        version: Version of the instance; None leaves it to the host that begins it, "" is none.
        parent: Who waits for the result.
        tags: Set by the caller.
        start_at: Not before this instant; the instance is Pending until then.
        on_existing: ``"replace_finished"``, ``"fail"``, ``"replace"`` or ``"attach"``: what to do when the id is taken.
        fresh: The id was drawn at random by us, so nobody needs to look whether it is taken.
        reason: Why it was restarted, for people.
        trace: Of whoever starts it, or None.
    """

    name: str
    input: Payload
    execution_id: str
    version: str | None = None
    parent: ParentRef | None = None
    tags: dict[str, str] | None = None
    start_at: int | None = None
    on_existing: str = "replace_finished"
    fresh: bool = False
    reason: str | None = None
    trace: TraceContext | None = None


class RaiseEvent(Body, tag=2):
    """Deliver an external event."""

    name: str
    input: Payload


class ActivityDone(Body, tag=3):
    """One attempt of an activity ended: with a result, or with a failure."""

    execution_id: str
    seq: int
    attempt: int
    result: Payload
    failure: FailureDetails | None = None


class ChildDone(Body, tag=4):
    """A child reached a terminal status.

    Attributes:
        child: The id of a child that does not know any more which call started it (see `unknown_call_of`), or None.
    """

    execution_id: str
    seq: int
    attempt: int
    result: Payload
    failure: FailureDetails | None = None
    child: str | None = None


class TimerDue(Body, tag=5):
    """A row of the timer table came due. `execution` is the execution number of the row."""

    execution: int
    seq: int
    kind: int


class Cancel(Body, tag=6):
    """Ask the instance to cancel itself.

    Attributes:
        reason: For people.
        parent: Set when a parent gives up a child: only an instance that this very call started is meant.
        lineage: Executions in which this call is the same one, see `Rewound.lineage`.
    """

    reason: str | None = None
    parent: ParentRef | None = None
    lineage: tuple[str, ...] = ()


class Terminate(Body, tag=7):
    """Stop the instance at once.

    Attributes:
        reason: For people.
        recursive: Its descendants too.
        parent: Set when it is meant as a child of this call; see `Cancel`.
        lineage: See `Cancel`.
        compensate: What its sagas have recorded is undone, by an instance of its own; False leaves it as it is.
        output: What its output is to be; None: the reason.
    """

    reason: str | None = None
    recursive: bool = False
    parent: ParentRef | None = None
    lineage: tuple[str, ...] = ()
    compensate: bool = True
    output: Payload = None


class Suspend(Body, tag=8):
    """Stop running turns."""

    reason: str | None = None


class Resume(Body, tag=9):
    """Run turns again."""

    reason: str | None = None


class Purge(Body, tag=10):
    """Delete a finished instance and all that belongs to it.

    Attributes:
        recursive: Its descendants too, as far as they are finished.
        parent: Set when it is meant as a child of this call; see `Cancel`.
        lineage: See `Cancel`.
    """

    recursive: bool = False
    parent: ParentRef | None = None
    lineage: tuple[str, ...] = ()


class Continue(Body, tag=11):
    """Begin the next execution of the instance; sent by an execution that continued as new to its own instance.

    Attributes:
        input: Input of the next execution.
        execution_id: Derived from the one before, so that a redelivery begins the same execution.
        carried: Events that the execution before has not consumed.
        custom_status: As the execution before left it.
        version: See `ContinuedAsNew.version`.
    """

    input: Payload
    execution_id: str
    carried: tuple[EventRaised, ...] = ()
    custom_status: Payload = None
    version: str | None = None


class Rewind(Body, tag=12):
    """Take a failed instance back to before its failure and let it go on from there.

    Attributes:
        reason: For people.
        execution_id: Of the execution that goes on; drawn by the sender, so that a redelivery changes nothing.
        parent: Set when a parent that was rewound wants the result of its child: the call as it is now. The child is
            rewound, or started anew, or reports what it has; one that has not ended reports when it ends.
        lineage: See `Cancel`.
        start: With `parent`: how to start the child anew.
    """

    reason: str | None
    execution_id: str
    parent: ParentRef | None = None
    lineage: tuple[str, ...] = ()
    start: StartInstance | None = None


class Restart(Body, tag=13):
    """Replace a finished instance by a new one with the same name, version, input and tags.

    Attributes:
        execution_id: Of the new instance; drawn by the sender.
        reason: For people.
    """

    execution_id: str
    reason: str | None = None


class Redrive(Body, tag=14):
    """Try again what is parked: the instance, or a message to it.

    Attributes:
        message_id: Of the message, or None.
    """

    message_id: str | None = None


class Discard(Body, tag=15):
    """Give up what is parked: fail the call, terminate the instance, or delete a message to it; `message_id` as above."""

    message_id: str | None = None


class CallEntity(Body, tag=20):
    """Perform an operation of an entity.

    Attributes:
        operation: Its name.
        input: Its input.
        caller: The call that waits for the result, or None.
        sender: The orchestration or entity it comes from; messages of one sender are dealt with in order. None: a client.
        section: The critical section in which an orchestration makes it, or None.
        due_at: Not before this instant; None: now.
        wanted: A client waits for the result: the verdict carries it.
    """

    operation: str
    input: Payload
    caller: ParentRef | None = None
    sender: str | None = None
    section: str | None = None
    due_at: int | None = None
    wanted: bool = False


class LockEntity(Body, tag=21):
    """Lock the entity for a critical section, as soon as nobody else has it.

    Attributes:
        section: See `durably.core.entities.section_id`.
        holder: The lock that an orchestration asked for.
    """

    section: str
    holder: ParentRef


class ReleaseEntity(Body, tag=22):
    """Give a lock back, or stop waiting for it. Ignored when the section neither has it nor waits."""

    section: str


class EntityDone(Body, tag=23):
    """An operation ended: with a result, or with a failure."""

    execution_id: str
    seq: int
    result: Payload
    failure: FailureDetails | None = None


class EntityLocked(Body, tag=24):
    """An entity is locked for the lock `seq` of an execution."""

    execution_id: str
    seq: int
    entity: str


class AttemptLost(Body, tag=25):
    """Hosts that ran an attempt of an activity died, so often that it is not tried again.

    Attributes:
        deliveries: How often.
    """

    execution_id: str
    seq: int
    attempt: int
    deliveries: int


class WorkerAnswered(Body, tag=26):
    """A worker has run the code of an execution on what had arrived.

    Attributes:
        execution_id: The execution; another one has nothing to do with it.
        number: Of the answer within the execution; the first is 1. A second one with the same number comes too late.
        at: See `Answered`.
        taken: See `Answered`.
        answer: See `Answered`.
        actions: What it decided, in order; an outcome is the last.
        seen: Checksum of all that the code has seen, before and with this. Arrivals that were not durable when a worker was
            asked may come again in another order, and then it is no answer to them.
    """

    execution_id: str
    number: int
    at: int
    taken: int
    answer: bytes
    actions: tuple[Action, ...]
    seen: int = 0


MessageBody: TypeAlias = (
    StartInstance
    | RaiseEvent
    | ActivityDone
    | ChildDone
    | TimerDue
    | Cancel
    | Terminate
    | Suspend
    | Resume
    | Purge
    | Continue
    | Rewind
    | Restart
    | Redrive
    | Discard
    | CallEntity
    | LockEntity
    | ReleaseEntity
    | EntityDone
    | EntityLocked
    | AttemptLost
    | WorkerAnswered
)


def is_next_of(execution_id: str, body: Continue) -> bool:
    """True when this execution itself has sent it: another life under the same id has nothing to do with it."""
    return body.execution_id == next_execution_id(execution_id)


def is_child_of(held: ParentRef | None, wanted: ParentRef, lineage: tuple[str, ...]) -> bool:
    """True when the instance whose parent is `held` was started by the call `wanted`, in any execution of its line."""
    if held is not None and held == unknown_call_of(wanted.instance_id):
        return True
    return (
        held is not None
        and (held.execution_id == wanted.execution_id or held.execution_id in lineage)
        and (held.instance_id, held.seq, held.attempt) == (wanted.instance_id, wanted.seq, wanted.attempt)
    )


def unknown_call_of(instance_id: str | None) -> ParentRef | None:
    """What is known of the call that started an instance whose history cannot be read: its row names the parent only."""
    return None if instance_id is None else ParentRef(instance_id, "", -1, 0)


TIMER_DUE = 0
"""Kind of a timer row: a timer of user code, or the patience of a wait."""
TIMER_RETRY = 1
"""Kind of a timer row: the delay before the next attempt of a task."""
TIMER_TIMEOUT = 2
"""Kind of a timer row: the time-out of the running attempt of a task."""
TIMER_START = 3
"""Kind of a timer row: the scheduled start of the instance; its seq is -1."""
TIMER_SIGNAL = 4
"""Kind of a timer row of an entity: a signal is due."""
TIMER_IDLE = 5
"""Kind of a timer row of an entity: it may have been idle for too long; its seq is -1."""
