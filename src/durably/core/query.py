"""Filters over instances, with the reference meaning of a match."""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

import msgspec

from durably.core.commit import InstanceRow
from durably.errors import UsageError

PAGE_SIZE_MAX = 1_000


class InstanceQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What to look for; None matches everything. Instants in microseconds since 1970 UTC, both ends included.

    Attributes:
        after: Only instances behind this place in the order of creation; 0 for the first page.
        page_size: 1 to `PAGE_SIZE_MAX`.
    """

    name: str | None = None
    statuses: tuple[str, ...] | None = None
    created_from: int | None = None
    created_to: int | None = None
    instance_id_prefix: str | None = None
    tags: dict[str, str] | None = None
    page_size: int = 100
    after: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.page_size <= PAGE_SIZE_MAX:
            raise UsageError(f"page_size is {self.page_size}: expected 1 to {PAGE_SIZE_MAX}")

    def matches(self, row: InstanceRow) -> bool:
        """The reference: what every store must agree with (but for `after` and `page_size`)."""
        if self.name is not None and row.name != self.name:
            return False
        if self.statuses is not None and row.status not in self.statuses:
            return False
        if self.created_from is not None and row.created_at < self.created_from:
            return False
        if self.created_to is not None and row.created_at > self.created_to:
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
    next_after: int | None


def token_of(position: int) -> str:
    """The continuation token of a place in the order of creation."""
    return base64.urlsafe_b64encode(b"p1:%d" % position).decode()


def position_of(token: str) -> int:
    """The place that a continuation token stands for.

    Raises:
        UsageError: The token was not made by `token_of`.
    """
    try:
        marker, _, digits = base64.urlsafe_b64decode(token.encode()).partition(b":")
        if marker != b"p1":
            raise ValueError
        return int(digits)
    except (ValueError, binascii.Error, UnicodeEncodeError):
        raise UsageError(
            f"Continuation token {token[:40]!r} is not one of this hub: expected the token of the page before"
        ) from None
