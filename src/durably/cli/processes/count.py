"""How many processes are wanted: ``4``, ``auto``, or ``1:8``."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

PROCESSES_MAX: Final = 256

_WRITTEN: Final = re.compile(r"(auto|[0-9]{1,5})(?::(auto|[0-9]{1,5}))?")


class Count(NamedTuple):
    """Between how many and how many; the same twice: always so many."""

    least: int
    most: int

    @property
    def is_fixed(self) -> bool:
        """True when nothing is to be decided."""
        return self.least == self.most

    def __str__(self) -> str:
        return str(self.least) if self.is_fixed else f"{self.least}:{self.most}"


class CountType(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] - click 8.1 has none
    """What ``--processes`` takes."""

    name = "N|auto|MIN:MAX"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Count:
        """Read it."""
        if isinstance(value, Count):
            return value
        text = str(value).strip().lower()
        found = _WRITTEN.fullmatch(text)
        least, most = (_number(part) for part in (found[1], found[2] or found[1])) if found else (1, 0)
        is_range = found is not None and found[2] is not None
        if least > most or most < 1 or (least < 1 and not is_range):
            self.fail(
                f"{text[:40]!r} is no number of processes: expected one such as 4; auto, for as many as there are CPUs; or two "
                "such as 1:8, for as many between them as there is work for",
                param,
                ctx,
            )
        if most > PROCESSES_MAX:
            self.fail(f"{text!r} is too many: expected {PROCESSES_MAX} at most", param, ctx)
        return Count(least, most)


def _number(text: str) -> int:
    return cpus() if text == "auto" else int(text)


def cpus(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """The CPUs that this process may use: a container may be given the time of two on a machine that has sixty-four.

    Args:
        groups: Where Linux shows the limits of the container, in the way of its version 2 or 1.
    """
    try:
        there = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has none
        there = os.cpu_count() or 1
    allowed = _quota(groups)
    return there if allowed is None else max(1, min(there, math.ceil(allowed)))


def _quota(groups: Path) -> float | None:
    """How many CPUs' time the container has, or None."""
    files = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))
    for names in files:
        try:
            words = " ".join((groups / name).read_text() for name in names).split()
            quota, period = int(words[0]), int(words[1])
        except (OSError, ValueError, IndexError):  # there is none: it says "max"
            continue
        if quota > 0 and period > 0:
            return quota / period
    return None
