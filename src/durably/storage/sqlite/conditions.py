# ruff: noqa: S608 - statements are put together from constants of this file; values are bound
"""The filters of a query as SQL. `InstanceQuery.matches` is the reference.

A condition may be written so that no index can serve it (a plus sign hides its column): the planner has no statistics, and
would take the wrong one.
"""

from __future__ import annotations

from typing import Any

import msgspec

from durably.core.query import InstanceQuery
from durably.storage.sqlite.calls import Execute
from durably.storage.sqlite.reader import UPDATED_AT

_PREFIXED_MAX, _TAGGED_MAX = 100_000, 5_000
"""The places of so many instances are fetched through a narrow index and sorted, in 10 ms; beyond that, walking is as quick.

Instances with a common prefix mostly lie together in the file, those with a common tag do not.
"""

_TAGS_TRIED = 16
"""Of so many tags one is looked for that is rare."""

_TAGGED = "instance_tags WHERE key = ? AND value = ?"
_HAS_TAGS = (
    "NOT EXISTS (SELECT 1 FROM json_each(?) AS wanted WHERE NOT EXISTS (SELECT 1 FROM instance_tags AS tag"
    " WHERE tag.key = wanted.key AND tag.value = wanted.value AND tag.position = i.position))"
)

_STUCK = "(i.blocked IS NOT NULL OR i.parked IS NOT NULL)"

_INTEGER_MAX = 2**63 - 1
_LAST_CHARACTER = chr(0x10FFFF)
_BEFORE_SURROGATES, _AFTER_SURROGATES = chr(0xD7FF), chr(0xE000)


class Where:
    """Conditions on `instances i`, and the values that are bound in them."""

    def __init__(self) -> None:
        self.conditions: list[str] = []
        self.values: list[Any] = []

    def require(self, condition: str, *bound: Any) -> None:
        """One more; all of them have to hold."""
        self.conditions.append(condition)
        self.values.extend(bound)

    @property
    def text(self) -> str:
        """What stands behind `WHERE`."""
        return " AND ".join(self.conditions) or "1"


def require_filters(execute: Execute, query: InstanceQuery, where: Where) -> bool:
    """Require all filters but that of the status, and the place.

    Returns:
        True when so few are left by one of them that they are fetched through its index and sorted. Otherwise the order of
        creation can be walked.
    """
    narrow = _narrowed(execute, query, where)
    _require_place(query, where, narrow=narrow)
    of_parent = query.parent_instance_id is not None
    if of_parent:
        where.require("i.parent_instance_id = ?", query.parent_instance_id)
    if query.name is not None:
        where.require("+i.name = ?" if narrow or of_parent else "i.name = ?", query.name)
    if query.updated_from is not None:
        where.require(f"{UPDATED_AT} >= ?", within(query.updated_from))
    if query.updated_to is not None:
        where.require(f"{UPDATED_AT} <= ?", within(query.updated_to))
    if query.stuck is not None:
        where.require(_STUCK if query.stuck else f"NOT {_STUCK}")
    if query.parked:
        where.require("i.parked IS NOT NULL")
    return narrow


def require_status(statuses: tuple[str, ...], where: Where) -> None:
    """Require one of these statuses, whatever index leads."""
    where.require("+i.status IN (SELECT value FROM json_each(?))", msgspec.json.encode(statuses).decode())


def _narrowed(execute: Execute, query: InstanceQuery, where: Where) -> bool:
    """Require the prefix and the tags; True when one of them leaves so few that they are fetched and sorted.

    The children of an instance are walked, in order, whatever else is asked for: they are few, as a rule.
    """
    narrow = False
    of_parent = query.parent_instance_id is not None
    if query.instance_id_prefix is not None:
        condition, *bound = prefix_range("instance_id", query.instance_id_prefix)
        narrow = not of_parent and _is_rare(execute, f"instances WHERE {condition}", _PREFIXED_MAX, *bound)
        column = "i.instance_id" if narrow else "+i.instance_id"
        where.require(*prefix_range(column, query.instance_id_prefix))
    if query.tags:
        for key, value in list(query.tags.items())[: 0 if narrow or of_parent else _TAGS_TRIED]:
            if _is_rare(execute, _TAGGED, _TAGGED_MAX, key, value):
                narrow = True
                where.require(f"i.position IN (SELECT position FROM {_TAGGED})", key, value)
                break
        where.require(_HAS_TAGS, msgspec.json.encode(query.tags).decode())
    return narrow


def _require_place(query: InstanceQuery, where: Where, *, narrow: bool) -> None:
    column = "+i.created_at" if narrow else "i.created_at"
    since, position = within(query.after.created_at), within(query.after.position)
    created_from = None if query.created_from is None else within(query.created_from)
    if created_from is not None and created_from > since:
        where.require(f"{column} >= ?", created_from)
    else:
        where.require(f"{column} >= ? AND (i.created_at > ? OR i.position > ?)", since, since, position)
    if query.created_to is not None:
        where.require(f"{column} <= ?", within(query.created_to))


def _is_rare(execute: Execute, which: str, most: int, *values: Any) -> bool:
    text = f"SELECT count(*) FROM (SELECT 1 FROM {which} LIMIT ?)"
    (count,) = execute(text, (*values, most + 1)).fetchall()[0]
    return count <= most


def within(number: int) -> int:
    """What is asked for may come from a page token that somebody made up; beyond 64 bits there are no rows."""
    return max(-_INTEGER_MAX - 1, min(number, _INTEGER_MAX))


def prefix_range(column: str, prefix: str) -> tuple[str, ...]:
    """A condition and its values. Text is compared as UTF-8, whose order is that of the code points."""
    last = prefix.rstrip(_LAST_CHARACTER)
    if not last:  # nothing lies behind the prefix
        return f"{column} >= ?", prefix
    following = _AFTER_SURROGATES if last[-1] == _BEFORE_SURROGATES else chr(ord(last[-1]) + 1)
    return f"{column} >= ? AND {column} < ?", prefix, last[:-1] + following
