# ruff: noqa: S608 - statements are put together from constants of this file; values are bound
"""Queries over instances: which path through the table, and the SQL for it.

Pages are in order of (created_at, position), and so is each index that is walked here: a page costs its rows, plus those
that are passed over because another filter refuses them. What is rare by id prefix or by tag is fetched through the narrow
index and sorted. All filters that match next to nothing in a large hub have an index, but for
`updated_from` and `updated_to`.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

import apsw

from durably.core.commit import InboxRow
from durably.core.query import WAITING, Found, FoundWithWaiting, InstanceQuery, Place
from durably.errors import UsageError
from durably.storage.sqlite.calls import Execute, one_moment
from durably.storage.sqlite.conditions import Where, prefix_range, require_filters, require_status, within
from durably.storage.sqlite.reader import INSTANCE, INSTANCE_ALONE, Reader, as_instance

_STATUSES_MAX = 16
"""There are eight; a compound statement may have 500 parts."""

_WHOLE = (
    "SELECT i.position, {} FROM ({}) AS page CROSS JOIN instances i ON i.position = page.position"
    " ORDER BY page.created_at, page.position"
)
"""Whole rows are fetched for the page alone: a sort does not carry them."""


_ABSENT = (
    "SELECT m.message_id, m.instance_id, m.at, m.body, m.position FROM inbox m WHERE m.absent AND {} AND NOT EXISTS"
    " (SELECT 1 FROM instances i WHERE i.instance_id = m.instance_id) AND NOT EXISTS"
    " (SELECT 1 FROM inbox earlier WHERE earlier.instance_id = m.instance_id AND earlier.position < m.position)"
    " ORDER BY m.at, m.position LIMIT ?"
)


def find(reader: Reader, query: InstanceQuery) -> Found:
    """See `Store.query`."""
    with asked(reader):
        return _page(reader.execute, query)[0]
    return Found([], None)


def find_with_waiting(reader: Reader, query: InstanceQuery) -> FoundWithWaiting:
    """See `Store.query_with_waiting`."""
    with asked(reader):
        found, places = _page(reader.execute, query)
        return FoundWithWaiting(found, places, _waiting(reader.execute, query, found.next_after))
    return FoundWithWaiting(Found([], None), [], [])


@contextmanager
def asked(reader: Reader) -> Generator[None, None, None]:
    """Read what people ask for, of one moment. What cannot be stored is not found: the block is left without an error.

    Raises:
        UsageError: The query is more than SQLite takes. It must never look like a broken hub.
    """
    try:
        with suppress(UnicodeEncodeError), one_moment(reader.connection):
            yield
    except apsw.SQLError as error:
        raise UsageError(f"This query cannot be run: {error}; ask for less at once") from None


def _page(execute: Execute, query: InstanceQuery) -> tuple[Found, list[Place]]:
    text, values = _statement(execute, query)
    rows = execute(_WHOLE.format(INSTANCE if query.payloads else INSTANCE_ALONE, text), values).fetchall()
    more = len(rows) > query.page_size
    page = [as_instance(row[1:]) for row in rows[: query.page_size]]
    places = [Place(row.created_at, columns[0]) for row, columns in zip(page, rows, strict=False)]
    return Found(page, places[-1] if more else None), places


def _waiting(execute: Execute, query: InstanceQuery, last: Place | None) -> list[InboxRow]:
    """See `FoundWithWaiting.waiting`."""
    where = Where()
    since, position = query.after
    where.require(
        "m.at >= ? AND (m.at > ? OR m.position > ?)", *map(within, (since, since, position - WAITING))
    )
    if query.created_from is not None:
        where.require("m.at >= ?", within(query.created_from))
    if query.created_to is not None:
        where.require("m.at <= ?", within(query.created_to))
    if last is not None:
        where.require("m.at < ?", last.created_at)
    if query.instance_id_prefix is not None:
        where.require(*prefix_range("+m.instance_id", query.instance_id_prefix))
    rows = execute(_ABSENT.format(where.text), (*where.values, query.page_size + 1))
    return list(map(InboxRow._make, rows))


def _statement(execute: Execute, query: InstanceQuery) -> tuple[str, tuple[Any, ...]]:
    where = Where()
    narrow = require_filters(execute, query, where)
    limit = query.page_size + 1
    statuses = query.statuses
    if statuses is not None:
        walks = not narrow and query.parent_instance_id is None
        if walks and "Completed" not in statuses and len(statuses) <= _STATUSES_MAX:
            return _by_status(tuple(dict.fromkeys(statuses)), where, limit)
        require_status(statuses, where)
    return _select(where, sort=narrow), (*where.values, limit)


def _by_status(statuses: tuple[str, ...], where: Where, limit: int) -> tuple[str, tuple[Any, ...]]:
    """A page of each status, which the index has in order, merged. No status matches nothing."""
    if not statuses:
        where.require("0")
        return _select(where), (*where.values, limit)
    others = list(where.values)
    where.conditions[:0] = ["i.status = ?", "i.status <> 'Completed'"]
    one = _select(where)
    bound: list[Any] = []
    for status in statuses:
        bound += [status, *others, limit]
    parts = " UNION ALL ".join([f"SELECT * FROM ({one})"] * len(statuses))
    return f"SELECT * FROM ({parts}) ORDER BY created_at, position LIMIT ?", (*bound, limit)


def _select(where: Where, *, sort: bool = False) -> str:
    """The places of one page. A plus sign hides a column from the planner, which then sorts."""
    order = "+i.created_at, +i.position" if sort else "i.created_at, i.position"
    return f"SELECT i.created_at, i.position FROM instances i WHERE {where.text} ORDER BY {order} LIMIT ?"
