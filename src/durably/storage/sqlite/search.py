# ruff: noqa: S608 - statements are put together from constants of this file; values are bound
"""Queries over instances: which path through the table, and the SQL for it. `InstanceQuery.matches` is the reference.

Pages are in order of position, so the plain path is a scan from the place where the page before ended: right when most
rows match. Where few may match, a narrower path is taken: a status other than Completed, and a name, through their
indexes, which are in order of position too; ids with a common prefix through theirs. A scan remains for tags and instants
that are rare in a large hub.
"""

from __future__ import annotations

from typing import Any

import apsw
import msgspec

from durably.core.query import Found, InstanceQuery
from durably.errors import UsageError
from durably.storage.sqlite.calls import Execute, one_moment
from durably.storage.sqlite.reader import INSTANCE, Reader, as_instance

_SORTED_MAX = 1_000
"""So many ids with the prefix are fetched and sorted for a page; beyond that, a scan finds a page sooner."""

_STATUSES_MAX = 16
"""There are eight; a compound statement may have 500 parts."""

_TAGS = (
    "NOT EXISTS (SELECT 1 FROM json_each(?) AS wanted WHERE NOT EXISTS"
    " (SELECT 1 FROM json_each(CAST(i.tags AS TEXT)) AS tag"
    " WHERE tag.key = wanted.key AND tag.type = 'text' AND tag.value = wanted.value))"
)

_INTEGER_MAX = 2**63 - 1
_LAST_CHARACTER = chr(0x10FFFF)
_BEFORE_SURROGATES, _AFTER_SURROGATES = chr(0xD7FF), chr(0xE000)


def find(reader: Reader, query: InstanceQuery) -> Found:
    """See `Store.query`."""
    try:
        with one_moment(reader.connection):
            text, values = _statement(reader.execute, query)
            rows = reader.execute(text, values).fetchall()
    except UnicodeEncodeError:  # nothing that is stored is like this
        return Found([], None)
    except apsw.SQLError as error:  # what people ask for must never look like a broken hub
        raise UsageError(f"This query cannot be run: {error}; ask for less at once") from None
    page = rows[: query.page_size]
    return Found([as_instance(row[1:]) for row in page], page[-1][0] if len(rows) > len(page) else None)


def _statement(execute: Execute, query: InstanceQuery) -> tuple[str, tuple[Any, ...]]:
    conditions: list[str] = []
    values: list[Any] = []

    def require(condition: str, *bound: Any) -> None:
        conditions.append(condition)
        values.extend(bound)

    by_prefix = query.instance_id_prefix is not None and _is_rare(execute, query.instance_id_prefix)
    require("i.position > ?", _within(query.after))
    if query.name is not None:
        require("i.name = ?", query.name)
    if query.created_from is not None:
        require("i.created_at >= ?", _within(query.created_from))
    if query.created_to is not None:
        require("i.created_at <= ?", _within(query.created_to))
    if query.tags:
        require(_TAGS, msgspec.json.encode(query.tags).decode())
    if query.instance_id_prefix is not None:
        # A plus sign keeps the planner from using an index for this column.
        column = "i.instance_id" if by_prefix else "+i.instance_id"
        require(*_prefix_range(column, query.instance_id_prefix))

    limit = query.page_size + 1
    statuses = query.statuses
    if (
        statuses is not None
        and not by_prefix
        and "Completed" not in statuses
        and len(statuses) <= _STATUSES_MAX
    ):
        return _by_status(tuple(dict.fromkeys(statuses)), conditions, values, limit)
    if statuses is not None:
        require("+i.status IN (SELECT value FROM json_each(?))", msgspec.json.encode(statuses).decode())
    text = _select(conditions, "+i.position" if by_prefix else "i.position")
    return text, (*values, limit)


def _select(conditions: list[str], order: str) -> str:
    where = " AND ".join(conditions)
    return f"SELECT i.position, {INSTANCE} FROM instances i WHERE {where} ORDER BY {order} LIMIT ?"


def _by_status(
    statuses: tuple[str, ...], conditions: list[str], values: list[Any], limit: int
) -> tuple[str, tuple[Any, ...]]:
    """A page of each status, which the index has in order, merged. No status matches nothing."""
    one = _select(["i.status = ?", "i.status <> 'Completed'", *conditions], "i.position")
    parts = (
        " UNION ALL ".join([f"SELECT * FROM ({one})"] * len(statuses))
        or f"SELECT * FROM ({_select(['0'], '1')})"
    )
    bound: list[Any] = []
    for status in statuses:
        bound += [status, *values, limit]
    if not statuses:
        bound.append(limit)
    return f"SELECT * FROM ({parts}) ORDER BY 1 LIMIT ?", (*bound, limit)


def _within(number: int) -> int:
    """What is asked for may come from a page token that somebody made up; beyond 64 bits there are no rows."""
    return max(-_INTEGER_MAX, min(number, _INTEGER_MAX))


def _is_rare(execute: Execute, prefix: str) -> bool:
    condition, *values = _prefix_range("instance_id", prefix)
    text = f"SELECT count(*) FROM (SELECT 1 FROM instances WHERE {condition} LIMIT ?)"
    (count,) = execute(text, (*values, _SORTED_MAX + 1)).fetchall()[0]
    return count <= _SORTED_MAX


def _prefix_range(column: str, prefix: str) -> tuple[str, ...]:
    """A condition and its values. Text is compared as UTF-8, whose order is that of the code points."""
    last = prefix.rstrip(_LAST_CHARACTER)
    if not last:  # nothing lies behind the prefix
        return f"{column} >= ?", prefix
    following = _AFTER_SURROGATES if last[-1] == _BEFORE_SURROGATES else chr(ord(last[-1]) + 1)
    return f"{column} >= ? AND {column} < ?", prefix, last[:-1] + following
