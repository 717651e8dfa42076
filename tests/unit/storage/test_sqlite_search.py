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
from durably.storage.sqlite import conditions, counting, search
from durably.storage.sqlite.store import SqliteStore
from durably.testing.store_scene import instance_row


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apsw.Connection]:
    path: Path = tmp_path_factory.mktemp("hub") / "hub.db"

    async def fill() -> None:
        store = SqliteStore(str(path))
        await store.open()
        lease = await store.acquire(0, "owner")
        tags = [b'{"of":"all"}', b'{"of":"one"}']
        rows = [instance_row(f"common-{number}", number + 1, tags=tags[0]) for number in range(1_100)]
        await store.commit(lease, Batch(1, instances=[*rows, instance_row("rare", 2_000, tags=tags[1])]))
        await store.close()

    asyncio.run(fill())
    connection = apsw.Connection(str(path))
    yield connection
    connection.close()


def _plan(database: apsw.Connection, **filters: Any) -> str:
    text, values = search._statement(database.execute, InstanceQuery(**filters))
    return "; ".join(str(row[3]) for row in database.execute(f"EXPLAIN QUERY PLAN {text}", values))


_BY_PARENT = "instances_by_parent (parent_instance_id=? AND created_at>?)"
_BY_CREATION = "INDEX instances_by_creation (created_at>?)"


@pytest.mark.parametrize(
    ("filters", "path", "sorts"),
    [
        ({}, _BY_CREATION, False),
        ({"created_from": 5}, _BY_CREATION, False),
        ({"created_to": 5}, "instances_by_creation (created_at>? AND created_at<?)", False),
        ({"statuses": ("Completed",)}, _BY_CREATION, False),
        ({"statuses": ("Failed",)}, "instances_not_completed (status=? AND created_at>?)", False),
        ({"statuses": ("Failed", "Running")}, "instances_not_completed (status=? AND created_at>?)", True),
        ({"name": "order"}, "INDEX instances_by_name (name=? AND created_at>?)", False),
        (
            {"name": "order", "statuses": ("Failed",)},
            "instances_not_completed_by_name (name=? AND status=? AND created_at>?)",
            False,
        ),
        ({"parent_instance_id": "p"}, _BY_PARENT, False),
        ({"parent_instance_id": "p", "name": "order", "statuses": ("Failed",)}, _BY_PARENT, False),
        ({"parent_instance_id": "p", "instance_id_prefix": "rare", "stuck": True}, _BY_PARENT, False),
        ({"parent_instance_id": "p", "tags": {"of": "one"}}, _BY_PARENT, False),
        ({"stuck": True}, "SEARCH i USING INDEX instances_stuck (created_at>?)", False),
        ({"instance_id_prefix": "common"}, _BY_CREATION, False),
        ({"instance_id_prefix": "rare"}, "(instance_id>? AND instance_id<?)", True),
        ({"tags": {"of": "all"}}, _BY_CREATION, False),
        ({"tags": {"of": "one"}}, "SEARCH i USING INTEGER PRIMARY KEY (rowid=?)", True),
        ({"tags": {"of": "one"}, "name": "order"}, "SEARCH i USING INTEGER PRIMARY KEY (rowid=?)", True),
    ],
)
def test_a_query_takes_its_index(
    database: apsw.Connection,
    monkeypatch: pytest.MonkeyPatch,
    filters: dict[str, Any],
    path: str,
    sorts: bool,
) -> None:
    monkeypatch.setattr(conditions, "_PREFIXED_MAX", 1_000)
    monkeypatch.setattr(conditions, "_TAGGED_MAX", 1_000)
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
    assert conditions.prefix_range("id", prefix)[1:] == values


@pytest.mark.parametrize(
    ("filters", "paths"),
    [
        ({}, ["COVERING INDEX instances_by_name", "COVERING INDEX instances_not_completed_by_name"]),
        (
            {"created_from": 5},
            ["COVERING INDEX instances_by_name", "COVERING INDEX instances_not_completed_by_name"],
        ),
        (
            {"name": "order"},
            ["COVERING INDEX instances_by_name", "COVERING INDEX instances_not_completed_by_name"],
        ),
        ({"statuses": ("Failed",)}, ["COVERING INDEX instances_not_completed_by_name"]),
        ({"parent_instance_id": "p"}, ["INDEX instances_by_parent"]),
        ({"stuck": True}, ["INDEX instances_stuck"]),
    ],
)
def test_a_count_takes_its_indexes(
    database: apsw.Connection, filters: dict[str, Any], paths: list[str]
) -> None:
    plans: list[str] = []

    def execute(text: str, values: Any) -> Any:
        plan = database.execute(f"EXPLAIN QUERY PLAN {text}", values)
        plans.append("; ".join(str(row[3]) for row in plan))
        return database.execute(text, values)

    counting._count(execute, InstanceQuery(**filters))
    assert len(plans) == len(paths)
    for plan, path in zip(plans, paths, strict=True):
        assert path in plan
