"""The live code of one execution: an event goes in, the code runs until it is quiet, what it decided comes out."""

from __future__ import annotations

import asyncio
import asyncio.tasks
import contextvars
import hashlib
import sys
from _thread import get_ident
from asyncio import events
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from sys import get_asyncgen_hooks
from typing import Any, ClassVar, Final

import msgspec

from durably.codec.convert import Converter
from durably.core.events import (
    Action,
    Arrival,
    AttemptFailed,
    CancelRequested,
    EventRaised,
    ExecutionCanceled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStarted,
    TaskCompleted,
    TaskFailed,
    TimerFired,
)
from durably.core.external_events import EventMatcher
from durably.core.messages import WorkerAnswered
from durably.errors import InvariantError, OrchestratorDeadlockError, PayloadError
from durably.program import asyncio_fixes, generator_hooks, guards
from durably.program.context import OrchestrationContext
from durably.program.decisions import Decisions
from durably.program.drivers import awaiting_line, main_coroutine
from durably.program.failures import describe, failed_tasks
from durably.program.futures import LoopTask
from durably.program.generator_hooks import FirstIteration
from durably.program.guards import running
from durably.program.loop import ProgramLoop
from durably.program.registry import OrchestratorFunction, Registry
from durably.program.teardown import is_over, tear_down

_get_running_loop: Final = events._get_running_loop  # None where the public one raises
_set_running_loop: Final = events._set_running_loop  # what event loops are made with

_enter_task: Final = asyncio.tasks._enter_task  # what event loops are made with
_leave_task: Final = asyncio.tasks._leave_task

_TASK_PER_THREAD: Final = sys.version_info >= (3, 14)
"""Up to 3.13 asyncio keeps the current task per loop, so that of the host is not in our way."""

_OTHER_TASKS_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class ProgramOptions:
    """Limits of orchestrator code.

    Attributes:
        actions_max: Actions in one execution; more of them fail it.
        callbacks_max: Callbacks on one event; more of them fail the execution, since its code does not come to rest.
        guards: False lets orchestrators do I/O, which no replay will repeat.
        discreet: Log no text of exceptions, which may hold what is in payloads.
    """

    actions_max: int = 100_000
    callbacks_max: int = 100_000
    guards: bool = True
    discreet: bool = False


