"""Reading what is parked: committed rows, for the host and for processes without one."""

from __future__ import annotations

from durably.core.commit import InstanceRow
from durably.core.events import AttemptInterrupted, HistoryEvent, TaskScheduled, TurnInterrupted, TurnStarted
from durably.core.parked import ParkedFound, ParkedPlace, ParkedQuery, ParkedRow
from durably.core.query import InstanceQuery
from durably.engine.committed import read_events
from durably.errors import HistoryCorruptError, InstanceNotFoundError, InstanceStateError
from durably.storage.api import Store


async def query_parked(store: Store, query: ParkedQuery) -> ParkedFound:
    """One page of what is parked: instances first, then messages."""
    rows: list[ParkedRow] = []
    place = query.after
    if place.kind == "instance" and query.kind != "message":
        found = await store.query(
            InstanceQuery(
                parked=True,
                instance_id_prefix=query.instance_id_prefix,
                page_size=query.page_size,
                after=place.instance,
            )
        )
        rows = [await _instance(store, row) for row in found.rows]
        if found.next_after is not None:
            return ParkedFound(rows, ParkedPlace("instance", found.next_after))
    if query.kind == "instance":
        return ParkedFound(rows, None)
    return await _messages(store, query, rows, place.message)


async def _messages(store: Store, query: ParkedQuery, rows: list[ParkedRow], after: int) -> ParkedFound:
    prefix = query.instance_id_prefix or ""
    while True:
        page = await store.read_parked(after, query.page_size)
        for message in page:
            if len(rows) == query.page_size:
                return ParkedFound(rows, ParkedPlace("message", message=after))
            after = message.position
            if message.instance_id.startswith(prefix):
                rows.append(
                    ParkedRow(
                        "message",
                        message.message_id,
                        message.instance_id,
                        message.cause,
                        message.body,
                        message.parked_at,
                        0,
                    )
                )
        if len(page) < query.page_size:
            return ParkedFound(rows, None)


async def _instance(store: Store, row: InstanceRow) -> ParkedRow:
    payload, since, deliveries = row.input, row.updated_at, 0
    try:
        payload, since, deliveries = _blame(row, await read_events(store, row.instance_id))
    except (HistoryCorruptError, InstanceNotFoundError):
        pass  # the row says all that is known
    instance_id = row.instance_id
    return ParkedRow("instance", instance_id, instance_id, row.parked or "", payload, since, deliveries)


def _blame(row: InstanceRow, events: list[HistoryEvent]) -> tuple[bytes | None, int, int]:
    """What got the instance parked: payload, instant, deliveries."""
    payload, since, deliveries, now = row.input, row.updated_at, 0, 0
    calls: dict[int, TaskScheduled] = {}
    for event in events:
        if isinstance(event, TurnStarted):
            now = event.at
        elif isinstance(event, TaskScheduled):
            calls[event.seq] = event
        elif isinstance(event, AttemptInterrupted) and event.parked:
            payload, since, deliveries = calls[event.seq].input, now, event.deliveries
        elif isinstance(event, TurnInterrupted) and event.parked:
            payload, since, deliveries = row.input, now, event.deliveries
    return payload, since, deliveries


async def addressee(store: Store, item_id: str, operation: str) -> tuple[str, str | None]:
    """Whom to ask to deal with a parked item: the instance, and the id of the message if it is one.

    Raises:
        InstanceNotFoundError: Nothing has this id.
        InstanceStateError: The instance of this id is not parked.
    """
    messages = await store.read_parked(message_id=item_id)
    if messages:
        return messages[0].instance_id, item_id
    row = await store.get_instance(item_id, payloads=False)
    if row is None:
        raise InstanceNotFoundError(item_id)
    if row.parked is None:
        raise InstanceStateError(item_id, row.status, operation, "a parked instance")
    return item_id, None
