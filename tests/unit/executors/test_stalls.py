"""The watch that ends a process whose event loop is held up; that it does is shown in `tests/integration/poison`."""

from __future__ import annotations

import asyncio
import threading

from durably import App, EngineOptions
from durably.executors.stalls import StallWatch


def watching() -> bool:
    return any(thread.name == "durably-stalls" for thread in threading.enumerate())


def test_a_loop_that_turns_is_left_alone_and_its_watch_ends_with_the_host() -> None:
    async def main() -> None:
        async with App().host("memory://", options=EngineOptions(stall_limit_s=0.05)):
            assert watching()
            await asyncio.sleep(0.2)

    asyncio.run(main())
    assert not watching()


def test_it_is_off_by_default() -> None:
    async def main() -> None:
        async with App().host("memory://"):
            assert not watching()

    asyncio.run(main())


def test_a_watch_starts_and_stops_once() -> None:
    async def main() -> None:
        watch = StallWatch(60)
        for _ in range(2):
            watch.start()
        assert watching()
        for _ in range(2):
            watch.stop()
        assert not watching()

    asyncio.run(main())


def test_the_watch_of_a_host_that_was_dropped_ends_with_its_loop() -> None:
    async def main() -> None:
        StallWatch(0.02).start()

    asyncio.run(main())
    for thread in threading.enumerate():
        if thread.name == "durably-stalls":
            thread.join(10)
    assert not watching()
