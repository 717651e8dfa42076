"""Queries take the path through the table that was meant for them; what they find is tested by conformance."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from durably.core.commit import Batch
from durably.core.query import InstanceQuery
from durably.storage.sqlite import search
from durably.storage.sqlite.store import SqliteStore
from durably.testing.store_scene import instance_row


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apsw.Connection]:
    path: Path = tmp_path_factory.mktemp("hub") / "hub.db"

    async def fill() -> None:
        store = SqliteStore(str(path))
        await store.open()
        lease = await store.acquire(0, "owner")
        rows = [instance_row(f"common-{number}", number + 1) for number in range(1_100)]
        await store.commit(lease, Batch(1, instances=[*rows, instance_row("rare", 2_000)]))
        await store.close()

    asyncio.run(fill())
    connection = apsw.Connection(str(path))
    yield connection
    connection.close()


def _plan(database: apsw.Connection, **filters: Any) -> str:
    text, values = search._statement(database.execute, InstanceQuery(**filters))
    return "; ".join(str(row[3]) for row in database.execute(f"EXPLAIN QUERY PLAN {text}", values))


@pytest.mark.parametrize(
    ("filters", "path", "sorts"),
    [
        ({}, "SEARCH i USING INTEGER PRIMARY KEY (rowid>?)", False),
        ({"created_from": 5}, "SEARCH i USING INTEGER PRIMARY KEY (rowid>?)", False),
        ({"statuses": ("Completed",)}, "SEARCH i USING INTEGER PRIMARY KEY (rowid>?)", False),
        (
            {"statuses": ("Failed",)},
            "SEARCH i USING INDEX instances_not_completed (status=? AND rowid>?)",
            False,
        ),
        (
            {"statuses": ("Failed", "Running")},
            "USING INDEX instances_not_completed (status=? AND rowid>?)",
            True,
        ),
        ({"name": "order"}, "SEARCH i USING INDEX instances_by_name (name=? AND rowid>?)", False),
        ({"instance_id_prefix": "common"}, "SEARCH i USING INTEGER PRIMARY KEY (rowid>?)", False),
        (
            {"instance_id_prefix": "rare"},
            "sqlite_autoindex_instances_1 (instance_id>? AND instance_id<?)",
            True,
        ),
    ],
)
def test_a_query_takes_its_index(
    database: apsw.Connection, filters: dict[str, Any], path: str, sorts: bool
) -> None:
    plan = _plan(database, **filters)
    assert path in plan
    assert ("USE TEMP B-TREE FOR ORDER BY" in plan) == sorts


@pytest.mark.parametrize(
    ("prefix", "values"),
    [
        ("ab", ("ab", "ac")),
        ("a\ud7ff", ("a\ud7ff", "a\ue000")),
        ("a\U0010ffff\U0010ffff", ("a\U0010ffff\U0010ffff", "b")),
        ("\U0010ffff", ("\U0010ffff",)),
        ("", ("",)),
    ],
)
def test_a_prefix_is_a_range(prefix: str, values: tuple[str, ...]) -> None:
    assert search._prefix_range("id", prefix)[1:] == values
