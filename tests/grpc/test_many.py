"""Many instances: pages, filters, ids, purges."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from durabletask.client import OrchestrationQuery, OrchestrationStatus

from durably.executors.remote.wire import pb, text_value, timestamp
from tests.grpc.scene import Scene, refused, serving, until

Code = grpc.StatusCode


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Scene]:
    """A hub of its own: these tests count."""
    with serving(tmp_path) as scene:
        yield scene


def ids(states: Any) -> list[str]:
    return [state.instance_id for state in states]


def page(scene: Scene, **fields: Any) -> pb.QueryInstancesResponse:
    return scene.stub.QueryInstances(pb.QueryInstancesRequest(query=pb.InstanceQuery(**fields)))


def test_all_pages_come_in_the_order_of_creation(alone: Scene) -> None:
    expected = [f"i{n}" for n in range(7)]
    for one in expected:
        alone.finished("echo", one, one)
    alone.client.signal_entity(_counter(), "add")  # no entity shows up
    for size in (1, 3, 7, 100):
        query = OrchestrationQuery(max_instance_count=size, fetch_inputs_and_outputs=size % 2 == 1)
        states = alone.client.get_all_orchestration_states(query)
        assert ids(states) == expected
        assert [state.serialized_output for state in states] == (
            [f'"{one}"' for one in expected] if size % 2 else [None] * 7
        )
    assert ids(alone.client.get_all_orchestration_states()) == expected
    last = page(alone, maxInstanceCount=7)
    assert not last.HasField("continuationToken")
    assert page(alone, maxInstanceCount=6).continuationToken.value not in {"", "0"}
    assert len(page(alone).orchestrationState) == 7


def _counter() -> Any:
    from durabletask.entities import EntityInstanceId

    return EntityInstanceId("counter", "one")


def test_filters(alone: Scene) -> None:
    alone.finished("echo", "a-1", 1)
    alone.finished("fails", "a-2")
    alone.start("waits", "b-1")
    until(lambda: alone.status("b-1"), "RUNNING")
    client = alone.client

    def found(**given: Any) -> list[str]:
        return ids(client.get_all_orchestration_states(OrchestrationQuery(**given)))

    assert found(instance_id_prefix="a-") == ["a-1", "a-2"]
    assert found(runtime_status=[OrchestrationStatus.FAILED]) == ["a-2"]
    assert found(runtime_status=[OrchestrationStatus.RUNNING, OrchestrationStatus.COMPLETED]) == [
        "a-1",
        "b-1",
    ]
    assert found(runtime_status=[OrchestrationStatus.PENDING]) == []
    assert not page(alone, runtimeStatus=[99]).orchestrationState  # of a version to come
    created = client.get_orchestration_state("a-2")
    assert created is not None
    at = created.created_at.replace(tzinfo=UTC)
    assert found(created_time_from=at) == ["a-2", "b-1"]
    assert found(created_time_to=at) == ["a-1"]
    failed = client.get_all_orchestration_states(
        OrchestrationQuery(runtime_status=[OrchestrationStatus.FAILED], fetch_inputs_and_outputs=True)
    )
    assert failed[0].failure_details is not None
    with refused(Code.INVALID_ARGUMENT, "token"):
        page(alone, continuationToken=text_value("7"))


def test_a_page_of_large_payloads_is_short(alone: Scene) -> None:
    for n in range(12):
        alone.finished("echo", f"big{n:02}", "x" * 700_000)
    query = OrchestrationQuery(fetch_inputs_and_outputs=True)
    states = alone.client.get_all_orchestration_states(query)  # with the limit of 4 MiB that clients have
    assert ids(states) == [f"big{n:02}" for n in range(12)]


# --- ids -------------------------------------------------------------------------------------------------------------


def test_ids_come_in_the_order_of_their_ends(alone: Scene) -> None:
    client = alone.client
    alone.start("waits", "first")
    alone.finished("echo", "second")
    alone.finished("fails", "third")
    alone.start("waits", "alive")
    client.raise_orchestration_event("first", "go")
    alone.ended("first")
    assert client.list_instance_ids().items == ["second", "third", "first"]
    some = client.list_instance_ids(page_size=2)
    assert (some.items, "third" in (some.continuation_token or "")) == (["second", "third"], True)
    rest = client.list_instance_ids(page_size=2, continuation_token=some.continuation_token)
    assert (rest.items, rest.continuation_token) == (["first"], None)
    assert client.list_instance_ids(page_size=3).continuation_token is None
    assert client.list_instance_ids([OrchestrationStatus.FAILED]).items == ["third"]
    assert client.list_instance_ids([OrchestrationStatus.RUNNING]).items == []
    ended = alone.raw("third").orchestrationState.completedTimestamp
    request = pb.ListInstanceIdsRequest(completedTimeFrom=ended)
    assert list(alone.stub.ListInstanceIds(request).instanceIds) == ["third", "first"]
    request = pb.ListInstanceIdsRequest(completedTimeTo=ended)
    assert list(alone.stub.ListInstanceIds(request).instanceIds) == ["second"]
    for token in ("0", "x:y", "5:"):
        with refused(Code.INVALID_ARGUMENT, "lastInstanceKey"):
            client.list_instance_ids(continuation_token=token)


# --- purge -----------------------------------------------------------------------------------------------------------


def purged(scene: Scene, **fields: Any) -> tuple[int, bool]:
    answer = scene.stub.PurgeInstances(pb.PurgeInstancesRequest(**fields))
    return answer.deletedInstanceCount, answer.isComplete.value


def family(scene: Scene, name: str) -> None:
    scene.start("parent", name, f"{name}-child")
    until(lambda: scene.status(f"{name}-child"), "RUNNING")
    scene.client.raise_orchestration_event(f"{name}-child", "go")
    scene.ended(name)


def test_only_what_has_ended_is_purged(alone: Scene) -> None:
    alone.start("waits", "alive")
    alone.finished("echo", "done")
    assert purged(alone, instanceId="alive") == (0, True)
    assert purged(alone, instanceId="@counter@one") == (0, True)
    result = alone.client.purge_orchestration("done")
    assert (result.deleted_instance_count, result.is_complete) == (1, True)
    assert (alone.status("done"), alone.status("alive")) == (None, "RUNNING")
    with refused(Code.INVALID_ARGUMENT, "what to purge"):
        purged(alone)


@pytest.mark.parametrize(("recursive", "count"), [(True, 2), (False, 1)])
def test_descendants_go_and_are_counted(alone: Scene, recursive: bool, count: int) -> None:
    family(alone, "p")
    assert alone.client.purge_orchestration("p", recursive).deleted_instance_count == count
    assert alone.status("p") is None
    assert alone.status("p-child") == (None if recursive else "COMPLETED")


def test_a_batch_is_purged(alone: Scene) -> None:
    for one in ("a", "b", "c"):
        alone.finished("echo", one)
    alone.start("waits", "d")
    assert purged(alone, instanceBatch={"instanceIds": ["a", "b", "a", "d", "nobody"]}) == (2, True)
    with refused(Code.INVALID_ARGUMENT, "500"):
        purged(alone, instanceBatch={"instanceIds": [str(n) for n in range(501)]})


def test_what_filters_find_is_purged(alone: Scene) -> None:
    for one in ("a", "b", "c"):
        alone.finished("echo", one)
    alone.finished("fails", "f")
    alone.start("waits", "alive")
    client = alone.client
    assert client.purge_orchestrations_by(runtime_status=[OrchestrationStatus.RUNNING]) == (
        client.purge_orchestrations_by(created_time_to=datetime(2000, 1, 1, tzinfo=UTC))
    )
    state = client.get_orchestration_state("b")
    assert state is not None
    before = client.purge_orchestrations_by(created_time_to=state.created_at.replace(tzinfo=UTC))
    assert (before.deleted_instance_count, alone.status("b")) == (1, "COMPLETED")
    failed = client.purge_orchestrations_by(
        runtime_status=[OrchestrationStatus.FAILED, OrchestrationStatus.RUNNING]
    )
    assert failed.deleted_instance_count == 1
    rest = client.purge_orchestrations_by(timeout=timedelta(seconds=30))
    assert (rest.deleted_instance_count, rest.is_complete) == (2, True)
    assert alone.status("alive") == "RUNNING"


def test_a_purge_stops_when_its_time_is_over(alone: Scene) -> None:
    for n in range(3):
        alone.finished("echo", str(n))
    found = pb.PurgeInstanceFilter()
    found.timeout.SetInParent()
    assert purged(alone, purgeInstanceFilter=found) == (0, False)


def test_families_that_filters_find_are_counted_once(alone: Scene) -> None:
    family(alone, "p")
    family(alone, "q")
    result = alone.client.purge_orchestrations_by(recursive=True)
    assert (result.deleted_instance_count, alone.client.get_all_orchestration_states()) == (4, [])


def test_terminated_without_ceremony(alone: Scene) -> None:
    alone.start("waits", "alive")
    alone.start("locks", "holder", "x")
    until(lambda: alone.status("holder"), "RUNNING")
    alone.finished("echo", "over")
    request = pb.SkipGracefulOrchestrationTerminationsRequest(
        instanceBatch={"instanceIds": ["alive", "over", "@counter@x", "holder", "nobody"]},
        reason=text_value("enough"),
    )
    answer = alone.stub.SkipGracefulOrchestrationTerminations(request)
    assert list(answer.unterminatedInstanceIds) == ["over", "@counter@x", "nobody"]
    assert alone.ended("alive").get_output() == "enough"
    assert alone.status("holder") == "TERMINATED"
    with refused(Code.INVALID_ARGUMENT, "500"):
        alone.stub.SkipGracefulOrchestrationTerminations(
            pb.SkipGracefulOrchestrationTerminationsRequest(
                instanceBatch={"instanceIds": ["x"] * 1 + list(map(str, range(500)))}
            )
        )


def test_instants_finer_than_ours_are_rounded_to_what_they_mean(alone: Scene) -> None:
    alone.finished("echo", "one")
    at = alone.raw("one").orchestrationState.createdTimestamp
    finer = timestamp(at.seconds * 1_000_000 + at.nanos // 1_000)
    assert finer is not None
    finer.nanos += 1
    assert ids_of(page(alone, createdTimeFrom=finer)) == []
    assert ids_of(page(alone, createdTimeTo=finer)) == ["one"]
    assert ids_of(page(alone, createdTimeFrom=at)) == ["one"]
    assert ids_of(page(alone, createdTimeTo=at)) == []


def ids_of(answer: pb.QueryInstancesResponse) -> list[str]:
    return [state.instanceId for state in answer.orchestrationState]
