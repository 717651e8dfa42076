"""The published Python SDK as worker and client of a host: what its functions may do, across processes that may die."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.grpc.fleet import Fleet, fleet
from tests.support.postgres import PostgresServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path_factory.mktemp("postgres"), durable=False)
    server.start()
    yield server
    server.stop()


HubUrl = Callable[[str], str]


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def hub(
    request: pytest.FixtureRequest, server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> HubUrl:
    """The URL of a hub of this name."""
    if request.param == "postgres":
        return server.url
    folder = tmp_path_factory.mktemp("hub")
    return lambda name: f"sqlite:///{folder}/{name}.db"


@pytest.fixture(scope="module")
def served(hub: HubUrl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("fleet"), hub("served")) as found:
        found.start_worker()
        yield found


def test_calls_one_after_the_other_and_at_once(served: Fleet) -> None:
    assert served.result("chain", 1) == 6
    assert served.result("fan_out", 50) == sum(range(1, 51))


def test_timers_and_their_cancellation(served: Fleet) -> None:
    assert served.result("first") == "soon"


def test_events_are_kept_until_they_are_waited_for_and_the_status_shows(served: Fleet) -> None:
    instance_id = served.start("wait", ["a", "b", "a"])
    for name, data in (("a", 1), ("A", {"x": 2}), ("b", None)):
        served.client.raise_orchestration_event(instance_id, name, data=data)
    assert served.ended(instance_id).get_output() == [1, None, {"x": 2}]
    instance_id = served.start("wait", ["go"])
    served.client.wait_for_orchestration_start(instance_id, timeout=10)
    served.until(instance_id, "RUNNING")
    deadline = time.monotonic() + 20
    while served.client.get_orchestration_state(instance_id).serialized_custom_status is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    state = served.client.get_orchestration_state(instance_id)
    assert state.serialized_custom_status == '{"waits": "go"}'
    served.client.raise_orchestration_event(instance_id, "go", data="went")
    assert served.ended(instance_id).get_output() == ["went"]


def test_children_and_their_failures(served: Fleet) -> None:
    assert served.result("parent", 0, instance_id=None) == 10
    state = served.ended(served.start("failing", "out of paper"))
    assert state.runtime_status.name == "FAILED"
    assert "out of paper" in state.failure_details.message
    state = served.ended(served.start("failing_parent", "no ink"))
    assert "Sub-orchestration task #1 failed" in state.failure_details.message
    assert "no ink" in state.failure_details.message


def test_the_sdk_retries_and_each_attempt_runs_once(served: Fleet) -> None:
    instance_id = served.start("retrying", 3)
    assert "again" in served.ended(instance_id).get_output()
    assert served.effects.read_text().count(f"fail {instance_id}\n") == 3


def test_an_execution_goes_on_as_a_new_one_and_loses_no_event(served: Fleet) -> None:
    instance_id = served.start("counting", 20)
    served.client.raise_orchestration_event(instance_id, "last", data="event")
    assert served.ended(instance_id).get_output() == ["event", 36]


def test_events_that_come_while_an_execution_goes_on_as_a_new_one_are_seen_once_and_in_order(
    served: Fleet,
) -> None:
    instance_id = served.start("collecting", [])
    for number in range(60):
        served.client.raise_orchestration_event(instance_id, "number", data=number)
    served.client.raise_orchestration_event(instance_id, "number", data=None)
    assert served.ended(instance_id).get_output() == list(range(60))


def test_entities_and_their_locks(served: Fleet) -> None:
    ids = [served.start("banking", "shared") for _ in range(6)]
    results = [served.ended(instance_id).get_output() for instance_id in ids]
    assert all(result[2] and "not you" in result[2] for result in results)
    assert sorted(result[1] for result in results) == [20, 40, 60, 80, 100, 120]


def test_what_is_too_large_for_a_worker_fails_and_holds_nobody_up(served: Fleet) -> None:
    large = served.start("long_input", "x" * 5_000_000)
    growing = served.start("long_input", "x" * 2_200_000)
    assert served.result("chain", 1) == 6
    for instance_id in (large, growing):
        state = served.client.wait_for_orchestration_completion(instance_id, fetch_payloads=False, timeout=60)
        assert state.runtime_status.name == "FAILED"
    assert "DURABLY_GRPC_ITEM_BYTES_MAX" in served.ended(growing).failure_details.message


def test_functions_of_the_host_and_of_workers_call_each_other(served: Fleet) -> None:
    assert served.result("mixed", "hi") == "HI!"
    assert served.result("native_parent", 1) == 6


def test_an_instance_is_suspended_resumed_and_terminated(served: Fleet) -> None:
    instance_id = served.start("wait", ["go"])
    served.until(instance_id, "RUNNING")
    served.client.suspend_orchestration(instance_id)
    served.until(instance_id, "SUSPENDED")
    served.client.raise_orchestration_event(instance_id, "go", data=1)
    time.sleep(0.2)
    assert served.status(instance_id) == "SUSPENDED"
    served.client.resume_orchestration(instance_id)
    assert served.ended(instance_id).get_output() == [1]
    instance_id = served.start("wait", ["never"])
    served.until(instance_id, "RUNNING")
    served.client.terminate_orchestration(instance_id, output="enough")
    state = served.ended(instance_id)
    assert (state.runtime_status.name, state.serialized_output) == ("TERMINATED", '"enough"')
    assert served.client.purge_orchestration(instance_id).deleted_instance_count == 1
    assert served.client.get_orchestration_state(instance_id) is None


def test_a_large_payload_goes_through(served: Fleet) -> None:
    assert served.result("long_input", "x" * 1_000_000) == 1_000_000


def test_one_that_was_suspended_before_a_worker_came_goes_on_after_a_restart(
    hub: HubUrl, tmp_path: Path
) -> None:
    with fleet(tmp_path, hub("suspended")) as served:
        instance_id = served.start("chain", 1)
        served.client.suspend_orchestration(instance_id)
        served.until(instance_id, "SUSPENDED")
        served.kill_host()
        served.start_host()
        served.start_worker()
        served.client.resume_orchestration(instance_id)
        assert served.ended(instance_id).get_output() == 6


@pytest.mark.parametrize("deaths", [3])
def test_workers_and_hosts_that_are_killed_lose_nothing(hub: HubUrl, tmp_path: Path, deaths: int) -> None:
    chance = random.Random(7)
    with fleet(tmp_path, hub("deaths")) as served:
        workers = [served.start_worker(), served.start_worker()]
        ids = [served.start("chain", 100 * number) for number in range(30)]
        ids += [served.start("fan_out", 10) for _ in range(5)]
        for death in range(deaths):
            time.sleep(0.2 + chance.random() * 0.3)
            if death % 2:
                served.kill_host()
                served.start_host()
            else:
                served.kill_worker(workers.pop(0))
                workers.append(served.start_worker())
        for number, instance_id in enumerate(ids):
            expected = 100 * number + 5 if number < 30 else sum(range(1, 11))
            assert served.ended(instance_id).get_output() == expected
        ran = Counter(served.effects.read_text().splitlines())
        assert len(ran) == 30 * 5 + 5 * 10


def test_a_history_is_told_as_the_scheduler_tells_it(served: Fleet) -> None:
    """Activity, timer and child: twelve events, as the SDKs expect them one by one."""
    instance_id = served.start("three_steps", 1)
    assert served.ended(instance_id).get_output() == 7
    history = served.client.get_orchestration_history(instance_id)
    kinds = [type(event).__name__.removesuffix("Event") for event in history]
    assert kinds == [
        "OrchestratorStarted",
        "ExecutionStarted",
        "TaskScheduled",
        "OrchestratorStarted",
        "TaskCompleted",
        "TimerCreated",
        "OrchestratorStarted",
        "TimerFired",
        "SubOrchestrationInstanceCreated",
        "OrchestratorStarted",
        "SubOrchestrationInstanceCompleted",
        "ExecutionCompleted",
    ]
    ids = [event.event_id for event in history if event.event_id >= 0]
    assert ids == sorted(set(ids))
    clocks = [event.timestamp for event in history if type(event).__name__.startswith("OrchestratorStarted")]
    assert clocks == sorted(set(clocks))


def test_a_history_of_a_function_of_the_host_is_told_too(served: Fleet) -> None:
    instance_id = served.start("native_parent", 1)
    served.ended(instance_id)
    kinds = [type(event).__name__ for event in served.client.get_orchestration_history(instance_id)]
    assert "SubOrchestrationInstanceCompletedEvent" in kinds
    assert kinds[-1] == "ExecutionCompletedEvent"


def test_what_failed_is_rewound_and_only_that_runs_again(served: Fleet) -> None:
    instance_id = served.start("rewindable", 2)
    for number in (1, 2):
        state = served.ended(instance_id)
        assert f"try {number}" in state.failure_details.message
        served.client.rewind_orchestration(instance_id, reason="the paper is back")
    assert served.ended(instance_id).get_output() == ["try 3", 3]
    ran = Counter(served.effects.read_text().splitlines())
    assert (ran[f"increase {instance_id} 1"], ran[f"increase {instance_id} 2"]) == (1, 1)
