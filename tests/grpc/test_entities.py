"""Entities over gRPC."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from durabletask.client import EntityQuery
from durabletask.entities import EntityInstanceId

from durably.executors.remote.wire import pb, text_value, timestamp
from tests.grpc.scene import Scene, refused, serving, until

Code = grpc.StatusCode


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Scene]:
    """A hub of its own: these tests count."""
    with serving(tmp_path) as scene:
        yield scene


def value(scene: Scene, key: str) -> Any:
    found = scene.client.get_entity(EntityInstanceId("Counter", key))
    return None if found is None else json.loads(found.get_state())["value"]


def filled(scene: Scene, *keys: str) -> None:
    for key in keys:
        scene.client.signal_entity(EntityInstanceId("counter", key), "add", input=1)
        until(lambda key=key: value(scene, key), 1)


def test_signals_make_an_entity(scene: Scene) -> None:
    filled(scene, "Sig")
    scene.client.signal_entity(EntityInstanceId("COUNTER", "Sig"), "add", input=4)
    until(lambda: value(scene, "Sig"), 5)
    assert value(scene, "sig") is None  # keys are compared with case
    raw = scene.stub.GetEntity(pb.GetEntityRequest(instanceId="@COUNTER@Sig", includeState=False))
    assert (raw.exists, raw.entity.instanceId, raw.entity.backlogQueueSize) == (True, "@counter@Sig", 0)
    assert not any(raw.entity.HasField(field) for field in ("serializedState", "lockedBy"))
    assert raw.entity.lastModifiedTime.seconds > 0


def test_an_entity_is_gone_with_its_state(scene: Scene) -> None:
    filled(scene, "gone")
    scene.client.signal_entity(EntityInstanceId("counter", "gone"), "delete")
    until(lambda: value(scene, "gone"), None)
    assert value(scene, "never") is None


def test_a_signal_comes_when_it_is_due(scene: Scene) -> None:
    entity = EntityInstanceId("counter", "due")
    at = datetime.now(UTC) + timedelta(seconds=0.4)
    scene.client.signal_entity(entity, "add", input=1, signal_time=at)
    assert scene.client.get_entity(entity) is None  # it has a signal, and no state
    until(lambda: value(scene, "due"), 1)
    assert datetime.now(UTC) >= at
    scene.client.signal_entity(entity, "add", input=1, signal_time=datetime(1970, 1, 1, tzinfo=UTC))
    until(lambda: value(scene, "due"), 2)


@pytest.mark.parametrize(
    ("entity", "operation", "code", "text"),
    [
        ("counter", "add", Code.INVALID_ARGUMENT, "@counter@key"),
        ("@counter@" + "x" * 92, "add", Code.INVALID_ARGUMENT, "length"),
        ("@counter@a", "", Code.INVALID_ARGUMENT, "name of the operation"),
        ("@nobody@a", "add", Code.INVALID_ARGUMENT, "nobody"),
        ("@durably.schedule@a", "add", Code.PERMISSION_DENIED, "of the runtime"),
    ],
)
def test_signals_that_are_refused(scene: Scene, entity: str, operation: str, code: Code, text: str) -> None:
    with refused(code, text):
        scene.stub.SignalEntity(pb.SignalEntityRequest(instanceId=entity, name=operation))


def test_a_lock_names_the_orchestration_that_holds_it(scene: Scene) -> None:
    filled(scene, "locked")
    scene.start("locks", "holder", "locked")

    def locked_by() -> str:
        asked = pb.GetEntityRequest(instanceId="@counter@locked", includeState=True)
        return scene.stub.GetEntity(asked).entity.lockedBy.value

    until(locked_by, "holder")
    scene.client.raise_orchestration_event("holder", "go")
    scene.ended("holder")
    until(locked_by, "")


# --- lists -----------------------------------------------------------------------------------------------------------


def test_entities_come_page_by_page(alone: Scene) -> None:
    filled(alone, "a1", "a2", "b1")
    alone.client.signal_entity(EntityInstanceId("note", "n"), "write", input="text")
    until(lambda: len(alone.client.get_all_entities()), 4)
    later = datetime.now(UTC) + timedelta(hours=1)
    alone.client.signal_entity(EntityInstanceId("counter", "later"), "add", signal_time=later)

    def keys(**given: Any) -> list[str]:
        return [one.id.key for one in alone.client.get_all_entities(EntityQuery(**given))]

    for size in (1, 2, 4, None):
        assert keys(page_size=size) == ["a1", "a2", "b1", "n"]
    assert keys(instance_id_starts_with="@counter@a") == ["a1", "a2"]
    assert keys(instance_id_starts_with="@Counter@a") == ["a1", "a2"]
    assert keys(instance_id_starts_with="counter") == ["a1", "a2", "b1"]
    assert keys(include_transient=True) == ["a1", "a2", "b1", "later", "n"]
    state = alone.client.get_entity(EntityInstanceId("counter", "b1"))
    assert state is not None
    at = state.last_modified.replace(tzinfo=UTC)
    assert keys(last_modified_from=at) == ["b1", "n"]
    assert keys(last_modified_to=at) == ["a1", "a2"]
    bare = alone.client.get_all_entities(EntityQuery(include_state=False, page_size=2))
    assert [one.includes_state for one in bare] == [False] * 4
    with refused(Code.INVALID_ARGUMENT, "token"):
        query = pb.EntityQuery(continuationToken=text_value("0"))
        alone.stub.QueryEntities(pb.QueryEntitiesRequest(query=query))


def test_a_page_of_large_states_is_short(alone: Scene) -> None:
    for n in range(6):
        entity = EntityInstanceId("note", f"n{n}")
        alone.client.signal_entity(entity, "write", input="x" * 1_000_000)
        until(lambda entity=entity: alone.client.get_entity(entity) is not None, True)
    assert [one.id.key for one in alone.client.get_all_entities()] == [f"n{n}" for n in range(6)]


def test_there_is_nothing_to_clean(alone: Scene) -> None:
    filled(alone, "a")
    alone.client.signal_entity(EntityInstanceId("counter", "a"), "delete")
    until(lambda: value(alone, "a"), None)
    result = alone.client.clean_entity_storage()
    assert (result.empty_entities_removed, result.orphaned_locks_released) == (0, 0)
    nothing = alone.client.clean_entity_storage(remove_empty_entities=False, release_orphaned_locks=False)
    assert nothing == result


def test_the_instant_of_a_state(scene: Scene) -> None:
    filled(scene, "when")
    found = scene.client.get_entity(EntityInstanceId("counter", "when"))
    assert found is not None
    assert abs(found.last_modified.replace(tzinfo=UTC).timestamp() - time.time()) < 60
    assert timestamp(None) is None
