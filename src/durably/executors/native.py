"""Runs the functions of an app in this process: orchestrators on loops of their own, activities as tasks or in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from durably.codec.convert import Converter
from durably.core.events import ExecutionStarted, HistoryEvent, Payload
from durably.core.ids import task_key
from durably.core.messages import ActivityDone
from durably.engine.executor import ActivityCall, FunctionKind
from durably.errors import FailureDetails, HistoryCorruptError, PayloadError, UnknownFunctionError
from durably.executors.activity_threads import ActivityThreads
from durably.executors.watchdog import Watchdog
from durably.program.activity_context import ActivityContext
from durably.program.failures import describe
from durably.program.registry import ActivityFunction, OrchestratorFunction, Registry
from durably.program.replay import replay
from durably.program.run import ProgramOptions, Run


@dataclass(frozen=True, slots=True)
class NativeOptions:
    """Settings of a `NativeExecutor`.

    Attributes:
        threads: Activities that are plain functions and run at the same time, at most; further ones wait.
        slow_turn_s: A turn of an orchestrator that runs longer is reported with its stack; 0 switches that off.
        program: Limits of orchestrator code.
    """

    threads: int = 32
    slow_turn_s: float = 1.0
    program: ProgramOptions = field(default_factory=ProgramOptions)


class NativeExecutor:
    """Implements `durably.engine.executor.Executor` for the functions of a `Registry`."""

    def __init__(
        self, registry: Registry, converter: Converter, options: NativeOptions | None = None
    ) -> None:
        options = options or NativeOptions()
        self._registry = registry
        self._converter = converter
        self._program = options.program
        self._threads = ActivityThreads(options.threads)
        self._watchdog = Watchdog(options.program, options.slow_turn_s) if options.slow_turn_s > 0 else None

    # --- orchestrators -----------------------------------------------------------------------------------------------

    def serves(self, kind: FunctionKind, name: str) -> bool:
        """See `Executor.serves`."""
        found = self._registry.activity(name) if kind == "activity" else self._registry.orchestrator(name)
        return found is not None

    def names(self, kind: FunctionKind) -> Sequence[str]:
        """See `Executor.names`."""
        return self._registry.names(kind)

    def begin(self, started: ExecutionStarted) -> Run:
        """See `Executor.begin`.

        Raises:
            UnknownFunctionError: No such orchestrator is registered; ask `serves` first.
        """
        if self._watchdog is not None:
            self._watchdog.start()
        function = self._orchestrator(started)
        return Run(function, started, self._registry, self._converter, self._program)

    def replay(self, history: Sequence[HistoryEvent]) -> Run:
        """See `Executor.replay`.

        Raises:
            NonDeterminismError: Code and history differ.
            UnknownFunctionError: No such orchestrator is registered; ask `serves` first.
            HistoryCorruptError: It does not say what was started.
        """
        started = next((event for event in history if isinstance(event, ExecutionStarted)), None)
        if started is None:
            raise HistoryCorruptError("History has no event of its start: expected one; restore a backup")
        run = self.begin(started)
        replay(run, started, history)
        return run

    def _orchestrator(self, started: ExecutionStarted) -> OrchestratorFunction:
        registry = self._registry
        function = registry.orchestrator(started.name, started.version) or registry.orchestrator(started.name)
        if function is None:
            raise UnknownFunctionError(_unknown("Orchestrator", started.name, registry.names("orchestrator")))
        return function

    # --- activities --------------------------------------------------------------------------------------------------

    def concurrency(self, name: str) -> int | None:
        """See `Executor.concurrency`."""
        function = self._registry.activity(name)
        return None if function is None else function.max_concurrent

    async def perform(self, call: ActivityCall) -> ActivityDone:
        """See `Executor.perform`."""
        function = self._registry.activity(call.name)
        if function is None:
            unknown = UnknownFunctionError(_unknown("Activity", call.name, self._registry.names("activity")))
            return _done(call, None, describe(unknown))
        # Few activities look at their context, and one that nobody sees need not be made.
        wanted = function.context_name is not None or function.executor == "thread"
        context = _context(call) if wanted else _NOBODYS
        try:
            return await self._attempt(function, call, context)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                if wanted:
                    context.cancel()
                raise
            return _done(call, None, describe(error))  # the activity raised it on its own
        except BaseException as error:  # noqa: BLE001 - user code; also SystemExit, which must not end the host
            return _done(call, None, describe(error))

    async def close(self) -> None:
        """See `Executor.close`."""
        if self._watchdog is not None:
            self._watchdog.close()
        self._threads.close()

    async def _attempt(
        self, function: ActivityFunction, call: ActivityCall, context: ActivityContext
    ) -> ActivityDone:
        try:
            arguments = function.arguments(call.input, self._converter)
        except PayloadError as error:
            raise PayloadError(f"Input of activity '{call.name}': {error}") from None
        if function.executor == "thread":
            result, error = await self._threads.run(_contained, function, arguments, context)
            if error is not None:
                return _done(call, None, describe(error))
        else:
            result = await function.call(arguments, context)
        if result is None:
            return _done(call, None, None)
        try:
            return _done(call, self._converter.encode(result), None)
        except PayloadError as error:
            raise PayloadError(f"Result of activity '{call.name}': {error}") from None


def _context(call: ActivityCall) -> ActivityContext:
    return ActivityContext(
        instance_id=call.instance_id,
        task_id=call.seq,
        attempt=call.attempt,
        delivery=call.delivery,
        idempotency_key=task_key(call.instance_id, call.execution_id, call.seq),
        tags=call.tags,
    )


_NOBODYS = ActivityContext(instance_id="", task_id=0, attempt=0, delivery=0, idempotency_key="")
"""Stands for the context of an activity that does not ask for one."""


def _contained(
    function: ActivityFunction, arguments: tuple[Any, ...], context: ActivityContext
) -> tuple[Any, BaseException | None]:
    """The call as a value: a future cannot carry each exception (StopIteration would be lost in it)."""
    try:
        return function.call(arguments, context), None
    except BaseException as error:  # noqa: BLE001 - described by the waiting task
        return None, error


def _done(call: ActivityCall, result: Payload, failure: FailureDetails | None) -> ActivityDone:
    return ActivityDone(call.execution_id, call.seq, call.attempt, result, failure)


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    return (
        f"{what} '{name}' is not registered in this host: expected one of {', '.join(known) or '(none)'}; "
        "register it, or correct the name"
    )
