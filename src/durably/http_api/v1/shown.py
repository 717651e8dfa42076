"""What ``/api/v1`` says, made of what the hub has."""

from __future__ import annotations

from typing import overload

import msgspec
from msgspec import UNSET, Raw, UnsetType

from durably.client.entities import EntityInfo
from durably.core.commit import InstanceRow
from durably.core.history import decode_failure
from durably.core.parked import ParkedItem
from durably.core.status import TERMINAL
from durably.core.timeline import HistoryEntry, instant
from durably.errors import FailureDetails
from durably.http_api.payloads import raw
from durably.http_api.v1 import bodies

_tags = msgspec.json.Decoder(dict[str, str]).decode


def instance_of(row: InstanceRow, *, payloads: bool, inputs: bool = True) -> bodies.Instance:
    """A row for people who may see payloads, or may not.

    Args:
        row: The row.
        payloads: They may.
        inputs: Also input and output.
    """
    failure = decode_failure(row.failure)
    return bodies.Instance(
        instance_id=row.instance_id,
        execution_id=row.execution_id,
        name=row.name,
        version=row.version,
        status=row.status,  # type: ignore[arg-type]
        created_at=instant(row.created_at),
        updated_at=instant(row.updated_at),
        start_at=None if row.start_at is None else instant(row.start_at),
        parent_instance_id=row.parent_instance_id,
        tags=_tags(row.tags) if row.tags else {},
        compensating=failure is not None and row.status not in TERMINAL,
        stuck="parked" if row.parked is not None else "blocked" if row.blocked is not None else None,
        stuck_because=(row.parked or row.blocked) if payloads else UNSET,
        custom_status=raw(row.custom_status) if payloads else UNSET,
        failure=failure_of(failure) if payloads else UNSET,
        input=raw(row.input) if payloads and inputs else UNSET,
        output=raw(row.output) if payloads and inputs else UNSET,
    )


@overload
def failure_of(details: FailureDetails) -> bodies.Failure: ...


@overload
def failure_of(details: FailureDetails | None) -> bodies.Failure | None: ...


def failure_of(details: FailureDetails | None) -> bodies.Failure | None:
    """Why something failed."""
    if details is None:
        return None
    return bodies.Failure(
        type=details.type,
        message=details.message,
        stack_trace=details.stack_trace,
        inner=failure_of(details.inner),
        bases=details.bases,
        non_retryable=details.non_retryable,
    )


def entry_of(number: int, entry: HistoryEntry, *, payloads: bool) -> bodies.Entry:
    """An event of a history."""
    return bodies.Entry(
        number=number,
        event_type=entry.event_type,
        timestamp=entry.timestamp,
        task_id=entry.task_id,
        name=entry.name,
        input=_text(entry.input) if payloads else UNSET,
        result=_text(entry.result) if payloads else UNSET,
        details=entry.details if payloads else UNSET,
    )


def _text(payload: str | None) -> Raw | UnsetType:
    return UNSET if payload is None else raw(payload)


def entity_of(info: EntityInfo, *, state: bool, waiting: bool = False) -> bodies.Entity:
    """An entity, with its state or without."""
    return bodies.Entity(
        name=info.entity_id.name,
        key=info.entity_id.key,
        exists=info.exists,
        updated_at=info.last_modified,
        locked_by=info.locked_by,
        locked_since=info.locked_since,
        scheduled=info.scheduled,
        waiting=info.waiting if waiting else UNSET,
        lock_waiters=info.lock_waiters if waiting else UNSET,
        corrupt=info.corrupt if state else UNSET,
        state=info.state if state else UNSET,
    )


def parked_of(item: ParkedItem, *, payloads: bool) -> bodies.Parked:
    """A work item that was set aside."""
    return bodies.Parked(
        kind=item.kind,
        id=item.id,
        instance_id=item.instance_id,
        since=item.since,
        deliveries=item.deliveries,
        cause=item.cause if payloads else UNSET,
        payload=item.payload if payloads else UNSET,
    )
