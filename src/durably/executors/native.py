"""Runs the functions of an app: orchestrators on loops of their own, activities as tasks, in threads or in processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from durably.codec.convert import PAYLOAD_BYTES_MAX, Converter, JsonConverter
from durably.core.entities import EntityId
from durably.core.events import ExecutionStarted, HistoryEvent
from durably.core.ids import task_key
from durably.core.messages import ActivityDone
from durably.core.undo import UNDO
from durably.engine.executor import ActivityCall, EntityCode, FunctionKind
from durably.errors import HistoryCorruptError, NonDeterminismError, RegistrationError, UnknownFunctionError
from durably.executors.activity_processes import ActivityProcesses
from durably.executors.activity_threads import ActivityThreads
from durably.executors.attempt import arguments_of, payload_of
from durably.executors.time_limit import tell_loop
from durably.executors.watchdog import Watchdog
from durably.executors.worker_channel import Attempt
from durably.executors.worker_main import is_importing
from durably.program.activity_context import ActivityContext
from durably.program.addresses import Address, address_of, converter_address
from durably.program.entities import BuiltInEntity
from durably.program.entity_run import EntityRun
from durably.program.failures import describe
from durably.program.registry import ActivityFunction, OrchestratorFunction, Registry
from durably.program.replay import replay
from durably.program.run import ProgramOptions, Run
from durably.program.undoing import UNDOING
from durably.program.versions import Versioning, version_key


@dataclass(frozen=True, slots=True)
class NativeOptions:
    """Settings of a `NativeExecutor`.

    Attributes:
        threads: Activities that are plain functions and run at the same time, at most; further ones wait.
        processes: Activities with ``executor="process"`` that run at the same time, at most; further ones wait.
        process_grace_s: Time that such an activity has to clean up once nobody wants its result; then it is killed.
        slow_turn_s: A turn of an orchestrator that runs longer is reported with its stack; 0 switches that off.
        program: Limits of orchestrator code.
        versioning: Which code runs which instances.
    """

    threads: int = 32
    processes: int = os.cpu_count() or 1
    process_grace_s: float = 1.0
    slow_turn_s: float = 1.0
    program: ProgramOptions = field(default_factory=ProgramOptions)
    versioning: Versioning = field(default_factory=Versioning)


class NativeExecutor:
    """Implements `durably.engine.executor.Executor` for the functions of a `Registry`.

    Args:
        registry: The functions of the app.
        converter: Of their payloads.
        options: Limits.
        builtins: Activities, orchestrators and entities that each host has, whatever the app.
    """

    def __init__(
        self,
        registry: Registry,
        converter: Converter,
        options: NativeOptions | None = None,
        builtins: Iterable[ActivityFunction | OrchestratorFunction | BuiltInEntity] = (),
    ) -> None:
        options = options or NativeOptions()
        self._registry = registry
        self._builtins: dict[str, ActivityFunction] = {}
        self._orchestrators = {UNDO: UNDOING}
        self._entities: dict[str, BuiltInEntity] = {}
        for function in builtins:
            if isinstance(function, ActivityFunction):
                self._builtins[function.name] = function
            elif isinstance(function, BuiltInEntity):
                self._entities[function.name] = function
            else:
                self._orchestrators[function.name] = function
        self._converter = converter
        self._program = options.program
        self._versioning = options.versioning
        self._threads = ActivityThreads(options.threads)
        self._processes = ActivityProcesses(options.processes, options.process_grace_s)
        self._addresses: dict[ActivityFunction, tuple[Address, Address | None]] = {}
        self._watchdog = Watchdog(options.program, options.slow_turn_s) if options.slow_turn_s > 0 else None

    # --- orchestrators -----------------------------------------------------------------------------------------------

    def serves(self, kind: FunctionKind, name: str) -> bool:
        """See `Executor.serves`."""
        if kind == "entity":
            return name in self._entities or self._registry.entity(name) is not None
        if kind == "activity":
            return self._activity(name) is not None
        return name in self._orchestrators or self._registry.orchestrator(name) is not None

    def names(self, kind: FunctionKind) -> Sequence[str]:
        """See `Executor.names`."""
        return self._registry.names(kind)

    def runs(self, name: str, version: str | None) -> bool:
        """See `Executor.runs`."""
        return self._code(name, version) is not None

    def elsewhere(self, kind: FunctionKind, name: str) -> bool:
        """See `Executor.elsewhere`: never."""
        del kind, name
        return False

    def version_of_new(self, name: str) -> str | None:
        """See `Executor.version_of_new`."""
        return self._versioning.for_new(self._registry.versions(name))

    def versions(self, name: str) -> str:
        """See `Executor.versions`."""
        rules = self._versioning
        known = sorted(self._registry.versions(name), key=version_key)
        shown = ", ".join(repr(one or rules.version) if one or rules.version else "none" for one in known)
        return f"{shown} (match strategy '{rules.match}')"

    def begin(self, started: ExecutionStarted) -> Run:
        """See `Executor.begin`.

        Raises:
            UnknownFunctionError: There is no code for it; ask `runs` first.
        """
        if self._watchdog is not None:
            self._watchdog.start()
        function = self._orchestrator(started)
        return Run(function, started, self._registry, self._converter, self._program)

    def replay(self, history: Sequence[HistoryEvent]) -> Run:
        """See `Executor.replay`.

        Raises:
            NonDeterminismError: Code and history differ.
            UnknownFunctionError: There is no code for it; ask `runs` first.
            HistoryCorruptError: It does not say what was started.
        """
        started = next((event for event in history if isinstance(event, ExecutionStarted)), None)
        if started is None:
            raise HistoryCorruptError("History has no event of its start: expected one; restore a backup")
        if started.remote:
            raise NonDeterminismError(
                started.instance_id,
                "Its code ran in workers, and this host does not serve them. Serve the hub with a host that does "
                "(durably run --grpc)",
            )
        run = self.begin(started)
        replay(run, started, history)
        return run

    def _orchestrator(self, started: ExecutionStarted) -> OrchestratorFunction:
        registry = self._registry
        function = self._code(started.name, started.version)
        if function is None:
            raise UnknownFunctionError(_unknown("Orchestrator", started.name, registry.names("orchestrator")))
        return function

    def _code(self, name: str, version: str | None) -> OrchestratorFunction | None:
        own = self._orchestrators.get(name)
        return own or self._versioning.choose(self._registry.versions(name), version)

    def entity(self, entity_id: EntityId) -> EntityCode:
        """See `Executor.entity`.

        Raises:
            UnknownFunctionError: No such entity is registered; ask `serves` first.
        """
        own = self._entities.get(entity_id.name)
        if own is not None:
            return own.code(entity_id)
        function = self._registry.entity(entity_id.name)
        if function is None:
            raise UnknownFunctionError(_unknown("Entity", entity_id.name, self._registry.names("entity")))
        return EntityRun(function, entity_id, self._registry, self._converter)

    # --- activities --------------------------------------------------------------------------------------------------

    def concurrency(self, name: str) -> int | None:
        """See `Executor.concurrency`."""
        # Asked once for each name, before its first call: a host that only goes on with activities is watched too.
        if self._watchdog is not None:
            self._watchdog.start()
        function = self._activity(name)
        return None if function is None else function.max_concurrent

    def on_loop(self, name: str) -> bool:
        """See `Executor.on_loop`."""
        function = self._activity(name)
        return function is not None and function.executor == "loop"

    def _activity(self, name: str) -> ActivityFunction | None:
        return self._registry.activity(name) or self._builtins.get(name)

    async def perform(self, call: ActivityCall) -> ActivityDone:
        """See `Executor.perform`."""
        registry = self._registry
        function = registry.activity_of.get(call.name) or self._activity(call.name)
        if function is None:
            unknown = UnknownFunctionError(_unknown("Activity", call.name, registry.names("activity")))
            return _failed(call, unknown)
        if function.executor != "loop":
            return await (self._in_process if function.executor == "process" else self._in_thread)(
                function, call
            )
        # Few activities look at their context, and one that nobody sees need not be made.
        wanted = function.context_name is not None
        context = _context(call) if wanted else _NOBODYS
        try:
            result = await function.call(arguments_of(function, call.input, self._converter), context)
            payload = None if result is None else payload_of(function, result, self._converter)
            return ActivityDone(call.execution_id, call.seq, call.attempt, payload)
        except asyncio.CancelledError as error:
            if _is_cancelled():
                if wanted:
                    context.cancel()
                raise
            return _failed(call, error)  # the activity raised it on its own
        except BaseException as error:  # noqa: BLE001 - user code; also SystemExit, which must not end the host
            return _failed(call, error)

    async def _in_thread(self, function: ActivityFunction, call: ActivityCall) -> ActivityDone:
        context = _context(call)
        try:
            arguments = arguments_of(function, call.input, self._converter)
            begun = None if call.begun is None else partial(tell_loop, asyncio.get_running_loop(), call.begun)
            result, error = await self._threads.run(_contained, function, arguments, context, begun)
            if error is not None:
                return _failed(call, error)
            payload = None if result is None else payload_of(function, result, self._converter)
            return ActivityDone(call.execution_id, call.seq, call.attempt, payload)
        except asyncio.CancelledError as error:
            if _is_cancelled():
                context.cancel()
                raise
            return _failed(call, error)  # the threads were closed
        except BaseException as error:  # noqa: BLE001 - of payloads, whose code may be of users too
            return _failed(call, error)

    async def _in_process(self, function: ActivityFunction, call: ActivityCall) -> ActivityDone:
        try:
            attempt = _attempt(call, *self._address(function))
        except RegistrationError as error:
            return _failed(call, error)
        heartbeat = _context(call).heartbeat
        outcome, body = await self._processes.run(attempt, call.input or b"", heartbeat, call.begun)
        result = body if outcome.has_result else None
        return ActivityDone(call.execution_id, call.seq, call.attempt, result, outcome.failure)

    def check_processes(self) -> None:
        """Find out whether worker processes can import what they have to; otherwise each call is refused when it is made.

        Raises:
            RegistrationError: They cannot import an activity, or this is a worker process that imports one.
        """
        if is_importing():
            raise RegistrationError(
                "A host cannot be started by the import of a module: a worker process of another host does that import, "
                "to run an activity; put what starts a host under if __name__ == '__main__'"
            )
        for function in self._registry.activities():
            if function.executor == "process":
                self._address(function)

    def _address(self, function: ActivityFunction) -> tuple[Address, Address | None]:
        known = self._addresses.get(function)
        if known is None:
            place = address_of(function.fn, function.name)
            ours = self._converter
            usual = type(ours) is JsonConverter and ours.max_bytes == PAYLOAD_BYTES_MAX
            converter = None if usual else converter_address(ours, function.fn, function.name)
            known = self._addresses[function] = (place, converter)
        return known

    async def close(self) -> None:
        """See `Executor.close`."""
        if self._watchdog is not None:
            self._watchdog.close()
        self._threads.close()
        await self._processes.close()


def _context(call: ActivityCall) -> ActivityContext:
    return ActivityContext(
        instance_id=call.instance_id,
        task_id=call.seq,
        attempt=call.attempt,
        delivery=call.delivery,
        idempotency_key=task_key(call.instance_id, call.execution_id, call.seq),
        tags=call.tags,
    )


def _attempt(call: ActivityCall, function: Address, converter: Address | None) -> Attempt:
    return Attempt(
        name=call.name,
        function=function,
        converter=converter,
        instance_id=call.instance_id,
        task_id=call.seq,
        attempt=call.attempt,
        delivery=call.delivery,
        idempotency_key=task_key(call.instance_id, call.execution_id, call.seq),
        tags=call.tags,
        has_input=call.input is not None,
    )


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and bool(task.cancelling())


_NOBODYS = ActivityContext(instance_id="", task_id=0, attempt=0, delivery=0, idempotency_key="")
"""Stands for the context of an activity that does not ask for one."""


def _contained(
    function: ActivityFunction,
    arguments: tuple[Any, ...],
    context: ActivityContext,
    begun: Callable[[], None] | None,
) -> tuple[Any, BaseException | None]:
    """The call as a value: a future cannot carry each exception (StopIteration would be lost in it)."""
    try:
        if begun is not None:
            begun()
        return function.call(arguments, context), None
    except BaseException as error:  # noqa: BLE001 - described by the waiting task
        return None, error


def _failed(call: ActivityCall, error: BaseException) -> ActivityDone:
    return ActivityDone(call.execution_id, call.seq, call.attempt, None, describe(error))


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    return (
        f"{what} '{name}' is not registered in this host: expected one of {', '.join(known) or '(none)'}; "
        "register it, or correct the name"
    )