class Run:
    """Implements `durably.engine.executor.Run`.

    Attributes:
        instance_id: Whose code it is.
        guarded: See `ProgramOptions.guards`.
        turns: How often user code has been entered.
        options: As given; tells whose run it is.
    """

    __slots__ = (
        "_context",
        "_converter",
        "_decisions",
        "_function",
        "_loop",
        "_main",
        "_matcher",
        "_reason",
        "_registry",
        "_started",
        "guarded",
        "instance_id",
        "options",
        "turns",
    )

    def __init__(
        self,
        function: OrchestratorFunction,
        started: ExecutionStarted,
        registry: Registry,
        converter: Converter,
        options: ProgramOptions,
    ) -> None:
        asyncio_fixes.apply()
        if options.guards:
            guards.install()
        self.instance_id = started.instance_id
        self.guarded = options.guards
        self.turns = 0
        self.options = options
        self._function = function
        self._started = started
        self._registry = registry
        self._converter = converter
        self._decisions = Decisions(options.actions_max)
        self._loop = ProgramLoop(
            self._decisions, _number_base(started.origin), options.callbacks_max, discreet=options.discreet
        )
        self._matcher = EventMatcher()
        self._context: OrchestrationContext | None = None
        self._main: LoopTask | None = None
        self._reason: str | None = None

    # --- the seam ----------------------------------------------------------------------------------------------------

    def advance(self, event: Arrival, now: int) -> Sequence[Action]:
        """See `durably.engine.executor.Run.advance`."""
        decisions, loop = self._decisions, self._loop
        deliver = self._deliver.get(type(event))
        if deliver is None or decisions.closed:
            return ()
        loop.now = now
        # The turn; spelled out here and in `_entered`, because a context manager costs as much as half a turn.
        host = _get_running_loop()
        hooks = None if isinstance(get_asyncgen_hooks()[0], FirstIteration) else generator_hooks.enter()
        task = _put_aside_task(host) if _TASK_PER_THREAD else None
        thread = get_ident()
        self.turns += 1
        running[thread] = self
        _set_running_loop(loop)
        ended = False
        try:
            deliver(self, event)
            main = self._main
            if main is None:
                ended = True  # it could not even begin
            elif loop.run_until_quiet(main) or not decisions.open or decisions.error is not None:
                ended = True
                decisions.made.append(self._outcome(main))
        except BaseException as error:  # noqa: BLE001 - the code never came to rest, or a type of the user ended the program
            ended = True
            decisions.made.append(ExecutionFailed(describe(error)))
        finally:
            _set_running_loop(host)
            del running[thread]
            if task is not None:
                task()
            if hooks is not None:
                generator_hooks.leave(hooks)
        made, decisions.made = decisions.made, []
        if ended:
            self.close()
        return made

    def answered(self, body: WorkerAnswered) -> WorkerAnswered | None:
        """See `durably.engine.executor.Run.answered`: never called, this code runs here."""
        text = f"a worker answered with {len(body.actions)} actions at {body.at}"
        raise InvariantError("I5", self.instance_id, text)

    def close(self) -> None:
        """See `durably.engine.executor.Run.close`."""
        if self._decisions.closed:
            return
        self._main = self._context = None
        if is_over(self._loop):
            tear_down(self._loop)
            return
        with self._entered():
            tear_down(self._loop)

    def begin_replay(self, patches: Iterable[str]) -> None:
        """Until `end_replay`, what is delivered happened before.

        Args:
            patches: The changes that the history says apply; see `OrchestrationContext.patched`.
        """
        self._loop.is_replaying = True
        self._decisions.patches = dict.fromkeys(patches, True)

    def end_replay(self) -> None:
        """From now on the code runs for the first time."""
        self._loop.is_replaying = False

    def record_into(self, made: list[Action]) -> None:
        """Where the actions of the next event go, instead of a plain list."""
        if not self._decisions.closed:
            self._decisions.made = made

    # --- what arrives ------------------------------------------------------------------------------------------------

    def _execution_started(self, event: ExecutionStarted) -> None:
        context = OrchestrationContext(event, self._loop, self._matcher, self._registry, self._converter)
        try:
            arguments = self._function.arguments(event.input, self._converter)
        except PayloadError as error:
            problem = PayloadError(f"Input of orchestrator '{event.name}': {error}")
            self._decisions.made.append(ExecutionFailed(describe(problem)))
            return
        root = contextvars.Context()
        coro = root.run(main_coroutine, self._function, (context, *arguments))
        self._context = context
        self._main = self._loop.create_task(coro, name=event.name, context=root)

    def _task_completed(self, event: TaskCompleted) -> None:
        task = self._decisions.open.pop(event.seq, None)
        if task is not None:
            task.complete(event.result)

    def _task_failed(self, event: TaskFailed) -> None:
        task = self._decisions.open.pop(event.seq, None)
        if task is not None:
            task.fail(event.failure)

    def _attempt_failed(self, event: AttemptFailed) -> None:
        task = self._decisions.open.get(event.seq)
        if task is not None and task.decline(event.failure):
            del self._decisions.open[event.seq]
            task.fail(event.failure)

    def _timer_fired(self, event: TimerFired) -> None:
        timer = self._decisions.open.pop(event.seq, None)
        if timer is not None:
            timer.fire()

    def _event_raised(self, event: EventRaised) -> None:
        seq = self._matcher.raised(event)
        if seq is not None:
            self._decisions.open.pop(seq).complete(event.input)

    def _cancel_requested(self, event: CancelRequested) -> None:
        self._reason = event.reason
        if self._main is not None:
            self._main.cancel(event.reason)

    _deliver: ClassVar[dict[type[Any], Callable[[Run, Any], None]]] = {
        ExecutionStarted: _execution_started,
        TaskCompleted: _task_completed,
        TaskFailed: _task_failed,
        AttemptFailed: _attempt_failed,
        TimerFired: _timer_fired,
        EventRaised: _event_raised,
        CancelRequested: _cancel_requested,
    }
    """By kind of event. `AttemptStarted`, suspension and termination are the engine's business."""

    # --- how it ends -------------------------------------------------------------------------------------------------

    def _outcome(self, main: LoopTask) -> Action:
        if self._decisions.error is not None:
            return ExecutionFailed(describe(self._decisions.error))
        if not main.done():
            return ExecutionFailed(describe(self._deadlock(main)))
        if main.cancelled():
            return ExecutionCanceled(self._with_undos(self._reason, "the instance was canceled"))
        error = main.exception()
        if error is not None:
            details = describe(_explained(error))
            message = self._with_undos(details.message, "") or ""
            return ExecutionFailed(msgspec.structs.replace(details, message=message), failed_tasks(error))
        if self._context is not None and self._context.next_execution is not None:
            return self._context.next_execution
        result = main.result()
        try:
            return ExecutionCompleted(None if result is None else self._converter.encode(result))
        except PayloadError as refused:
            problem = PayloadError(f"Result of orchestrator '{self._started.name}': {refused}")
            return ExecutionFailed(describe(problem))

    def _with_undos(self, text: str | None, otherwise: str) -> str | None:
        """A cause, and which undos failed on account of it."""
        notes = self._decisions.failed_undos
        return "; ".join((text or otherwise, *notes)) if notes else text

    def _deadlock(self, main: LoopTask) -> OrchestratorDeadlockError:
        others = [task for task in self._loop.tasks if task is not main and not task.done()]
        lines = [
            f"; task {task.get_name()} waits at {awaiting_line(task.get_coro())}"
            for task in others[:_OTHER_TASKS_SHOWN]
        ]
        return OrchestratorDeadlockError(
            f"Orchestrator '{self._started.name}' waits at {awaiting_line(main.get_coro())} for something that nothing "
            "durable will ever complete: no activity, timer, child or event is open; "
            f"await one of those, or make another task complete it first{''.join(lines)}"
        )

    @contextmanager
    def _entered(self) -> Generator[None]:
        """What `advance` does around a turn, for a teardown."""
        host = _get_running_loop()
        hooks = generator_hooks.enter()
        task = _put_aside_task(host) if _TASK_PER_THREAD else None
        thread = get_ident()
        self.turns += 1
        outer = running.get(thread)
        running[thread] = self
        _set_running_loop(self._loop)
        try:
            yield
        finally:
            _set_running_loop(host)
            if outer is None:
                del running[thread]
            else:
                running[thread] = outer
            if task is not None:
                task()
            generator_hooks.leave(hooks)


