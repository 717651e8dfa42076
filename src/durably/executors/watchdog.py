"""Reports a turn that holds up the event loop: nothing else of the host runs meanwhile."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from typing import Final

from durably.program import guards
from durably.program.run import ProgramOptions

_logger = logging.getLogger("durably.watchdog")

_LOOKS_PER_LIMIT: Final = 2


class Watchdog:
    """A thread that looks at the running turns now and then; a turn pays for it with one number.

    Each turn is reported once, with the stack of its thread, after the limit and within one and a half times of it.
    """

    def __init__(self, options: ProgramOptions, limit_s: float) -> None:
        self._options = options
        self._limit_s = limit_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look; idempotent."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="durably-watchdog", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread, and wait for it; idempotent."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def _watch(self) -> None:
        seen: dict[tuple[int, int, int], int] = {}
        while not self._stop.wait(self._limit_s / _LOOKS_PER_LIMIT):
            now: dict[tuple[int, int, int], int] = {}
            for thread, turn in list(guards.running.items()):
                if getattr(turn, "options", None) is not self._options:
                    continue
                key = (thread, id(turn), turn.turns)
                looks = now[key] = seen.get(key, 0) + 1
                if looks == _LOOKS_PER_LIMIT + 1:  # the first look may have come at any moment of the turn
                    self._report(thread, turn.instance_id)
            seen = now

    def _report(self, thread: int, instance_id: str) -> None:
        frame = sys._current_frames().get(thread)  # pyright: ignore[reportPrivateUsage]
        stack = "".join(traceback.format_stack(frame)) if frame is not None else "  (its stack is gone)\n"
        _logger.warning(
            "Turn of instance '%s' has run for more than %g s and holds up everything on this event loop; "
            "expected milliseconds: move the work into an activity\n%s",
            instance_id,
            self._limit_s,
            stack.rstrip(),
        )
