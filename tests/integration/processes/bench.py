"""An executor with the functions of `programs` in worker processes, and the test's end of their named pipes."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TextIO

from durably.codec.convert import Converter, JsonConverter
from durably.core.messages import ActivityDone
from durably.engine.executor import ActivityCall
from durably.errors import FailureDetails
from durably.executors.native import NativeExecutor, NativeOptions
from durably.program.registry import Registry

converter = JsonConverter()


def call(fn: Callable[..., Any] | str, input: Any = None) -> ActivityCall:
    name = fn if isinstance(fn, str) else fn.__name__
    return ActivityCall(
        "i", "e", 3, 2, 1, name, None if input is None else converter.encode(input), {"t": "1"}
    )


def with_processes(
    main: Callable[[NativeExecutor], Coroutine[Any, Any, Any]],
    *functions: Callable[..., Any],
    processes: int = 2,
    grace_s: float = 20.0,
    registry: Registry | None = None,
    converter: Converter = converter,
) -> Any:
    """Run a test on an executor; a grace that is long shows that nothing waits for it."""
    registry = registry or Registry()
    for fn in functions:
        registry.add_activity(fn, executor="process")

    async def run() -> Any:
        options = NativeOptions(processes=processes, process_grace_s=grace_s)
        executor = NativeExecutor(registry, converter, options)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await main(executor)
        finally:
            await executor.close()

    return asyncio.run(run())


def performed(fn: Callable[..., Any], input: Any = None, **options: Any) -> ActivityDone:
    return with_processes(lambda executor: executor.perform(call(fn, input)), fn, **options)


def result(done: ActivityDone) -> Any:
    assert done.failure is None, done.failure
    return None if done.result is None else converter.decode(done.result, Any)


def failure(done: ActivityDone) -> FailureDetails:
    assert done.failure is not None
    return done.failure


def is_gone(pid: int) -> bool:
    """True when no such process is left, not even as one that was not reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


PATIENCE_S = 60


async def _in_thread(fn: Callable[[], Any]) -> Any:
    """What blocks, in a thread that nobody has to wait for when a test fails."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def run() -> None:
        value = fn()
        loop.call_soon_threadsafe(done.set_result, value)

    threading.Thread(target=run, daemon=True).start()
    async with asyncio.timeout(PATIENCE_S):
        return await done


class Pipe:
    """A named pipe."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._end: TextIO | None = None
        os.mkfifo(path)

    async def announced(self) -> int:
        """The process at the other end, once it has opened the pipe."""
        self._end = await _in_thread(Path(self.path).open)
        return int(await self.line())

    async def line(self) -> str:
        assert self._end is not None
        return (await _in_thread(self._end.readline)).strip()

    async def rest(self) -> str:
        """What is still said, when all processes that had it open have ended."""
        assert self._end is not None
        return (await _in_thread(self._end.read)).strip()

    async def release(self) -> None:
        """Let somebody go on who waits in opening it for reading."""
        await _in_thread(lambda: Path(self.path).write_text("go"))

    def close(self) -> None:
        if self._end is not None:
            self._end.close()
