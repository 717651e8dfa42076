"""Instances as the protocol shows them, and its filters as those of the hub."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from durably.core.commit import InstanceRow, Unreadable
from durably.core.events import Payload
from durably.core.history import decode_failure
from durably.core.status import TERMINAL, RuntimeStatus
from durably.executors.remote.wire import (
    Message,
    failure_message,
    instant_of,
    payload_value,
    pb,
    text_value,
    timestamp,
)
from durably.grpc_server.served import Served

_tags = msgspec.json.Decoder(dict[str, str]).decode

_SHOWN: Final = {
    RuntimeStatus.Pending: pb.ORCHESTRATION_STATUS_PENDING,
    RuntimeStatus.Running: pb.ORCHESTRATION_STATUS_RUNNING,
    RuntimeStatus.ContinuedAsNew: pb.ORCHESTRATION_STATUS_RUNNING,
    RuntimeStatus.Suspended: pb.ORCHESTRATION_STATUS_SUSPENDED,
    RuntimeStatus.Completed: pb.ORCHESTRATION_STATUS_COMPLETED,
    RuntimeStatus.Failed: pb.ORCHESTRATION_STATUS_FAILED,
    RuntimeStatus.Terminated: pb.ORCHESTRATION_STATUS_TERMINATED,
    # The protocol has CANCELED, but clients of Python raise on it, and would see no page that has such an instance.
    RuntimeStatus.Canceled: pb.ORCHESTRATION_STATUS_TERMINATED,
}

_ASKED: Final = {
    pb.ORCHESTRATION_STATUS_PENDING: (RuntimeStatus.Pending,),
    pb.ORCHESTRATION_STATUS_RUNNING: (RuntimeStatus.Running, RuntimeStatus.ContinuedAsNew),
    pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW: (RuntimeStatus.ContinuedAsNew,),
    pb.ORCHESTRATION_STATUS_SUSPENDED: (RuntimeStatus.Suspended,),
    pb.ORCHESTRATION_STATUS_COMPLETED: (RuntimeStatus.Completed,),
    pb.ORCHESTRATION_STATUS_FAILED: (RuntimeStatus.Failed,),
    pb.ORCHESTRATION_STATUS_TERMINATED: (RuntimeStatus.Terminated, RuntimeStatus.Canceled),
    pb.ORCHESTRATION_STATUS_CANCELED: (RuntimeStatus.Canceled,),
}


def status_of(row: InstanceRow, served: Served) -> pb.OrchestrationStatus:
    """The status that clients see."""
    status = _SHOWN[RuntimeStatus(row.status)]
    unstarted = served.is_unstarted
    if unstarted is not None and row.status == RuntimeStatus.Running and unstarted(row.instance_id):
        return pb.ORCHESTRATION_STATUS_PENDING
    return status


def statuses_of(asked: Iterable[pb.OrchestrationStatus], *, pending_may_run: bool = False) -> frozenset[str]:
    """Our statuses that may be shown as one of these.

    Args:
        asked: Of the protocol.
        pending_may_run: An instance that is Running may be shown as Pending, see `Served.is_unstarted`.
    """
    found = {one.value for status in asked for one in _ASKED.get(status, ())}
    if pending_may_run and RuntimeStatus.Pending in found:
        found.add(RuntimeStatus.Running.value)
    return frozenset(found)


def state_of(
    row: InstanceRow, served: Served, *, payloads: bool, details: bool = True
) -> pb.OrchestrationState:
    """An instance; what it does not have stays unset.

    Args:
        row: The row.
        served: The hub.
        payloads: With input and output.
        details: With custom status and failure; False for those who may not see what quotes payloads.
    """
    ended = row.status in TERMINAL
    failure = decode_failure(row.failure) if details and row.status == RuntimeStatus.Failed else None
    return pb.OrchestrationState(
        instanceId=row.instance_id,
        name=row.name,
        version=text_value(row.version),
        orchestrationStatus=status_of(row, served),
        scheduledStartTimestamp=timestamp(row.start_at),
        createdTimestamp=timestamp(row.created_at),
        lastUpdatedTimestamp=timestamp(row.updated_at),
        input=payload_value(_readable(row.input)) if payloads and details else None,
        output=payload_value(_readable(row.output)) if payloads and details else None,
        customStatus=payload_value(_readable(row.custom_status)) if details else None,
        failureDetails=None if failure is None else failure_message(failure),
        executionId=text_value(row.execution_id),
        completedTimestamp=timestamp(row.updated_at) if ended else None,
        parentInstanceId=text_value(row.parent_instance_id),
        tags=_tags(row.tags) if row.tags else None,
    )


def _readable(payload: Payload) -> Payload:
    """A payload as it is; one that cannot be read says so in its place."""
    if type(payload) is Unreadable:
        return msgspec.json.encode(f"(cannot be read: {payload.why})")
    return payload


def first_instant(message: Message, field: str) -> int | None:
    """The first microsecond at or after the instant in a field; None when it is absent."""
    found = instant_of(message, field)
    if found is None:
        return None
    return found + bool(getattr(message, field).nanos % 1_000)


def last_before(message: Message, field: str) -> int | None:
    """The last microsecond before the instant in a field: the protocol leaves the ends of times out, our queries do not."""
    found = first_instant(message, field)
    return None if found is None else found - 1
