# ruff: noqa: S608 - statements are put together from constants of this file; values are bound
"""Queries over instances: which path through the table, and the SQL for it. `InstanceQuery.matches` is the reference.

Pages are in order of (created_at, position), and so is each index that is walked here: a page costs its rows, plus those
that are passed over because another filter refuses them. What is rare by id prefix or by tag is fetched through the narrow
index and sorted. All filters that match next to nothing in a large hub have an index, but for `updated_to`.
"""

from __future__ import annotations

from typing import Any

import apsw
import msgspec

from durably.core.query import Found, InstanceQuery, Place
from durably.errors import UsageError
from durably.storage.sqlite.calls import Execute, one_moment
from durably.storage.sqlite.reader import INSTANCE, UPDATED_AT, Reader, as_instance

_PREFIXED_MAX, _TAGGED_MAX = 100_000, 5_000
"""The places of so many instances are fetched through a narrow index and sorted, in 10 ms; beyond that, walking is as quick.

Instances with a common prefix mostly lie together in the file, those with a common tag do not.
"""

_STATUSES_MAX = 16
"""There are eight; a compound statement may have 500 parts."""

_TAGS_TRIED = 16
"""Of so many tags one is looked for that is rare."""

_TAGGED = "instance_tags WHERE key = ? AND value = ?"
_HAS_TAGS = (
    "NOT EXISTS (SELECT 1 FROM json_each(?) AS wanted WHERE NOT EXISTS (SELECT 1 FROM instance_tags AS tag"
    " WHERE tag.key = wanted.key AND tag.value = wanted.value AND tag.position = i.position))"
)

_STUCK = "(i.blocked IS NOT NULL OR i.parked IS NOT NULL)"

_WHOLE = (
    f"SELECT i.position, {INSTANCE} FROM ({{}}) AS page CROSS JOIN instances i ON i.position = page.position"
    " ORDER BY page.created_at, page.position"
)
"""Whole rows are fetched for the page alone: a sort does not carry them."""

_INTEGER_MAX = 2**63 - 1
_LAST_CHARACTER = chr(0x10FFFF)
_BEFORE_SURROGATES, _AFTER_SURROGATES = chr(0xD7FF), chr(0xE000)


class _Where:
    """Conditions on `instances i`, and the values that are bound in them."""

    def __init__(self) -> None:
        self.conditions: list[str] = []
        self.values: list[Any] = []

    def require(self, condition: str, *bound: Any) -> None:
        self.conditions.append(condition)
        self.values.extend(bound)

    def select(self, *, sort: bool = False) -> str:
        """The places of one page. A plus sign hides a column from the planner, which then sorts."""
        where = " AND ".join(self.conditions) or "1"
        order = "+i.created_at, +i.position" if sort else "i.created_at, i.position"
        return f"SELECT i.created_at, i.position FROM instances i WHERE {where} ORDER BY {order} LIMIT ?"


def find(reader: Reader, query: InstanceQuery) -> Found:
    """See `Store.query`."""
    try:
        with one_moment(reader.connection):
            text, values = _statement(reader.execute, query)
            rows = reader.execute(_WHOLE.format(text), values).fetchall()
    except UnicodeEncodeError:  # nothing that is stored is like this
        return Found([], None)
    except apsw.SQLError as error:  # what people ask for must never look like a broken hub
        raise UsageError(f"This query cannot be run: {error}; ask for less at once") from None
    page = [(row[0], as_instance(row[1:])) for row in rows[: query.page_size]]
    last = Place(page[-1][1].created_at, page[-1][0]) if len(rows) > len(page) else None
    return Found([row for _, row in page], last)


