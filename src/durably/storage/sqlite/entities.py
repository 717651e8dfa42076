# ruff: noqa: S608 - statements are put together from constants of this file; values are bound
"""Entities: how their rows are written and read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from durably.core.commit import Batch, EntityRow
from durably.core.query import EntitiesFound, EntityQuery
from durably.storage.sqlite.calls import Execute
from durably.storage.sqlite.conditions import prefix_range, within
from durably.storage.sqlite.reader import Reader
from durably.storage.sqlite.statements import ManyKeys, ManyRows

_COLUMNS = "instance_id, name, execution, created_at, updated_at, state, version, locked_by, rest, checksum"
_REPLACED = ", ".join(
    f"{name} = excluded.{name}" for name in _COLUMNS.replace(",", "").split() if name != "instance_id"
)
_PUT = ManyRows(
    f"INSERT OR ROLLBACK INTO entities ({_COLUMNS}) VALUES ",
    10,
    f" ON CONFLICT (instance_id) DO UPDATE SET {_REPLACED}",
)
_REMOVE = ManyKeys("DELETE FROM entities WHERE instance_id")
_DROP_TIMERS = ManyKeys("DELETE FROM timers WHERE execution")
_BY_ID = ManyKeys(f"SELECT {_COLUMNS} FROM entities WHERE instance_id")


def write(execute: Execute, batch: Batch) -> None:
    """What a batch does to entities."""
    if batch.entities:
        _PUT.run(execute, batch.entities)
    if batch.entities_removed:
        _REMOVE.run(execute, [removal.instance_id for removal in batch.entities_removed])
        _DROP_TIMERS.run(execute, [removal.execution for removal in batch.entities_removed])


def read(reader: Reader, instance_ids: Sequence[str]) -> list[EntityRow | None]:
    """See `Store.read_entities`."""
    found: dict[str, EntityRow] = {}
    for columns in _BY_ID.run(reader.execute, list(dict.fromkeys(instance_ids))):
        found[columns[0]] = EntityRow._make(columns)
    return [found.get(instance_id) for instance_id in instance_ids]


def get(reader: Reader, instance_id: str) -> EntityRow | None:
    """See `Store.get_entity`."""
    try:
        return read(reader, [instance_id])[0]
    except UnicodeEncodeError:  # nothing that is stored has such a key
        return None


def find(reader: Reader, query: EntityQuery) -> EntitiesFound:
    """See `Store.query_entities`."""
    conditions, values = ["instance_id > ?"], [query.after]
    bound: list[Any] = list(values)
    if query.name is not None:
        conditions.append("name = ?")
        bound.append(query.name)
    if query.prefix is not None:
        condition, *ends = prefix_range("instance_id", query.prefix)
        conditions.append(condition)
        bound += ends
    if query.updated_from is not None:
        conditions.append("updated_at >= ?")
        bound.append(within(query.updated_from))
    if query.updated_to is not None:
        conditions.append("updated_at <= ?")
        bound.append(within(query.updated_to))
    if not query.with_transient:
        conditions.append("state IS NOT NULL")
    if query.locked:
        conditions.append("locked_by IS NOT NULL")
    text = f"SELECT {_COLUMNS} FROM entities WHERE {' AND '.join(conditions)} ORDER BY instance_id LIMIT ?"
    try:
        rows = reader.execute(text, (*bound, query.page_size + 1)).fetchall()
    except UnicodeEncodeError:  # nothing that is stored is like this
        return EntitiesFound([], None)
    page = [EntityRow._make(row) for row in rows[: query.page_size]]
    return EntitiesFound(page, page[-1].instance_id if len(rows) > len(page) else None)
