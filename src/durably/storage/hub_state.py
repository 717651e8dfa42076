"""What a hub is like as a whole, for people and programs that look after it."""

from __future__ import annotations

from typing import NamedTuple


class SchemaStep(NamedTuple):
    """A change of the schema.

    Attributes:
        number: Its place among all.
        version: Of the schema that it belongs to.
        phase: ``"pre"``: made before the hosts of this version come. ``"post"``: made when the last older one is gone.
        name: A word or two.
    """

    number: int
    version: int
    phase: str
    name: str

    def __str__(self) -> str:
        return f"{self.number} ({self.name}, {self.phase} of version {self.version})"


class PartitionState(NamedTuple):
    """Who owns a partition.

    Attributes:
        partition: Its number.
        owner: The live host, or None.
        epoch: How often it was acquired.
        batch: Number of its newest batch.
        lease_left_s: Seconds until another host may take it; None when nobody owns it, or until its owner ends.
    """

    partition: int
    owner: str | None
    epoch: int
    batch: int
    lease_left_s: float | None


class HubState(NamedTuple):
    """A hub at one moment.

    Attributes:
        url: Without secrets.
        hub_id: Which hub it is, in hexadecimal digits; a copy has the same.
        server: What it is stored by.
        version: Of its schema.
        known: The version that this installation writes.
        pending: What is to be done to the schema before hosts of this installation serve it, and behind that.
        partitions: All of them.
        instances: How many, by status.
        rows: How many of other things there are: messages, timers, entities, and so on.
        sizes: Bytes on disk, by what takes them.
    """

    url: str
    hub_id: str
    server: str
    version: int
    known: int
    pending: list[SchemaStep]
    partitions: list[PartitionState]
    instances: dict[str, int]
    rows: dict[str, int]
    sizes: dict[str, int]

    @property
    def hosts(self) -> list[str]:
        """Those that own a partition."""
        return sorted({one.owner for one in self.partitions if one.owner is not None})
