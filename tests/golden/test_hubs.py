"""Hubs that earlier versions left behind are opened, migrated and finished by this one; no instance is lost or changed."""

from __future__ import annotations

import asyncio
import contextlib
import tarfile
from itertools import count
from pathlib import Path

import apsw
import pytest

from durably import AppHost
from durably.core.query import InstanceQuery
from durably.storage.sqlite import schema
from durably.storage.sqlite.calls import executor
from durably.storage.sqlite.connection import prepare
from durably.storage.sqlite.store import SqliteStore
from tests.faults.injectors.faulty_disk import FaultyDisk
from tests.golden.hub_program import app
from tests.golden.record_hub import HUBS

RECORDED = sorted(HUBS.glob("*.tar.xz"))

COMPLETED = {
    **{f"chain-{number}": 8 * number for number in range(5)},
    "early": "early bird",
    "waits": "hello world",
    "suspended": "held event",
    "in-flight": [1, 2, 3],
    "retries": 7,
    "parent": "child grown",
    "parent:0:0000": "child grown",
    "eternal": 8,
    "later": 8,
}
ENTITIES_SINCE = 7
"""The schema version that brought them."""

OTHERS = {"fails": "Failed", "terminated": "Terminated"}


@pytest.fixture(params=RECORDED, ids=lambda path: path.name.split(".")[0])
def hub(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub.db"


def test_a_hub_of_each_schema_version_is_kept() -> None:
    versions = [int(path.name.split(".")[0].removeprefix("v")) for path in RECORDED]
    assert versions == list(range(1, schema.VERSION + 1)), (
        "record one: python -m tests.golden.record_hub v<VERSION>"
    )


def test_entities_of_an_old_hub_are_as_they_were_and_go_on(hub: Path, request: pytest.FixtureRequest) -> None:
    since = int(request.node.callspec.id.removeprefix("v")) >= ENTITIES_SINCE
    asyncio.run(_look_at_entity(hub, {"value": 7} if since else None))


async def _look_at_entity(hub: Path, expected: object) -> None:
    async with app.host(f"sqlite:///{hub}") as host:
        async with asyncio.timeout(60):
            while await host.client.read_entity("@tally@a") != expected:  # noqa: ASYNC110 - a signal is due soon
                await asyncio.sleep(0.01)


def test_every_instance_of_an_old_hub_ends_as_it_would_have(hub: Path) -> None:
    asyncio.run(_finish(hub))


async def _finish(hub: Path) -> None:
    async with asyncio.timeout(20):
        async with app.host(f"sqlite:///{hub}") as host:
            client = host.client
            await client.raise_event("waits", "Name", "world")
            await client.raise_event("parent:0:0000", "Name", "grown")
            await client.resume("suspended")
            await client.raise_event("eternal", "More", 5)
            for instance_id, output in COMPLETED.items():
                assert (await client.wait_for_completion(instance_id)).output == output, instance_id
            asleep = await client.wait_for_completion("sleeps")
            assert len(str(asleep.output)) == 36
            await _check(host)
            tagged = await client.query_instances(tags={"number": "3"})
            assert [one.instance_id for one in tagged.instances] == ["chain-3"]


async def _check(host: AppHost) -> None:
    page = await host.client.query_instances(page_size=1_000)
    statuses = {one.instance_id: one.runtime_status.value for one in page.instances}
    assert statuses == {**dict.fromkeys([*COMPLETED, "sleeps"], "Completed"), **OTHERS}
    for instance_id in statuses:
        assert await host.client.get_history(instance_id)


def _shape(path: Path) -> set[tuple[str, str, str]]:
    """Tables with their columns, indexes and triggers, however they came to be."""
    connection = apsw.Connection(str(path))
    execute = executor(connection)
    found: set[tuple[str, str, str]] = set()
    for kind, name, text in execute("SELECT type, name, sql FROM sqlite_schema WHERE sql NOT NULL"):
        if kind == "table":
            columns = execute("SELECT * FROM pragma_table_xinfo(?)", (name,)).fetchall()
            found |= {("column", name, str(column[1:])) for column in columns}
        else:
            found.add((kind, name, " ".join(text.split())))
    connection.close()
    return found


def test_a_migrated_hub_has_the_shape_of_a_new_one(hub: Path, tmp_path: Path) -> None:
    prepare(hub, create=False, vfs=None)
    fresh = tmp_path / "fresh.db"
    prepare(fresh, create=True, vfs=None)
    assert _shape(hub) == _shape(fresh)


def test_a_migration_that_fails_at_any_write_is_done_by_the_next_one(hub: Path) -> None:
    whole = {path.name: path.read_bytes() for path in hub.parent.glob("hub.db*")}
    for number in count(1, 3):
        for path in hub.parent.glob("hub.db*"):
            path.unlink()
        for name, content in whole.items():
            (hub.parent / name).write_bytes(content)
        disk = FaultyDisk(error=apsw.IOError, dead=True)
        disk.arm(number)
        with contextlib.suppress(apsw.IOError):
            prepare(hub, create=False, vfs=disk.name)
        disk.unregister()
        asyncio.run(_rows_are_there(hub))
        if not disk.failed:
            break


async def _rows_are_there(hub: Path) -> None:
    store = SqliteStore(str(hub))
    await store.open(create=False)
    found = await store.query(InstanceQuery(page_size=1_000))
    await store.close()
    assert {row.instance_id for row in found.rows} == {*COMPLETED, *OTHERS, "sleeps"}
