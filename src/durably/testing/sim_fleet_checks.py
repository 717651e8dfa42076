"""What must be true of a fleet: who may run what, and who owns what in the end."""

from __future__ import annotations

from typing import NamedTuple

from durably.testing.sim_checks import RETRYING, RETRYING_THRICE, Runs
from durably.testing.sim_fleet import Fleet
from durably.testing.sim_scene import Scene
from durably.testing.sim_shared_hub import SharedHub


class Life(NamedTuple):
    """One owner of a partition, with one object of it in memory. In each of its lives an attempt may be begun anew."""

    host: str
    epoch: int
    reloads: int


class FleetRuns(Runs):
    """The same, where several hosts may run something at once: one of them has lost its partition, and does not know yet."""

    def __init__(self, scene: Scene, hub: SharedHub) -> None:
        super().__init__(scene)
        self.fleet: Fleet | None = None
        self._hub = hub
        self._lives: dict[str, list[Life]] = {}

    def note(self, key: str) -> None:
        """Remember who runs it."""
        member = None if self.fleet is None else self.fleet.running
        if member is not None:
            number = self._hub.partition_of(key.rsplit(":", 2)[0])
            life = Life(member.name, member.leases.get(number, -1), member.reloads[number])
            self._lives.setdefault(key, []).append(life)
            self._scene.trace.add(member.name, f"runs {key}")

    def judge(self) -> None:
        """C5: nothing ran more often than retries and changes of its owner explain.

        Raises:
            AssertionError: It did.
        """
        for key, lives in self._lives.items():
            self._scene.report.reruns += len(lives) - 1
            tries = 3 if key.startswith(RETRYING_THRICE) else 2 if key.startswith(RETRYING) else 1
            assert len(lives) <= tries + len(set(lives)) - 1, f"{key} ran too often: {lives} (C5)"


def misowned(fleet: Fleet, hub: SharedHub) -> str | None:
    """What is wrong with who owns what, or None.

    Each partition has one owner, who knows it, nobody else believes to own it, and shares are fair.
    """
    believed = [(number, epoch) for member in fleet.members for number, epoch in member.leases.items()]
    actual = [(partition.number, partition.epoch) for partition in hub.partitions if hub.is_live(partition)]
    if sorted(believed) != actual or len(actual) != len(hub.partitions):
        return f"hosts believe to own {sorted(believed)}, and own {actual}"
    for member in fleet.members:
        for number in member.leases:
            if hub.partitions[number].holder is not member.store:
                return f"partition {number} is not that of {member.name}, which serves it"
    sizes = [len(member.leases) for member in fleet.members]
    if max(sizes) - min(sizes) > 1:
        return f"shares are not fair: {sizes}"
    return None
