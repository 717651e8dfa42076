"""Who leaves memory when there are too many: the longest idle ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

R = TypeVar("R")


class Crowd(Generic[R]):
    """Those of one kind that a partition has in memory. A host with more partitions has as many as one with a single one.

    Args:
        members: By id. Dict order is the order of arrival.
        most: How many the host may have.
        partitions: How many partitions share that, in equal parts.
        stays: True for one that was touched just now, or of which more than its rows would be lost.
        drop: Lets go of one that has been taken out.
    """

    def __init__(
        self,
        members: dict[str, R],
        most: int,
        partitions: Callable[[], int],
        *,
        stays: Callable[[R], bool],
        drop: Callable[[R], None],
    ) -> None:
        self._members = members
        self._most = most
        self._partitions = partitions
        self._stays = stays
        self._drop = drop
        self._grace = 0
        """So many more there may be before it is worth looking again."""

    def thin_out(self) -> None:
        """After each pump: let the longest idle ones go when there are too many."""
        limit = max(1, self._most // max(1, self._partitions()))
        if len(self._members) > limit + self._grace:
            self._evict(limit)
        elif self._grace:
            self._grace -= 1  # those that were busy may be idle by now, and nobody else may come

    def _evict(self, limit: int) -> None:
        """Take out so many that a tenth of the limit is free. Who stays moves back."""
        members = self._members
        excess = len(members) - limit * 9 // 10
        self._grace = 0
        for instance_id in list(members):
            if excess <= 0:
                return
            member = members.pop(instance_id)
            if self._stays(member):
                members[instance_id] = member
            else:
                self._drop(member)
                excess -= 1
        # All are busy: looking again before there are a tenth more would cost more than they do.
        self._grace = max(0, len(members) * 11 // 10 - limit)
