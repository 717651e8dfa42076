"""Entities held in memory with their live code, and what waits for them."""

from __future__ import annotations

import asyncio
from collections import deque

from durably.core.commit import EntityRow
from durably.core.entities import EntityState
from durably.core.messages import CallEntity, LockEntity, ReleaseEntity
from durably.core.operations import OperationOutcome
from durably.engine.executor import EntityCode
from durably.engine.residents import Delivery
from durably.errors import EntityCorruptError


class EntityResident:
    """One entity in memory.

    Attributes:
        instance_id: Its id as text.
        state: What its row says, and what operations since made of it.
        code: Its live code, or None until an operation comes.
        elsewhere: That code runs in workers.
        queue: Messages that nobody has looked at.
        waiting: Messages whose turn has not come: it is locked, or an operation of it takes its time.
        busy: The operation that takes its time, or None.
        stored: It has a row, or will have one with the batch that is gathering or on its way.
        staged: The batch that is gathering writes it.
        batches: Batches in flight that write it.
        corrupt: Why its row cannot be read, or None.
        idle_since: Number of the pump that touched it last.
    """

    __slots__ = (
        "batches",
        "busy",
        "code",
        "corrupt",
        "elsewhere",
        "idle_since",
        "instance_id",
        "queue",
        "staged",
        "state",
        "stored",
        "waiting",
    )

    def __init__(self, instance_id: str, row: EntityRow | None) -> None:
        self.instance_id = instance_id
        self.corrupt: str | None = None
        self.state = EntityState(instance_id)
        if row is not None:
            try:
                self.state = EntityState.of(row)
            except EntityCorruptError as error:
                self.corrupt = str(error)
        self.code: EntityCode | None = None
        self.elsewhere = False
        self.queue: deque[Delivery] = deque()
        self.waiting: list[Delivery] = []
        self.busy: asyncio.Task[OperationOutcome] | None = None
        self.stored = row is not None
        self.staged = False
        self.batches = 0
        self.idle_since = 0

    @property
    def idle(self) -> bool:
        """True when nothing but its row would be lost by dropping it."""
        return not (self.queue or self.waiting or self.busy or self.staged or self.batches)

    def may_run(self, call: CallEntity) -> bool:
        """True when it is the turn of a call: nobody is at it, and nobody else has locked it or was here before."""
        if self.busy is not None:
            return False
        holder = self.state.holder
        return not self.waiting if holder is None else holder.section == call.section

    def may_read(self, call: CallEntity) -> bool:
        """True when a call that only reads may be let in at once: it would not overtake what its own sender sent."""
        return call.sender is None or all(
            not (isinstance(other.body, CallEntity) and other.body.sender == call.sender)
            for other in self.waiting
        )

    def give_up(self, release: ReleaseEntity) -> list[Delivery]:
        """Take the requests of a section out of those that wait."""
        dropped = [
            one
            for one in self.waiting
            if isinstance(one.body, LockEntity) and one.body.section == release.section
        ]
        self.waiting = [one for one in self.waiting if one not in dropped]
        return dropped

    def forget(self) -> None:
        """Its row is deleted: should it come to life again, it is another one."""
        self.state = EntityState(self.instance_id)
        self.stored = False

    def look_again(self) -> None:
        """Something has changed: what waits comes first, in its order."""
        self.queue.extendleft(reversed(self.waiting))
        self.waiting = []
