"""Each kind of orchestrator as the coroutine that a task can run."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import CodeType, FrameType
from typing import Any, Final

from durably.program.failures import is_ours
from durably.program.registry import OrchestratorFunction


def main_coroutine(function: OrchestratorFunction, arguments: tuple[Any, ...]) -> Coroutine[Any, Any, Any]:
    """The code of an orchestrator, not started yet."""
    if function.kind == "coroutine":
        made: Any = function.fn(*arguments)
        # Not wrapped, to spare a frame in every step. Something may have decorated it into another awaitable.
        return made if inspect.iscoroutine(made) else _call(lambda: made)
    return _call(lambda: function.fn(*arguments))


async def _call(fn: Callable[[], Any]) -> Any:
    result = fn()
    if inspect.isgenerator(result):
        return await _drive(result)
    if inspect.isawaitable(result):
        return await result
    return result


async def _drive(generator: Generator[Any, Any, Any]) -> Any:
    """Await what the generator yields, and send back the result or throw in the error, cancellation included."""
    try:
        wanted = generator.send(None)
        while True:
            try:
                result = await _awaitable(wanted)
            except BaseException as error:  # noqa: BLE001 - all of them are the generator's to handle
                wanted = generator.throw(error)
            else:
                wanted = generator.send(result)
    except StopIteration as stop:
        return stop.value


def _awaitable(wanted: Any) -> Awaitable[Any]:
    if asyncio.isfuture(wanted) or inspect.isawaitable(wanted):
        return wanted
    raise TypeError(
        f"Orchestrator yielded {wanted!r} of type {type(wanted).__name__}: "
        "expected a durable task, such as ctx.call_activity(...) or ctx.when_all([...])"
    )


_DRIVE: Final[CodeType] = _drive.__code__


def awaiting_line(coro: Any) -> str:
    """Where suspended code waits: the innermost line of a user, as ``file:line in function``."""
    found: FrameType | None = None
    while coro is not None:
        frame: FrameType | None = None
        inner: Any = None
        for prefix in ("cr", "gi", "ag"):
            if hasattr(coro, f"{prefix}_frame"):
                frame = getattr(coro, f"{prefix}_frame")
                inner = getattr(coro, "gi_yieldfrom" if prefix == "gi" else f"{prefix}_await")
        if frame is None:
            break
        if frame.f_code is _DRIVE:
            inner = frame.f_locals["generator"]
        if not is_library(frame.f_code.co_filename):
            found = frame
        coro = inner
    if found is None:
        return "an unknown line"
    return f"{found.f_code.co_filename}:{found.f_lineno} in {found.f_code.co_name}"


_ASYNCIO: Final = asyncio.__file__.rpartition("__init__")[0]


def is_library(filename: str) -> bool:
    """True for a source file of this package or of asyncio."""
    return is_ours(filename) or filename.startswith(_ASYNCIO)
