"""Which messages have a row in the inbox: those that came from it, and those that outlived their batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager

import msgspec

from durably.core.commit import InboxRow
from durably.core.history import decode_body
from durably.engine.committer import INTERNAL
from durably.engine.residents import Delivery

_FIRST = f"{INTERNAL}{INTERNAL}"
"""Beginning of the ids of messages that come before all others to their instance, wherever their rows lie."""

_FOREIGN_GONE_MAX = 10_000
"""A message is handed over within moments of its commit: so many are not dealt with meanwhile."""


class Inbox:
    """The inbox of one partition, as its owner sees it.

    Args:
        token: Makes the ids of messages unique; a new one for each partition object.
        unreadable: Takes the row of a message that cannot be read, and why.
    """

    def __init__(self, token: str, unreadable: Callable[[InboxRow, str], None]) -> None:
        self._unreadable = unreadable
        self.after = 0
        """The hint for reads: the highest position among the rows that a read of all behind it has returned."""
        self._prefix = f"{INTERNAL}{token[:12]}."
        self._next = 0
        self._unstored: dict[str, Delivery] = {}
        self._leaving: list[Delivery] = []
        self._held: set[str] = set()
        self._reads = 0
        self._gone_meanwhile: set[str] = set()
        self._foreign: set[str] = set()
        """Those of `_held` that another partition has sent and a read has brought."""
        self._foreign_gone: dict[str, None] = {}
        """The newest of these that are gone: whoever sent them may still be about to hand them over."""

    @contextmanager
    def reading(self) -> Generator[None, None, None]:
        """Around a read: what is consumed while it is under way may be in its answer, and must not be taken again."""
        self._reads += 1
        try:
            yield
        finally:
            self._reads -= 1
            if not self._reads:
                self._gone_meanwhile.clear()

    def read(self, rows: Iterable[InboxRow]) -> list[Delivery]:
        """Deliveries of the rows that are not held yet, of a read of the whole inbox or of all behind the hint."""
        found = list(rows)
        for row in found:
            self.after = max(self.after, row.position)
        return self.found(found)

    def found(self, rows: Iterable[InboxRow]) -> list[Delivery]:
        """The same for rows that were read with an instance: other rows before them may not have been seen yet."""
        in_order = sorted(rows, key=lambda row: not row.message_id.startswith(_FIRST))
        return [delivery for row in in_order if (delivery := self._delivery(row)) is not None]

    def _delivery(self, row: InboxRow) -> Delivery | None:
        if row.message_id in self._held or row.message_id in self._gone_meanwhile:
            return None
        self._held.add(row.message_id)
        if row.message_id[0] == INTERNAL and not row.message_id.startswith(self._prefix):
            self._foreign.add(row.message_id)
        try:
            body = decode_body(row.body)
        except (msgspec.MsgspecError, UnicodeError) as error:
            self._unreadable(row, str(error))
            return None
        return Delivery(row.instance_id, body, row=row.message_id, stored=True, at=row.at)

    def keep(self, delivery: Delivery, *, first: bool = False) -> None:
        """Give a message a row with the batch that is gathering, unless it has one or is consumed before.

        Args:
            delivery: The message.
            first: It comes before what its instance was sent already, also after a crash; those rows lie before its own.
        """
        if delivery.row is None:
            delivery.row = INTERNAL + self.new_id() if first else self.new_id()
            self._unstored[delivery.row] = delivery

    def send_away(self, delivery: Delivery) -> None:
        """Give a message to another partition a row there, with the batch that is gathering."""
        delivery.row = self.new_id()
        self._leaving.append(delivery)

    def take_leaving(self) -> list[Delivery]:
        """The messages to other partitions that become rows with the batch being sealed."""
        leaving, self._leaving = self._leaving, []
        return leaving

    def hand_in(self, delivery: Delivery) -> bool:
        """Take a message whose row another partition of this host has just made durable; False when it is held already."""
        row = delivery.row or ""
        if row in self._held or row in self._gone_meanwhile or row in self._foreign_gone:
            return False
        self._held.add(row)
        return True

    def new_id(self) -> str:
        """An id for a message of ours."""
        self._next += 1
        return f"{self._prefix}{self._next:x}"

    def forget(self, delivery: Delivery) -> None:
        """A message was consumed before it got a row."""
        if delivery.row is not None:
            self._unstored.pop(delivery.row, None)

    def seal(self) -> list[Delivery]:
        """The messages that become rows of the batch being sealed."""
        kept = list(self._unstored.values())
        self._held.update(self._unstored)
        self._unstored.clear()
        return kept

    def gone(self, rows: Iterable[str]) -> None:
        """Rows have been deleted."""
        self._held.difference_update(rows)
        if self._foreign:
            self._note_foreign(rows)
        if self._reads:
            self._gone_meanwhile.update(rows)

    def _note_foreign(self, rows: Iterable[str]) -> None:
        gone = self._foreign.intersection(rows)
        self._foreign -= gone
        self._foreign_gone.update(dict.fromkeys(gone))
        while len(self._foreign_gone) > _FOREIGN_GONE_MAX:
            del self._foreign_gone[next(iter(self._foreign_gone))]
