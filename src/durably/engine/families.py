"""The descendants of an instance: children that it called, their children, and so on. As its committed history says.

Those that `start_orchestration` started are on their own. Of an instance that continued as new, the history of its current
execution is all there is: children of the executions before are not found.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

import msgspec

from durably.core.events import ExecutionStarted, HistoryEvent, ParentRef, Rewound
from durably.core.history import decode_rows
from durably.core.ids import attempt_id
from durably.core.messages import MessageBody, Purge, Terminate
from durably.core.rewind import children_of
from durably.engine.committed import read_events
from durably.errors import HistoryCorruptError, InstanceNotFoundError, UsageError
from durably.storage.api import Store, StoredInstance

Child = tuple[str, ParentRef, tuple[str, ...]]
"""The id that a child has if it is still there, the call that started it, and the executions in which that may have been."""


def children(stored: StoredInstance) -> list[Child]:
    """The children that the history of an instance knows of; none when it cannot be read."""
    row = stored.row
    try:
        events, _ = decode_rows(row.instance_id, row.execution_id, stored.history)
    except HistoryCorruptError:
        return []
    return _children(row.instance_id, events)


async def descendants(store: Store, instance_id: str) -> list[Child]:
    """All descendants, each behind its parent."""
    found: list[Child] = []
    seen = {instance_id}
    waiting = [instance_id]
    while waiting:
        ancestor = waiting.pop()
        try:
            events = await read_events(store, ancestor)
        except (InstanceNotFoundError, HistoryCorruptError):
            continue
        new = [child for child in _children(ancestor, events) if child[0] not in seen]
        seen.update(child[0] for child in new)
        found += new
        waiting += [child[0] for child in new]
    return found


async def tell(
    send: Callable[[str, MessageBody], Awaitable[None]], family: Iterable[Child], order: Terminate | Purge
) -> None:
    """Send an order to descendants, who have it already from their own parents: this waits until they obeyed.

    Args:
        send: Sends a message to an instance and returns when what it did is durable.
        family: From `descendants`, of before the order.
        order: As it was sent to the ancestor.
    """
    for child, parent, lineage in family:
        with suppress(UsageError):  # it is gone, or has ended
            await send(child, msgspec.structs.replace(order, parent=parent, lineage=lineage))


def _children(instance_id: str, events: list[HistoryEvent]) -> list[Child]:
    started = next((event for event in events if isinstance(event, ExecutionStarted)), None)
    if started is None:
        return []
    former: dict[str, None] = {}
    for event in events:
        if isinstance(event, Rewound):
            former.update(dict.fromkeys(event.lineage))
    return [
        (
            attempt_id(child, attempt),
            ParentRef(instance_id, started.execution_id, seq, attempt),
            tuple(former),
        )
        for child, seq, attempts in children_of(events)
        for attempt in range(1, attempts + 1)
    ]
