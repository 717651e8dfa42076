"""Prints on threads: whoever reads it may stand still, and the control process has other things to do."""

from __future__ import annotations

import asyncio
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_WAITING_MAX: Final = 1_048_576

_AT_ONCE: Final = 16_384
"""A write to a pipe returns when all of it is there: small ones show that somebody reads, if slowly."""

_PATIENCE_S: Final = 1.0
"""Nobody reads when nothing was taken for so long."""

_TICK_S: Final = 0.01


class Printer:
    """Prints to a file, in order, and has nobody wait.

    Args:
        target: The descriptor of the file.
        bound: So many bytes may wait.

    Attributes:
        target: As above.
    """

    def __init__(self, target: int, bound: int = _WAITING_MAX) -> None:
        self.target = target
        self._bound = bound
        self._texts: deque[bytes] = deque()
        self._waiting = 0  # bytes, also of the text that is being written
        self._dropped = 0
        self._moved_at = 0.0
        self._stopped: list[tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = []
        self._is_lossy = self._is_over = False
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()

    @property
    def is_full(self) -> bool:
        """True when whoever can wait should: `when_room` tells when it is over."""
        return self._waiting >= self._bound and not (self._is_lossy and self._nobody_reads)

    @property
    def _nobody_reads(self) -> bool:
        return self._waiting > 0 and time.monotonic() - self._moved_at > _PATIENCE_S

    def put(self, text: bytes) -> None:
        """Print whole lines, at some point.

        What the control process says, and what dead workers have left, is taken beyond the bound. There has to be an end to
        that, too, since workers may die for days before somebody reads on: beyond twice the bound it is dropped.
        """
        with self._changed:
            if self._waiting + len(text) > 2 * self._bound and self._waiting >= self._bound:
                self._dropped += len(text)
                return
            if self._dropped:
                text = b"Warning: nobody was reading: %d bytes are missing here\n%b" % (self._dropped, text)
                self._dropped = 0
            if not self._waiting:
                self._moved_at = time.monotonic()
            self._waiting += len(text)
            self._texts.append(text)
            self._changed.notify()
            if (
                self._thread is None
            ):  # a daemon: nothing can end a write that blocks, but the end of the process
                name = f"durably-printer-{self.target}"
                self._thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._thread.start()

    def when_room(self, tell: Callable[[], None]) -> None:
        """Call something once on the running loop, when there is room: for more than a bit, or all stop again at once."""
        with self._changed:
            self._stopped.append((asyncio.get_running_loop(), tell))
            self._tell_of_room()

    async def relieve(self) -> None:
        """Until it is cancelled, drop what is too much when nobody reads: workers that cannot print would not stop."""
        self._is_lossy = True
        while True:
            with self._changed:
                self._tell_of_room()
            await asyncio.sleep(_PATIENCE_S / 4)

    async def close(self) -> None:
        """Return when all is printed, or nobody reads."""
        while self._waiting and not self._nobody_reads:  # noqa: ASYNC110 - time is what it waits for, too
            await asyncio.sleep(_TICK_S)
        with self._changed:
            self._is_over = True
            self._changed.notify()

    def _tell_of_room(self) -> None:
        if self._waiting <= self._bound // 2 or (self._is_lossy and self._nobody_reads):
            for loop, tell in self._stopped:
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(tell)
            self._stopped.clear()

    # --- on its thread -----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (text := self._next()) is not None:
            rest = memoryview(text)
            while rest:
                number = self._write(rest[:_AT_ONCE])
                rest = rest[number:]
                with self._changed:
                    self._waiting -= number
                    self._moved_at = time.monotonic()
                    self._tell_of_room()

    def _next(self) -> bytes | None:
        """What is to be printed; None: it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._texts or self._is_over)
            return None if self._is_over else self._texts.popleft()

    def _write(self, text: memoryview) -> int:
        """Write some of it; returns how much is done with."""
        try:
            return os.write(self.target, text)
        except BlockingIOError:  # somebody else who has the file wants it so
            select.select((), (self.target,), ())
            return 0
        except OSError:  # nobody reads any more; workers go on
            return len(text)


def printers() -> tuple[Printer, Printer]:
    """Of stdout and stderr. When both are the same file, one prints both: two would cut each other's lines."""
    out = Printer(1)
    with suppress(OSError):  # one of them is closed
        if os.path.sameopenfile(1, 2):
            return out, out
    return out, Printer(2)
