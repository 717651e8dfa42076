"""How an instance ended, as one object for programs; the same from every command that waits for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durably.core.status import InstanceStatus
    from durably.errors import FailureDetails


def failure_of(status: InstanceStatus) -> FailureDetails | None:
    """Why an instance that has ended did not complete, or None when it did."""
    from durably.core.status import RuntimeStatus
    from durably.errors import FailureDetails

    if status.runtime_status is RuntimeStatus.Completed:
        return None
    reason = "no reason was given" if status.output is None else str(status.output)
    return status.failure or FailureDetails(status.runtime_status.value, reason)


def answer_of(status: InstanceStatus, failure: FailureDetails | None, *, ended: bool) -> dict[str, Any]:
    """The object: id, status, result, failure, custom status, and for how long it lived (None while it does)."""
    return {
        "instance_id": status.instance_id,
        "status": status.runtime_status.value,
        "result": status.output if ended and failure is None else None,
        "failure": None if failure is None else plain_failure(failure),
        "custom_status": status.custom_status,
        "duration_s": (status.last_updated_time - status.created_time).total_seconds() if ended else None,
    }


def plain_failure(failure: FailureDetails) -> dict[str, Any]:
    """A failure as plain data: type, message, stack trace, and what caused it."""
    return {
        "type": failure.type,
        "message": failure.message,
        "stack_trace": failure.stack_trace,
        "inner": None if failure.inner is None else plain_failure(failure.inner),
    }
