import asyncio
import gc
import threading
import weakref

import pytest

from durably.executors.activity_threads import ActivityThreads


def test_no_more_threads_are_started_than_are_needed_and_none_beyond_the_limit() -> None:
    async def main() -> None:
        threads = ActivityThreads(2)
        one_after_the_other = {await threads.run(threading.get_ident) for _ in range(5)}
        at_once = set(await asyncio.gather(*(threads.run(threading.get_ident) for _ in range(20))))
        threads.close()
        assert len(one_after_the_other) == 1
        assert len(at_once | one_after_the_other) <= 2

    asyncio.run(main())


def test_a_pool_that_was_closed_serves_again() -> None:
    async def main() -> None:
        threads = ActivityThreads(1)
        for _ in range(3):
            assert await asyncio.gather(*(threads.run(abs, -n) for n in range(5))) == [0, 1, 2, 3, 4]
            threads.close()

    asyncio.run(main())


def test_a_failure_goes_to_the_caller_and_leaves_nothing_behind() -> None:
    class Lost(Exception):
        pass

    def fail() -> None:
        raise Lost

    async def main() -> weakref.ref[BaseException]:
        threads = ActivityThreads(1)
        with pytest.raises(Lost) as caught:
            await threads.run(fail)
        assert await threads.run(abs, -1) == 1  # the thread goes on
        threads.close()
        return weakref.ref(caught.value)

    error = asyncio.run(main())
    gc.collect()
    assert error() is None
