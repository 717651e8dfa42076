# ruff: noqa: S608 - statements are put together from constants of this file; values are bound
"""Queries over instances and entities. `InstanceQuery.matches` is the reference.

Pages are in order of (created_at, position), as each index that is walked has them.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from durably.core.commit import InboxRow
from durably.core.query import (
    FIRST,
    WAITING,
    Counts,
    EntitiesFound,
    EntityQuery,
    Found,
    FoundWithWaiting,
    InstanceQuery,
    Place,
)
from durably.storage.postgres import rows
from durably.storage.postgres.calls import Connection
from durably.storage.postgres.columns import key, keys

_STUCK: Final = "(i.blocked IS NOT NULL OR i.parked IS NOT NULL)"
_TAGGED: Final = "EXISTS (SELECT 1 FROM {{s}}.instance_tags t WHERE t.instance_id = i.instance_id AND t.key = {} AND t.value = {})"
"""As `Where.require` takes it, with the schema to be filled in behind it. The index leads to what has one tag."""

_ALL_TAGGED: Final = (
    "NOT EXISTS (SELECT 1 FROM unnest({}::bytea[], {}::bytea[]) AS w (key, value) WHERE NOT EXISTS (SELECT 1 FROM"
    " {{s}}.instance_tags t WHERE t.instance_id = i.instance_id AND t.key = w.key AND t.value = w.value))"
)

_STATUSES_MAX: Final = 16
"""There are eight; the planner looks at each part of a compound statement."""

_INTEGER_MAX: Final = 2**63 - 1
_LAST_CHARACTER: Final = chr(0x10FFFF)
_BEFORE_SURROGATES, _AFTER_SURROGATES = chr(0xD7FF), chr(0xE000)


class Where:
    """Conditions, and the values that are bound in them by number."""

    def __init__(self) -> None:
        self._conditions: list[str] = []
        self.values: list[Any] = []

    def require(self, condition: str, *bound: Any) -> None:
        """One more; all of them have to hold. ``{}`` stands for each value."""
        self._conditions.append(condition.format(*(self.bind(value) for value in bound)))

    def bind(self, value: Any) -> str:
        """Bind a value; returns its place holder."""
        self.values.append(value)
        return f"${len(self.values)}"

    @property
    def text(self) -> str:
        """What stands behind `WHERE`."""
        return " AND ".join(self._conditions) or "true"


async def find(connection: Connection, schema: str, query: InstanceQuery) -> Found:
    """See `Store.query`."""
    return (await _page(connection, schema, query))[0]


async def find_with_waiting(connection: Connection, schema: str, query: InstanceQuery) -> FoundWithWaiting:
    """See `Store.query_with_waiting`."""
    async with connection.moment():
        found, places = await _page(connection, schema, query)
        return FoundWithWaiting(found, places, await _waiting(connection, schema, query, found.next_after))


async def count(connection: Connection, schema: str, query: InstanceQuery) -> Counts:
    """See `Store.count`."""
    where = _filters(msgspec.structs.replace(query, after=FIRST))
    if query.statuses is not None:
        where.require("i.status = ANY({})", keys(query.statuses))
    text = f"SELECT i.name, i.status, count(*) FROM {{s}}.instances i WHERE {where.text} GROUP BY i.name, i.status"
    found = await connection.rows(text.replace("{s}", schema), *where.values)
    return {(name.decode(), status.decode()): number for name, status, number in found}


async def _page(connection: Connection, schema: str, query: InstanceQuery) -> tuple[Found, list[Place]]:
    where = _filters(query)
    columns = rows.INSTANCE if query.payloads else rows.INSTANCE_ALONE
    page = _places(query, where)
    text = (
        f"SELECT i.position, {columns} FROM ({page}) AS page JOIN {{s}}.instances i USING (instance_id)"
        " ORDER BY page.created_at, page.position"
    )
    found = await connection.rows(text.replace("{s}", schema), *where.values)
    more = len(found) > query.page_size
    read = [(row[0], rows.as_instance(tuple(row)[1:])) for row in found[: query.page_size]]
    places = [Place(row.created_at, position) for position, row in read]
    return Found([row for _, row in read], places[-1] if more else None), places


def _places(query: InstanceQuery, where: Where) -> str:
    """Which rows are on the page. A page of each status, which an index has in order, is merged with the others'."""
    statuses = query.statuses
    one = "SELECT i.instance_id, i.created_at, i.position FROM {{s}}.instances i WHERE {} ORDER BY i.created_at, i.position"
    merged = statuses is not None and 0 < len(statuses) <= _STATUSES_MAX
    if statuses is not None and not merged:
        where.require("i.status = ANY({})", keys(statuses))
    limit = where.bind(query.page_size + 1)
    if statuses is None or not merged:
        return one.format(where.text) + f" LIMIT {limit}"
    parts: list[str] = []
    for status in dict.fromkeys(statuses):
        conditions = f"{where.text} AND i.status = {where.bind(key(status))}"
        if status != "Completed":
            conditions += " AND i.status <> 'Completed'"
        parts.append(f"({one.format(conditions)} LIMIT {limit})")
    return f"SELECT * FROM ({' UNION ALL '.join(parts)}) AS parts ORDER BY created_at, position LIMIT {limit}"


