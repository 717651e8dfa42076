"""The deterministic event loop: orchestrators are plain asyncio coroutines, and each of them has a loop of its own.

`call_soon`, `call_later`, `call_at`, `create_future` and `create_task` are the whole loop. Timers are durable, `time()`
is the orchestration time, and everything that a replay could not repeat is refused, naming the durable way.
"""

from __future__ import annotations

import asyncio
import asyncio.tasks
import contextvars
import functools
import logging
import math
import sys
import traceback
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from types import FrameType
from typing import Any, Final, cast

from durably.core.events import TimerCreated
from durably.core.retry import DELAY_MAX_US
from durably.errors import UsageError
from durably.program.decisions import Decisions
from durably.program.futures import LoopFuture, LoopHandle, LoopTask, LoopTimer, Numbering
from durably.program.refusals import gone, refusal, refused

ExceptionHandler = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]

_logger = logging.getLogger("durably.orchestrator")

_SWEEP_MIN: Final = 64
"""Finished tasks and generators are forgotten when the list of all has doubled, and is at least this long."""


class ProgramLoop(Numbering):
    """The loop of one execution.

    Attributes:
        decisions: Where timers are recorded.
        now: Orchestration time of the event that is being delivered, microseconds since 1970 UTC.
        is_replaying: What is delivered happened before.
        tasks: Tasks that may be unfinished, in order of creation. Strong references: asyncio has only weak ones, and
            what the garbage collector destroys, it destroys at a time that no replay repeats.
        generators: Async generators that may be unfinished, in order of their first use. Strong for the same reason.
    """

    __slots__ = (
        "_callbacks_max",
        "_discreet",
        "_exception_handler",
        "_generators_limit",
        "_ready",
        "_tasks_limit",
        "decisions",
        "generators",
        "is_replaying",
        "now",
        "tasks",
    )

    def __init__(
        self, decisions: Decisions, number_base: int, callbacks_max: int, *, discreet: bool = False
    ) -> None:
        self._discreet = discreet
        self.decisions = decisions
        self.number = self.number_base = number_base
        self.now = 0
        self.is_replaying = False
        self.tasks: list[LoopTask] = []
        self.generators: list[AsyncGenerator[Any, Any]] = []
        self._ready: deque[LoopHandle] = deque()
        self._callbacks_max = callbacks_max
        self._exception_handler: ExceptionHandler | None = None
        self._tasks_limit = self._generators_limit = _SWEEP_MIN

    # --- what orchestrators may use ----------------------------------------------------------------------------------

    def time(self) -> float:
        """Orchestration time in seconds since 1970 UTC; constant within a turn."""
        return self.now / 1_000_000

    # The three below return a handle that is not asyncio's, which would copy what it knows from the loop each time.
    def call_soon(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> LoopHandle:
        """See `asyncio.loop.call_soon`."""
        handle = LoopHandle()
        handle.callback = callback
        handle.args = args
        handle.context = contextvars.copy_context() if context is None else context
        self._ready.append(handle)
        return handle

    def call_later(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> LoopHandle:
        """Set a durable timer. A delay of zero or less is `call_soon`: time does not move, so nothing is durable in it.

        Args:
            delay: Seconds; capped at a century, so that an infinite sleep waits for its cancellation.
            callback: Called when the timer fires.
            args: Its arguments.
            context: Where it runs; a copy of the current one by default.
        """
        if delay <= 0:
            return self.call_soon(callback, *args, context=context)
        return self._set_timer(_fire_at(self.now, delay), callback, args, context)

    def call_at(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> LoopHandle:
        """Set a durable timer by the clock of the loop; see `call_later`."""
        delay = when - self.time()
        if delay <= 0:
            return self.call_soon(callback, *args, context=context)
        # From `when`, not from the delay: a difference of two large floats is off by more than a microsecond.
        fire_at = round(when * 1_000_000) if delay < DELAY_MAX_US / 1_000_000 else _fire_at(self.now, delay)
        return self._set_timer(fire_at, callback, args, context)

    def create_future(self) -> LoopFuture:
        """See `asyncio.loop.create_future`."""
        future = LoopFuture(loop=self)
        self.number = future.number = self.number + 1
        return future

    def create_task(
        self,
        coro: Generator[Any, None, Any] | Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **options: Any,
    ) -> LoopTask:
        """See `asyncio.loop.create_task`. Tasks start on the next callback, in order of creation; never eagerly.

        Futures are taken as well, so that ``group.create_task(ctx.call_activity(...))`` works.
        """
        coro = cast("Coroutine[Any, Any, Any]", coro)
        if asyncio.isfuture(coro):
            task = self.create_task(_wait_for_future(coro), name=name, context=context, **options)
            task.add_done_callback(functools.partial(_give_up, coro))
            return task
        if options.get("eager_start"):
            coro.close()
            raise refusal("eager_start=True", "drop it: tasks of an orchestrator start in order of creation")
        if _is_unordered(sys._getframe(1)):  # pyright: ignore[reportPrivateUsage]
            coro.close()
            raise refusal(
                "asyncio.as_completed over bare coroutines, which starts them in random order",
                "use ctx.as_completed, or wrap each in asyncio.create_task first",
            )
        task = LoopTask(coro, self, name, contextvars.copy_context() if context is None else context)
        tasks = self.tasks
        tasks.append(task)
        if len(tasks) > self._tasks_limit:
            self.tasks = [task for task in tasks if not task.done()]
            self._tasks_limit = max(_SWEEP_MIN, 2 * len(self.tasks))
        return task

    def is_running(self) -> bool:
        """True: it is only reachable from within a turn."""
        return True

    def is_closed(self) -> bool:
        """True after the teardown."""
        return False

    get_debug = bool  # pyright: ignore[reportAssignmentType]
    """False always: debug mode reads the clock. Called by each new future, and `bool()` is false without a frame."""

    def get_task_factory(self) -> None:
        """None: there is no other kind of task."""
        return

    def get_exception_handler(self) -> ExceptionHandler | None:
        """See `asyncio.loop.get_exception_handler`."""
        return self._exception_handler

    def set_exception_handler(self, handler: ExceptionHandler | None) -> None:
        """See `asyncio.loop.set_exception_handler`; reset by each replay, since it runs the same code again."""
        self._exception_handler = handler

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Report what nobody awaits, once: not while replaying."""
        if self._exception_handler is not None:
            self._exception_handler(self, context)
        else:
            self.default_exception_handler(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Log it as an error, once: not while replaying."""
        if not self.is_replaying:
            error = context.get("exception")
            message = context.get("message") or "Unhandled exception in orchestrator"
            if self._discreet and error is not None:
                where = "".join(traceback.format_tb(error.__traceback__))
                _logger.error("%s: %s (its text may hold payloads)\n%s", message, type(error).__name__, where)
            else:
                _logger.error("%s", message, exc_info=error)

    # --- what the run uses -------------------------------------------------------------------------------------------

    def run_until_quiet(self, main: LoopTask) -> bool:
        """Call back until nothing is left to do or the main task is done: what follows its return does not count.

        Returns:
            True when the main task is done.

        Raises:
            UsageError: The code does not come to rest.
        """
        ready = self._ready
        left = self._callbacks_max
        while ready:
            handle = ready.popleft()
            callback = handle.callback
            if callback is None:
                continue
            left -= 1
            if left < 0:
                raise UsageError(
                    f"The orchestrator ran more than {self._callbacks_max} callbacks on one event without coming to rest; "
                    "expected it to await something durable: look for a loop around asyncio.sleep(0) or a polled condition"
                )
            try:
                handle.context.run(callback, *handle.args)
            except (SystemExit, KeyboardInterrupt) as error:
                # Tasks keep it and raise it out of the loop as well. It asks the program to end: the execution does.
                self.decisions.error = self.decisions.error or error
            except BaseException as error:  # noqa: BLE001 - as in asyncio: tasks keep theirs, so it is a plain callback's
                self.call_exception_handler(
                    {"message": f"Exception in callback {callback!r}", "exception": error}
                )
            if main.done():
                return True
        return False

    def adopt(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Keep an async generator that is used for the first time."""
        generators = self.generators
        generators.append(generator)
        if len(generators) > self._generators_limit:
            self.generators = [one for one in generators if not is_finished(one)]
            self._generators_limit = max(_SWEEP_MIN, 2 * len(self.generators))

    def close(self) -> None:
        """Refused to orchestrators: the loop ends with the execution."""
        raise refusal("loop.close()", "return from the orchestrator")

    def shut(self) -> None:
        """Become a `ClosedLoop`, and forget callbacks. Changing the class spares a check on every call before that."""
        self._ready.clear()
        self._exception_handler = None
        self.__class__ = ClosedLoop  # pyright: ignore[reportAttributeAccessIssue]

    def _set_timer(
        self,
        fire_at: int,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> LoopTimer:
        decisions = self.decisions
        seq = decisions.number()
        timer = LoopTimer(decisions, self._ready, seq, fire_at)
        timer.callback = callback
        timer.args = args
        timer.context = contextvars.copy_context() if context is None else context
        decisions.made.append(TimerCreated(seq, fire_at))
        decisions.open[seq] = timer
        return timer


class ClosedLoop(ProgramLoop):
    """A `ProgramLoop` after its execution was torn down: every call raises `InstanceEvicted`."""

    __slots__ = ()

    def is_closed(self) -> bool:
        """True."""
        return True

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Silent: what the teardown cut off is no error."""

    def shut(self) -> None:
        """Idempotent."""


def is_finished(generator: AsyncGenerator[Any, Any]) -> bool:
    """True when an async generator has nothing left to run."""
    return generator.ag_frame is None  # type: ignore[attr-defined]


async def _wait_for_future(future: asyncio.Future[Any]) -> Any:
    return await future


def _give_up(future: asyncio.Future[Any], task: asyncio.Task[Any]) -> None:
    if task.cancelled():  # perhaps before it began to wait
        future.cancel()


def _fire_at(now: int, delay: float) -> int:
    if math.isnan(delay):
        raise ValueError("Delay is not a number (nan): expected seconds")
    return now + min(round(min(delay * 1_000_000, DELAY_MAX_US)), DELAY_MAX_US)


def _is_unordered(frame: FrameType) -> bool:
    """True when `asyncio.as_completed` asks: it makes a set of what it gets, and coroutines hash by address.

    Found by looking at the caller, since asyncio offers no hook: `ensure_future` called by `as_completed`, with up to
    two frames between (3.11 has a comprehension and a private function there; 3.13 a class).
    """
    space = asyncio.tasks.__dict__
    for _ in range(4):
        if frame.f_globals is not space or frame.f_back is None:
            return False
        name = frame.f_code.co_qualname
        if name in {"as_completed", "_AsCompletedIterator.__init__"}:
            return True
        frame = frame.f_back
    return False


def _complete_classes() -> None:
    """Fill in all that asyncio's loop has and ours has not, whatever the version adds."""
    for name in dir(asyncio.AbstractEventLoop):
        if name.startswith("_"):
            continue
        if name not in vars(ProgramLoop):
            setattr(ProgramLoop, name, refused(name))
        if name not in vars(ClosedLoop):
            setattr(ClosedLoop, name, gone)


_complete_classes()
