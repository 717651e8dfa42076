"""Filters over instances, with the reference meaning of a match."""

from __future__ import annotations

import base64
from typing import NamedTuple, TypeAlias

import msgspec

from durably.core.commit import EntityRow, InboxRow, InstanceRow
from durably.errors import UsageError

PAGE_SIZE_MAX = 1_000


class Place(NamedTuple):
    """Where an instance stands in the order of creation.

    Attributes:
        created_at: When it was created, by the clock of its owner; a clock that was set back puts it further ahead.
        position: Given by the store, growing: the order among instances of one instant.
    """

    created_at: int
    position: int


WAITING = 2**62
"""Added to the position of a message: waiting starts come behind all instances of their instant."""

FIRST = Place(-(2**63), 0)
"""Before all instances."""


class InstanceQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What to look for; None matches everything. Instants in microseconds since 1970 UTC, both ends included.

    Attributes:
        updated_from: Last updated at or after; of a finished instance: when it ended.
        updated_to: Last updated at or before.
        parent_instance_id: Children that this instance called; not those that it started without waiting for them.
        stuck: True: only instances that are blocked or parked; False: only others.
        parked: True: only instances that are parked.
        payloads: False: rows without input and output, however large these are.
        after: Only instances behind this place.
        page_size: 1 to `PAGE_SIZE_MAX`.
    """

    name: str | None = None
    statuses: tuple[str, ...] | None = None
    created_from: int | None = None
    created_to: int | None = None
    instance_id_prefix: str | None = None
    tags: dict[str, str] | None = None
    updated_from: int | None = None
    updated_to: int | None = None
    parent_instance_id: str | None = None
    stuck: bool | None = None
    parked: bool = False
    payloads: bool = True
    page_size: int = 100
    after: Place = FIRST

    def __post_init__(self) -> None:
        if type(self.page_size) is not int or not 1 <= self.page_size <= PAGE_SIZE_MAX:
            raise UsageError(f"page_size is {self.page_size!r}: expected 1 to {PAGE_SIZE_MAX}")

    def matches(self, row: InstanceRow) -> bool:
        """The reference: what every store must agree with (but for `payloads`, `after` and `page_size`)."""
        if self.name is not None and row.name != self.name:
            return False
        if self.statuses is not None and row.status not in self.statuses:
            return False
        if self.created_from is not None and row.created_at < self.created_from:
            return False
        if self.created_to is not None and row.created_at > self.created_to:
            return False
        if self.updated_from is not None and row.updated_at < self.updated_from:
            return False
        if self.updated_to is not None and row.updated_at > self.updated_to:
            return False
        if self.parent_instance_id is not None and row.parent_instance_id != self.parent_instance_id:
            return False
        if self.stuck is not None and self.stuck != (row.blocked is not None or row.parked is not None):
            return False
        if self.parked and row.parked is None:
            return False
        if self.instance_id_prefix is not None and not row.instance_id.startswith(self.instance_id_prefix):
            return False
        if self.tags:
            held: dict[str, str] = msgspec.json.decode(row.tags) if row.tags else {}
            return all(held.get(key) == value for key, value in self.tags.items())
        return True


class Found(NamedTuple):
    """One page of a query: rows in order of creation, and where the next page begins (None: this was the last)."""

    rows: list[InstanceRow]
    next_after: Place | None


class FoundWithWaiting(NamedTuple):
    """One page of a query, and messages to instances that do not exist: most of them are starts that wait for an owner.

    Attributes:
        found: The page.
        places: Of its rows.
        waiting: Of each instance that does not exist the first message, by `place_of_waiting`: those behind the place at
            which the page begins and, if it is not the last one, before the instant at which it ends. Of the filters, only
            id prefix and time of creation are heeded, which is when it was accepted. As many as the page may have rows,
            and one more when there are more.
    """

    found: Found
    places: list[Place]
    waiting: list[InboxRow]


Counts: TypeAlias = dict[tuple[str, str], int]
"""How many instances, by the name of the orchestrator and the status; only those of which there are some."""


def place_of_waiting(message: InboxRow) -> Place:
    """Where an instance stands whose start waits in the inbox."""
    return Place(message.at, WAITING + message.position)


class EntityQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which entities to look for; None matches everything. Instants as in `InstanceQuery`.

    Attributes:
        name: In lower case.
        prefix: The id as text begins with it.
        updated_from: Last changed at or after.
        updated_to: Last changed at or before.
        with_transient: Also those that do not exist, and have a row because they are locked or waited for.
        locked: Only those that are locked.
        after: Only those behind this id.
        page_size: 1 to `PAGE_SIZE_MAX`.
    """

    name: str | None = None
    prefix: str | None = None
    updated_from: int | None = None
    updated_to: int | None = None
    with_transient: bool = False
    locked: bool = False
    after: str = ""
    page_size: int = 100

    def __post_init__(self) -> None:
        if type(self.page_size) is not int or not 1 <= self.page_size <= PAGE_SIZE_MAX:
            raise UsageError(f"page_size is {self.page_size!r}: expected 1 to {PAGE_SIZE_MAX}")

    def matches(self, row: EntityRow) -> bool:
        """The reference: what every store must agree with (but for `after` and `page_size`)."""
        return (
            (self.name is None or row.name == self.name)
            and (self.prefix is None or row.instance_id.startswith(self.prefix))
            and (self.updated_from is None or row.updated_at >= self.updated_from)
            and (self.updated_to is None or row.updated_at <= self.updated_to)
            and (self.with_transient or row.state is not None)
            and not (self.locked and row.locked_by is None)
        )


class EntitiesFound(NamedTuple):
    """One page of a query: rows in order of their ids, and behind which id the next page begins (None: the last)."""

    rows: list[EntityRow]
    next_after: str | None


def token_of(place: Place) -> str:
    """The continuation token of a place in the order of creation."""
    return base64.urlsafe_b64encode(b"p2:%d:%d" % place).decode()


def place_of(token: str) -> Place:
    """The place that a continuation token stands for.

    Raises:
        UsageError: The token was not made by `token_of`.
    """
    try:
        marker, created_at, position = base64.urlsafe_b64decode(token.encode()).split(b":")
        place = Place(int(created_at), int(position))
        if marker != b"p2" or not all(-(2**63) <= number < 2**63 for number in place):
            raise ValueError
        return place
    except (ValueError, AttributeError):  # also of Base64 and of half a surrogate; or it is no text at all
        raise UsageError(
            f"Continuation token {str(token)[:40]!r} is not one of this hub: expected the token of the page before"
        ) from None
