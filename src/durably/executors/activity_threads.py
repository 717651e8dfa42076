"""The threads in which activities that are plain functions run."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class ActivityThreads:
    """A pool of threads, started when it is first needed.

    Not the default executor of the event loop: that one serves name lookups and files of others, and a few slow
    activities would hold them up.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._pool: ThreadPoolExecutor | None = None

    async def run(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Call in a thread, with a copy of the caller's context variables.

        When the awaiting task is cancelled, a call that waits for a thread is dropped; one that runs goes on, and its
        outcome is ignored.
        """
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._size, thread_name_prefix="durably-activity")
        context = contextvars.copy_context()
        # A future of our own: that of run_in_executor would log the failure of a call that nobody waits for any more.
        work = self._pool.submit(context.run, fn, *args)
        return await asyncio.wrap_future(work)

    def close(self) -> None:
        """Drop what waits for a thread, and let go of the threads; those that run end with their call."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
