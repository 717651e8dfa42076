"""Read models: what callers see of an instance."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from durably.errors import FailureDetails


class RuntimeStatus(StrEnum):
    """Where an instance is in its life. Members compare equal to their names as plain strings."""

    Pending = "Pending"
    Running = "Running"
    Completed = "Completed"
    Failed = "Failed"
    Canceled = "Canceled"
    Terminated = "Terminated"
    Suspended = "Suspended"
    ContinuedAsNew = "ContinuedAsNew"

    PENDING = "Pending"
    RUNNING = "Running"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELED = "Canceled"
    TERMINATED = "Terminated"
    SUSPENDED = "Suspended"
    CONTINUED_AS_NEW = "ContinuedAsNew"

    @property
    def is_terminal(self) -> bool:
        """True when nothing will happen to the instance any more."""
        return self in TERMINAL


TERMINAL: frozenset[str] = frozenset(
    (RuntimeStatus.Completed, RuntimeStatus.Failed, RuntimeStatus.Canceled, RuntimeStatus.Terminated)
)


class Outcome(NamedTuple):
    """How an instance ended: its status, its output as a payload, and why it did not complete."""

    status: str
    output: bytes | None
    failure: FailureDetails | None


class InstanceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One instance, as committed.

    Attributes:
        instance_id: Its id.
        name: Its orchestrator.
        version: The version it was started with, or None.
        runtime_status: Where it is in its life.
        created_time: When it was created (aware, UTC); kept over continue-as-new.
        last_updated_time: When its newest history row was written (aware, UTC).
        input: The input of the current execution, as plain JSON data, or None.
        output: The result of a completed instance as plain JSON data; the reason of a terminated one; else None.
        custom_status: What the code set last, as plain JSON data, or None.
        failure: Why it failed, or what it compensates for, or None.
        compensating: It undoes the steps of a saga that failed, or those that another instance has left.
        blocked: A readable diff when code and history disagree, or the cause when the instance is parked, or None.
            Such an instance keeps its messages and goes on after a fixed deployment.
        tags: What the caller set at start.
        parent_instance_id: The instance that waits for the result, or None.
    """

    instance_id: str
    name: str
    version: str | None = None
    runtime_status: RuntimeStatus
    created_time: datetime
    last_updated_time: datetime
    input: Any = None
    output: Any = None
    custom_status: Any = None
    failure: FailureDetails | None = None
    blocked: str | None = None
    compensating: bool = False
    tags: dict[str, str] = {}
    parent_instance_id: str | None = None


class InstancePage(msgspec.Struct, frozen=True):
    """One page of a query.

    Attributes:
        instances: In the order in which they were created; empty only when nothing (more) matches.
        continuation_token: Pass it to the same query for the next page; None when this is the last one.
    """

    instances: list[InstanceStatus]
    continuation_token: str | None = None
