"""What is parked, as operators see it."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec

from durably.core.query import FIRST, PAGE_SIZE_MAX, Place
from durably.errors import UsageError

ParkedKind = Literal["instance", "message"]
KINDS = ("instance", "message")


class ParkedItem(msgspec.Struct, frozen=True, kw_only=True):
    """A work item that was set aside. It keeps what belongs to it, and everything else goes on.

    Attributes:
        kind: ``"instance"``: one that went wrong too often, or whose data the store refuses; ``"message"``: one that cannot
            be read, or of which nothing can be made, or an operation of an entity that killed its process too often.
        id: Of the instance or message; `Client.redrive` and `Client.discard` take it.
        instance_id: The instance, or the one that the message is addressed to, which need not exist.
        cause: Why it was set aside, and what to do, in a sentence or two.
        payload: The input of the activity that is to blame, or of the instance, as plain JSON data; of a message, its bytes.
        since: When it was set aside (aware, UTC); of an instance that broke a rule of the engine, about when.
        deliveries: How often an instance was running when its process died; 0 when it is parked for another reason, and
            for messages, whose cause says it.
    """

    kind: ParkedKind
    id: str
    instance_id: str
    cause: str
    payload: Any
    since: datetime
    deliveries: int


class ParkedPage(msgspec.Struct, frozen=True):
    """One page of what is parked.

    Attributes:
        items: Instances in the order of their creation, then messages in the order in which they were set aside; empty
            only when nothing (more) is parked.
        continuation_token: Pass it to the same call for the next page; None when this is the last one.
    """

    items: list[ParkedItem]
    continuation_token: str | None = None


class ParkedPlace(NamedTuple):
    """Where a page begins: behind an instance, and behind a message once all instances have been seen."""

    kind: str = "instance"
    instance: Place = FIRST
    message: int = 0


class ParkedQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What to look for among what is parked; None matches everything.

    Attributes:
        instance_id_prefix: The id of the instance begins with it.
        page_size: 1 to `PAGE_SIZE_MAX`.
    """

    kind: ParkedKind | None = None
    instance_id_prefix: str | None = None
    page_size: int = 100
    after: ParkedPlace = ParkedPlace()

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in KINDS:
            raise UsageError(f"kind is {self.kind!r}: expected one of {', '.join(KINDS)}, or None for both")
        if not 1 <= self.page_size <= PAGE_SIZE_MAX:
            raise UsageError(f"page_size is {self.page_size}: expected 1 to {PAGE_SIZE_MAX}")


class ParkedRow(NamedTuple):
    """A `ParkedItem` before its payload becomes data. `since` in microseconds since 1970 UTC."""

    kind: ParkedKind
    id: str
    instance_id: str
    cause: str
    payload: bytes | None
    since: int
    deliveries: int


class ParkedFound(NamedTuple):
    """One page, and where the next one begins (None: this was the last)."""

    rows: list[ParkedRow]
    next_after: ParkedPlace | None


def token_of_parked(place: ParkedPlace) -> str:
    """The continuation token of a place."""
    text = f"k1:{place.kind}:{place.instance.created_at}:{place.instance.position}:{place.message}"
    return base64.urlsafe_b64encode(text.encode()).decode()


def parked_place_of(token: str) -> ParkedPlace:
    """The place that a continuation token stands for.

    Raises:
        UsageError: The token was not made by `token_of_parked`.
    """
    try:
        marker, kind, *numbers = base64.urlsafe_b64decode(token.encode()).decode().split(":")
        created_at, position, message = map(int, numbers)
        if marker != "k1" or kind not in KINDS:
            raise ValueError
        return ParkedPlace(kind, Place(created_at, position), message)
    except (ValueError, binascii.Error, UnicodeError):
        raise UsageError(
            f"Continuation token {token[:40]!r} is not one of parked items: expected the token of the page before"
        ) from None
