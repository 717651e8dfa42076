"""Drives one orchestrator through canned results: the real loop and the pure core, and nothing else of the engine."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

from durably.app import App
from durably.codec.convert import Converter, JsonConverter
from durably.core.entities import EntityId
from durably.core.events import ContinuedAsNew, ExecutionStarted, HistoryEvent, ParentRef
from durably.core.instance import InstanceState
from durably.core.messages import (
    ActivityDone,
    CallEntity,
    Cancel,
    ChildDone,
    EntityDone,
    EntityLocked,
    LockEntity,
    MessageBody,
    RaiseEvent,
    StartInstance,
    TimerDue,
)
from durably.core.operations import Operation, OperationOutcome
from durably.core.orchestration import Commit
from durably.core.status import RuntimeStatus
from durably.core.timeline import instant
from durably.engine.executor import ActivityCall, Run
from durably.errors import FailureDetails, OrchestrationFailedError, UsageError
from durably.executors.http.policy import HttpPolicy
from durably.executors.native import NativeExecutor, NativeOptions
from durably.program.durations import micros_of, microseconds
from durably.program.http import HTTP_ACTIVITY
from durably.program.mismatch import label
from durably.program.registry import Registry
from durably.testing.clock import START
from durably.testing.history import History
from durably.testing.mock_entity import EntityMocks, RecordedOperation
from durably.testing.mock_http import HttpMocks
from durably.testing.mocking import Mocking
from durably.testing.pace import StuckError
from durably.testing.stubs import NOTHING, Function, RecordedCall, Stub, Stubs, decoded, name_in

T = TypeVar("T")

_EXECUTION_ID = "0" * 32
_PYTHON = "{}.{}".format(*sys.version_info)


class MockOrchestrationContext(Mocking):
    """Runs an orchestrator by itself: without a hub, an event loop or time, on results that the test gives it.

    The orchestrator gets the real `OrchestrationContext`, so that all of its asyncio works, timers and retries included;
    time is virtual. What it calls has to be mocked: nothing else runs.

    Locks of entities are granted as they are asked for; signals are noted, and go nowhere.

    Attributes:
        calls: Attempts of activities and sub-orchestrations, in order.
        operations: Calls and signals of entities, in order.
        custom_status: As the orchestrator set it last.
        continued: It has continued as new; `next_input` is the input of the next execution.
        next_input: See there.

    Args:
        app: Where the functions are registered: for names other than those of the functions, for types, for the converter.
        instance_id: Of the instance.
        parent_instance_id: Of its parent, or None.
        version: Of the instance, or None.
        tags: Of the instance.
        start: Where time begins (naive means UTC).
    """

    def __init__(
        self,
        *,
        app: App | None = None,
        instance_id: str = "test",
        parent_instance_id: str | None = None,
        version: str | None = None,
        tags: dict[str, str] | None = None,
        start: datetime = START,
    ) -> None:
        self.instance_id = instance_id
        self.calls: list[RecordedCall] = []
        self.operations: list[RecordedOperation] = []
        self.custom_status: Any = None
        self.continued = False
        self.next_input: Any = None
        self._parent = None if parent_instance_id is None else ParentRef(parent_instance_id, _EXECUTION_ID, 0)
        self._version = version
        self._tags = tags
        self._registry = Registry() if app is None else app.registry
        self._converter = JsonConverter() if app is None else app.converter
        self._activities = Stubs()
        self._orchestrators = Stubs()
        super().__init__(EntityMocks(), HttpMocks())
        self._http_policy = HttpPolicy() if app is None or app.http is None else app.http
        self._now = micros_of(start)
        self._waiting: list[tuple[int, int, MessageBody]] = []
        self._timers: dict[tuple[int, int], int] = {}
        self._count = 0
        self._events: list[HistoryEvent] = []

    @property
    def functions(self) -> tuple[Registry, Converter]:
        """See `Mocking.functions`."""
        return self._registry, self._converter

    # --- what the test arranges --------------------------------------------------------------------------------------

    def mock_activity(
        self,
        fn: Function,
        *,
        returns: Any = NOTHING,
        raises: BaseException | type[BaseException] | None = None,
        runs: Callable[..., Any] | None = None,
        times: int | None = None,
        delay: timedelta | float = 0,
    ) -> Stub:
        """Let something answer in the place of an activity; see `DurableEnvironment.mock_activity`."""
        if callable(fn) and self._registry.activity(fn) is None:
            self._registry = _with(self._registry, fn)
        name = name_in(self._registry, fn)
        real = self._registry.activity(name)
        stub = Stub(
            name, real, self._converter, returns=returns, raises=raises, runs=runs, times=times, delay=delay
        )
        return self._activities.add(stub)

    def mock_orchestrator(
        self,
        fn: Function,
        *,
        returns: Any = NOTHING,
        raises: BaseException | type[BaseException] | None = None,
        runs: Callable[..., Any] | None = None,
        times: int | None = None,
        delay: timedelta | float = 0,
    ) -> Stub:
        """Let something answer in the place of a sub-orchestration. `runs` takes its input, and no context."""
        real = self._registry.orchestrator(fn)
        name = self._registry.orchestrator_name(fn)
        stub = Stub(
            name, real, self._converter, returns=returns, raises=raises, runs=runs, times=times, delay=delay
        )
        return self._orchestrators.add(stub)

    def raise_event(self, name: str, data: Any = None, *, after: timedelta | float = 0) -> None:
        """Raise an external event to the orchestrator, when it has run for so long (timedelta or seconds)."""
        payload = None if data is None else self._converter.encode(data)
        self._put(self._now + microseconds(after, "after"), RaiseEvent(name, payload))

    def cancel(self, reason: str | None = None, *, after: timedelta | float = 0) -> None:
        """Ask the orchestrator to cancel itself, when it has run for so long (timedelta or seconds)."""
        self._put(self._now + microseconds(after, "after"), Cancel(reason))

    # --- what came of it ---------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """Virtual time (aware, UTC)."""
        return instant(self._now)

    @property
    def history(self) -> History:
        """What happened so far."""
        return History(self._events)

    def run(self, fn: Callable[..., Any], input: Any = None) -> Any:
        """Run an orchestrator to its end, and then replay it.

        Args:
            fn: The orchestrator; it need not be registered.
            input: Its input, which takes the way through JSON as always.

        Returns:
            Its result; None when it continued as new.

        Raises:
            OrchestrationFailedError: It failed, or was cancelled.
            StuckError: It waits for something that nothing will bring about.
            UsageError: It called something that is not mocked, or this ran an orchestrator before.
            NonDeterminismError: It does not replay.
        """
        if self._events:
            raise UsageError("This context ran an orchestrator before; make another one")
        registry = self._registry
        if registry.orchestrator(fn) is None:
            registry = Registry()
            registry.merge(self._registry)
            registry.add_orchestrator(fn)
        executor = NativeExecutor(registry, self._converter, NativeOptions(slow_turn_s=0))
        started = ExecutionStarted(
            self.instance_id,
            registry.orchestrator_name(fn),
            None if input is None else self._converter.encode(input),
            _EXECUTION_ID,
            0,
            self._now,
            _PYTHON,
            version=self._version,
            parent=self._parent,
            tags=self._tags,
        )
        run = executor.begin(started)
        try:
            state = self._drive(run, started)
        finally:
            run.close()
        executor.replay(self._events).close()
        function = registry.orchestrator(fn)
        return self._outcome(state, Any if function is None else function.result_type)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _drive(self, run: Run, started: ExecutionStarted) -> InstanceState:
        state = InstanceState(self.instance_id)
        self._turn(run, state, started)
        while not (state.ended or state.continuing):
            if not self._waiting:
                raise self._stuck(state)
            due, _, body = heapq.heappop(self._waiting)
            if isinstance(body, TimerDue) and self._timers.get((body.seq, body.kind)) != due:
                continue  # it was taken back, or set anew
            self._now = max(self._now, due)
            self._turn(run, state, body)
        return state

    def _turn(self, run: Run, state: InstanceState, body: ExecutionStarted | MessageBody) -> None:
        commit = Commit(state)
        commit.turn(self._now)
        event = commit.begin(body) if isinstance(body, ExecutionStarted) else commit.receive(body)
        if event is not None:
            for action in run.advance(event, state.now):
                commit.decide(action)
        self._events += cast("list[HistoryEvent]", commit.events)
        for key, due in commit.timers.items():
            if due is None:
                self._timers.pop(key, None)
            else:
                self._timers[key] = due
                self._put(due, TimerDue(0, *key))
        for scheduled, attempt in commit.activities:
            call = ActivityCall(
                self.instance_id,
                _EXECUTION_ID,
                scheduled.seq,
                attempt,
                1,
                scheduled.name,
                scheduled.input,
                scheduled.tags,
            )
            self._answer(call, self._activities, "activity")
        for target, message in commit.messages:
            if isinstance(message, StartInstance) and message.parent is not None:
                self._answer(self._call_of(message, message.parent), self._orchestrators, "orchestrator")
            elif isinstance(message, CallEntity):
                self._operate(EntityId.parse(target), message)
            elif isinstance(message, LockEntity):
                self._put(self._now, EntityLocked(_EXECUTION_ID, message.holder.seq, target))

    def _call_of(self, start: StartInstance, call: ParentRef) -> ActivityCall:
        return ActivityCall(
            self.instance_id, _EXECUTION_ID, call.seq, call.attempt, 1, start.name, start.input, start.tags
        )

    def _operate(self, entity_id: EntityId, call: CallEntity) -> None:
        """Answer a call of an entity; a signal wants no answer."""
        operation = Operation(call.operation, call.input, call.sender, self._now, f"{len(self.operations)}")
        self.operations.append(RecordedOperation.of(entity_id, operation, self._converter))
        mock = self._entity_mocks.find(entity_id.name, call.operation)
        if mock is None:
            if call.caller is None:
                return
            raise UsageError(
                f"The orchestrator called operation '{call.operation}' of entity '{entity_id}' (#{call.caller.seq}), and no mock "
                f"of it is left; expected ctx.mock_entity('{entity_id.name}', operation='{call.operation}', returns=…) before "
                "the run"
            )
        outcome = mock.perform(entity_id, None, 0, operation)
        if not isinstance(outcome, OperationOutcome):
            outcome = _at_once(outcome, f"entity '{entity_id.name}'")
        if call.caller is not None:
            self._put(self._now, EntityDone(_EXECUTION_ID, call.caller.seq, outcome.result, outcome.failure))

    def _ask(self, call: ActivityCall) -> None:
        """Answer a request of `call_http`."""
        work = self._http_mocks.perform(call, self._http_policy, lambda: self._now)
        done, delay_us = _at_once(work, "an HTTP service")
        self._put(self._now + delay_us, done)

    def _answer(self, call: ActivityCall, stubs: Stubs, kind: str) -> None:
        stub = stubs.take(call.name)
        if stub is None and call.name == HTTP_ACTIVITY:
            self._ask(call)
            return
        if stub is None:
            raise UsageError(
                f"The orchestrator called {kind} '{call.name}' (#{call.seq}, attempt {call.attempt}), and no mock of it is "
                f"left; expected ctx.mock_{kind}({call.name}, returns=…) before the run"
            )
        done = _at_once(stub.perform(call), f"'{stub.name}'")
        self.calls.append(stub.calls[-1])
        body = done if stubs is self._activities else _of_child(done)
        self._put(self._now + stub.delay_us, body)

    def _put(self, due: int, body: MessageBody) -> None:
        self._count += 1
        heapq.heappush(self._waiting, (due, self._count, body))

    def _stuck(self, state: InstanceState) -> StuckError:
        waits = ", ".join(label(action) for action in state.open.values())
        return StuckError(
            f"Nothing more will happen, and the orchestrator is not at its end. Open: {waits}; expected what ends them: "
            "call ctx.raise_event before the run, or let the orchestrator wait with a timeout"
        )

    def _outcome(self, state: InstanceState, type_: Any) -> Any:
        self.custom_status = decoded(state.custom_status, Any, self._converter)
        last = next((event for event in self._events if isinstance(event, ContinuedAsNew)), None)
        if last is not None:
            self.continued = True
            self.next_input = decoded(last.input, Any, self._converter)
            return None
        if state.status == RuntimeStatus.Completed.value:
            return decoded(state.output, type_, self._converter)
        failure = state.failure or FailureDetails(state.status, "no details were recorded")
        raise OrchestrationFailedError(self.instance_id, state.status, failure)


def _with(registry: Registry, fn: Callable[..., Any]) -> Registry:
    """A copy of a registry that also knows an activity, for its types."""
    copy = Registry()
    copy.merge(registry)
    copy.add_activity(fn)
    return copy


def _of_child(done: ActivityDone) -> ChildDone:
    return ChildDone(done.execution_id, done.seq, done.attempt, done.result, done.failure)


def _at_once(work: Coroutine[Any, Any, T], what: str) -> T:
    """The answer of a mock, without an event loop."""
    try:
        work.send(None)
    except StopIteration as answer:
        return answer.value
    work.close()
    raise UsageError(
        f"The mock of {what} awaits something: expected runs= to be a function that returns at once, since there is "
        "no event loop here; use DurableEnvironment"
    )
