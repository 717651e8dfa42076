"""A schedule as a row: for tables, for programs, and as a card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from durably.cli.formats import Column, Row, plain, printable
from durably.cli.moments import exactly, to_second
from durably.core.spans import span

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from durably.schedules.description import ScheduleDescription

KEYS = (
    "schedule_id",
    "orchestrator",
    "entity_id",
    "operation",
    "cron",
    "interval_s",
    "time_zone",
    "next_time",
    "overlap",
    "catch_up",
    "paused",
    "declared",
    "running",
    "buffered",
    "started",
    "failed",
    "skipped",
    "missed",
    "dropped",
)
"""The columns of CSV."""

_LABELS = (
    ("what", "Does"),
    ("input", "Input"),
    ("version", "Version"),
    ("tags", "Tags"),
    ("when", "When"),
    ("start_at", "From"),
    ("end_at", "Until"),
    ("jitter", "Jitter"),
    ("overlap", "Overlap"),
    ("made_up", "Catch-up"),
    ("state", "State"),
    ("note", "Note"),
    ("trouble", "Trouble"),
    ("upcoming", "Next"),
    ("running", "Running"),
    ("buffered", "Waiting"),
    ("backfilling", "Backfills"),
    ("counts", "So far"),
    ("created_time", "Created"),
    ("last_updated_time", "Updated"),
)
_WIDTH = 11


def _state_style(row: Row) -> Mapping[str, Any]:
    if row["trouble"]:
        return {"fg": "red"}
    return {"fg": "yellow"} if row["paused"] else {}


def _what(row: Row) -> str:
    if row["entity_id"] is None:
        return row["orchestrator"] or ""
    return f"{row['entity_id']}.{row['operation']}"


def _when(row: Row) -> str:
    if row["cron"] is None:
        return "" if row["interval_s"] is None else f"every {span(row['interval_s'])}"
    return f"{row['cron']} {row['time_zone']}"


def _state(row: Row) -> str:
    if row["trouble"]:
        return "trouble"
    if row["paused"]:
        return "paused"
    if row["origin"] == "code" and not row["declared"]:
        return "undeclared"
    return "active" if row["next_time"] is not None else "over"


COLUMNS = (
    Column("ID", lambda row: row["schedule_id"], elastic=True),
    Column("STATE", _state, style=_state_style),
    Column("WHEN", _when, elastic=True),
    Column("NEXT", lambda row: "-" if row["next_time"] is None else f"{row['next_time'][:19]}Z"),
    Column("DOES", _what, elastic=True, optional=True),
    Column("RUNNING", lambda row: str(len(row["running"])), right=True, optional=True),
    Column("STARTED", lambda row: str(row["started"]), right=True, optional=True),
)


def row_of(found: ScheduleDescription) -> dict[str, Any]:
    """A schedule for programs: instants as ISO 8601, lengths in seconds."""
    return {
        "schedule_id": found.schedule_id,
        "orchestrator": found.orchestrator,
        "version": found.version,
        "tags": found.tags,
        "entity_id": None if found.entity_id is None else str(found.entity_id),
        "operation": found.operation,
        "input": found.input,
        "cron": found.cron,
        "interval_s": _seconds(found.interval),
        "time_zone": found.time_zone,
        "start_at": _moment(found.start_at),
        "end_at": _moment(found.end_at),
        "jitter_s": _seconds(found.jitter),
        "overlap": found.overlap,
        "catch_up": found.catch_up,
        "catch_up_window_s": _seconds(found.catch_up_window),
        "paused": found.paused,
        "note": found.note,
        "origin": found.origin,
        "declared": found.declared,
        "trouble": found.trouble,
        "created_time": exactly(found.created_time),
        "last_updated_time": exactly(found.last_updated_time),
        "next_time": _moment(found.next_time),
        "upcoming": [exactly(moment) for moment in found.upcoming],
        "running": found.running,
        "buffered": found.buffered,
        "backfilling": found.backfilling,
        "started": found.started,
        "failed": found.failed,
        "skipped": found.skipped,
        "missed": found.missed,
        "dropped": found.dropped,
        "recent": [
            {
                "scheduled_time": exactly(run.scheduled_time),
                "started_time": exactly(run.started_time),
                "instance_id": run.instance_id,
                "kind": run.kind,
                "past_due": run.past_due,
                "status": run.status,
            }
            for run in found.recent
        ],
    }


def card_of(found: ScheduleDescription, *, colors: bool) -> str:
    """All about a schedule, a line for each thing."""
    row = row_of(found)
    shown = row | {
        "what": _what(row),
        "when": _when(row),
        "state": _state(row),
        "jitter": span(row["jitter_s"]) if row["jitter_s"] else None,
        "made_up": _made_up(row),
        "start_at": None if found.start_at is None else to_second(found.start_at),
        "end_at": None if found.end_at is None else to_second(found.end_at),
        "created_time": to_second(found.created_time),
        "last_updated_time": to_second(found.last_updated_time),
        "upcoming": ", ".join(map(to_second, found.upcoming)),
        "tags": ", ".join(f"{name}={tag}" for name, tag in found.tags.items()),
        "running": ", ".join(found.running),
        "counts": _counts(row),
    }
    head = found.schedule_id
    lines = [click.style(head, bold=True) if colors else printable(head)]
    lines += [
        f"  {label:{_WIDTH}}{printable(plain(shown[key]))}"
        for key, label in _LABELS
        if shown[key] not in (None, "", 0)
    ]
    for run in found.recent:
        status = run.status or ("Running" if run.instance_id else "Sent")
        late = ", past due" if run.past_due else ""
        kind = "" if run.kind == "scheduled" else f", {run.kind}"
        lines.append(
            f"    {to_second(run.scheduled_time)}  {status}{kind}{late}  {run.instance_id or ''}".rstrip()
        )
    return "\n".join(lines)


def _made_up(row: Row) -> str:
    window = row["catch_up_window_s"]
    return row["catch_up"] if window is None else f"{row['catch_up']}, within {span(window)}"


def _counts(row: Row) -> str:
    keys = ("started", "failed", "skipped", "missed", "dropped")
    return ", ".join(f"{row[key]:,} {key}" for key in keys if row[key] or key == "started")


def _seconds(length: timedelta | None) -> float | None:
    return None if length is None else length.total_seconds()


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else exactly(moment)
