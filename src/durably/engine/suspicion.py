"""Who killed the process: what runs is noted where it outlives the process, once the host before has died.

In normal life nothing is noted and nothing costs anything. A host that finds that its predecessor did not let go of the
hub puts a `WatchedExecutor` before its executor for the rest of its life. After the next death those, and only those, are
suspects whose entries are left. The loop runs one piece of code at a time: when it is known which one, coroutines that were
waiting at that moment are no suspects; code in threads and processes always is.
"""

from __future__ import annotations

import msgspec

from durably.core.operations import Watched
from durably.engine.executor import ActivityCall
from durably.storage.api import WorkLog

_TURN = -1
"""Stands for the seq of a call where the code of an orchestrator ran."""

_OPERATION = -2
"""Stands for the seq of a call where an operation of an entity ran."""


class _Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What ran. FORMAT: read by the next version of durably too; new fields go to the end with a default.

    Attributes:
        execution_id: Of the call; of an operation, the id of its message.
        seq: The call, or `_TURN`, or `_OPERATION`.
        waits: The code may have been waiting: it runs on the loop, and another entry says when.
        in_step: The loop was running it.
        mark: See `Watched`.
    """

    instance_id: str
    execution_id: str
    seq: int
    attempt: int
    deliveries: int
    waits: bool = False
    in_step: bool = False
    mark: str = ""

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
        operations: Suspected operations, by (entity, message, mark), in the same way.
        recovered: Instances that had work at an unattributed death: that one counts against their turns.
        recovered_messages: Messages to entities that were there at that death: it counts against their operations.
        watching: It is noted what runs.
        forgiven: The host stops: nobody is noted any more, so that no suspect should begin.
    """

    def __init__(self, log: WorkLog | None = None) -> None:
        self.attempts: dict[tuple[str, int, int], int] = {}
        self.turns: dict[str, int] = {}
        self.operations: dict[tuple[str, str, str], int] = {}
        self.recovered: set[str] = set()
        self.recovered_messages: set[str] = set()
        self.watching = log is not None
        self.forgiven = False
        self._log = log
        self._open: set[int] = set()
        self._standing: dict[str, int] = {}
        ran = [] if log is None else [entry for left in log.left if (entry := _read(left)) is not None]
        known = any(entry.on_loop for entry in ran)
        for entry in ran:
            if not (known and entry.waits):
                self._suspect(entry)
        self.unattributed = log is not None and not (self.attempts or self.turns or self.operations)

    def _suspect(self, ran: _Entry) -> None:
        if ran.seq == _TURN:
            self.turns[ran.instance_id] = max(ran.deliveries, self.turns.get(ran.instance_id, 0))
        elif ran.seq == _OPERATION:
            operation = (ran.instance_id, ran.execution_id, ran.mark)
            self.operations[operation] = max(ran.deliveries, self.operations.get(operation, 0))
        else:
            key = (ran.execution_id, ran.seq, ran.attempt)
            self.attempts[key] = max(ran.deliveries, self.attempts.get(key, 0))

    def counted(self) -> None:
        """What was left is in histories now, and in rows of entities."""
        self.attempts.clear()
        self.turns.clear()
        self.operations.clear()
        if self._log is not None:
            self._log.settle()

    def abandon(self) -> None:
        """Leave the log as it is: the process is gone, as far as others can tell."""
        self._log = None

    def forgive(self) -> None:
        """The host stops: whoever runs on from here, and is cut off by impatient people, is not to blame."""
        self.forgiven = True
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

    def operation_begins(self, entity: str, watched: Watched, *, waits: bool, in_step: bool = False) -> int:
        """Note that an operation runs; returns the place of the note. Arguments as for `attempt_begins`."""
        message, mark, delivery = watched
        return self._note(_Entry(entity, message, _OPERATION, 0, delivery, waits, in_step, mark))

    def over(self, place: int) -> None:
        """What was noted there has ended."""
        if self._log is not None:
            self._open.discard(place)
            self._log.drop(place)


def _read(left: bytes) -> _Entry | None:
    try:
        return _decode(left)
    except msgspec.MsgspecError:  # of another version: nobody is suspected without proof
        return None
