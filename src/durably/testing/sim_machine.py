"""A machine of a simulated fleet: an event loop on the time of the world that can be frozen alone, and closed alone."""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import events
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from durably.errors import HubClosedError
from durably.testing.sim_loop import SimLoop


class MachineLoop(asyncio.AbstractEventLoop):
    """All callbacks of one process. The loop of the world runs them, in its order, unless the machine is frozen.

    Args:
        world: Whose time it has.
        failed: Takes what a callback raised: asyncio would log it, and go on.

    Attributes:
        frozen: Everything that is due waits, until `thaw`.
    """

    def __init__(self, world: SimLoop, failed: Callable[[BaseException], None]) -> None:
        self.frozen = False
        self._failed = failed
        self._world = world
        self._held: list[asyncio.Handle] = []
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._calls: dict[asyncio.Future[Any], None] = {}
        self._made = 0

    # --- what happens to it ------------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Stand still, as a process that is paused."""
        self.frozen = True

    def thaw(self) -> None:
        """Go on: all that has become due meanwhile runs now, late."""
        self.frozen = False
        held, self._held = self._held, []
        for handle in held:
            self._world.call_soon(self._run, handle)

    def begin(self, call: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """Run something here; returns what the world may wait for."""
        told: asyncio.Future[Any] = self._world.create_future()
        task = self.create_task(call)
        self._calls[told] = None

        def tell(done: asyncio.Task[Any]) -> None:
            self._calls.pop(told, None)
            error = None if done.cancelled() else done.exception()
            if told.done():
                return
            if done.cancelled():
                told.cancel()
            elif error is not None:
                told.set_exception(error)
            else:
                told.set_result(done.result())

        task.add_done_callback(tell)
        told.add_done_callback(lambda one: one.cancelled() and self.call_soon(task.cancel))
        return told

    def hang_up(self) -> None:
        """Whoever waits for an answer from here is told that there will be none."""
        calls, self._calls = self._calls, {}
        for told in calls:
            if not told.done():
                told.set_exception(HubClosedError("simulated: the machine is gone"))
                told.exception()

    async def empty(self) -> None:
        """Cancel what still runs, and return when it has ended. Called by the world, in the end."""
        self.thaw()
        for _ in range(100):
            if not self._tasks:
                return
            for task in self._tasks:
                self.call_soon(task.cancel)
            await asyncio.sleep(0.1)
        raise AssertionError(f"these tasks do not end: {list(self._tasks)}")

    # --- what asyncio wants ------------------------------------------------------------------------------------------

    def time(self) -> float:
        """Virtual seconds of the world."""
        return self._world.time()

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """See `asyncio.AbstractEventLoop`."""
        handle = asyncio.Handle(callback, args, self, context)
        self._world.call_soon(self._run, handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """See `asyncio.AbstractEventLoop`."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """See `asyncio.AbstractEventLoop`."""
        handle = _Timer(when, callback, args, self, context)
        handle.outer = self._world.call_at(when, self._run, handle)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        """See `asyncio.AbstractEventLoop`."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Generator[Any, None, Any] | Coroutine[Any, Any, Any], **named: Any) -> Any:
        """See `asyncio.AbstractEventLoop`."""
        self._made += 1
        task = _Task(self._made, coro, self, **named)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        return task

    def get_debug(self) -> bool:
        """See `asyncio.AbstractEventLoop`."""
        return False

    def is_running(self) -> bool:
        """See `asyncio.AbstractEventLoop`."""
        return True

    def is_closed(self) -> bool:
        """See `asyncio.AbstractEventLoop`."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """See `asyncio.AbstractEventLoop`. What nobody has waited for is told of when memory is tidied up: at any time."""
        error = context.get("exception")
        if "handle" in context and isinstance(error, BaseException):
            self._failed(error)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if isinstance(handle, _Timer) and handle.outer is not None:
            handle.outer.cancel()

    def _run(self, handle: asyncio.Handle) -> None:
        if handle.cancelled():
            return
        if self.frozen:
            self._held.append(handle)
            return
        outer = events._get_running_loop()
        events._set_running_loop(self)
        try:
            handle._run()
        finally:
            events._set_running_loop(outer)


class _Timer(asyncio.TimerHandle):
    """Knows what the world does for it."""

    outer: asyncio.TimerHandle | None = None


class _Task(asyncio.Task[Any]):
    """Has a number for a hash: sets of tasks are walked in the same order on every run of a seed."""

    def __init__(self, number: int, coro: Any, loop: asyncio.AbstractEventLoop, **named: Any) -> None:
        self._number = number
        super().__init__(coro, loop=loop, **named)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other
