"""Who killed the process: what runs is noted where it outlives the process, once the host before has died.

In normal life nothing is noted and nothing costs anything. A host that finds that its predecessor did not let go of the
hub puts a `WatchedExecutor` before its executor for the rest of its life. After the next death those, and only those, are
suspects whose entries are left. The loop runs one piece of code at a time: when it is known which one, coroutines that were
waiting at that moment are no suspects; code in threads and processes always is.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from typing import Any

import msgspec

from durably.core.entities import EntityId
from durably.core.events import Action, Arrival, ExecutionStarted, HistoryEvent
from durably.core.messages import ActivityDone
from durably.engine.executor import ActivityCall, EntityCode, Executor, FunctionKind, Run
from durably.storage.api import WorkLog

_TURN = -1
"""Stands for the seq of a call where the code of an orchestrator ran."""


class _Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What ran. FORMAT: read by the next version of durably too; new fields go to the end with a default.

    Attributes:
        seq: The call, or `_TURN`.
        waits: The code may have been waiting: it runs on the loop, and another entry says when.
    """

    instance_id: str
    execution_id: str
    seq: int
    attempt: int
    deliveries: int
    waits: bool = False
    in_step: bool = False

    @property
    def on_loop(self) -> bool:
        """True when this is what the loop was running."""
        return self.seq == _TURN or self.in_step


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Entry).decode


class Suspicion:
    """What deaths before left behind, and what runs now. Belongs to the host.

    Args:
        log: Of the lease; None in normal life.

    Attributes:
        attempts: Suspected attempts, by (execution id, seq, attempt): how often each was delivered.
        turns: Suspected turns by instance, in the same way.
        recovered: Instances that had work at an unattributed death: that one counts against their turns.
    """

    def __init__(self, log: WorkLog | None = None) -> None:
        self.attempts: dict[tuple[str, int, int], int] = {}
        self.turns: dict[str, int] = {}
        self.recovered: set[str] = set()
        self._log = log
        self._open: set[int] = set()
        self._standing: dict[str, int] = {}
        ran = [] if log is None else [entry for left in log.left if (entry := _read(left)) is not None]
        known = any(entry.on_loop for entry in ran)
        for entry in ran:
            if not (known and entry.waits):
                self._suspect(entry)
        self.unattributed = log is not None and not (self.attempts or self.turns)

    def _suspect(self, ran: _Entry) -> None:
        if ran.seq == _TURN:
            self.turns[ran.instance_id] = max(ran.deliveries, self.turns.get(ran.instance_id, 0))
        else:
            key = (ran.execution_id, ran.seq, ran.attempt)
            self.attempts[key] = max(ran.deliveries, self.attempts.get(key, 0))

    def counted(self) -> None:
        """What was left is in histories now."""
        self.attempts.clear()
        self.turns.clear()
        if self._log is not None:
            self._log.settle()

    def abandon(self) -> None:
        """Leave the log as it is: the process is gone, as far as others can tell."""
        self._log = None

    def forgive(self) -> None:
        """The host stops: whoever runs on from here, and is cut off by impatient people, is not to blame."""
        log, self._log = self._log, None
        if log is not None:
            for place in self._open:
                log.drop(place)

    def _note(self, entry: _Entry) -> int:
        if self._log is None:
            return -1
        place = self._log.put(_encode(entry))
        self._open.add(place)
        return place

    # --- what runs ---------------------------------------------------------------------------------------------------

    def standing(self, instance_id: str, deliveries: int) -> None:
        """A turn of the instance has been interrupted so often, and none has become durable since."""
        self._standing[instance_id] = deliveries

    def cleared(self, instance_id: str) -> None:
        """A turn of the instance is durable: it is innocent."""
        self._standing.pop(instance_id, None)

    def attempt_begins(self, call: ActivityCall, *, waits: bool, in_step: bool = False) -> int:
        """Note that an attempt runs; returns the place of the note.

        Args:
            call: The attempt.
            waits: It runs on the loop, which does other things too meanwhile.
            in_step: The loop runs it right now.
        """
        return self._note(
            _Entry(call.instance_id, call.execution_id, call.seq, call.attempt, call.delivery, waits, in_step)
        )

    def turn_begins(self, instance_id: str) -> int:
        """Note that code of the orchestrator runs; returns the place of the note."""
        before = self._standing.get(instance_id, 1 if instance_id in self.recovered else 0)
        return self._note(_Entry(instance_id, "", _TURN, 0, before + 1))

    def over(self, place: int) -> None:
        """What was noted there has ended."""
        if self._log is not None:
            self._open.discard(place)
            self._log.drop(place)


