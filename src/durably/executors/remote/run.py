"""The code of an execution that runs in workers: what has arrived for it, and its history as their protocol tells it.

A worker gets the whole history with each piece of work, so it is kept here as the bytes that are sent, and only grows.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from durably.core.events import (
    OUTCOMES,
    Action,
    Answered,
    Arrival,
    ChildScheduled,
    ContinuedAsNew,
    CustomStatusSet,
    EntityCalled,
    EventRaised,
    ExecutionFailed,
    ExecutionStarted,
    HistoryEvent,
    LockReleased,
    LockRequested,
    Payload,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
    TurnStarted,
)
from durably.core.messages import WorkerAnswered
from durably.executors.remote.answers import Numbers, Translation, confirmations
from durably.executors.remote.past import Opened, arrival_message, started_message
from durably.executors.remote.wire import field_header, pb, timestamp

_PAST: Final = field_header(pb.OrchestratorRequest, "pastEvents")
_NEW: Final = field_header(pb.OrchestratorRequest, "newEvents")

_ARRIVALS: Final = (ExecutionStarted, TaskCompleted, TaskFailed, TimerFired, EventRaised)
"""What the code sees; the engine counts the same, see `durably.core.instance.InstanceState.untaken`."""


class Asked(NamedTuple):
    """What a worker has been asked.

    Attributes:
        number: Of the answer that is awaited; the first is 1.
        at: The time that the code is told.
        taken: So many arrivals it sees.
        seen: See `WorkerAnswered.seen`.
    """

    number: int
    at: int
    taken: int
    seen: int


class _Waiting(NamedTuple):
    event: Arrival
    message: bytes


class RemoteRun:
    """Implements `durably.engine.executor.Run`.

    Args:
        started: The first event of the execution.
        wants_work: Called when something has arrived, and when an answer has been taken.
        ends: Called with this when nobody wants an answer any more.

    Attributes:
        started: As given.
        answers: Answers so far.
        closed: Nothing is sent any more.
    """

    def __init__(
        self,
        started: ExecutionStarted,
        wants_work: Callable[[RemoteRun], None],
        ends: Callable[[RemoteRun], None],
    ) -> None:
        self.started = started
        self.answers = 0
        self.closed = False
        self._wants_work = wants_work
        self._ends = ends
        self._past = bytearray()
        self._seen = 0
        self._over = False
        self._waiting: list[_Waiting] = []
        self._open: dict[int, Opened] = {}
        self._numbers = Numbers()
        self._custom_status: Payload = started.custom_status
        self._section: tuple[int, str] | None = None
        self._now = 0
        self._told_at = 0
        self._trace: bytes = b""
        self._failed: tuple[int, ...] = ()
        self._heeded = True

    # --- what arrives ------------------------------------------------------------------------------------------------

    def advance(self, event: Arrival, now: int) -> Sequence[Action]:
        """See `Run.advance`."""
        self._arrive(event, now)
        if self._waiting:
            self._wants_work(self)
        return ()

    def _arrive(self, event: Arrival, now: int) -> None:
        self._now = max(now, self._now)
        if not isinstance(event, _ARRIVALS):
            return
        if isinstance(event, ExecutionStarted):
            message = started_message(event, now)
        elif isinstance(event, EventRaised):
            message = arrival_message(event, None, now)
        else:
            message = arrival_message(event, self._open.pop(event.seq), now)
        self._waiting.append(_Waiting(event, _bytes_of(message)))

    def follow(self, history: Sequence[HistoryEvent]) -> None:
        """Go through a whole history."""
        place, now = 0, 0
        while place < len(history):
            event = history[place]
            place += 1
            if isinstance(event, TurnStarted):
                now = event.at
            elif isinstance(event, Answered):
                first = place
                while place < len(history) and not isinstance(
                    history[place], TurnStarted | Answered | Arrival
                ):
                    place += 1
                self._take(event, history[first:place])  # pyright: ignore[reportArgumentType] - no arrivals
            else:
                self._arrive(event, now)  # pyright: ignore[reportArgumentType] - decisions stand behind an answer
        if self._waiting:
            self._wants_work(self)

    # --- work --------------------------------------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        """True when something has arrived that no answer has taken."""
        return bool(self._waiting) and not self.closed and not self._over

    def past_events(self) -> list[pb.HistoryEvent]:
        """What a worker is told as past."""
        return list(pb.OrchestratorRequest.FromString(bytes(self._past)).pastEvents)

    def events(self) -> list[pb.HistoryEvent]:
        """The past, and what has arrived since."""
        waiting = [pb.HistoryEvent.FromString(waiting.message) for waiting in self._waiting]
        first = [pb.HistoryEvent.FromString(_orchestrator_started(self._now))] if waiting else []
        return [*self.past_events(), *first, *waiting]

    def request(self) -> tuple[Asked, bytes]:
        """What to ask a worker now: for our books, and as an `OrchestratorRequest`."""
        at = max(self._now, self._told_at + 1)
        head = pb.OrchestratorRequest(instanceId=self.started.instance_id)
        head.executionId.value = self.started.execution_id
        head.entityParameters.SetInParent()
        if self._trace:
            head.orchestrationTraceContext.ParseFromString(self._trace)
        parts = [head.SerializeToString(), self._past, _NEW.of(_orchestrator_started(at))]
        parts += [_NEW.of(waiting.message) for waiting in self._waiting]
        taken = len(self._waiting)
        return Asked(self.answers + 1, at, taken, self._seen_with(at, taken)), b"".join(parts)

    def read(self, asked: Asked, response: pb.OrchestratorResponse) -> WorkerAnswered:
        """What a worker answered, as a message to the instance.

        Raises:
            UsageError: It holds what nobody can carry out.
        """
        translation = Translation(self.started, self._numbers.draft(), self._custom_status, self._section)
        kept, actions = translation.read(response)
        if actions and isinstance(actions[-1], ExecutionFailed):
            actions = (*actions[:-1], msgspec.structs.replace(actions[-1], tasks=self._culprits(asked.taken)))
        return self.answer(asked, kept, actions)

    def _culprits(self, taken: int) -> tuple[int, ...]:
        """The calls whose failure the code has seen last: a rewind does them again, and what came behind them.

        Failures that it has seen one after the other without doing anything are one: it waits until all calls are over, as
        the whenAll of JavaScript and .NET does.
        """
        failed = self._failures(taken)
        if not failed:
            return self._failed
        return failed if self._heeded else (*self._failed, *failed)

    def _failures(self, taken: int) -> tuple[int, ...]:
        seen = (waiting.event for waiting in self._waiting[:taken])
        return tuple(event.seq for event in seen if isinstance(event, TaskFailed))

    def answer(self, asked: Asked, kept: bytes, actions: tuple[Action, ...]) -> WorkerAnswered:
        """An answer of our own making."""
        execution_id = self.started.execution_id
        return WorkerAnswered(
            execution_id, asked.number, asked.at, asked.taken, kept, actions, seen=asked.seen
        )

    def answered(self, body: WorkerAnswered) -> WorkerAnswered | None:
        """See `Run.answered`. Events that the worker has not seen move on when it continues as new."""
        if body.execution_id != self.started.execution_id or body.number != self.answers + 1 or self._over:
            return None  # somebody else has answered
        if body.taken > len(self._waiting) or body.seen != self._seen_with(body.at, body.taken):
            return None
        self._take(Answered(body.at, body.taken, body.answer), body.actions)
        actions = tuple(self._carrying(action) for action in body.actions)
        self._wants_work(self)
        return msgspec.structs.replace(body, actions=actions)

    def _carrying(self, action: Action) -> Action:
        if not isinstance(action, ContinuedAsNew):
            return action
        unseen = [waiting.event for waiting in self._waiting if isinstance(waiting.event, EventRaised)]
        return msgspec.structs.replace(action, carried=(*(action.carried or ()), *unseen))

    def _seen_with(self, at: int, taken: int) -> int:
        """The checksum of what the code has seen once it has seen so many of those that wait."""
        seen = zlib.crc32(_orchestrator_started(at), self._seen)
        for waiting in self._waiting[:taken]:
            seen = zlib.crc32(waiting.message, seen)
        return seen

    def _take(self, event: Answered, actions: Sequence[Action]) -> None:
        """An answer is in the history: what it saw and what it decided are the past now."""
        self.answers += 1
        self._told_at = event.at
        self._seen = self._seen_with(event.at, event.taken)
        self._over = any(type(action) in OUTCOMES for action in actions)
        self._past += _PAST.of(_orchestrator_started(event.at))
        failures = self._failures(event.taken)
        self._failed = self._culprits(event.taken)
        if actions:
            self._heeded = True
        elif failures:
            self._heeded = False
        for waiting in self._waiting[: event.taken]:
            self._past += _PAST.of(waiting.message)
        del self._waiting[: event.taken]
        for action in actions:
            if isinstance(action, CustomStatusSet):
                self._custom_status = action.value
        for message, action in confirmations(event.answer, actions, event.at):
            self._past += _PAST.of(_bytes_of(message))
            if action is not None:
                self._opened(message, action)
        released = {action.seq for action in actions if isinstance(action, LockReleased)}
        if self._section is not None and self._section[0] in released:
            self._section = None
        trace = pb.OrchestratorResponse.FromString(event.answer)
        if trace.HasField("orchestrationTraceContext"):
            self._trace = trace.orchestrationTraceContext.SerializeToString()

    def _opened(self, message: pb.HistoryEvent, action: Action) -> None:
        match action:
            case TaskScheduled() | ChildScheduled():
                opened = Opened(action, message.eventId)
            case TimerCreated():
                opened = Opened(action, message.eventId)
            case EntityCalled():
                opened = Opened(action, message.eventId, message.entityOperationCalled.requestId)
            case LockRequested():
                name = message.entityLockRequested.criticalSectionId
                opened = Opened(action, message.eventId, name)
                self._section = (action.seq, name)
            case _:
                self._numbers.take(getattr(action, "seq", -1))
                return
        self._numbers.take(action.seq)
        self._open[action.seq] = opened

    def close(self) -> None:
        """See `Run.close`."""
        if not self.closed:
            self.closed = True
            self._ends(self)


def _bytes_of(event: pb.HistoryEvent) -> bytes:
    """The same for the same, in each process: maps have no order of their own."""
    return event.SerializeToString(deterministic=True)


def _orchestrator_started(at: int) -> bytes:
    event = pb.HistoryEvent(eventId=-1, timestamp=timestamp(at))
    event.orchestratorStarted.SetInParent()
    return event.SerializeToString()
