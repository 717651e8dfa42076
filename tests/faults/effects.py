"""What activities did to the outside world: a side file that is written before anybody is told, and survives its writer."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from durably.program.activity_context import ActivityContext

LINE_BYTES = 256
"""A line never crosses a page: a kill between the two pages of one write leaves the first half of it (observed)."""


class SideFile:
    """The pen of one life of the host.

    Args:
        path: Of the file; several lives write to it, one after the other.
        life: How many hosts died before this one.
    """

    def __init__(self, path: str | Path, life: int) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._life = life

    def note(self, what: str, ctx: ActivityContext) -> None:
        line = f"{self._life} {what} {ctx.idempotency_key} {ctx.attempt} {ctx.delivery}".encode()
        assert len(line) < LINE_BYTES
        os.write(self._file, line.ljust(LINE_BYTES - 1) + b"\n")
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)


class Run(NamedTuple):
    """One execution of an attempt."""

    life: int
    delivery: int


class Attempt(NamedTuple):
    """An attempt of a logical call."""

    key: str
    number: int


class Effects(NamedTuple):
    """Each attempt with its runs, and how often it came to its end."""

    runs: dict[Attempt, list[Run]]
    ended: Counter[Attempt]

    @property
    def reruns(self) -> int:
        """Runs beyond the first of each attempt."""
        return sum(len(found) - 1 for found in self.runs.values())


def read_effects(path: Path) -> Effects:
    runs: dict[Attempt, list[Run]] = defaultdict(list)
    ended: Counter[Attempt] = Counter()
    for line in path.read_text().splitlines() if path.exists() else ():
        words = line.split()
        assert len(words) == 5, f"the side file {path} has a line that nobody wrote like this: {line!r}"
        life, what, key, number, delivery = words
        attempt = Attempt(key, int(number))
        if what == "start":
            runs[attempt].append(Run(int(life), int(delivery)))
        else:
            ended[attempt] += 1
    return Effects(runs, ended)