def _put_aside_task(host: asyncio.AbstractEventLoop | None) -> Callable[[], None] | None:
    """Make the host's current task not be current; returns how to undo that, or None when there is none."""
    task = asyncio.current_task(host) if host is not None else None
    if host is None or task is None:
        return None
    _leave_task(host, task)
    return lambda: _enter_task(host, task)


_FOREIGN: Final = ("attached to a different loop", "Task got bad yield", "await wasn't used with future")


def _explained(error: BaseException) -> BaseException:
    """Asyncio says "attached to a different loop" where it means: this is not durable."""
    if type(error) is not RuntimeError:
        return error
    text = str(error)
    if not any(sign in text for sign in _FOREIGN):
        return error
    explained = TypeError(
        "The orchestrator awaited something that is not durable: expected a future of its context, such as "
        "ctx.call_activity(...), or plain asyncio made in the orchestrator itself; do the rest in an activity"
    )
    explained.__cause__ = error
    return explained.with_traceback(error.__traceback__)


def _number_base(origin: str) -> int:
    """Where the numbers of the futures begin; see `ProgramLoop.number_base`.

    The low bits are zero: small sets order by them, so all instances iterate alike, and mostly in order of creation.
    """
    digest = hashlib.blake2b(origin.encode("utf-8", "surrogatepass"), digest_size=5).digest()
    return int.from_bytes(digest, "big") << 16
