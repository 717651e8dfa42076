"""What the management API says of instances, as the rest of durably knows it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from durably.client.entities import EntityInfo
from durably.core.commit import InstanceRow
from durably.core.entities import EntityId
from durably.core.history import encode_failure
from durably.core.status import RuntimeStatus
from durably.core.timeline import HistoryEntry
from durably.errors import FailureDetails

_FAILED = frozenset((RuntimeStatus.Failed.value, RuntimeStatus.Canceled.value))

_KNOWN_KEYS = frozenset(("EventType", "Timestamp", "FunctionName", "Name", "Result", "Input"))


def row_of(body: dict[str, Any]) -> InstanceRow:
    """The row of an instance. What the API does not tell is as it is of an instance without it."""
    status = body["runtimeStatus"]
    failed = status in _FAILED
    output = body.get("output")
    return InstanceRow(
        instance_id=body["instanceId"],
        execution=0,
        ordinal=0,
        execution_id="",
        name=body["name"],
        version=None,
        status=status,
        created_at=_micros(body["createdTime"]),
        updated_at=_micros(body["lastUpdatedTime"]),
        input=_payload(body.get("input")),
        output=None if failed else _payload(output),
        custom_status=_payload(body.get("customStatus")),
        failure=encode_failure(_failure(output)) if failed else None,
        blocked=None,
        parked=None,
        in_flight=False,
        parent_instance_id=None,
        tags=None,
        start_at=None,
    )


def _payload(value: Any) -> bytes | None:
    return None if value is None else json.dumps(value, ensure_ascii=False).encode()


def _failure(output: Any) -> FailureDetails:
    """From the sentence "Orchestrator function 'x' failed: Type: message"."""
    if not isinstance(output, str):
        return FailureDetails("Failed", "" if output is None else json.dumps(output))
    _, _, said = output.partition("' failed: ")
    kind, colon, message = said.partition(": ")
    return (
        FailureDetails(kind, message) if colon and kind.isidentifier() else FailureDetails("Failed", output)
    )


def _micros(text: str) -> int:
    return round(moment_of(text).timestamp() * 1_000_000)


def moment_of(text: str) -> datetime:
    """An instant."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def entries_of(rows: list[dict[str, Any]]) -> list[HistoryEntry]:
    """A history. What was scheduled and has completed is one entry there."""
    return [
        HistoryEntry(
            event_type=row["EventType"],
            timestamp=moment_of(row["Timestamp"]),
            name=row.get("FunctionName") or row.get("Name"),
            input=_text(row.get("Input")),
            result=_text(row.get("Result")),
            details={key: value for key, value in row.items() if key not in _KNOWN_KEYS},
        )
        for row in rows
    ]


def _text(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def entity_of(body: dict[str, Any]) -> EntityInfo:
    """An entity."""
    said = body["entityId"]
    return EntityInfo(
        entity_id=EntityId(said["name"], said["key"]),
        state=body.get("state"),
        exists=True,
        last_modified=moment_of(body["lastOperationTime"]),
    )
