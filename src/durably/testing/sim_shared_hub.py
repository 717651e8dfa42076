"""The hub of a simulated fleet, in the only respect in which a database is worse than a hub in memory: its positions.

They are given when a request arrives, and seen when it is applied: so they appear out of order, as sequence numbers do.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager

from durably.clock import Clock
from durably.core.commit import InboxRow
from durably.storage.memory import MemoryHub


class SharedHub(MemoryHub):
    """A hub of several partitions with leases."""

    def __init__(self, partitions: int, clock: Clock, lease_us: int) -> None:
        self.told: set[int] | None = None
        """The partitions that a message has come for, while their owners are told; None: everybody is."""
        self._reserved: Iterator[int] = iter(())
        super().__init__(exclusive=False, partitions=partitions, clock=clock, lease_us=lease_us)

    def reserve(self, count: int) -> list[int]:
        """Positions for messages that have arrived and nobody sees yet."""
        self.newest_position += count
        return list(range(self.newest_position - count + 1, self.newest_position + 1))

    @contextmanager
    def at(self, positions: Sequence[int]) -> Generator[None]:
        """Around the moment in which they are seen."""
        self._reserved = iter(positions)
        try:
            yield
        finally:
            self._reserved = iter(())

    def _put(self, messages: Iterable[InboxRow]) -> None:
        for message in messages:
            position = next(self._reserved, None)
            if message.message_id not in self.inbox and message.message_id not in self.tombstones:
                position = self._next_position() if position is None else position
                self.inbox[message.message_id] = message._replace(position=position)

    def post(self, messages: Sequence[InboxRow]) -> bool:
        """See `Store.post`. Those are told whom it concerns."""
        self.told = {self.partition_of(row.instance_id) for row in messages}
        try:
            return super().post(messages)
        finally:
            self.told = None

    def read_inbox(self, number: int, after: int) -> list[InboxRow]:
        """See `Store.read_inbox`."""
        return sorted(super().read_inbox(number, after), key=lambda row: row.position)

    def read_messages(self, instance_id: str) -> list[InboxRow]:
        """See `Store.read_messages`."""
        return sorted(super().read_messages(instance_id), key=lambda row: row.position)
