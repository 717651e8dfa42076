"""What the deterministic loop hands out: futures and tasks with numbers, handles, and durable timers with a callback."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from durably.core.events import Payload
from durably.errors import FailureDetails
from durably.program.decisions import Decisions


class Numbering(asyncio.AbstractEventLoop):
    """A loop that numbers what it makes.

    Attributes:
        number: The number given last. Futures and tasks are numbered in the order of their creation.
        number_base: The first number. Different for each execution, because asyncio keeps all tasks of the process in
            one set, where a hundred thousand tasks with the same hash would be a list.
    """

    __slots__ = ("number", "number_base")

    number: int
    number_base: int


class LoopFuture(asyncio.Future[Any]):
    """A future whose hash is its number in the execution, so that a set of them iterates alike on every replay.

    It has no `__init__` in Python, which would double the cost of an activity call: whoever makes one numbers it.

    Attributes:
        number: Set right after the creation, from `ProgramLoop.number`.
    """

    __slots__ = ("number",)

    number: int

    def __hash__(self) -> int:
        return self.number


class LoopTask(asyncio.Task[Any]):
    """A task that hashes like `LoopFuture`.

    Attributes:
        number: See `LoopFuture`.
        root: The context in which its code runs; `Task.get_context` came with Python 3.12.
    """

    __slots__ = ("number", "root")

    def __init__(
        self,
        coro: Coroutine[Any, Any, Any],
        loop: Numbering,
        name: str | None,
        context: contextvars.Context,
    ) -> None:
        # Before the base class: it puts the task into a set.
        loop.number = self.number = loop.number + 1
        self.root = context
        if name is None:
            name = f"Task-{self.number - loop.number_base}"
        super().__init__(coro, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self.number


class LoopHandle:
    """A callback that waits for its turn; what `call_soon` returns. Used as `asyncio.Handle` is.

    Whoever makes one sets its attributes, for the same reason as with `LoopFuture`.
    """

    __slots__ = ("args", "callback", "context")

    callback: Callable[..., object] | None
    args: tuple[Any, ...]
    context: contextvars.Context

    def cancel(self) -> None:
        """Do not call; harmless when it was called already."""
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        """True after `cancel`, and after the call."""
        return self.callback is None

    def get_context(self) -> contextvars.Context:
        """The context in which the callback runs."""
        return self.context


class LoopTimer(LoopHandle):
    """A durable timer with a callback; what `call_at` and `call_later` return. Used as `asyncio.TimerHandle` is."""

    __slots__ = ("_decisions", "_fire_at", "_ready", "_seq")

    def __init__(self, decisions: Decisions, ready: deque[LoopHandle], seq: int, fire_at: int) -> None:
        self._decisions = decisions
        self._ready = ready
        self._seq = seq
        self._fire_at = fire_at

    def when(self) -> float:
        """The due time on the clock of the loop, seconds."""
        return self._fire_at / 1_000_000

    def cancel(self) -> None:
        """Cancel the durable timer when it is still open."""
        self._decisions.cancel(self._seq)
        super().cancel()

    def fire(self) -> None:
        """The durable timer came due."""
        self._ready.append(self)

    def complete(self, payload: Payload) -> None:
        """A timer does not complete."""

    def fail(self, failure: FailureDetails) -> None:
        """A timer does not fail."""

    def decline(self, failure: FailureDetails) -> bool:
        """A timer has no attempts."""
        return False
