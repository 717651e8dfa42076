"""Who leaves memory when there are too many: the longest idle ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")


def evict(
    residents: dict[str, R], limit: int, *, stays: Callable[[R], bool], drop: Callable[[R], None]
) -> int:
    """Take out so many that a tenth of the limit is free. Dict order is the order of arrival; who stays moves back.

    Args:
        residents: By id.
        limit: How many there may be.
        stays: True for one that was touched just now, or of which more than its rows would be lost.
        drop: Lets go of one that has been taken out.

    Returns:
        How many there have to be before it is worth looking again. The caller takes one off with each pump, since those
        that are busy now may be idle by then, and nobody else may come.
    """
    excess = len(residents) - limit * 9 // 10
    for instance_id in list(residents):
        if excess <= 0:
            return limit
        resident = residents.pop(instance_id)
        if stays(resident):
            residents[instance_id] = resident
        else:
            drop(resident)
            excess -= 1
    # All are busy: looking again before there are a tenth more would cost more than they do.
    return len(residents) * 11 // 10
