"""The queue of activities that all hosts of a hub share: what a store promises, and `store_conformance` proves.

The owner of a partition offers and withdraws attempts in its commits (`Batch.tasks_offered`, `Batch.tasks_withdrawn`).
Any host claims them. A claim lasts as long as a lease, by the clock of the hub, and the store object renews its own as it
does with leases: also while the host loop is blocked, but not for ever. What a claim says to its end is whether its row is
still there with its token; a withdrawn attempt has no row, so nothing that was claimed is ever finished after it.

Errors are those of `durably.storage.api`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from durably.core.commit import InboxRow, TaskRow
from durably.core.shared_tasks import TaskInfo


class Claim(NamedTuple):
    """The right of one store object to run an attempt.

    Attributes:
        row: The attempt.
        delivery: How often it was claimed and neither finished nor given back, this time included.
        token: Fresh with each claim of the row.
    """

    row: TaskRow
    delivery: int
    token: int


class TaskResult(NamedTuple):
    """The outcome of an attempt: the message to its instance takes the place of its row."""

    claim: Claim
    message: InboxRow


class SharedTasks(Protocol):
    """The queue, as one store object sees it."""

    def on_change(self, *, offered: Callable[[], None], withdrawn: Callable[[], None]) -> None:
        """Call back on the host loop soon after anybody did that; may be early, late, too often, or not at all."""
        ...

    async def claim(self, wanted: Mapping[str, int], limit: int) -> list[Claim]:
        """Claim attempts that nobody has claimed before, or whose claim was given back.

        Args:
            wanted: By activity: at most so many. With one that waits for long, earlier ones come first.
            limit: At most so many in all, the first names first.
        """
        ...

    async def claim_interrupted(self, names: Sequence[str], rooms: Sequence[int]) -> list[Claim]:
        """Claim attempts whose claim ran out: a process may have died of one of them.

        Of these activities only, and only those that were delivered most often. What this object has claimed itself is
        left out: it knows what it runs, and its claims count again when they are renewed.

        Args:
            names: Of the activities.
            rooms: By how often they were delivered before, from 1 on: at most so many. The last number counts for all
                beyond.
        """
        ...

    async def lost(self, claims: Sequence[Claim]) -> list[Claim]:
        """Those of them that are not this object's any more: withdrawn, or run out and claimed by somebody else."""
        ...

    async def finish(self, results: Sequence[TaskResult]) -> list[bool]:
        """Put each message in the place of its row, durably; in order. False for a claim that was lost: it is dropped.

        Whoever does not know the outcome asks again: what was done the first time is False then.
        """
        ...

    async def give_back(self, claims: Sequence[Claim]) -> None:
        """Let others have them, at once, as if they had not been claimed. One that was lost is ignored."""
        ...

    async def keep_only(self, claims: Sequence[Claim]) -> int:
        """Give back what this object has claimed beside these, such as claims whose answer was lost; returns how many.

        Nothing may be claimed meanwhile.
        """
        ...

    async def of_instance(self, instance_id: str) -> list[TaskInfo]:
        """The attempts of an instance, by (at, task_id). Anybody may ask."""
        ...
