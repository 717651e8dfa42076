"""The descendants of an instance: children that it called, their children, and so on. As committed rows say.

Those that `start_orchestration` started are on their own: their rows name no parent. The history of the current execution
knows the children of that one; those of the executions before it are known by their rows, which name the parent, and by
their histories, which say in which of its lives (`ExecutionStarted.life`). Children from before that was recorded are found
by the history alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from durably.core.commit import InstanceRow
from durably.core.events import ExecutionStarted, HistoryEvent, ParentRef, Rewound
from durably.core.history import decode_rows
from durably.core.ids import attempt_id
from durably.core.messages import MessageBody, Purge, Terminate, is_child_of
from durably.core.query import FIRST, PAGE_SIZE_MAX, InstanceQuery, Place
from durably.core.rewind import children_of
from durably.core.status import TERMINAL, RuntimeStatus
from durably.engine.committed import read_events
from durably.errors import HistoryCorruptError, InstanceNotFoundError, UsageError
from durably.storage.api import Store, StoredInstance

_AT_ONCE = 100
"""So many orders are under way at once: they share commits."""

_LIVE = frozenset(status.value for status in RuntimeStatus) - TERMINAL

Send = Callable[[str, MessageBody], Awaitable[object]]
"""Sends a message to an instance and returns when what it did is durable."""


class Child(NamedTuple):
    """A call of a sub-orchestration, and the instance that it started.

    Attributes:
        instance_id: The id that the child has, if it is still there.
        call: What started it.
        lineage: Executions in which that may have been, see `Rewound.lineage`.
    """

    instance_id: str
    call: ParentRef
    lineage: tuple[str, ...] = ()


class _Kin(NamedTuple):
    """A descendant of the instance that an order is for.

    Attributes:
        child: Who it is.
        former: An execution before a continue-as-new called it, so that an order to its parent does not reach it.
        depth: 1 for a child, 2 for a grandchild, and so on.
    """

    child: Child
    former: bool
    depth: int


class _Candidate(NamedTuple):
    """An instance that may be a descendant.

    Attributes:
        instance_id: Its id.
        called: The call that the current execution of the parent made, or None: its row names the parent.
        parent: The id of the parent.
        life: Of the parent.
        depth: See `_Kin`.
    """

    instance_id: str
    called: Child | None
    parent: str
    life: str
    depth: int


def children(stored: StoredInstance) -> list[Child]:
    """The children that the history of an instance knows of; none when it cannot be read."""
    row = stored.row
    try:
        events, _ = decode_rows(row.instance_id, row.execution_id, stored.history)
    except HistoryCorruptError:
        return []
    return _called(events)


async def order_family(
    store: Store,
    send: Send,
    instance_id: str,
    order: Terminate | Purge,
    obey: Callable[[], Awaitable[object]],
) -> None:
    """Give an order to an instance and to all its descendants; return when they have obeyed.

    Children of a current execution get it from their parent, in its commit. Former ones get it from here, the deepest ones
    first and all of them before the instance: if this process dies on the way, the instance can be asked again.

    Args:
        store: Where the instances are.
        send: See `Send`.
        instance_id: The ancestor.
        order: For the descendants; each is addressed by the call that started it, so that a stranger is left alone.
        obey: Gives the order to the ancestor.
    """
    family = await _descendants(store, instance_id, order)
    for depth in sorted({kin.depth for kin in family if kin.former}, reverse=True):
        await _tell(send, [kin.child for kin in family if kin.former and kin.depth == depth], order)
    await obey()
    # This waits until the others have obeyed; also those whom somebody called just before it obeyed itself.
    told: set[str] = set()
    while family := [kin.child for kin in family if not kin.former and kin.child.instance_id not in told]:
        await _tell(send, family, order)
        told.update(child.instance_id for child in family)
        family = (
            [] if isinstance(order, Purge) else await _descendants(store, instance_id, order, obeyed=True)
        )


async def _tell(send: Send, family: Sequence[Child], order: Terminate | Purge) -> None:
    async def tell(child: Child) -> None:
        addressed = msgspec.structs.replace(order, parent=child.call, lineage=child.lineage)
        with suppress(UsageError):  # it is gone, or has ended
            await send(child.instance_id, addressed)

    for start in range(0, len(family), _AT_ONCE):
        await asyncio.gather(*map(tell, family[start : start + _AT_ONCE]))


# --- finding them ----------------------------------------------------------------------------------------------------


async def _descendants(
    store: Store, instance_id: str, order: Terminate | Purge, *, obeyed: bool = False
) -> list[_Kin]:
    """All whom an order means, each behind its parent; nobody when the instance itself will refuse it.

    A purge stops at those that have not ended. Of former children those are found that the order can mean, with all below
    them: there may be any number of others.
    """
    statuses = TERMINAL if isinstance(order, Purge) else _LIVE
    root = await store.get_instance(instance_id)
    if root is None or (root.status not in statuses and not obeyed):
        return []
    found: list[_Kin] = []
    seen = {instance_id}
    waiting = await _candidates(store, root, await _events(store, root), 1, statuses)
    while waiting:
        candidate = waiting.pop()
        if candidate.instance_id in seen:
            continue
        seen.add(candidate.instance_id)
        row = await store.get_instance(candidate.instance_id)
        if row is not None and isinstance(order, Purge) and row.status not in TERMINAL:
            continue
        events = [] if row is None else await _events(store, row)
        kin = _recognize(candidate, _started(events))
        if kin is None:
            continue
        found.append(kin)
        if row is not None:
            waiting += await _candidates(store, row, events, kin.depth + 1, statuses)
    return found


async def _candidates(
    store: Store, row: InstanceRow, events: list[HistoryEvent], depth: int, statuses: frozenset[str]
) -> list[_Candidate]:
    """Who may be a child of an instance; those that its current execution called come last, and are taken first."""
    started = _started(events)
    if started is None:
        return []
    parent, life = row.instance_id, started.life
    found: list[_Candidate] = []
    after: Place | None = FIRST
    while after is not None:
        query = InstanceQuery(
            parent_instance_id=parent, statuses=tuple(statuses), page_size=PAGE_SIZE_MAX, after=after
        )
        rows, after = await store.query(query)
        found += [_Candidate(child.instance_id, None, parent, life, depth) for child in rows]
    found += [_Candidate(child.instance_id, child, parent, life, depth) for child in _called(events)]
    return found


def _recognize(candidate: _Candidate, started: ExecutionStarted | None) -> _Kin | None:
    """The candidate as a descendant; None when it is a stranger."""
    called, depth = candidate.called, candidate.depth
    if started is None:  # it has not begun, is gone, or cannot be read: its address tells who is meant
        return None if called is None else _Kin(called, former=False, depth=depth)
    call = started.parent
    if call is None:
        return None
    if called is not None and is_child_of(call, called.call, called.lineage):
        return _Kin(called, former=False, depth=depth)
    if (call.instance_id, call.life) == (candidate.parent, candidate.life):
        return _Kin(Child(candidate.instance_id, call), former=True, depth=depth)
    return None


async def _events(store: Store, row: InstanceRow) -> list[HistoryEvent]:
    try:
        return await read_events(store, row.instance_id)
    except (InstanceNotFoundError, HistoryCorruptError):
        return []


def _started(events: Sequence[HistoryEvent]) -> ExecutionStarted | None:
    return next((event for event in events if isinstance(event, ExecutionStarted)), None)


def _called(events: Sequence[HistoryEvent]) -> list[Child]:
    """The children that an execution called, and those of the executions of which a rewind made it the continuation."""
    started = _started(events)
    if started is None:
        return []
    former: dict[str, None] = {}
    for event in events:
        if isinstance(event, Rewound):
            former.update(dict.fromkeys(event.lineage))
    return [
        Child(
            attempt_id(child, attempt),
            ParentRef(started.instance_id, started.execution_id, seq, attempt),
            tuple(former),
        )
        for child, seq, attempts in children_of(events)
        for attempt in range(1, attempts + 1)
    ]
