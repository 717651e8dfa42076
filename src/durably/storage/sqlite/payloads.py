# ruff: noqa: S608 - statements are put together from constants of this file; values are bound
"""Large payloads of instances, in a table of their own: neither a page of a query nor a change of status carries megabytes.

In the place of such a payload the row has its size, an integer. What is no longer referred to is deleted by triggers
(see `schema`), within the same transaction, so nothing is ever left over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from durably.core.commit import Batch, InstanceChange, InstanceRow
from durably.storage.sqlite.calls import Execute

FIELDS = ("input", "output", "custom_status", "failure")
"""Columns of `instances` that may be put aside."""

_CHANGED = FIELDS[1:]

_PUT = (
    "INSERT INTO payloads (position, field, data) SELECT position, ?2, ?3 FROM instances WHERE instance_id = ?1"
    " ON CONFLICT (position, field) DO UPDATE SET data = excluded.data"
)

Row = TypeVar("Row", InstanceRow, InstanceChange)

Aside = dict[tuple[str, str], bytes]
"""Payloads to put, by instance and field."""


def column(field: str) -> str:
    """The payload in a column of `instances i`, wherever it is."""
    return (
        f"CASE typeof(i.{field}) WHEN 'integer' THEN"
        f" (SELECT data FROM payloads p WHERE p.position = i.position AND p.field = '{field}') ELSE i.{field} END"
    )


def put_aside(batch: Batch, most: int) -> tuple[list[InstanceRow], Sequence[InstanceChange], Aside]:
    """The rows of a batch without payloads of more than `most` bytes, and these.

    Of several payloads for one place the last one counts, as for rows.
    """
    aside: Aside = {}
    instances = _shortened(batch.instances, FIELDS, most, aside)
    return instances, _shortened(batch.changes, _CHANGED, most, aside), aside


def _shortened(rows: list[Row], fields: tuple[str, ...], most: int, aside: Aside) -> list[Row]:
    if not aside and not any(_has_large(row, most) for row in rows):
        return rows
    short: list[Row] = []
    for row in rows:
        sizes: dict[str, int] = {}
        for field in fields:
            payload: bytes | None = getattr(row, field)
            aside.pop((row.instance_id, field), None)
            if payload is not None and len(payload) > most:
                aside[row.instance_id, field] = payload
                sizes[field] = len(payload)
        short.append(row._replace(**sizes) if sizes else row)
    return short


def _has_large(row: InstanceRow | InstanceChange, most: int) -> bool:
    payload = row.input if isinstance(row, InstanceRow) else None
    return (
        (payload is not None and len(payload) > most)
        or (row.output is not None and len(row.output) > most)
        or (row.custom_status is not None and len(row.custom_status) > most)
        or (row.failure is not None and len(row.failure) > most)
    )


def write(execute: Execute, aside: Aside) -> None:
    """Put payloads into their table, when the rows of their instances are there."""
    for (instance_id, field), payload in aside.items():
        execute(_PUT, (instance_id, field, payload))
