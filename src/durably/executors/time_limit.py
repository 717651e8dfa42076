"""The time that a host gives a function of a trigger. What waits for a thread has not begun."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

from durably.errors import FunctionTimeoutError

T = TypeVar("T")


class _Limit(NamedTuple):
    """A limit that is on."""

    timeout: asyncio.Timeout
    limit_s: float

    def begin(self) -> None:
        """Its time is counted from now."""
        if not self.timeout.expired():
            with contextlib.suppress(
                RuntimeError
            ):  # the call was given up before it was told that it had begun
                self.timeout.reschedule(asyncio.get_running_loop().time() + self.limit_s)


_limit: ContextVar[_Limit | None] = ContextVar("durably_time_limit", default=None)


async def in_time(work: Awaitable[T], limit_s: float, what: str) -> T:
    """What the work returns.

    Args:
        work: A call of user code. A coroutine is cancelled when the time is over; a thread goes on, and what it returns is
            dropped. The time of a thread that `in_thread` has asked for is counted from when it begins.
        limit_s: See `EngineOptions.function_timeout_s`; 0 for no limit.
        what: Who it is, as it begins a sentence.

    Raises:
        FunctionTimeoutError: It takes longer.
    """
    if not limit_s:
        return await work
    limit = asyncio.timeout(limit_s)
    token = _limit.set(_Limit(limit, limit_s))
    try:
        async with limit:
            return await work
    except TimeoutError as error:
        if not limit.expired():
            raise  # the work's own
        raise FunctionTimeoutError(
            f"{what} has run for {limit_s:g} s: expected it to end before (function_timeout_s, functionTimeout of host.json)"
        ) from error.__cause__
    finally:
        _limit.reset(token)


async def in_thread(fn: Callable[..., Any], **arguments: Any) -> Any:
    """Call a plain function in a thread, as `asyncio.to_thread` does; `in_time` counts from when the thread takes it."""
    limit = _limit.get()
    if limit is None:
        return await asyncio.to_thread(fn, **arguments)
    loop = asyncio.get_running_loop()
    limit.timeout.reschedule(None)

    def call() -> Any:
        tell_loop(loop, limit.begin)
        return fn(**arguments)

    return await asyncio.to_thread(call)


def tell_loop(loop: asyncio.AbstractEventLoop, tell: Callable[[], None]) -> None:
    """Call back on the loop, from a thread; not at all when the loop is gone."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(tell)
