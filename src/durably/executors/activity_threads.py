"""The threads in which activities that are plain functions run."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple


class _Call(NamedTuple):
    outcome: Future[Any]
    context: contextvars.Context
    fn: Callable[..., Any]
    args: tuple[Any, ...]

    def run(self, idle: threading.Semaphore) -> None:
        """Call, and answer; before that the thread counts as idle, so that who comes right back needs no other one."""
        if not self.outcome.set_running_or_notify_cancel():
            idle.release()
            return
        try:
            result = self.context.run(self.fn, *self.args)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
            idle.release()
            self.outcome.set_exception(error)
            del self  # a cycle: the traceback of the error has this frame, and its outcome has the error
        else:
            idle.release()
            self.outcome.set_result(result)


class ActivityThreads:
    """A pool of threads, started as they are needed.

    Not the default executor of the event loop: that one serves name lookups and files of others, and a few slow
    activities would hold them up. Not a `ThreadPoolExecutor` either: Python waits for its threads at the end of the
    program, so an activity that never returns would keep it alive after the host has given the activity up. These are
    daemons: to the activity, the end of the program is a crash, after which it runs again.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._reset()

    def _reset(self) -> None:
        self._started = 0
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        # A permit for each thread that has nothing to do. Only asked while more threads may be started.
        self._idle = threading.Semaphore(0)

    async def run(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Call in a thread, with a copy of the caller's context variables.

        When the awaiting task is cancelled, a call that waits for a thread is dropped; one that runs goes on, and its
        outcome is ignored.
        """
        outcome: Future[Any] = Future()
        self._calls.put(_Call(outcome, contextvars.copy_context(), fn, args))
        if self._started < self._size and not self._idle.acquire(blocking=False):
            self._start()
        # A future of our own: that of run_in_executor would log the failure of a call that nobody waits for any more.
        return await asyncio.wrap_future(outcome)

    def close(self) -> None:
        """Drop what waits for a thread, and let go of the threads; those that run end with their call or the program."""
        while True:
            try:
                call = self._calls.get_nowait()
            except Empty:
                break
            if call is not None:
                call.outcome.cancel()
        for _ in range(self._started):
            self._calls.put(None)
        self._reset()  # what comes later gets threads of its own

    def _start(self) -> None:
        name = f"durably-activity_{self._started}"
        threading.Thread(target=_serve, args=(self._calls, self._idle), name=name, daemon=True).start()
        self._started += 1


def _serve(calls: SimpleQueue[_Call | None], idle: threading.Semaphore) -> None:
    while True:
        call = calls.get()
        if call is None:
            return
        call.run(idle)
        del call  # what it holds must not live until the next one comes