def _filters(query: InstanceQuery) -> Where:
    """All filters but that of the status."""
    where = Where()
    since, position = _within(query.after.created_at), _within(query.after.position)
    if query.after != FIRST:
        where.require("(i.created_at, i.position) > ({}, {})", since, position)
    if query.created_from is not None:
        where.require("i.created_at >= {}", _within(query.created_from))
    if query.created_to is not None:
        where.require("i.created_at <= {}", _within(query.created_to))
    if query.instance_id_prefix is not None:
        _require_prefix(where, "i.instance_id", query.instance_id_prefix)
    if query.tags:
        name, value = next(iter(query.tags.items()))
        where.require(_TAGGED, key(name), key(value))
        where.require(_ALL_TAGGED, keys(query.tags), keys(query.tags.values()))
    if query.parent_instance_id is not None:
        where.require("i.parent_instance_id = {}", key(query.parent_instance_id))
    if query.name is not None:
        where.require("i.name = {}", key(query.name))
    if query.updated_from is not None:
        where.require(rows.UPDATED_AT.replace("{s}", "{{s}}") + " >= {}", _within(query.updated_from))
    if query.updated_to is not None:
        where.require(rows.UPDATED_AT.replace("{s}", "{{s}}") + " <= {}", _within(query.updated_to))
    if query.stuck is not None:
        where.require(_STUCK if query.stuck else f"NOT {_STUCK}")
    if query.parked:
        where.require("i.parked IS NOT NULL")
    return where


async def _waiting(
    connection: Connection, schema: str, query: InstanceQuery, last: Place | None
) -> list[InboxRow]:
    """See `FoundWithWaiting.waiting`."""
    where = Where()
    where.require("m.absent")
    if query.after != FIRST:
        since, position = _within(query.after.created_at), _within(query.after.position - WAITING)
        where.require("(m.at, m.position) > ({}, {})", since, position)
    if query.created_from is not None:
        where.require("m.at >= {}", _within(query.created_from))
    if query.created_to is not None:
        where.require("m.at <= {}", _within(query.created_to))
    if last is not None:
        where.require("m.at < {}", last.created_at)
    if query.instance_id_prefix is not None:
        _require_prefix(where, "m.instance_id", query.instance_id_prefix)
    text = (
        f"SELECT {rows.INBOX} FROM {{s}}.inbox m WHERE {where.text} AND NOT EXISTS"
        " (SELECT 1 FROM {s}.instances i WHERE i.instance_id = m.instance_id) AND NOT EXISTS"
        " (SELECT 1 FROM {s}.inbox e WHERE e.instance_id = m.instance_id AND e.position < m.position)"
        f" ORDER BY m.at, m.position LIMIT {where.bind(query.page_size + 1)}"
    )
    return list(map(rows.as_message, await connection.rows(text.replace("{s}", schema), *where.values)))


async def find_entities(connection: Connection, schema: str, query: EntityQuery) -> EntitiesFound:
    """See `Store.query_entities`."""
    where = Where()
    where.require("instance_id > {}", key(query.after))
    if query.name is not None:
        where.require("name = {}", key(query.name))
    if query.prefix is not None:
        _require_prefix(where, "instance_id", query.prefix)
    if query.updated_from is not None:
        where.require("updated_at >= {}", _within(query.updated_from))
    if query.updated_to is not None:
        where.require("updated_at <= {}", _within(query.updated_to))
    if not query.with_transient:
        where.require("state IS NOT NULL")
    if query.locked:
        where.require("locked_by IS NOT NULL")
    limit = where.bind(query.page_size + 1)
    text = f"SELECT {rows.ENTITY} FROM {{s}}.entities WHERE {where.text} ORDER BY instance_id LIMIT {limit}"
    found = list(map(rows.as_entity, await connection.rows(text.replace("{s}", schema), *where.values)))
    page = found[: query.page_size]
    return EntitiesFound(page, page[-1].instance_id if len(found) > len(page) else None)


def _within(number: int) -> int:
    """What is asked for may come from a page token that somebody made up; beyond 64 bits there are no rows."""
    return max(-_INTEGER_MAX - 1, min(number, _INTEGER_MAX))


def _require_prefix(where: Where, column: str, prefix: str) -> None:
    """Text is compared as UTF-8, whose order is that of the code points."""
    where.require(f"{column} >= {{}}", key(prefix))
    last = prefix.rstrip(_LAST_CHARACTER)
    if last:  # else nothing lies behind the prefix
        following = _AFTER_SURROGATES if last[-1] == _BEFORE_SURROGATES else chr(ord(last[-1]) + 1)
        where.require(f"{column} < {{}}", key(last[:-1] + following))
