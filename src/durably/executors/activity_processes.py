"""The processes in which activities with ``executor="process"`` run."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from durably.errors import FailureDetails, HubClosedError, PayloadError, ProcessDiedError
from durably.executors.worker_channel import Attempt, ChannelClosedError, Outcome, decode
from durably.executors.worker_process import WorkerProcess

Answer = tuple[Outcome, bytes]
"""How an attempt ended, and its result."""

Heartbeat = Callable[[Any], None]
"""Takes the details of a heartbeat, on another thread."""

_STARTS_MAX = 3
"""A worker that dies between two calls costs the next call nothing, but this is not repeated for ever."""

_SAID_MAX = 200
"""Characters of a heartbeat in an error."""

_PATIENCE_S = 5.0
"""A process that was killed and is not gone after this is stuck in the system: nobody waits for it any longer."""


class Job:
    """One attempt: waiting for a worker, or in one.

    Attributes:
        ended: Set to the answer when no process works on it any more; cancelled when nobody wants it.
        unwanted: Nobody wants the answer.
        begun: Called when a worker takes it; or None.
        beat: Takes what it says of itself, on another thread.
        said: The newest of that, or None.
    """

    def __init__(
        self,
        attempt: Attempt,
        payload: bytes,
        ended: asyncio.Future[Answer],
        heartbeat: Heartbeat,
        begun: Callable[[], None] | None,
    ) -> None:
        self.attempt = attempt
        self.payload = payload
        self.ended = ended
        self.begun = begun
        self.unwanted = False
        self.said: bytes | None = None
        self._heartbeat = heartbeat

    def beat(self, said: bytes) -> None:
        self.said = said
        self._heartbeat(decode(said, Any))


class ActivityProcesses:
    """A pool of worker processes: started when first needed, used again, replaced when they die.

    Each is looked after by a thread, which does all that blocks: starting, sending, receiving, waiting for its end. The
    thread lives as long as its process: Linux kills a child with the *thread* that started it.
    """

    def __init__(self, size: int, grace_s: float) -> None:
        self._size = size
        self._grace_s = grace_s
        self._slots: list[_Slot] = []
        self._idle: list[_Slot] = []
        self._waiting: deque[Job] = deque()
        self._closed = False

    async def run(
        self,
        attempt: Attempt,
        payload: bytes,
        heartbeat: Heartbeat,
        begun: Callable[[], None] | None = None,
    ) -> Answer:
        """Perform an attempt in a process. Never raises for what user code does, nor for how the process ends.

        When the awaiting task is cancelled, a call that waits for a worker is dropped. One that runs is ended together
        with its process, and only then does the cancellation go on: until then the attempt takes its place in all limits.

        Args:
            attempt: What to perform.
            payload: Its input.
            heartbeat: Takes the details of its heartbeats.
            begun: Called when a worker takes it, which may have to be started for it.

        Raises:
            HubClosedError: After `close`.
        """
        if self._closed:
            raise HubClosedError(f"The host has stopped: activity '{attempt.name}' cannot be started")
        job = Job(attempt, payload, asyncio.get_running_loop().create_future(), heartbeat, begun)
        if self._idle:
            self._idle.pop().take(job)
        elif len(self._slots) < self._size:
            slot = _Slot(self, asyncio.get_running_loop(), self._grace_s, len(self._slots))
            self._slots.append(slot)
            slot.take(job)
        else:
            self._waiting.append(job)
        try:
            await asyncio.wait((job.ended,))
        except asyncio.CancelledError:
            self._give_up(job)
            await _is_over((job.ended,), self._grace_s + _PATIENCE_S)
            raise
        return job.ended.result()

    async def close(self) -> None:
        """Drop what waits, end what runs (both are cancelled), and return when the workers are gone."""
        self._closed = True
        self._idle.clear()
        for job in (*self._waiting, *(slot.job for slot in self._slots)):
            if job is not None:
                self._give_up(job)
        for slot in self._slots:
            slot.close()
        slots, self._slots = self._slots, []
        await _is_over([slot.over for slot in slots], self._grace_s + _PATIENCE_S)

    def freed(self, slot: _Slot) -> None:
        """Called by a slot that can take the next job."""
        if self._closed:
            return
        if self._waiting:
            slot.take(self._waiting.popleft())
        else:
            self._idle.append(slot)  # the one used last is taken next, so that few of them are kept warm

    def _give_up(self, job: Job) -> None:
        if job in self._waiting:
            self._waiting.remove(job)
            job.ended.cancel()
            return
        for slot in self._slots:
            if slot.job is job:
                slot.interrupt()


class _Slot:
    """The place of one worker process, and the thread that looks after it.

    Attributes:
        job: What it works on. Belongs to the event loop.
        over: Done when the thread has let go of the process for good.
    """

    def __init__(
        self, pool: ActivityProcesses, loop: asyncio.AbstractEventLoop, grace_s: float, number: int
    ) -> None:
        self.job: Job | None = None
        self.over: asyncio.Future[None] = loop.create_future()
        self._pool = pool
        self._loop = loop
        self._grace_s = grace_s
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._worker: WorkerProcess | None = None
        # A daemon: it must not keep a program alive that forgot to close its host.
        self._thread = threading.Thread(target=self._serve, name=f"durably-process-{number}", daemon=True)
        self._thread.start()

    # --- called by the event loop ------------------------------------------------------------------------------------

    def take(self, job: Job) -> None:
        self.job = job
        self._jobs.put(job)
        if job.begun is not None:
            job.begun()

    def interrupt(self) -> None:
        """Nobody wants the answer of the job: its process is to end."""
        if self.job is not None:
            with self._lock:
                self.job.unwanted = True
                if self._worker is not None:
                    self._worker.hang_up()  # wakes the thread, which does the rest

    def close(self) -> None:
        """End the process after what it works on, and then the thread."""
        self._jobs.put(None)

    def _answered(self, job: Job, answer: Answer) -> None:
        self.job = None
        if job.unwanted:
            job.ended.cancel()  # it must not count as a failure: when the host stops, it is to run again
        else:
            job.ended.set_result(answer)
        self._pool.freed(self)

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                answer = self._answer(job)
                self._loop.call_soon_threadsafe(self._answered, job, answer)
            self._retire(interrupt=False)
            self._loop.call_soon_threadsafe(_set, self.over)
        except RuntimeError:  # the loop was closed, and nobody had closed the host
            self._retire(interrupt=True)

    def _answer(self, job: Job) -> Answer:
        try:
            return self._attempt(job)
        except PayloadError as error:  # nothing of it was sent
            return Outcome(failure=FailureDetails.of(error)), b""
        except OSError as error:
            self._retire(interrupt=True)
            return _died(
                f"No worker process can be started for activity '{job.attempt.name}': {error}; free some"
            )
        except Exception as error:  # noqa: BLE001 - a bug here must not lose the call, nor the slot
            self._retire(interrupt=True)
            return Outcome(failure=FailureDetails.of(error)), b""

    def _attempt(self, job: Job) -> Answer:
        starts = 0
        while True:
            worker = self._usable_worker(job)
            try:
                answer = worker.call(job.attempt, job.payload, job.beat)
            except ChannelClosedError:
                ending = self._retire(interrupt=job.unwanted)
                starts += 1
                if job.unwanted or worker.begun or not worker.ready or starts >= _STARTS_MAX:
                    return _died(_why(job, worker, ending))
            else:
                return answer

    def _usable_worker(self, job: Job) -> WorkerProcess:
        worker = self._worker
        if worker is not None and not worker.is_usable():
            self._retire(interrupt=False)
            worker = None
        if worker is None:
            worker = WorkerProcess(self._grace_s)
        with self._lock:
            self._worker = worker
            if job.unwanted:
                worker.hang_up()
        return worker

    def _retire(self, *, interrupt: bool) -> str:
        with self._lock:
            worker, self._worker = self._worker, None
        return "" if worker is None else worker.end(interrupt=interrupt)


async def _is_over(
    futures: list[asyncio.Future[None]] | tuple[asyncio.Future[Answer]], timeout_s: float
) -> None:
    """Wait for what ends soon, even when the waiting task is cancelled once more."""
    if not futures:
        return
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    cancelled = False
    while not all(future.done() for future in futures) and (left_s := deadline - loop.time()) > 0:
        try:
            await asyncio.wait(futures, timeout=left_s)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _died(message: str) -> Answer:
    return Outcome(failure=FailureDetails.of(ProcessDiedError(message))), b""


def _why(job: Job, worker: WorkerProcess, ending: str) -> str:
    name = job.attempt.name
    if not worker.ready:
        return (
            f"Worker process {worker.pid} for activity '{name}' could not start ({ending}): expected a Python that can "
            "import durably; see what it has written to stderr"
        )
    return (
        f"Worker process {worker.pid} died while it ran activity '{name}' ({ending}): expected a result; SIGKILL is mostly "
        f"a lack of memory, anything else a crash of a library or an exit in the code{_last_words(job)}"
    )


def _last_words(job: Job) -> str:
    if job.said is None:
        return ""
    said = job.said.decode()
    return f". Its last heartbeat said {said if len(said) <= _SAID_MAX else said[:_SAID_MAX] + '...'}"
