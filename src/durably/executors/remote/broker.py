"""Hands work to workers of other processes: what each can do, one at a time and wholly, and again when a worker goes away.

It knows no transport. A worker is somebody to whom bytes can be sent; what it did comes back with a token. The token of a
piece of work is that of its newest delivery, and ends with it: an answer with an older one is dropped.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Final, Literal, Protocol

from durably.clock import Random
from durably.executors.remote.filters import Filters

Kind = Literal["orchestrator", "activity", "entity"]

ITEM_BYTES_MAX: Final = 4 * 1024 * 1024
"""What a worker takes at once unless it was told otherwise: gRPC ends the stream of one that gets more, again and again."""

_OPERATION_S: Final = 1_200.0
"""The same of an operation of an entity, which may wait for something, and is repeated then."""

_TURN_S: Final = 120.0
"""A worker that takes longer to run the code of one orchestrator is gone, whatever its stream says."""

_SWEEP_S: Final = 5.0

_REJECTED_S: Final = 0.25
"""What a worker gives back is offered again so much later: it may be offered to the same one."""


class Work(Protocol):
    """Something that a worker can do.

    Attributes:
        kind: Of function.
        name: Of the function.
        version: That filters compare; "" for none.
        instance_id: Whose.
        key: What says it without a token, for workers that have none.
    """

    kind: Kind
    name: str
    version: str
    instance_id: str
    key: tuple[str, int]

    def request(self, token: str) -> bytes:
        """What is sent, as it is at this moment."""
        ...

    def refuse(self, why: str) -> None:
        """No worker can take it: it has failed."""
        ...


class Worker:
    """A worker that is connected.

    Args:
        send: Sends it a piece of work; never raises.
        limits: So many pieces of a kind it takes at once; a kind that is missing has no limit.
        filters: What it takes.
    """

    def __init__(self, send: Callable[[bytes], None], limits: dict[Kind, int], filters: Filters) -> None:
        self.send = send
        self.filters = filters
        self.limits = limits
        self.busy: Counter[Kind] = Counter()

    def takes(self, work: Work) -> bool:
        """True when it has a place for this."""
        limit = self.limits.get(work.kind)
        return (limit is None or self.busy[work.kind] < limit) and self.filters.match(
            work.kind, work.name, work.version
        )


class _Entry:
    """A piece of work in the books: it waits, or somebody has it."""

    __slots__ = ("due", "since", "token", "work", "worker")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.token = ""
        self.worker: Worker | None = None
        self.since = 0.0
        self.due = True


class Broker:
    """The books.

    Args:
        random: Source of tokens.
        bytes_max: Of a piece of work, see `ITEM_BYTES_MAX`.
    """

    def __init__(self, random: Random, bytes_max: int = ITEM_BYTES_MAX) -> None:
        self._random = random
        self._bytes_max = bytes_max
        self._workers: list[Worker] = []
        self._queues: dict[tuple[Kind, str, str], deque[_Entry]] = {}
        self._entries: dict[Work, _Entry] = {}
        self._by_token: dict[str, _Entry] = {}
        self._by_key: dict[tuple[Kind, str, int], _Entry] = {}
        self._last: dict[str, Worker] = {}
        self._armed = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._turn = 0

    # --- workers -----------------------------------------------------------------------------------------------------

    def connect(self, worker: Worker) -> None:
        """A worker takes work from now on."""
        self._workers.append(worker)
        self._arm()
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    def leave(self, worker: Worker) -> None:
        """A worker takes no more, and what it has is offered to others at once. Its answers count until somebody has it."""
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        self._last = {key: known for key, known in self._last.items() if known is not worker}
        mine = [entry for entry in self._entries.values() if entry.worker is worker]
        for entry in reversed(mine):
            self._free(entry)
            self._queue_of(entry.work).appendleft(entry)
        self._arm()

    def close(self) -> None:
        """The host stops: nothing is sent any more."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._workers.clear()
        self._last.clear()
        self._queues.clear()
        self._entries.clear()
        self._by_token.clear()
        self._by_key.clear()

    @property
    def workers(self) -> int:
        """How many are connected."""
        return len(self._workers)

    # --- work --------------------------------------------------------------------------------------------------------

    def offer(self, work: Work) -> None:
        """Have some worker do this. What is offered already is not offered again."""
        if work in self._entries:
            return
        entry = self._entries[work] = _Entry(work)
        self._by_key[work.kind, *work.key] = entry
        self._queue_of(work).append(entry)
        self._arm()

    def withdraw(self, work: Work) -> None:
        """Nobody wants it any more; an answer is dropped. Idempotent."""
        entry = self._entries.pop(work, None)
        if entry is None:
            return
        if self._by_key.get((work.kind, *work.key)) is entry:
            del self._by_key[work.kind, *work.key]
        self._by_token.pop(entry.token, None)
        if entry.worker is None:
            queue = self._queue_of(work)
            if entry in queue:
                queue.remove(entry)
        self._free(entry)

    def answered(self, kind: Kind, token: str, key: tuple[str, int]) -> Work | None:
        """The work that an answer is about, which is done with that; None: it is about nothing that is wanted.

        Args:
            kind: Of the work.
            token: Of the delivery; empty when the worker has none.
            key: See `Work.key`; counts without a token.
        """
        work = self.work_of(kind, token, key)
        if work is not None:
            self.withdraw(work)
        return work

    def work_of(self, kind: Kind, token: str, key: tuple[str, int]) -> Work | None:
        """The same, and it goes on: the answer has another part."""
        entry = self._by_token.get(token) if token else self._by_key.get((kind, *key))
        return None if entry is None or entry.work.kind != kind else entry.work

    def give_back(self, kind: Kind, token: str) -> None:
        """A worker does not want what it has got; others may, or it later on."""
        entry = self._by_token.get(token)
        if entry is None or entry.work.kind != kind or entry.worker is None:
            return
        self._last.pop(
            entry.work.instance_id, None
        )  # else it would get it again, and again, while others would take it
        self._free(entry)
        entry.due = False
        asyncio.get_running_loop().call_later(_REJECTED_S, self._again, entry)

    def _again(self, entry: _Entry) -> None:
        if self._entries.get(entry.work) is entry and not entry.due:
            entry.due = True
            self._queue_of(entry.work).append(entry)
            self._arm()

    def waiting(self, kind: Kind, key: tuple[str, int]) -> Work | None:
        """The work of this key, as long as no worker has it."""
        entry = self._by_key.get((kind, *key))
        return None if entry is None or entry.worker is not None else entry.work

    # --- dispatch ----------------------------------------------------------------------------------------------------

    def _queue_of(self, work: Work) -> deque[_Entry]:
        return self._queues.setdefault((work.kind, work.name, work.version), deque())

    def _free(self, entry: _Entry) -> None:
        worker, entry.worker = entry.worker, None
        if worker is not None:
            worker.busy[entry.work.kind] -= 1
            self._arm()

    def _arm(self) -> None:
        if not self._armed and self._workers:
            self._armed = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """One piece of each queue in turn, so that no function has to wait for another one."""
        self._armed = False
        waiting = [queue for queue in self._queues.values() if queue]
        while waiting:
            waiting = [queue for queue in waiting if self._hand_out(queue) and queue]
        for key in [key for key, queue in self._queues.items() if not queue]:
            del self._queues[key]

    def _hand_out(self, queue: deque[_Entry]) -> bool:
        """Send the oldest; False when nobody takes it."""
        entry = queue[0]
        worker = self._worker_for(entry.work)
        if worker is None:
            return False
        queue.popleft()
        self._by_token.pop(entry.token, None)
        entry.token = self._random.token()
        item = entry.work.request(entry.token)
        if len(item) > self._bytes_max:
            self.withdraw(entry.work)
            entry.work.refuse(_too_large(entry.work, len(item), self._bytes_max))
            return True
        entry.worker, entry.since = worker, asyncio.get_running_loop().time()
        self._by_token[entry.token] = entry
        worker.busy[entry.work.kind] += 1
        if entry.work.kind == "orchestrator":
            self._last[entry.work.instance_id] = worker
        worker.send(item)
        return True

    def _worker_for(self, work: Work) -> Worker | None:
        """The one that had the instance before, else the next in turn."""
        last = self._last.get(work.instance_id) if work.kind == "orchestrator" else None
        if last is not None and last.takes(work):
            return last
        for worker in self._in_turn():
            if worker.takes(work):
                return worker
        return None

    def _in_turn(self) -> Iterator[Worker]:
        count = len(self._workers)
        for _ in range(count):
            self._turn = (self._turn + 1) % count
            yield self._workers[self._turn]

    def forget(self, instance_id: str) -> None:
        """An execution is over: it does not matter any more who had it."""
        self._last.pop(instance_id, None)

    def _sweep(self) -> None:
        """Take back what workers have had for too long, but for activities, which may take days."""
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(_SWEEP_S, self._sweep)
        late = {"orchestrator": loop.time() - _TURN_S, "entity": loop.time() - _OPERATION_S}
        for entry in list(self._entries.values()):
            if entry.worker is not None and entry.since < late.get(entry.work.kind, 0.0):
                self._last.pop(entry.work.instance_id, None)
                self._free(entry)
                self._queue_of(entry.work).appendleft(entry)


def _too_large(work: Work, size: int, most: int) -> str:
    return (
        f"What the {work.kind} '{work.name}' of '{work.instance_id}' needs has {size:,} bytes, and workers take {most:,}: "
        "keep payloads small or in a payload store, continue as new before the history is that long, or raise "
        "DURABLY_GRPC_ITEM_BYTES_MAX and what the workers receive, and rewind"
    )