def _statement(execute: Execute, query: InstanceQuery) -> tuple[str, tuple[Any, ...]]:
    where = _Where()
    narrow = _narrowed(execute, query, where)
    _require_place(query, where, narrow=narrow)
    of_parent = query.parent_instance_id is not None
    if of_parent:
        where.require("i.parent_instance_id = ?", query.parent_instance_id)
    if query.name is not None:
        where.require("+i.name = ?" if narrow or of_parent else "i.name = ?", query.name)
    if query.updated_to is not None:
        where.require(f"{UPDATED_AT} <= ?", _within(query.updated_to))
    if query.stuck is not None:
        where.require(_STUCK if query.stuck else f"NOT {_STUCK}")
    if query.parked:
        where.require("i.parked IS NOT NULL")
    limit = query.page_size + 1
    statuses = query.statuses
    if statuses is not None:
        walks = not narrow and not of_parent
        if walks and "Completed" not in statuses and len(statuses) <= _STATUSES_MAX:
            return _by_status(tuple(dict.fromkeys(statuses)), where, limit)
        where.require("+i.status IN (SELECT value FROM json_each(?))", msgspec.json.encode(statuses).decode())
    return where.select(sort=narrow), (*where.values, limit)


def _narrowed(execute: Execute, query: InstanceQuery, where: _Where) -> bool:
    """Require the prefix and the tags; True when one of them leaves so few that they are fetched and sorted.

    The children of an instance are walked, in order, whatever else is asked for: they are few, as a rule.
    """
    narrow = False
    of_parent = query.parent_instance_id is not None
    if query.instance_id_prefix is not None:
        condition, *bound = _prefix_range("instance_id", query.instance_id_prefix)
        narrow = not of_parent and _is_rare(execute, f"instances WHERE {condition}", _PREFIXED_MAX, *bound)
        column = "i.instance_id" if narrow else "+i.instance_id"
        where.require(*_prefix_range(column, query.instance_id_prefix))
    if query.tags:
        for key, value in list(query.tags.items())[: 0 if narrow or of_parent else _TAGS_TRIED]:
            if _is_rare(execute, _TAGGED, _TAGGED_MAX, key, value):
                narrow = True
                where.require(f"i.position IN (SELECT position FROM {_TAGGED})", key, value)
                break
        where.require(_HAS_TAGS, msgspec.json.encode(query.tags).decode())
    return narrow


def _require_place(query: InstanceQuery, where: _Where, *, narrow: bool) -> None:
    column = "+i.created_at" if narrow else "i.created_at"
    since, position = _within(query.after.created_at), _within(query.after.position)
    created_from = None if query.created_from is None else _within(query.created_from)
    if created_from is not None and created_from > since:
        where.require(f"{column} >= ?", created_from)
    else:
        where.require(f"{column} >= ? AND (i.created_at > ? OR i.position > ?)", since, since, position)
    if query.created_to is not None:
        where.require(f"{column} <= ?", _within(query.created_to))


def _by_status(statuses: tuple[str, ...], where: _Where, limit: int) -> tuple[str, tuple[Any, ...]]:
    """A page of each status, which the index has in order, merged. No status matches nothing."""
    if not statuses:
        where.require("0")
        return where.select(), (*where.values, limit)
    others = list(where.values)
    where.conditions[:0] = ["i.status = ?", "i.status <> 'Completed'"]
    one = where.select()
    bound: list[Any] = []
    for status in statuses:
        bound += [status, *others, limit]
    parts = " UNION ALL ".join([f"SELECT * FROM ({one})"] * len(statuses))
    return f"SELECT * FROM ({parts}) ORDER BY created_at, position LIMIT ?", (*bound, limit)


def _is_rare(execute: Execute, which: str, most: int, *values: Any) -> bool:
    text = f"SELECT count(*) FROM (SELECT 1 FROM {which} LIMIT ?)"
    (count,) = execute(text, (*values, most + 1)).fetchall()[0]
    return count <= most


def _within(number: int) -> int:
    """What is asked for may come from a page token that somebody made up; beyond 64 bits there are no rows."""
    return max(-_INTEGER_MAX - 1, min(number, _INTEGER_MAX))


def _prefix_range(column: str, prefix: str) -> tuple[str, ...]:
    """A condition and its values. Text is compared as UTF-8, whose order is that of the code points."""
    last = prefix.rstrip(_LAST_CHARACTER)
    if not last:  # nothing lies behind the prefix
        return f"{column} >= ?", prefix
    following = _AFTER_SURROGATES if last[-1] == _BEFORE_SURROGATES else chr(ord(last[-1]) + 1)
    return f"{column} >= ? AND {column} < ?", prefix, last[:-1] + following
