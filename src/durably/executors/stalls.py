"""Ends the process when something holds up its event loop far too long, so that a supervisor starts it again.

What is merely slow is the watchdog's business, see `durably.executors.watchdog`. Code that keeps the interpreter lock in C
for ever cannot be seen from inside the process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
import traceback
from types import FrameType
from typing import Final

from durably.executors.native import NativeExecutor
from durably.program import guards
from durably.program.entity_run import OPERATING, operation_in
from durably.program.failures import is_ours

_logger = logging.getLogger("durably.watchdog")

STALL_EXIT_CODE: Final = 75
"""Exit code of a process that ended itself because its event loop was held up: EX_TEMPFAIL, "try again"."""

_LOOP_MODULES: Final = frozenset(("asyncio.events", "asyncio.base_events", "asyncio.runners"))
"""Beyond their frames lies whoever runs the loop."""


class StallWatch:
    """Asks the loop of a host now and then for a sign of life, from a thread of its own.

    Args:
        limit_s: What holds it up for longer ends the process with `STALL_EXIT_CODE`; 0 for never.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._alive = True

    def start(self) -> None:
        """Begin to watch the running loop; idempotent."""
        if self._thread is None and self._limit_s > 0:
            self._over.clear()
            loop, me = asyncio.get_running_loop(), threading.get_ident()
            # A daemon: it must not keep a program alive that forgot to close its host.
            self._thread = threading.Thread(
                target=self._watch, args=(loop, me, self._limit_s / 4), name="durably-stalls", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Stop watching; idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._over.set()
            thread.join()

    def _watch(self, loop: asyncio.AbstractEventLoop, watched: int, pause_s: float) -> None:
        held_s = 0.0
        before = time.monotonic()
        while not self._over.wait(pause_s):
            now = time.monotonic()
            # A process that was stopped, or a machine that slept, has not been held up.
            passed_s, before = min(now - before, 2 * pause_s), now
            if loop.is_closed():
                return
            if not loop.is_running():  # its owner does something else with this thread
                held_s = 0.0
                continue
            if not self._alive:
                held_s += passed_s
                if held_s >= self._limit_s:
                    self._end(watched)
                continue
            held_s, self._alive = 0.0, False
            try:
                loop.call_soon_threadsafe(self._answer)
            except RuntimeError:  # it is closed
                return

    def _answer(self) -> None:
        self._alive = True

    def _end(self, watched: int) -> None:
        who, stack = _culprit(watched)
        _logger.critical(
            "%s has held up the event loop for more than %g s (stall_limit_s): this process ends with code %d, and the next "
            "host finds out whether it does so again\n%s",
            who or "Something",
            self._limit_s,
            STALL_EXIT_CODE,
            stack,
        )
        logging.shutdown()
        os._exit(STALL_EXIT_CODE)


def _culprit(watched: int) -> tuple[str | None, str]:
    """What runs on a thread in words, with function and line, None when it is no user code; and its stack."""
    innermost = sys._current_frames().get(watched)  # pyright: ignore[reportPrivateUsage]
    if innermost is None:
        return None, "  (its stack is gone)"
    stack = "".join(traceback.format_stack(innermost)).rstrip()
    turn = guards.running.get(watched)
    function: FrameType | None = None
    who = "Code" if turn is None else f"A turn of instance '{turn.instance_id}'"
    frame: FrameType | None = innermost
    while frame is not None and frame.f_globals.get("__name__") not in _LOOP_MODULES:
        if frame.f_code is NativeExecutor.perform.__code__:
            call = frame.f_locals["call"]
            who = f"Activity '{call.name}' (#{call.seq} of instance '{call.instance_id}')"
            break
        if frame.f_code in OPERATING:
            who = "Operation '{}' of entity '{}'".format(*operation_in(frame))
            break
        if not is_ours(frame.f_code.co_filename):
            function = frame
        frame = frame.f_back
    if function is None:
        return None, stack
    code = function.f_code
    return f"{who}, {code.co_name}() in {code.co_filename}, line {function.f_lineno},", stack
