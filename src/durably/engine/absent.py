"""Instances that are not in memory: who has to be read, who surely does not exist, and the messages that wait for it."""

from __future__ import annotations

from collections.abc import Iterable

from durably.core.messages import StartInstance
from durably.engine.residents import Delivery, Resident


class Absent:
    """The books of one partition on instances that are not in memory. It reads nothing by itself.

    An id is in one of these conditions: unknown (nobody has asked), waited for (messages wait until it has been read),
    or vanishing (removed in memory and not yet on disk: nobody may read its old rows).
    """

    def __init__(self) -> None:
        self._waiting: dict[str, list[Delivery]] = {}
        self._unread: list[str] = []
        # Ended and to be read anew, as soon as nothing of theirs is on its way to the disk.
        self._unsettled: dict[str, Resident] = {}
        self._vanishing: dict[str, int] = {}

    @property
    def waited_for(self) -> bool:
        """True while messages wait for an instance that has to be read."""
        return bool(self._waiting)

    def take(self, delivery: Delivery) -> bool:
        """Keep a message until its instance has been read; False when that surely does not exist."""
        target, body = delivery.target, delivery.body
        waiting = self._waiting.get(target)
        if waiting is not None:
            waiting.append(delivery)
            return True
        if target in self._vanishing or (type(body) is StartInstance and body.fresh):
            return False
        self._waiting[target] = [delivery]
        self._unread.append(target)
        return True

    def reread(self, resident: Resident, delivery: Delivery) -> None:
        """Keep a message, and what waits behind it, until the rows of the resident are durable and have been read."""
        target = resident.instance_id
        self._waiting[target] = [delivery, *resident.queue]
        resident.queue.clear()
        self._unsettled[target] = resident

    def settle(self) -> bool:
        """A batch is durable: let those be read of whom nothing is on its way any more. True when there are such."""
        settled = [
            target
            for target, resident in self._unsettled.items()
            if not (resident.batches or resident.commit is not None)
        ]
        for target in settled:
            del self._unsettled[target]
        self._unread += settled
        return bool(settled)

    def unread(self) -> list[str]:
        """Everybody who has to be read now. Whoever asks sees to it: they are told once."""
        unread = self._unread
        if unread:
            self._unread = []
        return unread

    def found(self, target: str) -> list[Delivery]:
        """The messages that waited for an instance, which has been read."""
        return self._waiting.pop(target)

    def vanishes(self, instance_id: str) -> None:
        """An instance is removed with the batch that is gathering."""
        self._vanishing[instance_id] = self._vanishing.get(instance_id, 0) + 1

    def vanished(self, instance_ids: Iterable[str]) -> None:
        """That is durable."""
        for instance_id in instance_ids:
            self._vanishing[instance_id] -= 1
            if not self._vanishing[instance_id]:
                del self._vanishing[instance_id]
