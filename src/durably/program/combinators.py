"""Futures made of other futures: all, any, as completed, and a bounded fan-out; in history order, without tasks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

from durably.errors import UsageError
from durably.program.futures import LoopFuture
from durably.program.loop import ProgramLoop
from durably.program.tasks import DurableTask


def futures_of(awaitables: Iterable[Awaitable[Any]]) -> list[asyncio.Future[Any]]:
    """Each as a future, in order; coroutines become tasks."""
    return [asyncio.ensure_future(one) for one in awaitables]


def in_completion_order(done: list[asyncio.Future[Any]]) -> list[asyncio.Future[Any]]:
    """Futures that are done, by the history where it tells, else as given."""
    orders = [one.order for one in done if isinstance(one, DurableTask) and not one.cancelled()]
    if len(orders) < len(done):
        return done
    return [one for _, one in sorted(zip(orders, done, strict=True), key=lambda pair: pair[0])]


class WhenAll(LoopFuture):
    """Waits for every child; then the results in the order given, or the failure that came first."""

    __slots__ = ("_cancel_requested", "_children", "_error", "_left")

    def __init__(self, loop: ProgramLoop, children: list[asyncio.Future[Any]]) -> None:
        super().__init__(loop=loop)
        loop.number = self.number = loop.number + 1
        self._children = children
        self._cancel_requested = False
        self._error: BaseException | None = None
        for child in in_completion_order([child for child in children if child.done()]):
            self._note(child)
        waiting = [child for child in dict.fromkeys(children) if not child.done()]
        self._left = len(waiting)
        for child in waiting:
            child.add_done_callback(self._child_done)
        if not waiting:
            self._finish()

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel all children that are not done. As with `asyncio.gather`, it is cancelled when they are done."""
        if self.done():
            return False
        canceled = [child.cancel(msg) for child in self._children]
        self._cancel_requested = any(canceled)
        return self._cancel_requested

    def _note(self, child: asyncio.Future[Any]) -> None:
        if self._error is None:
            self._error = error_of(child)
        else:
            error_of(child)  # seen: it is not "never retrieved"

    def _child_done(self, child: asyncio.Future[Any]) -> None:
        self._note(child)
        self._left -= 1
        if not self._left and not self.done():
            self._finish()

    def _finish(self) -> None:
        error, self._error = self._error, None
        if self._cancel_requested:
            super().cancel()
        elif error is not None:
            self.set_exception(error)
        else:
            self.set_result([child.result() for child in self._children])


class WhenAny(LoopFuture):
    """The child that is done first, as an object; the others stay as they are and may be awaited later."""

    __slots__ = ("_children",)

    def __init__(self, loop: ProgramLoop, children: list[asyncio.Future[Any]]) -> None:
        if not children:
            raise UsageError("when_any got no tasks: expected at least one, since nothing could ever win")
        super().__init__(loop=loop)
        loop.number = self.number = loop.number + 1
        self._children = children
        done = in_completion_order([child for child in children if child.done()])
        if done:
            self.set_result(done[0])
            return
        for child in children:
            child.add_done_callback(self._child_done)

    def cancel(self, msg: Any | None = None) -> bool:
        """Stop waiting; the children go on."""
        self._let_go()
        return super().cancel(msg)

    def _child_done(self, child: asyncio.Future[Any]) -> None:
        if not self.done():
            self.set_result(child)
            self._let_go()

    def _let_go(self) -> None:
        for child in self._children:
            child.remove_done_callback(self._child_done)
        self._children = []


