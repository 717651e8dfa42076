"""Operations of entities that were running when a process died: counted, tried again in small company, set aside in the end.

A count belongs to a message, so that its neighbours in a batch stay innocent. A message that was performed in the batch that
brought it had no row yet: it is known again by its mark when its sender repeats it, and from then on each message to
its entity is durable before it is performed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from durably.core.commit import InboxRow
from durably.core.entities import Interrupted, mark
from durably.core.history import encode_body
from durably.core.messages import CallEntity
from durably.core.operations import Watched
from durably.engine.company import Company
from durably.engine.desk import Desk
from durably.engine.entity_residents import EntityResident
from durably.engine.parking import Parking
from durably.engine.residents import Delivery
from durably.engine.suspicion import Suspicion
from durably.errors import EntityOperationFailedError, FailureDetails, WorkParkedError

_MARK_KEPT_US = 10 * 60 * 1_000_000
"""A sender that was cut off repeats its message as soon as its host is back; what nobody repeated by then will not come."""


class EntityTrials:
    """The suspects among the operations of one partition object.

    Args:
        desk: What is shared with the other parts of a turn.
        parking: Sets messages aside.
        company: Says when suspects may run.
        suspicion: Who is suspected.
        max_deliveries: Deaths after which a suspect is set aside.
    """

    def __init__(
        self, desk: Desk, parking: Parking, company: Company, suspicion: Suspicion, max_deliveries: int
    ) -> None:
        self.wake: Callable[[EntityResident], None] = lambda _: None
        """Has an entity look at its messages again; set by whoever owns the entities."""
        self._desk = desk
        self._parking = parking
        self._company = company
        self._suspicion = suspicion
        self._max = max_deliveries
        self._closed = False
        self._uncounted: set[EntityResident] = set()
        self._becoming_durable: set[Delivery] = set()
        self._durable: set[Delivery] = set()
        self._applied: set[Delivery] = set()
        self._admitted: set[Delivery] = set()

    def close(self) -> None:
        """The partition object is gone; whoever was being tried is looked at by the next one."""
        self._closed = True
        for delivery in [*self._applied, *self._admitted]:
            self._company.leave(delivery)

    # --- recovery ----------------------------------------------------------------------------------------------------

    def suspected_entities(self) -> list[str]:
        """Whose operations are suspected: their rows have to be read, so that they are counted now."""
        return sorted({entity for entity, _, _ in self._suspicion.operations})

    def count(self, resident: EntityResident, inbox: Mapping[str, InboxRow], now: int) -> bool:
        """Count what was left against the operations of an entity; True when its row, or the inbox, changes.

        Args:
            resident: The entity.
            inbox: All messages of the partition, by id.
            now: The clock.
        """
        if resident.corrupt is not None:
            return False
        before = resident.state.interrupted
        parked = False
        for (entity, message, marked), deliveries in self._suspicion.operations.items():
            if entity != resident.instance_id or not message:
                continue  # without a message: it died with the process
            row = inbox.get(message)
            if row is None:
                self._note(resident, marked, 1, now)  # of the batch that never was
            elif deliveries < self._max:
                self._note(resident, message, deliveries, now)
            else:
                self._park(resident, row, marked, deliveries, now)
                parked = True
        changed = resident.state.interrupted != before
        if changed or parked:
            self._uncounted.add(resident)
            self._desk.once_durable(lambda: self._counted(resident))
        return changed or parked

    def _counted(self, resident: EntityResident) -> None:
        self._uncounted.discard(resident)
        self._wake(resident)

    @staticmethod
    def _note(resident: EntityResident, key: str, deliveries: int, now: int) -> None:
        state = resident.state
        if state.deliveries(key) < deliveries:
            others = tuple(one for one in state.interrupted if one.key != key)
            state.interrupted = (*others, Interrupted(key, deliveries, now))

    def _park(self, resident: EntityResident, row: InboxRow, marked: str, deliveries: int, now: int) -> None:
        """Set a message aside; whoever waits for it in an orchestration goes on waiting, as for a parked activity."""
        mailbox = self._desk.around.mailbox
        delivery = next((one for one in mailbox.deliveries if one.row == row.message_id), None)
        if delivery is None:
            return  # nobody can read it any more: it is set aside for that
        mailbox.deliveries.remove(delivery)
        _forget(resident, row.message_id, marked)
        call = delivery.body
        operation = call.operation if isinstance(call, CallEntity) else "?"
        cause = (
            f"Operation '{operation}' was running each of the {deliveries} times when its process died, or was ended "
            "because it hung. Deploy a version that survives it and redrive the message, or discard it"
        )
        self._parking.set_aside(row, cause, now)
        told = None
        if isinstance(call, CallEntity) and call.wanted:
            error = WorkParkedError(
                f"message '{row.message_id}' was set aside and may be performed later. {cause}"
            )
            told = EntityOperationFailedError(FailureDetails.of(error), row.instance_id, operation)
        self._desk.consumed(delivery, told)

    # --- trials ------------------------------------------------------------------------------------------------------

    def watched(self, resident: EntityResident, delivery: Delivery, call: CallEntity) -> Watched | None:
        """How an operation is to be noted that runs now; None in normal life."""
        if not self._suspicion.watching:
            return None
        if not call.wanted:
            self._desk.around.keep(delivery)  # it may take its time, and have a row then
        message = delivery.row
        if message is None:
            return Watched("", "", 1)
        marked = mark(encode_body(call))
        before = resident.state.deliveries(message, marked)
        if not before and message in self._suspicion.recovered_messages:
            before = 1
        return Watched(message, marked, before + 1)

    def is_safe(self, resident: EntityResident, delivery: Delivery, call: CallEntity) -> bool:
        """False as long as a message has to wait until it is durable, so that it can be named; it is looked at again."""
        if not resident.state.interrupted:
            return True
        if resident in self._uncounted:
            return False
        durable = delivery.at is not None or delivery in self._durable
        if durable or (call.wanted and delivery.row is None):  # the latter dies with its caller
            return True
        if delivery not in self._becoming_durable:
            self._becoming_durable.add(delivery)
            self._desk.around.keep(delivery)
            self._desk.once_durable(lambda: self._is_durable(resident, delivery))
        return False

    def _is_durable(self, resident: EntityResident, delivery: Delivery) -> None:
        self._becoming_durable.discard(delivery)
        self._durable.add(delivery)
        self._wake(resident)

    def admits(self, resident: EntityResident, delivery: Delivery, call: CallEntity) -> bool:
        """False for a suspect that has to wait for company; it is looked at again. Ask when it could run otherwise."""
        if not resident.state.interrupted or delivery.row is None or delivery in self._admitted:
            return True
        deliveries = resident.state.deliveries(delivery.row, mark(encode_body(call)))
        if not deliveries:
            return True
        if self._suspicion.forgiven:
            return False  # it keeps its row, and is tried by the next host, which can tell what it does
        self._applied.add(delivery)
        self._company.apply(delivery, deliveries, lambda: self._admit(resident, delivery))
        return False

    def _admit(self, resident: EntityResident, delivery: Delivery) -> None:
        self._applied.discard(delivery)
        if self._closed or self._suspicion.forgiven:
            self._company.leave(delivery)
            return
        self._admitted.add(delivery)
        self._wake(resident)

    def over(self, resident: EntityResident, delivery: Delivery, call: CallEntity, now: int) -> bool:
        """An operation has ended: it is innocent as soon as that is durable. True when the row of its entity changes."""
        self._durable.discard(delivery)
        if delivery in self._admitted:
            self._desk.once_durable(lambda: self._acquit(delivery))
        elif (
            delivery in self._applied
        ):  # what was counted is forgotten: it was another one that it was taken for
            self._applied.discard(delivery)
            self._company.leave(delivery)
        before = resident.state.interrupted
        if not before:
            return False
        _forget(resident, delivery.row or "", mark(encode_body(call)))
        resident.state.interrupted = tuple(
            one for one in resident.state.interrupted if not one.is_marked or now - one.at < _MARK_KEPT_US
        )
        return resident.state.interrupted != before

    def _acquit(self, delivery: Delivery) -> None:
        self._admitted.discard(delivery)
        self._company.leave(delivery)

    def _wake(self, resident: EntityResident) -> None:
        if not self._closed:
            self.wake(resident)


def _forget(resident: EntityResident, *keys: str) -> None:
    state = resident.state
    state.interrupted = tuple(one for one in state.interrupted if one.key not in keys)
