"""Reports what holds up the event loop, a turn or other code: nothing else of the host runs meanwhile."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
import weakref
from types import FrameType
from typing import Final

from durably.program import guards
from durably.program.drivers import is_library
from durably.program.run import ProgramOptions

_logger = logging.getLogger("durably.watchdog")


class Watchdog:
    """Looks at the running turns of one executor, and whether its event loop turns; a turn pays with counting itself.

    What is slow is reported once, with the stack of its thread, after the limit and within twice of it.
    All watchdogs of a process share one thread: an executor that is dropped without `close` leaves none behind.
    """

    def __init__(self, options: ProgramOptions, limit_s: float) -> None:
        self.options = options
        self.limit_s = limit_s
        self.heart: Heart | None = None
        self._started = False

    def start(self) -> None:
        """Begin to look, also at the loop that is running here; idempotent."""
        if not self._started:
            self._started = True
            try:
                self.heart = Heart(asyncio.get_running_loop(), self)
            except RuntimeError:  # nothing but turns to look at
                self.heart = None
            _patrol.add(self)

    def close(self) -> None:
        """Stop looking; idempotent. The thread ends with the last watchdog."""
        if self._started:
            self._started = False
            if self.heart is not None:
                self.heart.stop()
                self.heart = None
            _patrol.remove(self)


_BEATS = 4
"""Beats of a heart in the time that is still not slow."""


class Heart:
    """Beats as long as the event loop turns and its watchdog lives.

    Attributes:
        thread: That of the loop.
        beats: So far.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, dog: Watchdog) -> None:
        self.thread = threading.get_ident()
        self.beats = 0
        self._loop = loop
        self._dog = weakref.ref(dog)
        self._next: asyncio.TimerHandle | None = None
        self._beat()

    def stop(self) -> None:
        """Beat no more. Called on the thread of the loop."""
        if self._next is not None:
            self._next.cancel()

    @property
    def should_beat(self) -> bool:
        """False while the loop is not running, and when it is a turn that holds it up: that is reported as such."""
        return self._loop.is_running() and self.thread not in guards.running

    def _beat(self) -> None:
        self.beats += 1
        dog = self._dog()
        if dog is not None:
            self._next = self._loop.call_later(dog.limit_s / _BEATS, self._beat)


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
        looked = time.monotonic()
        while not over.wait(pause_s := self._pause_s()):
            with self._lock:
                dogs = list(self._dogs)
                if not dogs and self._thread is threading.current_thread():  # all of them were dropped
                    self._thread = None
                    return
            now = time.monotonic()
            if now - looked > 2 * pause_s:  # this process was asleep: nobody held up anything
                since = {}
            looked = now
            seen: dict[tuple[int, int, int], float] = {}
            for thread, turn in list(guards.running.items()):
                key = (thread, id(turn), turn.turns)
                begun = seen[key] = since.get(key, now)
                dog = next((dog for dog in dogs if getattr(turn, "options", None) is dog.options), None)
                if dog is not None and key not in reported and now - begun >= dog.limit_s:
                    reported.add(key)
                    _report(thread, turn.instance_id, dog.limit_s)
            for dog in dogs:
                heart = dog.heart
                if heart is None or not heart.should_beat:
                    continue
                key = (heart.thread, id(heart), heart.beats)
                begun = seen[key] = since.get(key, now)
                if key not in reported and now - begun >= dog.limit_s * (1 + 1 / _BEATS):
                    reported.add(key)
                    _report_loop(heart.thread, dog.limit_s)
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


def _report_loop(thread: int, limit_s: float) -> None:
    frame = sys._current_frames().get(thread)  # pyright: ignore[reportPrivateUsage]
    if frame is None:
        return
    place = _frame_of_user(frame) or frame
    code = place.f_code
    _logger.warning(
        "The event loop has been held up for more than %g s by %s:%d in %s, and everything on it with it; expected "
        "milliseconds: await what it waits for, or make the activity a plain def, which runs in a thread\n%s",
        limit_s,
        code.co_filename,
        place.f_lineno,
        code.co_name,
        "".join(traceback.format_stack(frame)).rstrip(),
    )


def _frame_of_user(frame: FrameType) -> FrameType | None:
    """The innermost frame of code that is not a library's."""
    one: FrameType | None = frame
    while one is not None and is_library(one.f_code.co_filename):
        one = one.f_back
    return one
