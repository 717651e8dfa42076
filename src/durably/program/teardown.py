"""How the code of an execution ends before it has ended by itself: at once, in order, and without a trace.

Left to the garbage collector, `finally` blocks would run later, on the loop of the host, and ask for things.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import types
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Iterable
from typing import Any, Final, cast

from durably.program.decisions import evicted
from durably.program.failures import forget_frames
from durably.program.futures import LoopTask
from durably.program.loop import ProgramLoop, is_finished

_THROWS_MAX: Final = 1_000
"""Code that catches everything and awaits again has this many tries, then it is left where it is."""

_VISITS_MAX: Final = 100_000
"""Objects looked at in search of coroutines that were never started."""

_immortal: Final[deque[object]] = deque(maxlen=1_000)
"""Code that would not end. Python reports it when it is collected; so the newest of it is not."""


def is_over(loop: ProgramLoop) -> bool:
    """True when no code is left that could run in a teardown."""
    return not loop.generators and all(task.done() for task in loop.tasks)


def tear_down(loop: ProgramLoop) -> None:
    """Close everything that is open, in order of creation. Runs as a turn does: with the loop as the running one."""
    decisions = loop.decisions
    waiting = list(decisions.open.values())
    errors = decisions.errors
    decisions.close()
    loop.shut()
    tasks, loop.tasks = loop.tasks, []
    generators, loop.generators = loop.generators, []
    open_tasks = [task for task in tasks if not task.done()]
    coros, futures = (
        _reachable([*open_tasks, *generators, *waiting]) if open_tasks or generators else ([], [])
    )
    # First, so that nothing is dropped that Python would call "never awaited".
    for coro in coros:
        if inspect.getcoroutinestate(coro) == inspect.CORO_CREATED:
            coro.close()
    for task in open_tasks:
        _end_task(loop, task)
    for generator in generators:
        _end_generator(generator)
    for future in futures:
        _unlink(future)
    for future in (*tasks, *futures):
        _forget_failure(future)
    for error in errors:
        forget_frames(error)


def _end_task(loop: ProgramLoop, task: LoopTask) -> None:
    coro: Any = task.get_coro()
    for _ in range(_THROWS_MAX):
        asyncio.tasks._enter_task(loop, task)
        try:
            # Into the coroutine, not through the task, which would wait for what it awaits next.
            task.root.run(coro.throw, evicted())
        except BaseException as error:  # noqa: BLE001 - the code is at its end, however it says so
            forget_frames(error)
            return
        finally:
            asyncio.tasks._leave_task(loop, task)
    _immortal.append(coro)


def _end_generator(generator: AsyncGenerator[Any, Any]) -> None:
    for _ in range(_THROWS_MAX):
        if is_finished(generator):
            return
        ending: Any = generator.aclose()
        try:
            ending.send(None)
            for _ in range(_THROWS_MAX):
                ending.throw(evicted())
        except BaseException as error:  # noqa: BLE001 - it ended, or it yielded once more: the loop looks
            forget_frames(error)
    _immortal.append(generator)


def _forget_failure(future: asyncio.Future[Any]) -> None:
    """Frames of a traceback hold the task that holds the error that holds the traceback."""
    if future.done():
        try:
            future.result()  # not `exception()`: a future keeps a traceback of its own until it is raised
        except BaseException as error:  # noqa: BLE001 - of any kind, and told elsewhere
            forget_frames(error)


def _unlink(future: asyncio.Future[Any]) -> None:
    """Take the callbacks off: a task and what it awaits refer to each other, and so do a future and those within it."""
    bare: Any = future  # what follows has no public name
    callbacks: list[tuple[Any, Any]] | None = bare._callbacks
    for callback, _ in list(callbacks or ()):
        future.remove_done_callback(callback)


def _reachable(roots: Iterable[object]) -> tuple[list[Coroutine[Any, Any, Any]], list[asyncio.Future[Any]]]:
    """Coroutines and futures in local variables, builtin containers and closures of suspended code."""
    coros: list[Coroutine[Any, Any, Any]] = []
    futures: list[asyncio.Future[Any]] = []
    seen: set[int] = set()
    ahead: list[Any] = list(roots)
    while ahead and len(seen) < _VISITS_MAX:
        one = ahead.pop()
        kind = cast("type[Any]", type(one))
        if not gc.is_tracked(one) or kind in _OPAQUE:
            continue
        is_future = issubclass(kind, asyncio.Future)
        if not is_future and kind.__module__ not in _BUILTIN:
            continue  # objects of users and of libraries may lead anywhere, also out of this execution
        number = id(one)
        if number in seen:
            continue
        seen.add(number)
        if is_future:
            futures.append(one)
        elif kind is types.CoroutineType:
            coros.append(one)
        if kind is types.FunctionType:  # leads to the globals of a module as well
            ahead.extend(one.__closure__ or ())
        else:
            ahead.extend(gc.get_referents(one))
    return coros, futures


_BUILTIN: Final = ("builtins", "collections", "functools")
"""Where the types of containers, their iterators, coroutines, generators and partials come from."""

_OPAQUE: Final = frozenset(
    (type, types.BuiltinFunctionType, types.ModuleType, types.FrameType, types.TracebackType, types.CodeType)
)
