"""Instances and histories as Durable Functions shows them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from durably.core.commit import InstanceRow
from durably.core.events import HistoryEvent
from durably.core.history import decode_failure
from durably.core.status import RuntimeStatus
from durably.core.timeline import HistoryEntry, second, timeline
from durably.http_api.payloads import NULL, raw

_ENDED_BADLY = {RuntimeStatus.Failed.value, RuntimeStatus.Canceled.value}


class StatusBody(msgspec.Struct, frozen=True, rename="camel"):
    """An instance; payloads go through as they are stored. Its history only when it was asked for."""

    name: str
    instance_id: str
    runtime_status: str
    input: msgspec.Raw
    custom_status: msgspec.Raw
    output: msgspec.Raw
    created_time: str
    last_updated_time: str
    history_events: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET


def status_body(
    row: InstanceRow,
    *,
    show_input: bool,
    history: list[dict[str, Any]] | None = None,
    payloads: bool = True,
) -> StatusBody:
    """The status of an instance. The output of one that failed is a sentence that says why.

    Args:
        row: The instance.
        show_input: With its input.
        history: Its history, or None: it was not asked for.
        payloads: Whoever asks may see payloads; else all of them are null.
    """
    output = raw(row.output) if payloads else NULL
    if payloads and row.status in _ENDED_BADLY and row.failure is not None:
        failure = decode_failure(row.failure)
        if failure is not None:
            output = msgspec.Raw(
                msgspec.json.encode(
                    f"Orchestrator function '{row.name}' failed: {failure.type}: {failure.message}"
                )
            )
    return StatusBody(
        name=row.name,
        instance_id=row.instance_id,
        runtime_status=row.status,
        input=raw(row.input) if show_input and payloads else NULL,
        custom_status=raw(row.custom_status) if payloads else NULL,
        output=output,
        created_time=f"{second(row.created_at // 1_000_000)}Z",
        last_updated_time=f"{second(row.updated_at // 1_000_000)}Z",
        history_events=msgspec.UNSET if history is None else history,
    )


def seconds(moment: datetime) -> str:
    """An instant to the second, as the original writes it."""
    return f"{moment.isoformat(timespec='seconds')[:19]}Z"  # a tenth of the price of strftime


def _precise(moment: datetime) -> str:
    return f"{moment.isoformat(timespec='microseconds')[:26]}Z"


# --- histories -------------------------------------------------------------------------------------------------------

_SCHEDULED = {"TaskScheduled", "SubOrchestrationInstanceCreated", "TimerCreated"}

_COMPLETED = {
    "TaskCompleted": "TaskCompleted",
    "TaskFailed": "TaskFailed",
    "SubOrchestrationInstanceCompleted": "SubOrchestrationInstanceCompleted",
    "SubOrchestrationInstanceFailed": "SubOrchestrationInstanceFailed",
    "TimerFired": "TimerFired",
}

_OTHERS = {
    "ExecutionStarted": "ExecutionStarted",
    "EventRaised": "EventRaised",
    "EventSent": "EventSent",
    "ExecutionSuspended": "ExecutionSuspended",
    "ExecutionResumed": "ExecutionResumed",
    "ExecutionTerminated": "ExecutionTerminated",
    "ExecutionRewound": "ExecutionRewound",
    "ContinuedAsNew": "ContinueAsNew",
}

_ENDS = {
    "ExecutionCompleted": RuntimeStatus.Completed,
    "ExecutionFailed": RuntimeStatus.Failed,
    "ExecutionCanceled": RuntimeStatus.Canceled,
}


def history_rows(
    events: Iterable[HistoryEvent], *, show_output: bool, payloads: bool = True
) -> list[dict[str, Any]]:
    """A history under the names of the original.

    What was scheduled and has completed is one row, which says when it was scheduled. Bookkeeping is left out: turns,
    attempts between two retries, and what the original has no name for.

    Args:
        events: The history.
        show_output: With results.
        payloads: Whoever asks may see payloads; else there are no results, and no texts that may quote them.
    """
    entries = timeline(events)
    done = {entry.task_id for entry in entries if entry.event_type in _COMPLETED}
    scheduled = {entry.task_id: entry for entry in entries if entry.event_type in _SCHEDULED}
    rows: list[dict[str, Any]] = []
    for entry in entries:
        if entry.event_type in _SCHEDULED and entry.task_id in done:
            continue
        row = _row(entry, scheduled.get(entry.task_id))
        if row is not None:
            if payloads:
                _add_outcome(row, entry, show_output=show_output)
            rows.append(row)
    return rows


def _row(entry: HistoryEntry, origin: HistoryEntry | None) -> dict[str, Any] | None:
    kind = entry.event_type
    row: dict[str, Any] = {"EventType": kind, "Timestamp": _precise(entry.timestamp)}
    if kind in _ENDS:
        row["EventType"] = "ExecutionCompleted"
        row["OrchestrationStatus"] = _ENDS[kind].value
    elif kind in _COMPLETED or kind in _SCHEDULED:
        if kind in {"TimerFired", "TimerCreated"}:
            fire_at = (origin or entry).details.get("fire_at")
            if fire_at is not None:
                row["FireAt"] = _precise(datetime.fromisoformat(fire_at))
        elif entry.name is not None:
            row["FunctionName"] = entry.name
        if origin is not None and origin is not entry:
            row["ScheduledTime"] = _precise(origin.timestamp)
    elif kind in _OTHERS:
        row["EventType"] = _OTHERS[kind]
        if entry.name is not None:
            row["FunctionName" if kind == "ExecutionStarted" else "Name"] = entry.name
    else:
        return None
    return row


def _add_outcome(row: dict[str, Any], entry: HistoryEntry, *, show_output: bool) -> None:
    if show_output and entry.result is not None:
        row["Result"] = raw(entry.result)
    if show_output and entry.event_type == "EventRaised" and entry.input is not None:
        row["Input"] = raw(entry.input)
    failure = entry.details.get("failure")
    if failure is not None:
        row["Reason"] = failure.get("message", "")
        row["Details"] = (
            failure.get("stack_trace") or f"{failure.get('type', '')}: {failure.get('message', '')}"
        )
    elif entry.details.get("reason"):
        row["Reason"] = entry.details["reason"]
