"""Two places where asyncio itself would decide differently on a replay, and how our loop gets another answer there.

1. `asyncio.wait_for` wraps a coroutine in a task up to Python 3.11 and awaits it in place from 3.12 on, so a history that
   was recorded under one would not replay under the other. On our loop one algorithm, that of 3.12, serves all versions.
2. The future of `asyncio.gather` hashes by address, so a set of them (`asyncio.wait`) iterates in another order in each
   process. On our loop it gets a number like all other futures.

Both change asyncio from outside, for our loop only; every other loop of the process runs the code it ran before. Why not
gentler? A name replaced in the module `asyncio` misses `from asyncio import wait_for` in a file that was imported earlier,
and the standard library is sorted before us in every file. A function of our own is a trap for everybody who writes
plain asyncio. The loop cannot tell who calls it in time. So the function object stays and its code object changes: all
references to it see the change. The previous code lives on in a function of its own.
"""

from __future__ import annotations

import asyncio
import asyncio.tasks
from asyncio import events
from collections.abc import Awaitable
from types import FunctionType
from typing import Any, Final

from durably.program.loop import ProgramLoop

_MARK: Final = "_durably_wait_for"
"""The name in `asyncio.tasks` under which the changed code finds ours."""


def apply() -> None:
    """Change asyncio; idempotent. Called before the first execution of the process begins."""
    space = asyncio.tasks.__dict__
    if _MARK in space:
        return
    wait_for = asyncio.tasks.wait_for
    if isinstance(wait_for, FunctionType):  # a debugger or another tool may have put something else there
        before = FunctionType(wait_for.__code__, wait_for.__globals__, "wait_for", wait_for.__defaults__)
        before.__kwdefaults__ = wait_for.__kwdefaults__

        async def unified(fut: Any, timeout: float | None) -> Any:
            if isinstance(events._get_running_loop(), ProgramLoop):  # None where the public one raises
                return await _wait_for(fut, timeout)
            return await before(fut, timeout)

        space[_MARK] = unified
        wait_for.__code__ = _dispatch.__code__
    gathering: Any = space["_GatheringFuture"]
    gathering.__hash__ = _gathering_hash


async def _dispatch(fut, timeout):  # type: ignore[no-untyped-def]  # runs with the globals of asyncio.tasks
    return await _durably_wait_for(fut, timeout)  # type: ignore[name-defined]  # noqa: F821


async def _wait_for(fut: Awaitable[Any], timeout: float | None) -> Any:
    """`asyncio.wait_for` as of Python 3.12."""
    if timeout is not None and timeout <= 0:
        future = asyncio.ensure_future(fut)
        if future.done():
            return future.result()
        future.cancel()
        # Not awaited directly: whoever cancels us while we wait must not be mistaken for the time-out.
        await asyncio.wait([future])
        try:
            return future.result()
        except asyncio.CancelledError as error:
            raise TimeoutError from error
    async with asyncio.timeout(timeout):
        return await fut


def _gathering_hash(self: Any) -> int:
    loop = self.get_loop()
    if not isinstance(loop, ProgramLoop):
        return object.__hash__(self)
    number: int | None = getattr(self, "_durably_number", None)
    if number is None:  # at the first question, which the same code asks at the same point
        loop.number = self._durably_number = number = loop.number + 1
    return number
