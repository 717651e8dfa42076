"""A whole hub as a stream of rows, the same for every provider.

First comes a `DumpHead`, then rows in chunks, kind by kind in the order of `KINDS`. Rows are as they are stored: what is
compressed or encrypted stays so, and no key is needed. Encrypted values are bound to the hub, and those of histories to the
number of their execution; so a hub that is made of a dump takes over the id of the hub, and every number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from durably.core.commit import (
    EntityRow,
    HistoryRow,
    InboxRow,
    InstanceRow,
    ParkedMessage,
    TimerRow,
    Tombstone,
)

EXECUTIONS_BITS: Final = 48
"""Each partition numbers its executions in a block of so many bits: they are unique in the hub, and stay so when partitions
are merged or divided. Enough for 100,000 executions a second over 89 years; the blocks of 32 partitions end at 2^53."""


class Positions(NamedTuple):
    """The highest place ever given to a row of a kind; it is not given again, since page tokens rely on it."""

    instances: int
    inbox: int
    parked: int


class DumpHead(NamedTuple):
    """What a hub is, besides its rows.

    Attributes:
        hub_id: See `HubIdentity`.
        keys: See `HubIdentity`.
        epoch: The highest one of its partitions.
        batch: The highest number of a batch of its partitions.
        executions: For each partition, the highest execution number ever used.
        positions: See there.
    """

    hub_id: bytes
    keys: dict[str, bytes]
    epoch: int
    batch: int
    executions: list[int]
    positions: Positions


class PlacedInstance(NamedTuple):
    """An instance, and its place in the order of creation."""

    position: int
    row: InstanceRow


class OwnedHistory(NamedTuple):
    """A history row, and whose it is: of the current execution of the instance, or of one that was rewound."""

    instance_id: str
    row: HistoryRow


class DumpRows(NamedTuple):
    """Some rows of a kind; one at least."""

    kind: str
    rows: Sequence[Any]


DumpChunk: TypeAlias = DumpHead | DumpRows

KINDS: Final[dict[str, type[Any]]] = {
    "instances": PlacedInstance,  # by position
    "history": OwnedHistory,  # the rows of an execution together, by number
    "timers": TimerRow,
    "entities": EntityRow,
    "inbox": InboxRow,  # by position
    "parked": ParkedMessage,  # by position
    "tombstones": Tombstone,
}
"""The type of the rows of each kind, in the order in which they come."""

CHUNK_ROWS: Final = 500
"""Of a chunk at most: more gain nothing."""

CHUNK_BYTES: Final = 1 << 20
"""A chunk ends when it has so many; so it is never much larger than its largest row."""


def base_of(partition: int) -> int:
    """The number before the first execution of a partition."""
    return partition << EXECUTIONS_BITS


class Executions:
    """Finds out from where on each partition of a new hub numbers its executions: behind all that were used in its block.

    Args:
        partitions: Of the new hub. The blocks behind the last one are left to that.
        used: The highest numbers of the hub before, see `DumpHead`.
    """

    def __init__(self, partitions: int, used: Iterable[int]) -> None:
        self._last = partitions - 1
        self._newest = [base_of(partition) for partition in range(partitions)]
        for execution in used:
            self.note(execution)

    def note(self, execution: int) -> None:
        """An execution has this number."""
        partition = min(execution >> EXECUTIONS_BITS, self._last)
        self._newest[partition] = max(self._newest[partition], execution)

    def note_rows(self, chunk: DumpRows) -> None:
        """Some rows were copied."""
        if chunk.kind == "instances":
            for placed in chunk.rows:
                self.note(placed.row.execution)
                for base in bases_of(placed.row):
                    self.note(base)
        elif chunk.kind == "entities":
            for row in chunk.rows:
                self.note(row.execution)

    @property
    def newest(self) -> Sequence[int]:
        """For each partition, the highest number that counts as used."""
        return self._newest


def bases_of(row: InstanceRow) -> list[int]:
    """The executions of an instance that were rewound, and whose histories stay."""
    return [] if row.bases is None else msgspec.json.decode(row.bases, type=list[int])


def size_of(columns: Iterable[object]) -> int:
    """How many bytes of payload a row has, as flat columns."""
    return sum(len(value) for value in columns if isinstance(value, bytes))
