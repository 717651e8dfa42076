"""FEATURES 4.8: locks whose orchestration is gone. No way leads there but damage, so the rows are deleted by hand."""

from __future__ import annotations

import asyncio
from pathlib import Path

import apsw
import pytest

from durably import AppHost, EngineOptions, EntityId
from tests.support.counters import A, B, C, counters, holder, value
from tests.support.hubs import Deployment, FileHub
from tests.support.waiting import eventually, is_quiet, reaches


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hub.db"


@pytest.fixture(params=["inside", pytest.param("outside", marks=pytest.mark.slow_once)])
def file_hub(request: pytest.FixtureRequest, path: Path) -> Deployment:
    return Deployment(FileHub(path), outside=request.param == "outside")


async def holds(host: AppHost, instance_id: str, *keys: str, last: EntityId) -> None:
    """Return when an orchestration has locked the last one of its counters."""
    await host.client.start("hold", {"keys": keys}, instance_id=instance_id)

    async def look() -> bool:
        return await holder(host, last) == instance_id

    await eventually(look, f"the locks of {instance_id}")


def lose(path: Path, instance_id: str) -> None:
    """Delete all rows of an instance, and tell nobody."""
    connection = apsw.Connection(str(path))
    (execution,) = connection.execute(
        "SELECT execution FROM instances WHERE instance_id = ?", (instance_id,)
    ).fetchone()
    connection.execute("DELETE FROM history WHERE execution = ?", (execution,))
    connection.execute("DELETE FROM timers WHERE execution = ?", (execution,))
    connection.execute("DELETE FROM inbox WHERE instance_id = ?", (instance_id,))
    connection.execute("DELETE FROM instances WHERE instance_id = ?", (instance_id,))
    connection.close()


async def is_free(host: AppHost) -> None:
    await is_quiet(host)
    page = await host.client.query_entities(include_transient=True)
    assert [one.locked_by for one in page.entities] == [None] * len(page.entities)
    cleaned = await host.client.clean_entity_storage()
    assert (cleaned.removed, cleaned.released) == (0, 0)


async def test_4_8_a_lock_without_owner_is_released_and_who_waits_goes_on(
    file_hub: Deployment, path: Path
) -> None:
    app = counters()
    host = await file_hub.start(app)
    await holds(host, "lost", "a", "b", last=B)
    await host.client.start("hold", {"keys": ["a", "b"]}, instance_id="next")
    await host.client.start("send", [["call", "a", "add", 10]], instance_id="sender")
    await host.client.signal_entity(A, "add", 100)
    await is_quiet(host)
    await file_hub.stop(host)
    lose(path, "lost")
    host = await file_hub.start(app)
    await is_quiet(host)
    assert (await holder(host, A), await holder(host, B)) == ("lost", "lost")
    cleaned = await host.client.clean_entity_storage()
    assert (cleaned.removed, cleaned.released) == (2, 2), "none of them has a state yet"
    await host.client.raise_event("next", "go", "return")
    assert (await host.client.wait_for_completion("next")).output == [1, 1]
    assert (await host.client.wait_for_completion("sender")).output == [11]
    await is_free(host)
    assert [await value(host, entity) for entity in (A, B)] == [111, 1]


async def test_4_8_what_a_lost_orchestration_had_only_asked_for(file_hub: Deployment, path: Path) -> None:
    """Its request waits in its turn, is granted to nobody, and can be cleaned then."""
    app = counters()
    host = await file_hub.start(app)
    await holds(host, "first", "b", last=B)
    await holds(host, "lost", "a", "b", "c", last=A)
    await host.client.start("hold", {"keys": ["a", "b"]}, instance_id="third")
    await is_quiet(host)
    await file_hub.stop(host)
    lose(path, "lost")
    host = await file_hub.start(app)
    assert (await host.client.clean_entity_storage()).released == 1
    await host.client.raise_event("first", "go", "return")
    await reaches(host, "first", "Completed")
    await is_quiet(host)
    assert (await holder(host, A), await holder(host, B)) == ("third", "lost")
    assert (await host.client.clean_entity_storage()).released == 1
    await host.client.raise_event("third", "go", "return")
    assert (await host.client.wait_for_completion("third")).output == [1, 2]
    await is_free(host)


async def test_4_8_another_instance_under_the_same_id_is_no_owner(file_hub: Deployment, path: Path) -> None:
    app = counters()
    host = await file_hub.start(app)
    await holds(host, "lost", "a", last=A)
    await file_hub.stop(host)
    lose(path, "lost")
    host = await file_hub.start(app)
    await holds(host, "lost", "c", last=C)
    assert await holder(host, A) == "lost"
    assert (await host.client.clean_entity_storage()).released == 1
    assert (await holder(host, A), await holder(host, C)) == (None, "lost")
    await host.client.raise_event("lost", "go", "return")
    await reaches(host, "lost", "Completed")
    await is_free(host)


@pytest.mark.parametrize("suspended", [False, True])
@pytest.mark.parametrize("crash", [False, True])
async def test_4_8_the_locks_of_an_owner_that_lives_are_never_released(
    hub: Deployment, suspended: bool, crash: bool
) -> None:
    """Not while it is suspended, and not while only its rows are there; also not while it goes on with its locks."""
    app, options = counters(), EngineOptions(max_resident_instances=1)
    host = await hub.start(app, options=options)
    await holds(host, "i", "a", "b", last=B)
    await is_quiet(host)
    if suspended:
        await host.client.suspend("i")
    for number in range(4):
        await host.client.start("noted", instance_id=f"n{number}")
        await reaches(host, f"n{number}", "Completed")
    if crash:
        host = await hub.recover(host, app, options=options)

    def is_evicted() -> bool:
        partition = host.engine.partition
        return partition is not None and "i" not in partition.residents

    await eventually(is_evicted, "an owner that is in no memory")
    assert (await host.client.clean_entity_storage()).released == 0
    if suspended:
        await host.client.resume("i")
    cleaning = asyncio.ensure_future(host.client.clean_entity_storage())
    await host.client.raise_event("i", "go", "again")
    assert (await cleaning).released == 0
    await host.client.raise_event("i", "go", "return")
    assert (await host.client.wait_for_completion("i")).output == [2, 2]
    await is_free(host)
