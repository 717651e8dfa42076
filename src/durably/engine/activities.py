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

import msgspec

from durably.clock import Clock, Wakeup
from durably.core.events import TaskScheduled
from durably.core.messages import ActivityDone
from durably.core.notices import OWN
from durably.engine.company import Company
from durably.engine.executor import ActivityCall, Executor
from durably.errors import FailureDetails, FunctionTimeoutError

_log = logging.getLogger("durably.engine")

_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
"""Where Python can do that, a task begins at once: most activities that do not wait are over before the loop turns."""

_CANCEL_PATIENCE_US = 5_000_000
"""What a cancelled attempt may take to clean up while its host stops."""


_ELSEWHERE = -1
"""Stands for the limit of an activity that runs elsewhere, see `Executor.elsewhere`."""

_CLAIMED = -1
"""Stands for the seq of a call where the id of an attempt in the queue that all hosts share stands for its execution."""


class Work(msgspec.Struct, eq=False):
    """One attempt of an activity on this host: queued, running, or ended and not yet committed."""

    key: tuple[str, int]
    call: ActivityCall
    limit: int | None
    task: asyncio.Task[ActivityDone] | None = None
    result: ActivityDone | None = None
    since: int = 0  # when it was queued
    overdue: Wakeup | None = None


class Suspect(Work):
    """An attempt that was running when a process died. Its limit is a number, see `_free`."""


class Elsewhere(Work):
    """An attempt that a worker of another process runs: it takes no place.

    Attributes:
        begun: A worker has it.
    """

    begun: bool = False


class Claimed(Work, kw_only=True):
    """An attempt of the queue that all hosts share: it is this host's, whoever owns its instance.

    Attributes:
        began: Called when its code runs.
        done: Takes its result, with which it leaves the pool.
    """

    began: Callable[[], None]
    done: Callable[[ActivityDone], None]


