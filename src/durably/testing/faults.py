"""What a test lets go wrong: deaths of the process, and activities whose results come twice, late or in another order."""

from __future__ import annotations

import random
from typing import Literal

Kind = Literal["commit", "started", "finished", "duplicate", "operation", "delay", "reorder"]

ANYTHING = "*"
"""Stands for the name of every activity."""


class Fault:
    """Something that goes wrong, once or more often.

    Attributes:
        kind: What.
        name: Of the activity or operation that it concerns, or ``"*"``.
        happened: How often it has.

    Args:
        kind: What.
        name: See above.
        times: How often it may happen, or None for always.
        every: Of how many occasions it takes the last one.
        delay_us: How much time it takes, in microseconds.
    """

    def __init__(
        self, kind: Kind, name: str = ANYTHING, *, times: int | None = 1, every: int = 1, delay_us: int = 0
    ) -> None:
        self.kind: Kind = kind
        self.name = name
        self.happened = 0
        self.delay_us = delay_us
        self._times = times
        self._every = self._left = every

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}: happened {self.happened} times>"

    def strikes(self) -> bool:
        """Count an occasion down; True when it is the one."""
        if self._times is not None and self.happened >= self._times:
            return False
        self._left -= 1
        if self._left > 0:
            return False
        self._left = self._every
        self.happened += 1
        return True


class Faults:
    """All that a test has arranged to go wrong."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Arrange it."""
        self._faults.append(fault)
        return fault

    def strikes(self, kind: Kind, *names: str) -> bool:
        """True when something of this kind happens to an activity or an operation, now; it goes by these names."""
        return bool([fault for fault in self._concerning(kind, *names) if fault.strikes()])

    def delay_us(self, name: str, chance: random.Random) -> int:
        """How much later the result of an activity comes, in microseconds."""
        late = sum(fault.delay_us for fault in self._concerning("delay", name) if fault.strikes())
        for fault in self._concerning("reorder", name):
            if fault.strikes():
                late += chance.randrange(1, fault.delay_us)
        return late

    def _concerning(self, kind: Kind, *names: str) -> list[Fault]:
        return [one for one in self._faults if one.kind == kind and one.name in {*names, ANYTHING}]
