"""The seam between the engine and user code, as a specification.

An executor has no durable side effect of its own: whatever it is asked may be asked again after a crash, and only what
the engine commits counts. The live code of one execution is a `Run` that its resident owns, so that eviction, end and
teardown are one call on one object and cannot miss it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal, Protocol

import msgspec

from durably.core.entities import EntityId
from durably.core.events import Action, Arrival, ExecutionStarted, HistoryEvent, Payload
from durably.core.messages import ActivityDone, WorkerAnswered
from durably.core.operations import Operation, OperationOutcome

FunctionKind = Literal["orchestrator", "activity", "entity"]


class ActivityCall(msgspec.Struct, frozen=True, eq=False):
    """One attempt of an activity, ready to run.

    Attributes:
        instance_id: Whose call it is.
        execution_id: The execution that made the call.
        seq: The call within the execution; shown to users as the task id.
        attempt: The first attempt is 1.
        delivery: How often this attempt was handed to a host, this time included; above 1 after a crash.
        name: The activity.
        input: Its input.
        tags: Set by the caller of the activity.
        detail: See `TaskScheduled.detail`.
        begun: Called by the event loop when the code of one that does not run on it has got its thread or process; None when
            nobody wants to know.
    """

    instance_id: str
    execution_id: str
    seq: int
    attempt: int
    delivery: int
    name: str
    input: Payload
    tags: dict[str, str] | None = None
    detail: bytes | None = None
    begun: Callable[[], None] | None = None


class Run(Protocol):
    """The live code of one execution, suspended between events."""

    def advance(self, event: Arrival, now: int) -> Sequence[Action]:
        """Deliver one event alone, run until the code is quiet, and return what it decided, in order.

        The last action is one of `durably.core.events.OUTCOMES` when the execution ended; the run is then closed and
        is not called again. An event that the code does not care about (for example the completion of an action that
        it cancelled) returns nothing. Never raises for what user code does: that becomes `ExecutionFailed`.

        Args:
            event: What arrived. `TurnStarted` is not delivered: `now` says it.
            now: Orchestration time of the turn, microseconds since 1970 UTC; never less than in the call before.
        """
        ...

    def answered(self, body: WorkerAnswered) -> WorkerAnswered | None:
        """A worker has answered. Only where `Executor.elsewhere`.

        Returns:
            What to record of it, at once; or None: it is no answer to what the history says.
        """
        ...

    def close(self) -> None:
        """Tear the code down without any effect: no action, no log, no warning. Idempotent."""
        ...


class EntityCode(Protocol):
    """The live code of one entity."""

    @property
    def idle_ttl_us(self) -> int | None:
        """The entity is deleted when no operation came for so long; None: never."""
        ...

    def reads_only(self, operation: str) -> bool:
        """True when the operation changes nothing, so that it need not wait for its turn."""
        ...

    def operate(
        self, state: Payload, version: int, operation: Operation
    ) -> OperationOutcome | Coroutine[Any, Any, OperationOutcome]:
        """Perform one operation on a state; a coroutine when the code has to wait for something.

        Never raises for what user code does: that is a failure, with the state as it was. Operations come one after the
        other, except those that only read, which may come while another one waits.

        Args:
            state: Of the entity; None: it does not exist.
            version: Of the form of the state.
            operation: What to do.
        """
        ...


class Executor(Protocol):
    """How the engine reaches user code."""

    def serves(self, kind: FunctionKind, name: str) -> bool:
        """True when this executor knows the function, in whatever version."""
        ...

    def names(self, kind: FunctionKind) -> Sequence[str]:
        """The functions it can run, sorted; for messages to people."""
        ...

    def runs(self, name: str, version: str | None) -> bool:
        """True when it has code for instances of the orchestrator that have this version."""
        ...

    def elsewhere(self, kind: FunctionKind, name: str) -> bool:
        """True when the code of the function runs in workers: it takes no place of this host, and cannot end its process.

        For an orchestrator it holds for new instances. The `Run` of such a one decides nothing when something arrives. It
        asks a worker, whose answer comes as the message `durably.core.messages.WorkerAnswered`, and has to ask again after a
        replay of a history that ends with arrivals that no answer has taken.
        """
        ...

    def version_of_new(self, name: str) -> str | None:
        """The version that new instances of the orchestrator get when nobody asks for one; None for none."""
        ...

    def versions(self, name: str) -> str:
        """The versions of the orchestrator that it has code for, and its rule; for messages to people."""
        ...

    def begin(self, started: ExecutionStarted) -> Run:
        """A run to which nothing has been delivered yet; the first event is `started` itself."""
        ...

    def replay(self, history: Sequence[HistoryEvent]) -> Run:
        """A run that has gone through a whole history and is ready for the next event.

        Raises:
            NonDeterminismError: The code decides otherwise than the history says; the text is a readable diff. The run
                is torn down.
        """
        ...

    def entity(self, entity_id: EntityId) -> EntityCode:
        """The code of an entity; ask `serves` first."""
        ...

    def concurrency(self, name: str) -> int | None:
        """How many attempts of the activity may run at once on this host; None for no limit of its own."""
        ...

    def on_loop(self, name: str) -> bool:
        """True when the code of the activity runs on the event loop, step by step; False when it runs elsewhere."""
        ...

    def perform(self, call: ActivityCall) -> Coroutine[Any, Any, ActivityDone]:
        """Run one attempt of an activity.

        Never raises for what user code does: that becomes a failure. Cancelling the awaiting task cancels the attempt:
        a coroutine is cancelled, a worker process is ended; a thread cannot be, but its context says so and its result
        is dropped.
        """
        ...

    async def close(self) -> None:
        """Let go of threads and end processes; called after the last `perform` returned or was cancelled."""
        ...
