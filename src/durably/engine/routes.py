"""Messages between the partitions of one host: handed over in memory, once the commit that holds them is durable.

The row in the inbox of the other partition is the message; what is handed over only spares its owner a read. So nothing is
lost when nobody takes it here: whoever owns that partition, now or later, finds the row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from durably.engine.residents import Delivery


class Sent(NamedTuple):
    """Messages to other partitions, in one batch.

    Attributes:
        deliveries: In the order in which they were sent.
        sealed: The moment in which the batch was sealed, see `Routes.moment`.
        sender: The moment in which the partition object that sent them was born.
    """

    deliveries: list[Delivery]
    sealed: int
    sender: int


class Receiver(Protocol):
    """A partition object, as those that send to it see it."""

    @property
    def born(self) -> int:
        """The moment in which it was made, see `Routes.moment`."""
        ...

    @property
    def complete(self) -> int:
        """The moment in which the newest read of its whole inbox began that has returned."""
        ...

    def hand_in(self, delivery: Delivery) -> None:
        """Take a message whose row is durable, unless it came another way already."""
        ...

    def look(self) -> None:
        """Read what is in the inbox."""
        ...


class Routes:
    """Knows which partition an id belongs to, and which of them are in memory here.

    Args:
        partition_of: The partition of an id.
        receiver: The object of a partition in memory here, or None.
    """

    def __init__(
        self, partition_of: Callable[[str], int], receiver: Callable[[int], Receiver | None]
    ) -> None:
        self.partition_of = partition_of
        self.moment = 0
        """Orders what happens to partition objects of this host: it grows with each of them, and when one is not there."""
        self._receiver = receiver
        self._missed: dict[int, int] = {}
        """By partition: the moment in which a message to it was durable, and no object was there to take it."""

    def birth(self) -> int:
        """Another partition object is made: its moment."""
        self.moment += 1
        return self.moment

    def hand_over(self, sent: Sent, *, doubtful: bool) -> None:
        """Deliver what has become durable to partitions that are in memory here.

        Its owner looks into its inbox instead where the message may have come another way and be dealt with already: after
        a commit in doubt, and when the object was loaded after the batch had been sent. And where rows of the same sender
        may lie there unread, which the message must not overtake: those of owners before this one, and those that nobody
        took.
        """
        to_look: dict[int, Receiver] = {}
        for delivery in sent.deliveries:
            partition = self.partition_of(delivery.target)
            receiver = self._receiver(partition)
            if receiver is None:
                self._missed[partition] = self.birth()
            elif doubtful or receiver.born > sent.sealed or not self._knows_all(receiver, partition, sent):
                to_look[partition] = receiver
            else:
                receiver.hand_in(delivery)
        for receiver in to_look.values():
            receiver.look()

    def _knows_all(self, receiver: Receiver, partition: int, sent: Sent) -> bool:
        """What this sender has sent before was handed to the receiver, or it has read its inbox since."""
        return receiver.complete >= max(sent.sender, self._missed.get(partition, 0))
