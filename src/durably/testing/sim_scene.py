"""What the parts of a simulated world share: chance, time, the hub, the weather, and the report."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from durably.storage.memory import MemoryHub
from durably.testing.sim_loop import SimClock, SimLoop
from durably.testing.sim_store import FaultRates
from durably.testing.sim_trace import Trace


@dataclass
class Report:
    """What a seed did.

    Attributes:
        seed: Of this world.
        faults: What went wrong, by name.
        commits: Batches applied.
        instances: Instances started and acknowledged.
        reruns: Attempts of activities that ran more than once.
        transfers: Of a bank: those that were accepted.
        cut_sections: Of a bank: critical sections whose host was lost between the grant of a lock and the commit that
            gives it back.
        cut_grants: Those of them in which a grant was not durable yet.
        virtual_s: How long the world lasted.
        fingerprint: Equal for two runs of one seed, in one process.
        digest: Of a fleet: equal for two runs of one seed, in any two processes on one version of Python.
        epochs: Of a fleet: how often partitions have got an owner.
    """

    seed: int
    faults: Counter[str] = field(default_factory=Counter[str])
    commits: int = 0
    instances: int = 0
    reruns: int = 0
    transfers: int = 0
    cut_sections: int = 0
    cut_grants: int = 0
    virtual_s: float = 0.0
    fingerprint: int = 0
    digest: str = ""
    epochs: int = 0


class Scene:
    """One seed's world, as all of its parts see it.

    Args:
        seed: Decides everything.
        loop: Its time.

    Attributes:
        chance: The only source of chance; the order in which it is asked is what a seed stands for.
        broken: Instances whose activities fail until somebody mends them.
        storm: True while things go wrong.
        crashes: How often what was running may have been cut off.
        trouble: The first rule that was found broken, or None.
        trace: What has happened.
    """

    def __init__(self, seed: int, loop: SimLoop) -> None:
        self.report = Report(seed)
        self.loop = loop
        self.chance = random.Random(seed)  # noqa: S311 - the point is that it repeats
        self.clock = SimClock(loop)
        self.hub = MemoryHub()
        self.rates = FaultRates()
        self.broken: set[str] = set()
        self.storm = True
        self.crashes = 0
        self.trouble: BaseException | None = None
        self.trace = Trace(loop)

    def give_up(self, error: BaseException) -> None:
        """A rule is broken. What called this may swallow errors, so the world asks for it."""
        if self.trouble is None:
            self.trouble = error
            self.trace.add("world", f"a rule is broken: {error}")
