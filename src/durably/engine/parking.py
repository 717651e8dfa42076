"""What an operator does with what is parked: try it again, or give it up."""

from __future__ import annotations

import logging
from collections.abc import Callable

from durably.core.commit import InboxRow, ParkedMessage
from durably.core.entities import is_entity
from durably.core.events import AttemptInterrupted, TurnInterrupted
from durably.core.history import call_in
from durably.core.messages import ActivityDone, Discard, EntityDone, Redrive, Terminate
from durably.engine.desk import Desk
from durably.engine.lives import Lives
from durably.engine.reads import Reads
from durably.engine.residents import Delivery, Resident
from durably.engine.trials import record_turn
from durably.errors import FailureDetails, InstanceStateError, UsageError, WorkDiscardedError

_log = logging.getLogger("durably.engine")


class Parking:
    """Parked instances and messages of one partition.

    Args:
        desk: What is shared with the other parts of a turn.
        lives: Ends instances.
        reads: Reads messages that were set aside.
        read_inbox: Asks for a look into the inbox.
    """

    def __init__(self, desk: Desk, lives: Lives, reads: Reads, read_inbox: Callable[[], None]) -> None:
        self._desk = desk
        self._lives = lives
        self._condemned = desk.around.condemned
        self._reads = reads
        self._read_inbox = read_inbox
        self._ordered: set[str] = set()
        """Messages about which an order is under way: whatever comes after it finds them gone."""

    def redrive(self, resident: Resident, delivery: Delivery, now: int) -> None:
        """The instance goes on, and whatever was counted against it is forgotten."""
        if not self._can(resident, delivery, "redrive"):
            return
        state = resident.state
        if state.started is None and resident.pending is None:
            expected = "a history that can be read; restore a backup, or discard the instance"
            self._refuse(resident, delivery, "redrive", expected)
            return
        self._unpark(resident, now)
        commit = self._desk.commit_of(resident)
        for scheduled, event in state.poison():
            commit.record(AttemptInterrupted(scheduled.seq, event.attempt, 0))
            commit.activities.append((scheduled, event.attempt))
        if resident.interrupted_turn is not None:
            record_turn(resident, commit, TurnInterrupted(0))
        self._desk.consumed(delivery)
        self._desk.go_on(resident)

    def discard(self, resident: Resident, delivery: Delivery, now: int) -> None:
        """The poisonous calls fail and the orchestration goes on; an instance without such calls is terminated."""
        if not self._can(resident, delivery, "discard"):
            return
        cause = resident.parked or ""
        poison = resident.state.poison()
        started = resident.state.started
        self._condemned.pop(resident.instance_id, None)
        if started is None or not poison:
            self._lives.terminate(resident, delivery, Terminate(f"discarded by an operator. {cause}"))
            return
        self._unpark(resident, now)
        self._desk.consumed(delivery)
        self._desk.go_on(resident)
        for scheduled, event in reversed(poison):
            failure = FailureDetails.of(
                WorkDiscardedError(f"activity '{scheduled.name}' was discarded by an operator. {cause}")
            )
            done = ActivityDone(started.execution_id, scheduled.seq, event.attempt, None, failure)
            resident.queue.appendleft(Delivery(resident.instance_id, done))

    def message(self, delivery: Delivery, body: Redrive | Discard) -> None:
        """Put a message back into the inbox, or delete it; one that is gone meanwhile is ignored."""
        message_id = body.message_id
        if message_id is None or message_id in self._ordered:
            self._desk.consumed(delivery)
            return
        self._ordered.add(message_id)
        if isinstance(body, Discard) and is_entity(delivery.target):
            self._reads.begin(lambda: self._discard_operation(delivery, message_id))
            return
        gathering = self._desk.committer.gathering
        if isinstance(body, Redrive):
            self._condemned.pop(delivery.target, None)
            gathering.unparked.append(message_id)
            self._desk.once_durable(self._read_inbox)
        else:
            gathering.parked_dropped.append(message_id)
        self._obeyed(delivery, message_id)

    async def _discard_operation(self, delivery: Delivery, message_id: str) -> None:
        """Delete a message to an entity; the orchestration that waits for its result, if one does, gets a failure."""
        rows = await self._reads.parked(message_id)
        if self._reads.closed:
            return
        for row in rows:
            self._desk.committer.gathering.parked_dropped.append(message_id)
            call = call_in(row.body)
            if call is not None and call.caller is not None:
                error = WorkDiscardedError(
                    f"operation '{call.operation}' of entity '{row.instance_id}' was discarded by an operator. {row.cause}"
                )
                caller = call.caller
                done = EntityDone(caller.execution_id, caller.seq, None, FailureDetails.of(error))
                self._desk.around.send(caller.instance_id, done)
        self._obeyed(delivery, message_id)
        self._desk.around.mailbox.arm()

    def _obeyed(self, delivery: Delivery, message_id: str) -> None:
        self._desk.consumed(delivery)
        self._desk.once_durable(lambda: self._ordered.discard(message_id))

    def unreadable(self, row: InboxRow, why: str, now: int) -> None:
        """A message in the inbox is none that we know: it is set aside, and whoever sent it is told."""
        cause = (
            f"It cannot be read ({why}): it is damaged, or of a newer version of durably. Deploy that one and redrive it, "
            "or discard it"
        )
        self.set_aside(row, cause, now)
        told = UsageError(
            f"Message '{row.message_id}' to instance '{row.instance_id}' was set aside: {cause}"
        )
        stands_for_it = Delivery(row.instance_id, Redrive(), row=row.message_id, stored=True)
        self._desk.consumed(stands_for_it, told)

    def set_aside(self, row: InboxRow, cause: str, now: int) -> None:
        """Keep a message that nobody can deal with; its row in the inbox has to be dropped with the same commit."""
        _log.error("message '%s' to instance '%s' is set aside: %s", row.message_id, row.instance_id, cause)
        self._desk.committer.gathering.parked.append(
            ParkedMessage(row.message_id, row.instance_id, row.at, row.body, cause, now)
        )

    # --- inside ------------------------------------------------------------------------------------------------------

    def _unpark(self, resident: Resident, now: int) -> None:
        resident.parked = None
        self._condemned.pop(resident.instance_id, None)
        self._desk.touch(resident, now)

    def _can(self, resident: Resident, delivery: Delivery, operation: str) -> bool:
        if resident.parked is None or resident.state.ended:
            self._refuse(resident, delivery, operation, "a parked instance")
            return False
        return True

    def _refuse(self, resident: Resident, delivery: Delivery, operation: str, expected: str) -> None:
        status = resident.state.status
        self._desk.consumed(delivery, InstanceStateError(resident.instance_id, status, operation, expected))
