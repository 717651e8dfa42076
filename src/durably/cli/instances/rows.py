"""An instance as a row: what is printed of it, under names that stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from durably.cli.formats import Column, Row, status_style
from durably.cli.moments import exactly

if TYPE_CHECKING:
    from durably.core.status import InstanceStatus

KEYS = (
    "instance_id",
    "name",
    "version",
    "status",
    "created_time",
    "last_updated_time",
    "blocked",
    "parent_instance_id",
    "tags",
    "custom_status",
)
"""The columns of CSV, and the keys of an object."""


def row_of(status: InstanceStatus) -> dict[str, Any]:
    """An instance as plain data, without its input and output, which may be large."""
    return {
        "instance_id": status.instance_id,
        "name": status.name,
        "version": status.version,
        "status": status.runtime_status.value,
        "created_time": exactly(status.created_time),
        "last_updated_time": exactly(status.last_updated_time),
        "blocked": status.blocked,
        "parent_instance_id": status.parent_instance_id,
        "tags": status.tags,
        "custom_status": status.custom_status,
    }


def _status(row: Row) -> str:
    return f"{row['status']} (blocked)" if row["blocked"] else row["status"]


def _second(moment: str) -> str:
    return f"{moment[:19]}Z"


COLUMNS = (
    Column("ID", lambda row: row["instance_id"], elastic=True),
    Column("NAME", lambda row: row["name"], elastic=True),
    Column("STATUS", _status, style=status_style),
    Column("CREATED", lambda row: _second(row["created_time"])),
    Column("UPDATED", lambda row: _second(row["last_updated_time"]), optional=True),
)