class AsCompleted:
    """Tasks in the order in which they are done.

    ``async for task in ctx.as_completed(tasks)`` gives the tasks themselves, done. ``for future in …`` gives futures of
    the results, the first one to complete first; that form is for generators, and for code written for `asyncio`.
    """

    __slots__ = ("_done", "_left", "_loop", "_waiting")

    def __init__(self, loop: ProgramLoop, children: list[asyncio.Future[Any]]) -> None:
        self._loop = loop
        children = list(dict.fromkeys(children))
        self._left = len(children)
        self._done: deque[asyncio.Future[Any]] = deque(in_completion_order([c for c in children if c.done()]))
        # Futures, and whether one gets the result of the next task, or only the news that there is one.
        self._waiting: deque[tuple[LoopFuture, bool]] = deque()
        for child in children:
            if not child.done():
                child.add_done_callback(self._child_done)

    def __aiter__(self) -> AsyncIterator[asyncio.Future[Any]]:
        return self

    async def __anext__(self) -> asyncio.Future[Any]:
        while self._left:
            if self._done:
                self._left -= 1
                if not self._left:
                    self._wake(len(self._waiting))  # several may iterate: the others are at the end, too
                return self._done.popleft()
            news = self._loop.create_future()
            self._waiting.append((news, False))
            await news
        raise StopAsyncIteration

    def __iter__(self) -> Iterator[asyncio.Future[Any]]:
        return self

    def __next__(self) -> asyncio.Future[Any]:
        if not self._left:
            raise StopIteration
        self._left -= 1
        future = self._loop.create_future()
        self._waiting.append((future, True))
        if self._done:
            self._wake(1)
        return future

    def _child_done(self, child: asyncio.Future[Any]) -> None:
        self._done.append(child)
        self._wake(1)

    def _wake(self, count: int) -> None:
        while count and self._waiting:
            future, wants_result = self._waiting.popleft()
            if not future.done():
                count -= 1
                if wants_result:
                    hand_on(self._done.popleft(), future)
                else:
                    future.set_result(None)
            elif wants_result:  # cancelled: its task is the next one's
                self._left += 1


class FanOut(LoopFuture):
    """Calls once per item, with a limit on how many are open; the results in the order of the items.

    After the first failure no more are started; it is raised when those in flight are done.
    """

    __slots__ = ("_call", "_cancel_requested", "_error", "_in_flight", "_items", "_results")

    def __init__(
        self,
        loop: ProgramLoop,
        call: Callable[[Any], asyncio.Future[Any]],
        items: Iterable[Any],
        max_in_flight: int,
    ) -> None:
        if max_in_flight < 1:
            raise UsageError(f"max_in_flight is {max_in_flight}: expected 1 or more")
        super().__init__(loop=loop)
        loop.number = self.number = loop.number + 1
        self._call = call
        self._items = enumerate(items)
        self._results: dict[int, Any] = {}
        self._in_flight: dict[asyncio.Future[Any], int] = {}
        self._cancel_requested = False
        self._error: BaseException | None = None
        for _ in range(max_in_flight):
            if not self._start_next():
                break
        if not self._in_flight:
            self._finish()

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel what is in flight, and start no more."""
        if self.done():
            return False
        self._items = enumerate(())
        canceled = [child.cancel(msg) for child in list(self._in_flight)]
        self._cancel_requested = any(canceled)
        return self._cancel_requested

    def _start_next(self) -> bool:
        if self._error is not None:
            return False
        try:
            for index, item in self._items:
                child = self._call(item)
                self._in_flight[child] = index
                child.add_done_callback(self._child_done)
                return True
        except Exception as error:  # noqa: BLE001 - the iterable of the user, or an item that is no JSON
            self._error = error
        return False

    def _child_done(self, child: asyncio.Future[Any]) -> None:
        index = self._in_flight.pop(child)
        error = error_of(child)
        if error is None:
            self._results[index] = child.result()
        elif self._error is None:
            self._error = error
        self._start_next()
        if not self._in_flight and not self.done():
            self._finish()

    def _finish(self) -> None:
        error, self._error = self._error, None
        if self._cancel_requested:
            super().cancel()
        elif error is not None:
            self.set_exception(error)
        else:
            results = self._results
            self.set_result([results[index] for index in range(len(results))])


def error_of(child: asyncio.Future[Any]) -> BaseException | None:
    """How a finished future failed; a cancelled one with `asyncio.CancelledError`."""
    if child.cancelled():
        return asyncio.CancelledError()
    return child.exception()


def hand_on(child: asyncio.Future[Any], future: asyncio.Future[Any]) -> None:
    """Complete a future as another one was."""
    error = error_of(child)
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(child.result())
