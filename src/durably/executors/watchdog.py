"""Reports a turn that holds up the event loop: nothing else of the host runs meanwhile."""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
import weakref
from typing import Final

from durably.program import guards
from durably.program.run import ProgramOptions

_logger = logging.getLogger("durably.watchdog")


class Watchdog:
    """Looks at the running turns of one executor now and then; a turn pays for it with counting itself.

    Each slow turn is reported once, with the stack of its thread, after the limit and within one and a half times of it.
    All watchdogs of a process share one thread: an executor that is dropped without `close` leaves none behind.
    """

    def __init__(self, options: ProgramOptions, limit_s: float) -> None:
        self.options = options
        self.limit_s = limit_s
        self._started = False

    def start(self) -> None:
        """Begin to look; idempotent."""
        if not self._started:
            self._started = True
            _patrol.add(self)

    def close(self) -> None:
        """Stop looking; idempotent. The thread ends with the last watchdog."""
        if self._started:
            self._started = False
            _patrol.remove(self)


class _Patrol:
    """The thread that all watchdogs share."""

    def __init__(self) -> None:
        self._dogs: weakref.WeakSet[Watchdog] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, dog: Watchdog) -> None:
        with self._lock:
            self._dogs.add(dog)
            if self._thread is None:
                self._over = threading.Event()
                # A daemon: it must not keep a program alive that forgot to close its host.
                self._thread = threading.Thread(
                    target=self._watch, args=(self._over,), name="durably-watchdog", daemon=True
                )
                self._thread.start()

    def remove(self, dog: Watchdog) -> None:
        with self._lock:
            self._dogs.discard(dog)
            thread = self._thread if not self._dogs else None
            if thread is not None:
                self._over.set()
                self._thread = None
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _watch(self, over: threading.Event) -> None:
        since: dict[tuple[int, int, int], float] = {}
        reported: set[tuple[int, int, int]] = set()
        while not over.wait(self._pause_s()):
            with self._lock:
                dogs = list(self._dogs)
                if not dogs and self._thread is threading.current_thread():  # all of them were dropped
                    self._thread = None
                    return
            now = time.monotonic()
            seen: dict[tuple[int, int, int], float] = {}
            for thread, turn in list(guards.running.items()):
                key = (thread, id(turn), turn.turns)
                begun = seen[key] = since.get(key, now)
                dog = next((dog for dog in dogs if getattr(turn, "options", None) is dog.options), None)
                if dog is not None and key not in reported and now - begun >= dog.limit_s:
                    reported.add(key)
                    _report(thread, turn.instance_id, dog.limit_s)
            since = seen
            reported &= seen.keys()

    def _pause_s(self) -> float:
        with self._lock:
            return min((dog.limit_s for dog in self._dogs), default=1.0) / 2


_patrol: Final = _Patrol()


def _report(thread: int, instance_id: str, limit_s: float) -> None:
    frame = sys._current_frames().get(thread)  # pyright: ignore[reportPrivateUsage]
    stack = "".join(traceback.format_stack(frame)) if frame is not None else "  (its stack is gone)\n"
    _logger.warning(
        "Turn of instance '%s' has run for more than %g s and holds up everything on this event loop; "
        "expected milliseconds: move the work into an activity\n%s",
        instance_id,
        limit_s,
        stack.rstrip(),
    )
