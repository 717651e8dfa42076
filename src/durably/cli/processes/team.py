"""Keeps as many workers alive as are wanted, and replaces them by new ones without a gap."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Final

from durably.cli.output import Exit
from durably.cli.processes.child import Child
from durably.cli.processes.post import Ready
from durably.cli.processes.voice import say, warn

FAILED_STARTS_MAX: Final = 5
"""When so many workers in a row have ended before they were ready, and no other one serves, it is not chance."""

_DELAY_S: Final = 0.25
_DELAY_MAX_S: Final = 30.0
"""Before one more is started; twice as long after each quick death."""

_DOUBLINGS_MAX: Final = 10

_TICK_S: Final = 0.01

_QUICK_S: Final = 5.0
"""A worker that was ready, and lived no longer, died quickly, too: the next one waits, but nobody gives up."""


class Team:
    """The workers of a control process.

    Args:
        start: Starts the worker of a number.
        wanted: How many.
        was_ready: Told of the first worker that serves.

    Attributes:
        failure: Why it has given up, or None.
        code: The exit code of what failed.
    """

    def __init__(
        self, start: Callable[[int], Awaitable[Child]], wanted: int, was_ready: Callable[[Ready], None]
    ) -> None:
        self.failure: str | None = None
        self.code = Exit.OK.value
        self._start = start
        self._wanted = wanted
        self._was_ready: Callable[[Ready], None] | None = was_ready
        self._children: dict[int, Child] = {}
        self._numbers = count(1)
        self._changed = asyncio.Event()
        self._failed_starts = 0
        self._deaths = 0
        self._died_at = self._not_before = 0.0
        self._replacing = False
        self._again = False
        self._leaving = False
        self._tasks: set[asyncio.Task[None]] = set()

    # --- what is asked of it -----------------------------------------------------------------------------------------

    @property
    def wanted(self) -> int:
        """How many workers there should be."""
        return self._wanted

    @property
    def children(self) -> list[Child]:
        """Those that have not ended."""
        return list(self._children.values())

    @property
    def staying(self) -> list[Child]:
        """Those that were not told to stop, the oldest first."""
        return [child for child in self._children.values() if not child.leaving]

    def want(self, number: int) -> None:
        """Be so many, soon: the youngest go first."""
        if number != self._wanted:
            self._wanted = number
            self._changed.set()

    def reload(self) -> None:
        """Replace all workers, one after the other. Asked again meanwhile, it is done once more behind that."""
        if self._replacing:
            self._again = True
        else:
            self._replacing = True
            self._spawn(self._replace())

    def leave(self) -> None:
        """Drain all and end."""
        self._leaving = True
        self._changed.set()

    def fail(self, why: str, code: int = Exit.FAILED.value) -> None:
        """Drain all and end, since it cannot go on."""
        self.failure = why
        self.code = code
        self._changed.set()

    def kill(self) -> None:
        """End all at once."""
        for child in self._children.values():
            child.kill()

    # --- how it is done ----------------------------------------------------------------------------------------------

    async def work(self) -> None:
        """Until it is told to leave, or gives up. Nobody is started any more on return."""
        while not self._is_over:
            self._changed.clear()
            await self._settle()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s):
                    await self._changed.wait()
        for task in self._tasks:
            task.cancel()

    async def drain(self) -> None:
        """Let all end. Nobody is left on return."""
        for child in self.children:
            child.stop()
        while self._children:
            self._changed.clear()
            await self._changed.wait()

    async def _settle(self) -> None:
        """Bring the number of workers to what is wanted. The first one goes ahead: what is wrong with all is told once."""
        staying = self.staying
        if len(staying) > self._wanted and not self._replacing:
            for child in staying[self._wanted :]:
                say(f"Process {child.number} stops: there is less to do")
                child.stop()
        while self._lacks and time.monotonic() >= self._not_before:
            await self._hire()

    @property
    def _lacks(self) -> bool:
        goes_ahead = self._was_ready is not None and self._children
        return len(self.staying) < self._wanted and not goes_ahead and not self._is_over

    @property
    def _is_over(self) -> bool:
        return self._leaving or self.failure is not None

    @property
    def _pause_s(self) -> float | None:
        """So long it has to wait before it starts another one; None: none is wanted."""
        return max(_TICK_S, self._not_before - time.monotonic()) if self._lacks else None

    async def _hire(self) -> Child | None:
        try:
            child = await self._start(next(self._numbers))
        except OSError as error:
            self._start_failed(f"No process can be started ({error})", Exit.FAILED.value)
            return None
        self._children[child.number] = child
        child.ready.add_done_callback(lambda _: self._heard(child))
        child.over.add_done_callback(lambda over: self._gone(child, over.result()))
        return child

    def _heard(self, child: Child) -> None:
        self._changed.set()
        if child.is_ready:
            self._failed_starts = 0
            tell, self._was_ready = self._was_ready, None
            if tell is not None:
                tell(child.ready.result())
            say(f"Process {child.number} is ready (pid {child.pid})")

    def _gone(self, child: Child, code: int) -> None:
        del self._children[child.number]
        self._changed.set()
        if child.leaving:
            say(f"Process {child.number} has stopped")
            return
        if self._is_over:
            return
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        if child.is_ready:
            warn(f"Process {child.number} {how}: another one takes its place")
            if time.monotonic() - child.since < _QUICK_S:
                self._died_quickly()
        else:
            code = code if code > 0 else Exit.FAILED.value
            self._start_failed(
                f"Process {child.number} {how} before it was ready", code, ": it said above why"
            )

    def _start_failed(self, what: str, code: int, where: str = "") -> None:
        self._died_quickly()
        self._failed_starts += 1
        hopeless = self._was_ready is not None and code == Exit.USAGE
        served = any(one.serves for one in self._children.values())
        if served or (self._failed_starts < FAILED_STARTS_MAX and not hopeless):
            warn(f"{what}: trying again")
            return
        times = "" if self._failed_starts == 1 else f", the {self._failed_starts}th in a row"
        self.fail(f"{what}{times}, and no other one serves{where}", code)

    def _died_quickly(self) -> None:
        now = time.monotonic()
        self._deaths = 1 if now - self._died_at > 2 * _DELAY_MAX_S else self._deaths + 1
        self._died_at = now
        self._not_before = now + min(_DELAY_S * 2 ** min(self._deaths - 1, _DOUBLINGS_MAX), _DELAY_MAX_S)

    # --- a rolling restart -------------------------------------------------------------------------------------------

    async def _replace(self) -> None:
        """One at a time: the new one serves before the old one is drained."""
        try:
            say("Replacing all processes, one at a time")
            for old in self.staying:
                if not old.over.done() and not old.leaving and not await self._replace_one(old):
                    warn("The processes that are left go on with the code that they have")
                    return
            say("All processes are replaced")
        finally:
            self._replacing = False
            self._changed.set()
            if self._again and not self._is_over:
                self._again = False
                self.reload()

    async def _replace_one(self, old: Child) -> bool:
        """True when a new one serves in its place, or nobody is needed there any more."""
        if len(self.staying) > self._wanted:
            old.stop()
            return True
        new = await self._hire()
        if new is None:
            return False
        await asyncio.wait({new.ready})
        if not new.is_ready:
            return False
        old.stop()
        await asyncio.wait({old.over})
        return True

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
