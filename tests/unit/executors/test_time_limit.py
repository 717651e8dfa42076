"""The time of functions of triggers: who waits for a thread has not begun."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from durably.errors import FunctionTimeoutError
from durably.executors.time_limit import in_thread, in_time

LIMIT_S = 0.1


def with_one_thread(main: Coroutine[Any, Any, Any]) -> Any:
    async def run() -> Any:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        return await main

    return asyncio.run(run())


def test_the_time_of_a_thread_begins_with_it() -> None:
    async def main() -> str:
        may_end = threading.Event()
        other = asyncio.create_task(asyncio.to_thread(may_end.wait, 30))
        await asyncio.sleep(0)
        call = asyncio.create_task(in_time(in_thread(_name), LIMIT_S, "It"))
        await asyncio.sleep(3 * LIMIT_S)  # as long as it takes is the point: it waits longer than its time
        assert not call.done()
        may_end.set()
        await other
        return await call

    assert with_one_thread(main()) == "done"


def _name() -> str:
    return "done"


def test_a_thread_that_has_begun_has_its_time() -> None:
    may_end = threading.Event()

    async def main() -> None:
        try:
            with pytest.raises(FunctionTimeoutError, match=r"^It has run for 0\.1 s"):
                await in_time(in_thread(may_end.wait, timeout=30), LIMIT_S, "It")
        finally:
            may_end.set()

    with_one_thread(main())


def test_what_is_given_up_while_it_waits_for_a_thread_never_begins() -> None:
    async def main() -> list[int]:
        ran: list[int] = []
        may_end = threading.Event()
        other = asyncio.create_task(asyncio.to_thread(may_end.wait, 30))
        await asyncio.sleep(0)
        call = asyncio.create_task(in_time(in_thread(lambda: ran.append(1)), 60, "It"))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        may_end.set()
        await other
        await asyncio.to_thread(_name)
        return ran

    assert with_one_thread(main()) == []


def test_without_a_limit_it_is_a_thread() -> None:
    async def main() -> str:
        return await in_time(in_thread(_name), 0, "It")

    assert with_one_thread(main()) == "done"
