"""What was in flight when a partition is loaded goes on: messages, instances, activities, timers, and suspects."""

from __future__ import annotations

from durably.core.commit import InboxRow
from durably.core.messages import ActivityDone, AttemptLost, StartInstance
from durably.engine.admission import Admission
from durably.engine.desk import Desk
from durably.engine.entities import Entities
from durably.engine.reads import Reads
from durably.engine.residents import Resident
from durably.engine.trials import Trials
from durably.engine.turns import Turns
from durably.storage.api import Snapshot


class Recovery:
    """Fills the memory of one partition from what the store has. Used once.

    Args:
        desk: What is shared with the parts of a turn.
        turns: Tries blocked instances again.
        admission: Takes instances in.
        trials: Judges suspects, and starts the activities that were in flight.
        entities: Count suspects among their operations.
        reads: Reads the instances of suspects.
    """

    def __init__(
        self,
        desk: Desk,
        turns: Turns,
        admission: Admission,
        *,
        trials: Trials,
        entities: Entities,
        reads: Reads,
    ) -> None:
        self._desk = desk
        self._around = desk.around
        self._clock = desk.clock
        self._turns = turns
        self._admission = admission
        self._trials = trials
        self._entities = entities
        self._reads = reads

    async def run(self, snapshot: Snapshot) -> None:
        """Go on with what a snapshot says. Nothing may have been delivered before."""
        trials = self._trials
        self._around.execution = snapshot.execution
        suspects = trials.suspected_instances()
        found = await self._reads.instances(suspects) if suspects else []
        suspected = await self._entities.suspects()
        missing = [suspect for suspect, stored in zip(suspects, found, strict=True) if stored is None]
        trials.begin(snapshot, self._clock.now(), missing)
        self._take_in(snapshot)
        for stored in found:
            if stored is not None and stored.row.instance_id not in self._around.residents:
                self._admission.settle_in(stored)
        self._admit_unborn()
        counted = self._entities.count_suspects(suspected, snapshot.inbox, self._clock.now())
        trials.settle(counted=counted)
        self._around.timers.start(snapshot.timers)
        self._around.mailbox.arm()

    def _take_in(self, snapshot: Snapshot) -> None:
        around = self._around
        around.take_in(snapshot.inbox)
        finished = {
            (body.execution_id, body.seq, body.attempt)
            for delivery in around.mailbox.deliveries
            if isinstance(body := delivery.body, ActivityDone | AttemptLost)
        }
        inbox: dict[str, list[InboxRow]] = {}
        for row in snapshot.inbox:
            inbox.setdefault(row.instance_id, []).append(row)
        for stored in snapshot.in_flight:
            resident = self._admission.settle_in(stored._replace(inbox=inbox.get(stored.row.instance_id, [])))
            if resident.state.started is not None:
                self._trials.start_tasks(resident, finished)
                self._ask_workers(resident)
                self._retry_blocked(resident)

    def _ask_workers(self, resident: Resident) -> None:
        if resident.detained and resident.state.untaken:
            self._trials.knock(resident)
        else:
            self._desk.ask_workers(resident)

    def _retry_blocked(self, resident: Resident) -> None:
        waits = resident.parked is not None or resident.pending is not None or resident.detained
        if resident.blocked is not None and not waits:
            self._turns.retry_blocked(resident, self._clock.now())
            if resident.queue:
                self._around.mailbox.postpone(resident)

    def _admit_unborn(self) -> None:
        """Suspects whose start is in the inbox are counted before anybody else has a turn, and may kill."""
        deliveries = self._around.mailbox.deliveries
        for delivery in list(deliveries) if self._trials.knows_unborn else ():
            if self._trials.is_unborn(delivery.target) and isinstance(delivery.body, StartInstance):
                deliveries.remove(delivery)
                resident = self._admission.nobody(delivery, self._clock.now())
                if resident is not None:
                    self._around.mailbox.postpone(resident)
