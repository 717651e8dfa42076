"""Lists and counts of instances, together with those whose start waits in the inbox for an owner: they are Pending.

A store gives both of one moment, so that a start that is taken meanwhile is seen as the one or as the other. It keeps its
place when it is taken: an instance is created when its start was accepted. While an owner serves the hub none waits, and
that is known from an index.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from durably.core.commit import InboxRow, InstanceRow
from durably.core.query import (
    FIRST,
    PAGE_SIZE_MAX,
    Counts,
    Found,
    FoundWithWaiting,
    InstanceQuery,
    Place,
    place_of_waiting,
)
from durably.core.status import RuntimeStatus
from durably.engine.committed import pending_row
from durably.storage.api import Store

_PENDING = RuntimeStatus.Pending.value
_ATTEMPTS = 3


async def query_instances(store: Store, query: InstanceQuery) -> Found:
    """One page of instances that match; see `Store.query`."""
    if not _may_wait(query):
        return await store.query(query)
    while True:
        asked = await store.query_with_waiting(query)
        if not asked.waiting:
            return asked.found
        page = await _merged(store, query, asked)
        if page.rows or page.next_after is None:
            return page
        query = msgspec.structs.replace(query, after=page.next_after)


async def count_instances(store: Store, query: InstanceQuery) -> Counts:
    """How many instances match, by name and status; see `Store.count`."""
    if not _may_wait(query):
        return await store.count(query)
    waiting, counts = await _waiting(store, query), await store.count(query)
    for _ in range(_ATTEMPTS):
        if not waiting:
            return counts
        before, waiting = waiting, await _waiting(store, query)
        if before.keys() <= waiting.keys():  # none was taken in between, so none is counted twice
            waiting = before
            break
        counts = await store.count(query)
    pending = Counter((row.name, row.status) for row in waiting.values())
    return dict(Counter(counts) + pending)


def _may_wait(query: InstanceQuery) -> bool:
    return (query.statuses is None or _PENDING in query.statuses) and not query.stuck and not query.parked


async def _merged(store: Store, query: InstanceQuery, asked: FoundWithWaiting) -> Found:
    """The rows of a page, and the starts that belong between them."""
    placed = list(zip(asked.places, asked.found.rows, strict=True))
    waiting, next_after = asked.waiting[: query.page_size], asked.found.next_after
    for message in waiting:
        row = await _start_in(store, message)
        if row is not None and query.matches(row):
            placed.append((place_of_waiting(message), row if query.payloads else row._replace(input=None)))
    if len(asked.waiting) > len(waiting):  # there are more of them before the last row
        next_after = place_of_waiting(waiting[-1])
        placed = [(place, row) for place, row in placed if place <= next_after]
    placed.sort(key=lambda one: one[0])
    if len(placed) > query.page_size:
        placed = placed[: query.page_size]
        next_after = placed[-1][0]
    return Found([row for _, row in placed], next_after)


async def _waiting(store: Store, query: InstanceQuery) -> dict[str, InstanceRow]:
    """The starts that match, by the id of the instance."""
    starts: dict[str, InstanceRow] = {}
    after: Place | None = FIRST
    while after is not None:
        no_rows = msgspec.structs.replace(query, statuses=(), page_size=PAGE_SIZE_MAX, after=after)
        messages = (await store.query_with_waiting(no_rows)).waiting
        for message in messages:
            row = await _start_in(store, message)
            if row is not None and query.matches(row):
                starts[row.instance_id] = row
        after = place_of_waiting(messages[-1]) if len(messages) > PAGE_SIZE_MAX else None
    return starts


async def _start_in(store: Store, message: InboxRow) -> InstanceRow | None:
    """What the first message to an instance that does not exist makes of it; a later one, when that is no start."""
    row = pending_row(message)
    if row is None:
        messages = await store.read_messages(message.instance_id)
        row = next((found for one in messages if (found := pending_row(one)) is not None), None)
    return row