class WatchedExecutor:
    """An `Executor` whose user code is noted while it runs.

    Args:
        executor: Does the work.
        suspicion: Takes the notes.
    """

    def __init__(self, executor: Executor, suspicion: Suspicion) -> None:
        self._executor = executor
        self._suspicion = suspicion

    def serves(self, kind: FunctionKind, name: str) -> bool:
        """See `Executor.serves`."""
        return self._executor.serves(kind, name)

    def names(self, kind: FunctionKind) -> Sequence[str]:
        """See `Executor.names`."""
        return self._executor.names(kind)

    def runs(self, name: str, version: str | None) -> bool:
        """See `Executor.runs`."""
        return self._executor.runs(name, version)

    def version_of_new(self, name: str) -> str | None:
        """See `Executor.version_of_new`."""
        return self._executor.version_of_new(name)

    def versions(self, name: str) -> str:
        """See `Executor.versions`."""
        return self._executor.versions(name)

    def begin(self, started: ExecutionStarted) -> Run:
        """See `Executor.begin`."""
        return _WatchedRun(self._executor.begin(started), started.instance_id, self._suspicion)

    def replay(self, history: Sequence[HistoryEvent]) -> Run:
        """See `Executor.replay`."""
        instance_id = _instance_of(history)
        place = self._suspicion.turn_begins(instance_id)
        try:
            run = self._executor.replay(history)
        finally:
            self._suspicion.over(place)
        return _WatchedRun(run, instance_id, self._suspicion)

    def entity(self, entity_id: EntityId) -> EntityCode:
        """See `Executor.entity`."""
        return self._executor.entity(entity_id)

    def concurrency(self, name: str) -> int | None:
        """See `Executor.concurrency`."""
        return self._executor.concurrency(name)

    def on_loop(self, name: str) -> bool:
        """See `Executor.on_loop`."""
        return self._executor.on_loop(name)

    async def perform(self, call: ActivityCall) -> ActivityDone:
        """See `Executor.perform`."""
        suspicion = self._suspicion
        on_loop = self._executor.on_loop(call.name)
        place = suspicion.attempt_begins(call, waits=on_loop)
        try:
            work = self._executor.perform(call)
            return await (_stepwise(work, call, suspicion) if on_loop else work)
        finally:
            suspicion.over(place)

    async def close(self) -> None:
        """See `Executor.close`."""
        await self._executor.close()


class _WatchedRun:
    __slots__ = ("_instance_id", "_run", "_suspicion")

    def __init__(self, run: Run, instance_id: str, suspicion: Suspicion) -> None:
        self._run = run
        self._instance_id = instance_id
        self._suspicion = suspicion

    def advance(self, event: Arrival, now: int) -> Sequence[Action]:
        place = self._suspicion.turn_begins(self._instance_id)
        try:
            return self._run.advance(event, now)
        finally:
            self._suspicion.over(place)

    def close(self) -> None:
        place = self._suspicion.turn_begins(self._instance_id)
        try:
            self._run.close()
        finally:
            self._suspicion.over(place)


@types.coroutine
def _stepwise(
    work: Coroutine[Any, Any, ActivityDone], call: ActivityCall, suspicion: Suspicion
) -> Generator[Any, Any, ActivityDone]:
    """Await a coroutine, and note each of its steps. What it puts into tasks of its own has no steps here."""
    step: Callable[[Any], Any] = work.send
    given: Any = None
    while True:
        place = suspicion.attempt_begins(call, waits=False, in_step=True)
        try:
            awaited = step(given)
        except StopIteration as end:
            return end.value
        finally:
            suspicion.over(place)
        try:
            given = yield awaited
            step = work.send
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:  # noqa: BLE001 - a cancellation, for example: it belongs to the coroutine
            step, given = work.throw, error


def _read(left: bytes) -> _Entry | None:
    try:
        return _decode(left)
    except msgspec.MsgspecError:  # of another version: nobody is suspected without proof
        return None


def _instance_of(history: Iterable[HistoryEvent]) -> str:
    return next((event.instance_id for event in history if isinstance(event, ExecutionStarted)), "")
