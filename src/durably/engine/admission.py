"""How instances come into memory: their rows are read, or a message starts them."""

from __future__ import annotations

from durably.core.commit import InboxRow
from durably.core.history import encode_body
from durably.core.messages import ChildDone, Discard, Redrive, Rewind, StartInstance
from durably.engine.desk import Desk
from durably.engine.lives import Lives
from durably.engine.parking import Parking
from durably.engine.reads import Reads
from durably.engine.residents import Delivery, Resident
from durably.engine.trials import Trials
from durably.errors import FailureDetails, InstanceNotFoundError, StoreRefusedError
from durably.storage.api import StoredInstance


class Admission:
    """The way into one partition's memory.

    Args:
        desk: What is shared with the other parts of a turn.
        lives: Begins instances.
        trials: Looks at everybody who comes in.
        parking: Takes messages that stand for parked ones, and starts that cannot be stored.
        reads: Reads rows.
    """

    def __init__(self, desk: Desk, lives: Lives, trials: Trials, parking: Parking, reads: Reads) -> None:
        self._desk = desk
        self._around = desk.around
        self._lives = lives
        self._trials = trials
        self._parking = parking
        self._reads = reads
        self._clock = desk.clock

    def ask(self, delivery: Delivery, now: int) -> Resident | None:
        """Deal with a message to somebody who is not in memory.

        Returns:
            The resident that it made, or None: it waits for a read, was refused, or needed no resident.
        """
        return None if self._around.absent.take(delivery) else self.nobody(delivery, now)

    def read(self) -> None:
        """Read all instances that somebody asked for, in one round trip."""
        wanted = self._around.absent.unread()
        if wanted:
            self._reads.begin(lambda: self._read(wanted))

    async def _read(self, wanted: list[str]) -> None:
        around = self._around
        with around.inbox.reading():
            found = await self._reads.instances(wanted)
            if self._reads.closed:
                return
            for stored in found:
                if stored is not None:
                    self.settle_in(stored)
        now = self._clock.now()
        for target in wanted:
            for delivery in around.absent.found(target):
                resident = around.residents.get(target)
                if resident is None:
                    resident = self.nobody(delivery, now)
                else:
                    resident.queue.append(delivery)
                if resident is not None:
                    around.mailbox.postpone(resident)
        around.mailbox.arm()

    def settle_in(self, stored: StoredInstance) -> Resident:
        """Make the resident that rows describe; messages that were read with them are delivered."""
        around = self._around
        resident = Resident.of(stored)
        around.replace(resident)
        for delivery in around.inbox.found(stored.inbox):
            around.mailbox.put(delivery)
        cause = around.condemned.get(resident.instance_id)
        if cause is not None and not resident.state.ended:
            resident.parked = cause
        if resident.parked != stored.row.parked:
            self._desk.touch(resident, self._clock.now())
        self._trials.look_at(resident)
        return resident

    def nobody(self, delivery: Delivery, now: int) -> Resident | None:
        """The target does not exist: a start creates it, anything else is refused."""
        body = delivery.body
        if isinstance(body, Rewind) and body.start is not None:  # of a child that is gone: it is started anew
            self._desk.consumed(delivery)
            body = body.start
            delivery = Delivery(delivery.target, body)
            self._around.keep(delivery, first=True)
        if isinstance(body, StartInstance):
            if delivery.target in self._around.condemned:
                self._refuse_condemned(delivery, body)
                return None
            resident = self._lives.create(delivery, body, now)
            if self._trials.is_unborn(delivery.target):
                self._trials.admit_unborn(resident)
                self._around.keep(delivery)  # its row may be sealed before its turn: never without its start
            return resident
        if isinstance(body, Redrive | Discard) and body.message_id is not None:
            self._parking.message(delivery, body)
            return None
        self._desk.consumed(delivery, InstanceNotFoundError(delivery.target))
        return None

    def _refuse_condemned(self, delivery: Delivery, start: StartInstance) -> None:
        """A start that cannot be stored: its caller or its parent is told; without either it is set aside."""
        around = self._around
        error = StoreRefusedError(around.condemned.pop(delivery.target))  # the next start may be another one
        parent = start.parent
        if parent is not None:
            failure = FailureDetails.of(error)
            done = ChildDone(parent.execution_id, parent.seq, parent.attempt, None, failure)
            around.send(parent.instance_id, done)
        elif delivery.reply is None:
            message_id, now = delivery.row or around.inbox.new_id(), self._clock.now()
            row = InboxRow(message_id, delivery.target, now, encode_body(start))
            self._parking.set_aside(row, str(error), now)
        self._desk.consumed(delivery, error)
