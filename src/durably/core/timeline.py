"""A history for people and programs outside: one entry an event, under the names that Durable Functions gives them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, cast

import msgspec

from durably.core.events import (
    ActionCanceled,
    ChildScheduled,
    Dropped,
    EntityCalled,
    EventAwaited,
    HistoryEvent,
    TaskScheduled,
    TimerCreated,
    TurnStarted,
)
from durably.errors import FailureDetails

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_NAMES = {
    "TurnStarted": "OrchestratorStarted",
    "ChildScheduled": "SubOrchestrationInstanceCreated",
    "AttemptFailed": "TaskAttemptFailed",
    "AttemptStarted": "TaskAttemptStarted",
    "AttemptInterrupted": "TaskAttemptInterrupted",
    "TurnInterrupted": "OrchestratorInterrupted",
    "EventAwaited": "EventAwaited",
    "Answered": "WorkerAnswered",
    "StartSent": "OrchestrationStarted",
    "CustomStatusSet": "CustomStatusSet",
    "Rewound": "ExecutionRewound",
    "EntityCalled": "EntityOperationCalled",
    "EntitySignaled": "EntityOperationSignaled",
    "EntityAnswered": "EntityOperationAnswered",
    "LockRequested": "EntityLockRequested",
    "LockGranted": "EntityLockGranted",
    "LockReleased": "EntityUnlockSent",
}
_OF_CHILD = {
    "TaskCompleted": "SubOrchestrationInstanceCompleted",
    "TaskFailed": "SubOrchestrationInstanceFailed",
    "ActionCanceled": "SubOrchestrationInstanceCanceled",
}
_OF_ENTITY = {
    "TaskCompleted": "EntityOperationCompleted",
    "TaskFailed": "EntityOperationFailed",
    "ActionCanceled": "EntityOperationCanceled",
}
_NOT_SHOWN = frozenset(
    (
        "input",
        "result",
        "value",
        "at",
        "name",
        "operation",
        "seq",
        "retry",
        "timeout_us",
        "parent",
        "answer",
        "detail",
        "carried",
        "output",
        "trace",
    )
)
_INSTANTS = frozenset(("fire_at", "retry_at", "start_at", "created_at"))


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a history.

    Attributes:
        event_type: For example ``"TaskScheduled"``, ``"TimerFired"``, ``"SubOrchestrationInstanceCompleted"``.
        timestamp: Orchestration time of its turn (aware, UTC).
        task_id: The number of the action it belongs to, or None.
        name: Of the activity, orchestrator, external event or operation of an entity; also on the entry that completes it.
            None without one.
        input: JSON payload as text, or None.
        result: JSON payload as text, or None.
        details: What else the event says, as plain data.
    """

    event_type: str
    timestamp: datetime
    task_id: int | None = None
    name: str | None = None
    input: str | None = None
    result: str | None = None
    details: dict[str, Any] = {}


def instant(micros: int) -> datetime:
    """Microseconds since 1970 UTC as an aware datetime."""
    return _EPOCH + timedelta(microseconds=micros)


@lru_cache(1024)
def second(since_1970: int) -> str:
    """A second in UTC, such as ``2026-11-20T08:30:00``. Whoever writes many instants writes few seconds: they are kept."""
    return instant(since_1970 * 1_000_000).isoformat()[:19]


def timeline(events: Iterable[HistoryEvent]) -> list[HistoryEntry]:
    """The entries of a history, in its order."""
    entries: list[HistoryEntry] = []
    scheduled: dict[int, HistoryEvent] = {}
    now = 0
    for event in events:
        if isinstance(event, TurnStarted):
            now = event.at
        seq: int | None = getattr(event, "seq", None)
        if isinstance(event, TaskScheduled | ChildScheduled | TimerCreated | EventAwaited | EntityCalled):
            scheduled[event.seq] = event
        origin = scheduled.get(seq) if seq is not None else None
        entries.append(_entry(event, origin, seq, now))
    return entries


def _entry(event: HistoryEvent, origin: HistoryEvent | None, seq: int | None, now: int) -> HistoryEntry:
    kind = type(event).__name__
    event_type = _NAMES.get(kind, kind)
    if isinstance(origin, ChildScheduled) and kind in _OF_CHILD:
        event_type = _OF_CHILD[kind]
    elif isinstance(origin, EntityCalled) and kind in _OF_ENTITY:
        event_type = _OF_ENTITY[kind]
    elif isinstance(event, ActionCanceled):
        event_type = "TimerCanceled" if isinstance(origin, TimerCreated) else "TaskCanceled"
    return HistoryEntry(
        event_type=event_type,
        timestamp=instant(now),
        task_id=seq,
        name=_name(event) or _name(origin),
        input=_text(getattr(event, "input", None)),
        result=_text(getattr(event, "result", getattr(event, "value", None))),
        details=_details(event),
    )


def _name(event: HistoryEvent | None) -> str | None:
    return getattr(event, "name", None) or getattr(event, "operation", None)


def _details(event: HistoryEvent) -> dict[str, Any]:
    details: dict[str, Any] = {}
    for field in event.__struct_fields__:
        value = getattr(event, field)
        if field in _NOT_SHOWN or value is None or value == () or (field == "remote" and not value):
            continue
        details[field] = instant(value).isoformat() if field in _INSTANTS else _plain(value)
    return details


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in cast("tuple[Any, ...]", value)]
    if isinstance(value, FailureDetails | Dropped):
        return {name: _plain(held) for name in value.__struct_fields__ if (held := getattr(value, name))}
    return _text(value) if isinstance(value, bytes) else msgspec.to_builtins(value)


def _text(payload: bytes | None) -> str | None:
    return None if payload is None else payload.decode()
