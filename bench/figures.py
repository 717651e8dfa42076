"""From single timings to figures, and the closed loop that takes them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
R = TypeVar("R")

Record = dict[str, Any]
"""One JSON line, or a part of it."""


class MeasurementError(Exception):
    """A workload did not do what it had to; its figures are worth nothing."""


class Load(NamedTuple):
    """How much of a workload one repetition is.

    Attributes:
        n: Instances, activities or steps, as the workload says.
        c: In flight at once.
        tag: Begins the id of every instance of this repetition.
        cap_s: Start nothing more after this many seconds.
    """

    n: int
    c: int
    tag: str
    cap_s: float

    def keys(self) -> list[str]:
        """Instance ids, one per instance."""
        return [f"{self.tag}-{i}" for i in range(self.n)]


class Timed(NamedTuple):
    """One call of a closed loop: how long it took, and what came of it."""

    seconds: float
    result: Any


def check(result: object, expected: object) -> None:
    """Raise `MeasurementError` unless both are equal."""
    if result != expected:
        raise MeasurementError(f"the result is {result!r}: expected {expected!r}")


async def closed_loop(
    items: Iterable[T], call: Callable[[T], Awaitable[R]], c: int, deadline: float | None = None
) -> list[Timed]:
    """Call for each item, `c` at a time, each worker taking the next item when its last one is done."""
    left = iter(items)
    timings: list[Timed] = []

    async def worker() -> None:
        for item in left:
            began = perf_counter()
            if deadline is not None and began > deadline:
                return
            result = await call(item)
            timings.append(Timed(perf_counter() - began, result))

    await asyncio.gather(*(worker() for _ in range(c)))
    return timings


def percentile(values: Sequence[float], q: float) -> float:
    """The value at rank `q` (0 to 1), the nearest one that was measured."""
    if not values:
        raise MeasurementError("nothing was measured")
    ranked = sorted(values)
    return ranked[round(q * (len(ranked) - 1))]


def latency(seconds: Sequence[float], prefix: str = "") -> Record:
    """Median, 99th percentile and maximum, in milliseconds."""
    return {
        f"{prefix}p50_ms": round(percentile(seconds, 0.5) * 1000, 4),
        f"{prefix}p99_ms": round(percentile(seconds, 0.99) * 1000, 4),
        f"{prefix}max_ms": round(max(seconds, default=0) * 1000, 4),
    }
