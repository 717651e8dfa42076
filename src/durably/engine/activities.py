"""The activity pool: limits per host and per function, cancellation, and results that wait for their commit.

It belongs to the host: a partition object that is thrown away and loaded anew finds its running activities and its
uncommitted results here, by execution and seq, and starts only what nobody holds (rule 4).
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from durably.clock import Clock
from durably.core.events import TaskScheduled
from durably.core.messages import ActivityDone
from durably.engine.executor import ActivityCall, Executor
from durably.errors import FailureDetails

_log = logging.getLogger("durably.engine")

_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
"""Where Python can do that, a task begins at once: most activities that do not wait are over before the loop turns."""


class Work:
    """One attempt of an activity on this host: queued, running, or ended and not yet committed."""

    __slots__ = ("call", "key", "limit", "result", "task")

    def __init__(self, key: tuple[str, int], call: ActivityCall, limit: int | None) -> None:
        self.key = key
        self.call = call
        self.limit = limit
        self.task: asyncio.Task[ActivityDone] | None = None
        self.result: ActivityDone | None = None


class ActivityPool:
    """Runs attempts of activities within limits.

    Args:
        executor: Reaches user code.
        clock: Bounds the drain.
        limit: Attempts that run at once.
        deliver: Takes the id of the instance and the result.
        unknown_wait: Attempts of activities that nobody registered wait, instead of failing.
    """

    def __init__(
        self,
        executor: Executor,
        clock: Clock,
        limit: int,
        deliver: Callable[[str, ActivityDone], None],
        *,
        unknown_wait: bool = False,
    ) -> None:
        self._executor = executor
        self._clock = clock
        self._limit = limit
        self._deliver = deliver
        self._works: dict[tuple[str, int], Work] = {}
        self._queues: dict[
            str, deque[Work]
        ] = {}  # by function, so that a limited one cannot hold up the others
        self._running = 0
        self._running_by_name: dict[str, int] = {}
        self._unknown_wait = unknown_wait
        self._stopping = False
        self._starting = False
        self._limits: dict[str, int | None] = {}
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        """Attempts held: queued, running, or ended and not yet committed."""
        return len(self._works)

    def start(
        self,
        instance_id: str,
        execution_id: str,
        scheduled: TaskScheduled,
        attempt: int,
        *,
        redelivery: bool = False,
    ) -> None:
        """Run an attempt as soon as the limits allow, unless it is held already."""
        key = (execution_id, scheduled.seq)
        held = self._works.get(key)
        if held is not None:
            if held.call.attempt == attempt:
                return
            self.abort(execution_id, scheduled.seq)
        name = scheduled.name
        call = ActivityCall(
            instance_id,
            execution_id,
            scheduled.seq,
            attempt,
            2 if redelivery else 1,
            name,
            scheduled.input,
            scheduled.tags,
        )
        work = self._works[key] = Work(key, call, self._limit_of(name))
        if (
            not self._stopping
            and self._running < self._limit
            and self._has_room(work)
            and not self._queues.get(name)
        ):
            self._run(work)
        else:
            self._queues.setdefault(name, deque()).append(work)

    def abort(self, execution_id: str, seq: int) -> None:
        """Cancel an attempt, running or queued, and forget it; its result is dropped. Ignored when it is not held."""
        work = self._works.pop((execution_id, seq), None)
        if work is None:
            return
        if work.task is not None:
            work.task.cancel()
        else:
            queue = self._queues.get(work.call.name)
            if queue is not None and work in queue:
                queue.remove(work)

    def settle(self, key: tuple[str, int], attempt: int) -> None:
        """The result of an attempt is durable, or nobody wants it: forget it."""
        work = self._works.get(key)
        if work is not None and work.call.attempt == attempt and work.result is not None:
            del self._works[key]

    def results(self) -> list[tuple[str, ActivityDone]]:
        """What has ended and is not durable yet, for a partition object that was loaded meanwhile."""
        held = self._works.values()
        return [(work.call.instance_id, work.result) for work in held if work.result is not None]

    async def stop(self, timeout_s: float) -> None:
        """Start nothing more, give running attempts some time, then cancel them. What is cancelled has no result."""
        self._stopping = True
        if self._running and timeout_s > 0:
            enough = self._clock.call_at(self._clock.now() + int(timeout_s * 1_000_000), self._idle.set)
            await self._idle.wait()
            enough.cancel()
        tasks = [work.task for work in self._works.values() if work.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def abandon(self) -> None:
        """Forget everything and cancel what runs, without waiting."""
        self._stopping = True
        works, self._works = list(self._works.values()), {}
        for work in works:
            if work.task is not None:
                work.task.cancel()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _limit_of(self, name: str) -> int | None:
        if name not in self._limits:
            limit = self._executor.concurrency(name)
            if self._unknown_wait and not self._executor.serves("activity", name):
                _log.warning(
                    "activity '%s' is not registered in this host: its calls wait for one that knows it", name
                )
                limit = 0
            self._limits[name] = limit
        return self._limits[name]

    def _has_room(self, work: Work) -> bool:
        return work.limit is None or self._running_by_name.get(work.call.name, 0) < work.limit

    def _run(self, work: Work) -> None:
        self._running += 1
        if self._running == 1:
            self._idle.clear()
        if work.limit is not None:
            name = work.call.name
            self._running_by_name[name] = self._running_by_name.get(name, 0) + 1
        task = asyncio.Task(self._executor.perform(work.call), loop=asyncio.get_running_loop(), **_EAGER)
        if task.done():
            self._ended(work, task)
        else:
            work.task = task
            task.add_done_callback(partial(self._ended, work))

    def _ended(self, work: Work, task: asyncio.Task[ActivityDone]) -> None:
        work.task = None
        self._running -= 1
        if work.limit is not None:
            self._running_by_name[work.call.name] -= 1
        if self._queues:
            self._start_queued()
        if not self._running:
            self._idle.set()
        if self._works.get(work.key) is not work or task.cancelled():
            return  # it was aborted, or the host stops: nobody wants a result
        error = task.exception()
        if error is None:
            result = work.result = task.result()
        else:  # the executor promises not to raise: a bug there must not lose the call
            call = work.call
            failure = FailureDetails.of(error)
            result = work.result = ActivityDone(call.execution_id, call.seq, call.attempt, None, failure)
        self._deliver(work.call.instance_id, result)

    def _start_queued(self) -> None:
        if self._stopping or self._starting:
            return  # an attempt that ends at once would start the next one from within itself, and so on down the stack
        self._starting = True
        try:
            self._start_in_turn()
        finally:
            self._starting = False

    def _start_in_turn(self) -> None:
        for name in list(self._queues):
            queue = self._queues[name]
            while queue and self._running < self._limit and self._has_room(queue[0]):
                self._run(queue.popleft())
            if queue:
                # To the end: the next free slot goes to another function.
                self._queues[name] = self._queues.pop(name)
            else:
                del self._queues[name]
            if self._running >= self._limit:
                return