class ActivityPool:
    """Runs attempts of activities within limits.

    Args:
        executor: Reaches user code.
        clock: Bounds the drain.
        limit: Attempts that run at once.
        deliver: Takes the id of the instance and the result.
        company: Says when suspects may run.
        unknown_wait: Attempts of activities that nobody registered wait, instead of failing.
        time_limit_s: An attempt that runs longer fails; 0 for no limit. While it waits for a thread or a process, it does
            not run. Those of queues, timers and notices have others.
    """

    def __init__(
        self,
        executor: Executor,
        clock: Clock,
        limit: int,
        deliver: Callable[[str, ActivityDone], None],
        *,
        company: Company,
        unknown_wait: bool = False,
        time_limit_s: float = 0.0,
    ) -> None:
        self.executor = executor
        self._company = company
        self._clock = clock
        self._time_limit_s = time_limit_s
        self._deliver = deliver
        self._works: dict[tuple[str, int], Work] = {}
        self._queues: dict[
            str, deque[Work]
        ] = {}  # by function, so that a limited one cannot hold up the others
        self._running = 0
        self._running_elsewhere = 0
        self._running_by_name: dict[str, int] = {}
        self._unknown_wait = unknown_wait
        self._stopping = False
        self._starting = False
        self._limits: dict[str, int | None] = {}
        self._idle: asyncio.Event | None = None
        """Set when the last attempt ends; only `stop` waits for that."""
        self._leavers: list[tuple[Callable[[str], bool], asyncio.Event]] = []
        """Whose attempts `finish` waits for, and what it waits on."""
        self.freed: Callable[[], None] = _nobody_waits
        """Called when it holds one attempt less."""
        self.limit = limit
        """Attempts that run at once."""
        self.counts_threads = False
        """`unfinished` is asked of activities that wait for a thread or a process, too."""

    def __len__(self) -> int:
        """Attempts held: queued, running, or ended and not yet committed."""
        return len(self._works)

    @property
    def running(self) -> int:
        """Attempts that run."""
        return self._running

    def waiting(self) -> tuple[int, int | None]:
        """How many attempts wait for a place, and since when the first one does; but for those that nobody knows here."""
        queues = [queue for name, queue in self._queues.items() if queue and self._limits.get(name) != 0]
        return sum(map(len, queues)), min((queue[0].since for queue in queues), default=None)

    def start(
        self,
        instance_id: str,
        execution_id: str,
        scheduled: TaskScheduled,
        attempt: int,
        delivery: int = 1,
    ) -> None:
        """Run an attempt as soon as the limits allow, unless it is held already.

        Args:
            instance_id: Whose call it is.
            execution_id: The execution that made it.
            scheduled: The call.
            attempt: The first one is 1.
            delivery: How often the attempt is handed to a host, this time included.
        """
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
            delivery,
            name,
            scheduled.input,
            scheduled.tags,
            scheduled.detail,
        )
        limits = self._limits
        limit = limits[name] if name in limits else self._limit_of(name)
        if limit == _ELSEWHERE:
            self._run_elsewhere(key, call)
            return
        work = self._works[key] = Work(key, call, limit)
        if (
            self._running < self.limit
            and name not in self._queues
            and (work.limit is None or self._has_room(work))
            and not self._stopping
        ):
            self._run(work)
        else:
            self._queue(work)

    def start_claimed(
        self,
        task_id: str,
        call: ActivityCall,
        *,
        began: Callable[[], None],
        done: Callable[[ActivityDone], None],
    ) -> tuple[str, int]:
        """Run an attempt of the queue that all hosts share; returns its key, for `abort`.

        Args:
            task_id: Its id there. A claim of the same before this one was lost.
            call: The attempt.
            began: See `Claimed`.
            done: See `Claimed`.
        """
        key = (task_id, _CLAIMED)
        self.abort(*key)
        limit = self._limit_of(call.name)
        # One that runs elsewhere takes a place all the same: what a host has claimed it wants to begin soon.
        work = Claimed(key, call, None if limit == _ELSEWHERE else limit, began=began, done=done)
        self._works[key] = work
        self._queue(work)
        self._start_queued()
        return key

    def holds(self, execution_id: str, seq: int, attempt: int) -> bool:
        """True for an attempt that waits, runs, or has a result that is not durable yet."""
        work = self._works.get((execution_id, seq))
        return work is not None and work.call.attempt == attempt

    def unfinished(self, name: str) -> int:
        """How many attempts of an activity wait or run that has a limit of its own; see also `counts_threads`."""
        return len(self._queues.get(name, ())) + self._running_by_name.get(name, 0)

    def start_suspect(
        self, instance_id: str, execution_id: str, scheduled: TaskScheduled, attempt: int, deliveries: int
    ) -> None:
        """The same for an attempt that was running `deliveries` times when a process died: it also waits for company."""
        key = (execution_id, scheduled.seq)
        if key in self._works:
            return
        name, seq = scheduled.name, scheduled.seq
        call = ActivityCall(
            instance_id,
            execution_id,
            seq,
            attempt,
            deliveries + 1,
            name,
            scheduled.input,
            scheduled.tags,
            scheduled.detail,
        )
        limit = self._limit_of(name)
        if limit == _ELSEWHERE:
            self._run_elsewhere(key, call)
            return
        work = self._works[key] = Suspect(key, call, self.limit if limit is None else limit)
        self._company.apply(work, deliveries, partial(self._admit, work))

    def _admit(self, work: Suspect) -> None:
        if self._works.get(work.key) is not work or self._stopping:
            self._company.leave(work)
            return
        self._queue(work)
        self._start_queued()

    def _queue(self, work: Work) -> None:
        work.since = self._clock.now()
        self._queues.setdefault(work.call.name, deque()).append(work)

    def abort(self, execution_id: str, seq: int) -> None:
        """Cancel an attempt, running or queued, and forget it; its result is dropped. Ignored when it is not held."""
        work = self._works.pop((execution_id, seq), None)
        if work is None:
            return
        if work.task is not None:
            work.task.cancel()
        else:
            self._company.leave(work)
            queue = self._queues.get(work.call.name)
            if queue is not None and work in queue:
                queue.remove(work)
                if not queue:
                    del self._queues[work.call.name]  # whose name is in it has to queue up
        self.freed()

    def settle(self, key: tuple[str, int], attempt: int) -> None:
        """The result of an attempt is durable, or nobody wants it: forget it."""
        work = self._works.get(key)
        if work is not None and work.call.attempt == attempt and work.result is not None:
            del self._works[key]
            if work.limit is not None and type(work) is Suspect:
                self._company.leave(work)
            self.freed()

    def results(self) -> list[tuple[str, ActivityDone]]:
        """What has ended and is not durable yet, for a partition object that was loaded meanwhile."""
        held = self._works.values()
        return [
            (work.call.instance_id, work.result)
            for work in held
            if work.result is not None and type(work) is not Claimed
        ]

    async def finish(self, whose: Callable[[str], bool], timeout_s: float) -> None:
        """Some instances go to another host: start no attempt of theirs, and return when those that run have ended.

        What is not begun is forgotten: its call is in the history. What still runs after the time is left to `forget`.

        Args:
            whose: Says of an instance id whether it goes.
            timeout_s: How long running attempts may take.
        """
        for work in [work for work in self._works.values() if _waits(work)]:
            if _goes(work, whose):
                self.abort(*work.key)
        ended = asyncio.Event()
        leaver = (whose, ended)
        self._leavers.append(leaver)
        enough = self._clock.call_later(int(timeout_s * 1_000_000), ended.set)
        try:
            self._tell_leavers()
            await ended.wait()
        finally:
            enough.cancel()
            self._leavers.remove(leaver)

    def forget(self, whose: Callable[[str], bool]) -> None:
        """Some instances are another host's now: cancel their attempts, and drop what they have brought."""
        for work in list(self._works.values()):
            if _goes(work, whose):
                self.abort(*work.key)

    def _tell_leavers(self) -> None:
        for whose, ended in self._leavers:
            running = (work for work in self._works.values() if work.task is not None)
            if not any(_goes(work, whose) for work in running):
                ended.set()

    async def stop(self, timeout_s: float) -> None:
        """Start nothing more, give running attempts some time, then cancel them. What is cancelled has no result.

        One that does not let itself be cancelled is left behind after a while.
        """
        self._stopping = True
        if (self._running or self._running_elsewhere) and timeout_s > 0:
            idle = self._idle = asyncio.Event()
            enough = self._clock.call_later(int(timeout_s * 1_000_000), idle.set)
            await idle.wait()
            enough.cancel()
        running = [(work.call, work.task) for work in self._works.values() if work.task is not None]
        for _, task in running:
            task.cancel()
        await self._end_of([task for _, task in running])
        for call, task in running:
            if not task.done():
                _log.error(
                    "activity '%s' (#%d) of instance '%s' goes on although it was cancelled, and is left behind; expected "
                    "it to let asyncio.CancelledError pass. It runs again when the hub is served next",
                    call.name,
                    call.seq,
                    call.instance_id,
                )

    async def _end_of(self, tasks: list[asyncio.Task[ActivityDone]]) -> None:
        """Return when tasks that were cancelled have ended, or had their time."""
        over = asyncio.Event()
        ended = asyncio.gather(*tasks, return_exceptions=True)
        ended.add_done_callback(lambda _: over.set())
        enough = self._clock.call_later(_CANCEL_PATIENCE_US, over.set)
        try:
            await over.wait()
        finally:
            enough.cancel()

    def abandon(self) -> None:
        """Forget everything and cancel what runs, without waiting."""
        self._stopping = True
        works, self._works = list(self._works.values()), {}
        for work in works:
            if work.task is not None:
                work.task.cancel()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _limit_of(self, name: str) -> int | None:
        if self.executor.elsewhere("activity", name):
            self._limits[name] = _ELSEWHERE
            return _ELSEWHERE
        limit = self.executor.concurrency(name)
        if self._unknown_wait and not self.executor.serves("activity", name):
            _log.warning(
                "activity '%s' is not registered in this host: its calls wait for one that knows it", name
            )
            limit = 0
        elif limit is None and self.counts_threads and not self.executor.on_loop(name):
            limit = self.limit
        self._limits[name] = limit
        return limit

    def _has_room(self, work: Work) -> bool:
        return work.limit is None or self._running_by_name.get(work.call.name, 0) < work.limit

    def _run(self, work: Work) -> None:
        self._running += 1
        if work.limit is not None:
            name = work.call.name
            self._running_by_name[name] = self._running_by_name.get(name, 0) + 1
        call, is_told = work.call, type(work) is Claimed
        if self._time_limit_s or is_told:
            is_told = is_told or not call.name.startswith(OWN)
            if is_told and not self.executor.on_loop(call.name):
                call = msgspec.structs.replace(call, begun=partial(self._begun, work))
        task = asyncio.Task(self.executor.perform(call), loop=asyncio.get_running_loop(), **_EAGER)
        if task.done():
            self._ended(work, task)
        else:
            work.task = task
            task.add_done_callback(partial(self._ended, work))
            if is_told and call.begun is None:
                self._begun(work)

    def _run_elsewhere(self, key: tuple[str, int], call: ActivityCall) -> None:
        if self._stopping:
            return  # its call is in the history
        work = Elsewhere(key, call, None)
        work.call = msgspec.structs.replace(call, begun=partial(self._begun_elsewhere, work))
        self._works[key] = work
        work.task = asyncio.get_running_loop().create_task(self.executor.perform(work.call))
        work.task.add_done_callback(partial(self._ended_elsewhere, work))

    def _begun_elsewhere(self, work: Elsewhere) -> None:
        if not work.begun and work.task is not None:
            work.begun = True
            self._running_elsewhere += 1

    def _ended_elsewhere(self, work: Elsewhere, task: asyncio.Task[ActivityDone]) -> None:
        work.task = None
        if work.begun:
            self._running_elsewhere -= 1
        self._conclude(work, task)

    def _begun(self, work: Work) -> None:
        """Its code runs: its time begins."""
        if isinstance(work, Claimed):
            work.began()
            if not self._time_limit_s or work.call.name.startswith(OWN):
                return
        if work.result is None and work.overdue is None and self._works.get(work.key) is work:
            limit_us = int(self._time_limit_s * 1_000_000)
            work.overdue = self._clock.call_later(limit_us, partial(self._end_overdue, work))

    def _end_overdue(self, work: Work) -> None:
        """An attempt has run too long: it has failed now, however long it takes to let itself be cancelled."""
        if work.task is None or self._works.get(work.key) is not work:
            return
        call = work.call
        error = FunctionTimeoutError(
            f"Activity '{call.name}' has run for {self._time_limit_s:g} s: expected it to end before "
            "(function_timeout_s, functionTimeout of host.json)"
        )
        work.result = _failed(call, error)
        work.task.cancel()
        self._tell(work, work.result)

    def _ended(self, work: Work, task: asyncio.Task[ActivityDone]) -> None:
        work.task = None
        if work.overdue is not None:
            work.overdue.cancel()
        self._running -= 1
        if work.limit is not None:
            self._free(work)
        if self._queues:
            self._start_queued()
        self._conclude(work, task)

    def _conclude(self, work: Work, task: asyncio.Task[ActivityDone]) -> None:
        """An attempt has ended: tell whoever waits for that, and whoever wants its result."""
        if self._idle is not None and not (self._running or self._running_elsewhere):
            self._idle.set()
        if self._leavers:
            self._tell_leavers()
        if work.result is not None or self._works.get(work.key) is not work or task.cancelled():
            return  # it was overdue or aborted, or the host stops: nobody wants a result
        error = task.exception()
        if error is None:
            result = work.result = task.result()
        else:  # the executor promises not to raise: a bug there must not lose the call
            result = work.result = _failed(work.call, error)
        self._tell(work, result)

    def _tell(self, work: Work, result: ActivityDone) -> None:
        if isinstance(work, Claimed):
            del self._works[work.key]
            work.done(result)
            self.freed()
        else:
            self._deliver(work.call.instance_id, result)

    def _free(self, work: Work) -> None:
        """What only few need: those of functions with a limit, and suspects, which always have one."""
        self._running_by_name[work.call.name] -= 1
        if type(work) is Suspect and self._works.get(work.key) is not work:
            self._company.leave(work)  # of others, the result has to be durable before the next one may kill

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
            while queue and self._running < self.limit and self._has_room(queue[0]):
                self._run(queue.popleft())
            if queue:
                # To the end: the next free slot goes to another function.
                self._queues[name] = self._queues.pop(name)
            else:
                self._queues.pop(name, None)
            if self._running >= self.limit:
                return


def _failed(call: ActivityCall, error: BaseException) -> ActivityDone:
    return ActivityDone(call.execution_id, call.seq, call.attempt, None, FailureDetails.of(error))


def _waits(work: Work) -> bool:
    """Whether an attempt has neither begun nor ended."""
    return work.result is None and (work.task is None or (isinstance(work, Elsewhere) and not work.begun))


def _goes(work: Work, whose: Callable[[str], bool]) -> bool:
    """Whether an attempt goes where its instance goes."""
    return type(work) is not Claimed and whose(work.call.instance_id)


def _nobody_waits() -> None:
    """For a pool on its own."""
