"""What the commands that host have in common: the event loop, signals, and the drain."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any, Self, TypeVar

from durably.app import AppHost
from durably.cli.output import Exit, say, threads_left

T = TypeVar("T")

_SHOW_CURSOR = "\x1b[?25h"

_ECHO_S = 0.25
"""A signal that comes so soon after the first was not sent by a person who has lost patience."""

_PATIENCE_S = 0.5
"""A drain that takes longer is announced."""


def run_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run to completion, on uvloop where there is one."""
    tune_collector()
    runner = asyncio.Runner(loop_factory=_loop_factory())
    # A pool of our own: closing the loop would wait for what user code still does in its default pool.
    pool = ThreadPoolExecutor(thread_name_prefix="asyncio")
    runner.get_loop().set_default_executor(pool)
    try:
        return runner.run(work)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        if not threads_left():
            runner.close()


def tune_collector() -> None:
    """Let the garbage collector of this process look less often.

    A host makes some hundred small objects an instance and drops them without cycles, so collections find little; by
    default they take a tenth of its time. Only for a process of our own: an embedding program decides for itself.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return None
    return uvloop.new_event_loop


class Signals:
    """SIGINT and SIGTERM: the first asks to stop, the second ends the process at once. To be used with ``with``.

    What comes right behind the first is the same one: a program that started us has passed on what we got as well.
    Handlers of the signal module, not of the loop: these also run while user code holds the loop up.

    Args:
        controlled: There is a control process, which kills this one when it has to, and passes on each SIGTERM that a
            supervisor sends to both: no SIGTERM is a second one.

    Attributes:
        asked: Set by the first signal.
        last: The next signal ends the process at once.
    """

    def __init__(self, *, controlled: bool = False) -> None:
        self._controlled = controlled
        self.asked = asyncio.Event()
        self.last = False
        self._first_at: float | None = None
        self._loop = asyncio.get_running_loop()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._received)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _received(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first_at is not None and now - self._first_at < _ECHO_S:
            return
        if self.last and not (self._controlled and number == signal.SIGTERM):
            if sys.__stderr__ is not None and sys.__stderr__.isatty():
                os.write(2, _SHOW_CURSOR.encode())  # a live display hides it
            os._exit(Exit.INTERRUPTED)
        self.last = True
        self._first_at = now
        self._loop.call_soon_threadsafe(self.asked.set)


async def drain(host: AppHost, signals: Signals, *, quiet: bool = False) -> None:
    """Stop the host: running activities may end, up to the drain time-out. Says so when it takes a moment."""
    signals.last = True
    running = len(host.engine.pool)
    stopping = asyncio.ensure_future(host.stop())
    done, _ = await asyncio.wait({stopping}, timeout=_PATIENCE_S)
    if not done and not quiet:
        what = (
            "1 activity" if running == 1 else f"{running} activities" if running else "operations of entities"
        )
        say(
            f"Stopping: waiting up to {host.engine.options.drain_timeout_s:g} s for {what}; "
            "Ctrl-C ends it at once, the work is done again later"
        )
    await stopping
