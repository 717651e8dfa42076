"""Instances with their payloads, or by what is in them: a bounded piece of the hub per request, and a cursor to go on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from durably.core.commit import InstanceRow, Unreadable
from durably.core.query import InstanceQuery, Place
from durably.http_api.v1.where import Condition, matches
from durably.management import Management

ROWS_MAX: Final = 5_000
"""A request looks at so many instances."""

_BYTES_MAX: Final = 8 * 1024 * 1024
"""Payloads are read on the event loop: so many bytes of them in one request, and the page that goes beyond."""

_PAGES_MAX: Final = 100

_PAGE: Final = 100
_PAGE_UNKNOWN: Final = 10

_decode = msgspec.json.Decoder().decode


async def search(
    management: Management, query: InstanceQuery, conditions: Sequence[Condition]
) -> tuple[list[InstanceRow], Place | None]:
    """Instances that match query and conditions, with payloads, and where to go on (None: that was all).

    Pages of the store are taken whole, since a cursor is the end of one: what is found may be fewer than a page of the
    query, and none. The first page is a short one: nobody knows yet how large these payloads are.
    """
    roots = {one.root for one in conditions}
    found: list[InstanceRow] = []
    after: Place | None = query.after
    rows_seen = bytes_seen = pages = 0
    page = _PAGE_UNKNOWN
    while after is not None:
        wanted = query.page_size - len(found)
        if not wanted or (conditions and found and wanted * 2 < query.page_size):
            break  # what is missing to a page would be looked for in ever smaller pieces
        if rows_seen >= ROWS_MAX or bytes_seen >= _BYTES_MAX or pages >= _PAGES_MAX:
            break
        rows, after = await management.query(
            msgspec.structs.replace(query, payloads=True, after=after, page_size=min(page, wanted))
        )
        found += [row for row in rows if matches(conditions, _payloads(row, roots))]
        size = sum(_size(row) for row in rows)
        rows_seen, bytes_seen, pages = rows_seen + len(rows), bytes_seen + size, pages + 1
        page = _PAGE if size * 8 < _BYTES_MAX else _PAGE_UNKNOWN
    return found, after


def _payloads(row: InstanceRow, roots: set[str]) -> dict[str, Any]:
    stored = {"input": row.input, "output": row.output, "customStatus": row.custom_status}
    found: dict[str, Any] = {}
    for root, payload in stored.items():
        if root in roots and payload is not None and type(payload) is not Unreadable:
            with suppress(
                msgspec.DecodeError, RecursionError
            ):  # a converter of the app may write something else
                found[root] = _decode(payload)
    return found


def _size(row: InstanceRow) -> int:
    return sum(len(payload) for payload in (row.input, row.output, row.custom_status) if payload is not None)
