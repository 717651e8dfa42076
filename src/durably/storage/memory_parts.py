"""What a hub in memory keeps of its partitions, hosts and shared activities, beside their rows."""

from __future__ import annotations

from dataclasses import dataclass, field

from durably.core.commit import TaskRow
from durably.storage.api import HostReport, Lease


@dataclass
class MemoryPartition:
    """A partition.

    Attributes:
        number: 0 to partitions - 1.
        epoch: Of the newest lease.
        batch: Number of the newest batch applied.
        batch_epoch: The epoch in which that was.
        execution: The highest execution number ever used.
        lease: The lease, until it is released; it may have run out.
        holder: The store object that has it.
        host_id: The id of that object, also when it has it no more.
        lease_until: When it runs out; None: never.
        owner: Who has it, or had it last.
        held: Acquired and not released since; stays when the holder dies.
        running: By place: epoch and entry, see `MemoryWorkLog`.
    """

    number: int
    epoch: int = 0
    batch: int = 0
    batch_epoch: int = 0
    execution: int = 0
    lease: Lease | None = None
    holder: object = None
    host_id: str = ""
    lease_until: int | None = None
    owner: str = ""
    held: bool = False
    running: dict[int, tuple[int, bytes]] = field(default_factory=dict[int, tuple[int, bytes]])

    def let_go(self) -> None:
        """Nobody has the lease any more."""
        self.lease = self.holder = self.lease_until = None


@dataclass
class MemoryHost:
    """What a host said of itself; `until` is when it is forgotten, None: never."""

    report: HostReport
    since: int
    seen_at: int
    until: int | None
    told_to_drain: bool = False


@dataclass
class MemoryTask:
    """An attempt.

    Attributes:
        row: As it was offered.
        deliveries: See `Claim.delivery`.
        claimer: The id of the store object that has it; empty: nobody.
        token: Of the newest claim.
        until: When that runs out; None: never.
    """

    row: TaskRow
    deliveries: int = 0
    claimer: str = ""
    token: int = 0
    until: int | None = None

    def let_go(self) -> None:
        """It is as if it had not been claimed."""
        self.claimer, self.until = "", None
        self.deliveries -= 1


class MemoryWorkLog:
    """A `WorkLog` on the dictionary of a hub."""

    def __init__(self, running: dict[int, tuple[int, bytes]], epoch: int) -> None:
        self._running = running
        self._epoch = epoch
        self._next = max(running, default=-1) + 1
        self._closed = False

    @property
    def left(self) -> list[bytes]:
        """See `WorkLog.left`."""
        return [entry for epoch, entry in self._running.values() if epoch != self._epoch]

    def put(self, entry: bytes) -> int:
        """See `WorkLog.put`."""
        if self._closed:
            return -1
        place, self._next = self._next, self._next + 1
        self._running[place] = (self._epoch, entry)
        return place

    def drop(self, place: int) -> None:
        """See `WorkLog.drop`."""
        if not self._closed:
            self._running.pop(place, None)

    def settle(self) -> None:
        """See `WorkLog.settle`."""
        if not self._closed:
            for place in [place for place, (epoch, _) in self._running.items() if epoch != self._epoch]:
                del self._running[place]

    def close(self) -> None:
        """What is running stays as it is."""
        self._closed = True
