"""The pump: all messages that have come, one turn for each instance that they concern, then the commit."""

from __future__ import annotations

import logging
from collections.abc import Callable

from durably.engine.admission import Admission
from durably.engine.desk import Desk
from durably.engine.entities import Entities
from durably.engine.eviction import Crowd
from durably.engine.options import EngineOptions
from durably.engine.residents import Resident
from durably.engine.turns import Turns
from durably.errors import InvariantError

_log = logging.getLogger("durably.engine")


class Pump:
    """Gives turns, within the limits of a batch, and evicts who has had none for long.

    Args:
        desk: What is shared with the other parts of a turn.
        turns: Applies messages.
        admission: Knows what to do about somebody who is not in memory.
        entities: Take what is for them.
        options: Limits.
        cautious: Commit one instance at a time.
        partitions: How many of them the host has.
        failed: Takes the error of a turn, and whose turn it was; the partition object has to end with it.
    """

    def __init__(
        self,
        desk: Desk,
        turns: Turns,
        admission: Admission,
        entities: Entities,
        options: EngineOptions,
        *,
        cautious: bool,
        partitions: Callable[[], int],
        failed: Callable[[Exception, str | None], None],
    ) -> None:
        self._mailbox = desk.around.mailbox
        self._residents = desk.around.residents
        self._committer = desk.committer
        self._clock = desk.clock
        self._turns = turns
        self._admission = admission
        self._entities = entities
        self._options = options
        self._cautious = cautious
        self._failed = failed
        self._pumps = 0
        self._crowd = Crowd(
            self._residents,
            options.max_resident_instances,
            partitions,
            stays=self._stays,
            drop=Resident.close,
        )

    def run(self) -> None:
        """Do all that waits in the mailbox, and send it to the store if that is free."""
        self._pumps += 1
        if not self._give_turns():
            return
        self._admission.read()
        if self._committer.flush() and (self._mailbox.late or self._entities.is_late):
            self._mailbox.arm()  # a new batch gathers: those that had their share of the old one go on
        self._crowd.thin_out()

    def _give_turns(self) -> bool:
        """False when that ended the partition object."""
        mailbox, residents, pumps = self._mailbox, self._residents, self._pumps
        deliveries = mailbox.deliveries
        now = self._clock.now()
        ready = mailbox.take_late()
        culprit: str | None = None
        try:
            while deliveries:
                delivery = deliveries.popleft()
                culprit = delivery.target
                resident = residents.get(culprit)
                if resident is None:
                    if culprit.startswith("@"):
                        self._entities.take(delivery)
                        continue
                    resident = self._admission.ask(delivery, now)
                    if resident is None:
                        continue
                else:
                    resident.queue.append(delivery)
                if resident.idle_since != pumps:
                    resident.idle_since = pumps
                    ready.append(resident)
            for resident in ready:
                culprit = resident.instance_id
                if resident.queue:
                    self._turn(resident, now)
            self._entities.work(now)
        except Exception as error:  # noqa: BLE001 - a bug of ours has the consequence of a broken invariant
            self._fail(error, self._entities.current or culprit)
            return False
        return True

    def _turn(self, resident: Resident, now: int) -> None:
        committer, options = self._committer, self._options
        if (
            resident.turns >= options.turns_per_batch
            or committer.gathering.size >= options.batch_bytes
            or (self._cautious and committer.busy)
        ):
            self._mailbox.postpone(resident)
            return
        self._turns.run(resident, now)
        if resident.queue:
            self._mailbox.postpone(resident)

    def give_turn(self, resident: Resident, now: int) -> bool:
        """Give one resident a turn now, outside of `run`; False when that ended the partition object."""
        try:
            self._turns.run(resident, now)
        except Exception as error:  # noqa: BLE001 - as in `run`
            self._fail(error, resident.instance_id)
            return False
        if resident.queue:
            self._mailbox.postpone(resident)
        self._mailbox.arm()
        return True

    def _fail(self, error: Exception, culprit: str | None) -> None:
        if not isinstance(error, InvariantError):
            _log.error("turn of instance '%s' failed inside the engine", culprit, exc_info=error)
            error = InvariantError("I11", culprit or "?", f"{type(error).__name__}: {error}")
        self._failed(error, culprit)

    def _stays(self, resident: Resident) -> bool:
        late = resident.instance_id in self._mailbox.late
        return resident.idle_since == self._pumps or not resident.idle or late
