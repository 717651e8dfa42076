"""What a partition holds in memory, and what a turn may do with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from durably.core.commit import InboxRow, TimerRow
from durably.core.messages import TIMER_START, MessageBody
from durably.engine.absent import Absent
from durably.engine.inbox import Inbox
from durably.engine.mailbox import Mailbox
from durably.engine.residents import Delivery, Resident
from durably.engine.timer_window import TimerWindow


class Surroundings:
    """The state of one partition, but for what is gathered for the store.

    Args:
        mailbox: What waits for the next pump.
        inbox: Which messages have rows.
        timers: Those that are due soon.
        condemned: Instances to park when they come into memory, with the cause; shared with the host.
        is_here: Whether an id belongs to this partition; None where there is one only.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        inbox: Inbox,
        timers: TimerWindow,
        condemned: dict[str, str],
        is_here: Callable[[str], bool] | None = None,
    ) -> None:
        self.residents: dict[str, Resident] = {}
        """Who is in memory. The order is that of arrival; see `Pump` for what it is good for."""
        self.absent = Absent()
        self.mailbox = mailbox
        self.inbox = inbox
        self.timers = timers
        self.condemned = condemned
        self._is_here = is_here
        self.execution = 0
        """The newest execution number; set when the partition is loaded."""

    def send(self, target: str, body: MessageBody) -> None:
        """Put a message on its way. Within the partition it gets a row if the batch ends before it is consumed.

        To another partition it goes as a row of this batch (rule 1): what is in memory there may be in another process.
        """
        delivery = Delivery(target, body)
        if self._is_here is not None and not self._is_here(target):
            self.inbox.send_away(delivery)
            return
        self.inbox.keep(delivery)
        self.mailbox.put(delivery)

    def hand_in(self, delivery: Delivery) -> None:
        """Take a message that another partition of this host has sent, once that is durable."""
        if self.inbox.hand_in(delivery):
            self.mailbox.put(delivery)

    def take_in(self, rows: Iterable[InboxRow]) -> None:
        """Deliver the messages of a read of the whole inbox, or of all behind the hint, unless they are held already."""
        for delivery in self.inbox.read(rows):
            self.mailbox.put(delivery)

    def keep(self, delivery: Delivery, *, first: bool = False) -> None:
        """Give a message that is not consumed now a row in the inbox, unless it has one; see `Inbox.keep`."""
        self.inbox.keep(delivery, first=first)

    def forget(self, delivery: Delivery) -> None:
        """A message has been dealt with before it got a row."""
        self.inbox.forget(delivery)

    def redirect(self, delivery: Delivery) -> None:
        """Send a message the usual way again, before all others: its target is not what it was."""
        self.mailbox.put_first(delivery)

    def new_execution(self) -> int:
        """The next execution number."""
        self.execution += 1
        return self.execution

    def replace(self, resident: Resident) -> None:
        """Make this the resident of its id."""
        self.residents[resident.instance_id] = resident

    def is_resident(self, resident: Resident) -> bool:
        """False for one that is gone, whether or not another took its place."""
        return self.residents.get(resident.instance_id) is resident

    def leave(self, resident: Resident) -> None:
        """Take a resident out of memory, if it is still there."""
        if self.is_resident(resident):
            del self.residents[resident.instance_id]

    def drop(self, resident: Resident) -> None:
        """Take a resident out of memory that the gathering batch removes."""
        self.leave(resident)
        self.condemned.pop(resident.instance_id, None)  # who comes after it has done nothing yet
        self.absent.vanishes(resident.instance_id)

    def reread(self, resident: Resident, delivery: Delivery) -> None:
        """Deal with a message to an ended instance, and with what waits behind it, once its rows are durable and read."""
        del self.residents[resident.instance_id]
        self.absent.reread(resident, delivery)

    def rearm(self, resident: Resident) -> None:
        """Arm the timers of an instance that goes on after it was closed."""
        pending = resident.pending
        if pending is not None and pending.start_at is not None:
            start_at = pending.start_at
            self.timers.arm(TimerRow(resident.execution, -1, TIMER_START, start_at, resident.instance_id))
        for seq, kind, due_at in resident.state.timers():
            self.timers.arm(TimerRow(resident.execution, seq, kind, due_at, resident.instance_id))

    def close(self) -> None:
        """Tear all live code down."""
        for resident in self.residents.values():
            resident.close()
        self.residents.clear()
