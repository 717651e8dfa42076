"""The published JavaScript SDK as worker and client of a host."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from durabletask.client import TaskHubGrpcClient

from tests.grpc import javascript
from tests.grpc.fleet import PATIENCE_S, Fleet, fleet
from tests.grpc.javascript import Client, ClientError

pytestmark = pytest.mark.slow_once


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of a worker; the client lies beside it."""
    return javascript.worker(tmp_path_factory.mktemp("js"))


@pytest.fixture(scope="module")
def served(programs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with fleet(folder, f"sqlite:///{folder}/hub.db") as found:
        found.start_worker(program=programs)
        yield found


@pytest.fixture(scope="module")
def js(programs: list[str], served: Fleet) -> Iterator[Client]:
    with Client(Path(programs[-1]).parent, served.place) as client:
        yield client


def until(condition: Callable[[], Any]) -> Any:
    """What it gives once that is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def waiting(js: Client) -> str:
    """An instance that waits for the event `go`."""
    instance_id = js.start("wait", ["go"])
    js.started(instance_id)
    return instance_id


# --- orchestrators and activities ------------------------------------------------------------------------------------


def test_calls_one_after_the_other_and_at_once(js: Client) -> None:
    assert js.run("chain", 1) == 6
    assert js.run("fan_out", 50) == sum(range(1, 51))


def test_timers_and_their_cancellation(js: Client) -> None:
    assert js.run("first") == "soon"
    assert 100 <= js.run("two_timers") < 1000
    assert js.run("approval", 0.05) == "late"
    instance_id = js.start("approval", 3600)
    js.raise_(instance_id, "approved", True)
    assert js.ended(instance_id)["serializedOutput"] == "true"


def test_events_are_kept_until_they_are_waited_for_and_the_status_shows(js: Client) -> None:
    instance_id = js.start("wait", ["a", "b", "a"])
    for name, data in (("a", 1), ("A", {"x": 2}), ("b", None)):
        js.raise_(instance_id, name, data)
    assert json.loads(js.ended(instance_id)["serializedOutput"]) == [1, None, {"x": 2}]
    instance_id = waiting(js)
    until(lambda: js.get(instance_id, True).get("serializedCustomStatus") == '{"waits":"go"}')
    assert js.run("sender", instance_id, {"instanceId": "sender-1"}) is None
    assert json.loads(js.ended(instance_id)["serializedOutput"]) == [{"from": "sender-1"}]


def test_children_and_their_failures(js: Client) -> None:
    assert js.run("parent", 0) == 10
    state = js.ended(js.start("failing", "out of paper"))
    assert state["runtimeStatus"] == "FAILED"
    assert state["failure"]["type"] == "TaskFailedError"
    assert "out of paper" in state["failure"]["message"]
    state = js.ended(js.start("failing_parent", "no ink"))
    assert "no ink" in state["failure"]["message"]
    name, kind, message = js.run("caught", "no toner")
    assert (name, kind) == ("TaskFailedError", "TaskFailedError")
    assert "no toner" in message
    state = js.ended(js.start("unheard_of"))
    assert (state["runtimeStatus"], state["failure"]["type"]) == ("FAILED", "OrchestratorNotRegisteredError")


@pytest.mark.parametrize("name", ["retrying", "retried_child", "handled"])
def test_the_sdk_retries_and_each_attempt_runs_once(js: Client, served: Fleet, name: str) -> None:
    before = Counter(served.effects.read_text().splitlines())
    instance_id = js.start(name, 3)
    assert "again" in js.ended(instance_id)["serializedOutput"]
    ran = Counter(served.effects.read_text().splitlines()) - before
    assert sum(count for line, count in ran.items() if line.startswith("fail ")) == 3


def test_an_execution_goes_on_as_a_new_one_and_loses_no_event(js: Client) -> None:
    instance_id = js.start("counting", 20)
    js.raise_(instance_id, "last", "event")
    assert json.loads(js.ended(instance_id)["serializedOutput"]) == ["event", 36]


def test_what_an_instance_knows_of_itself(js: Client) -> None:
    assert js.run("about") == {"version": "", "parent": None, "input": None, "result": None}
    assert js.run("about", "in", {"version": "1.0"}) == {
        "version": "1.0",
        "parent": None,
        "input": "in",
        "result": None,
    }
    given = {"instanceId": "parent-of-about"}
    child = js.run("about_child", None, given)
    assert (child["version"], child["input"]) == ("2.0", {"a": 1})
    assert (child["parent"]["instanceId"], child["parent"]["taskScheduledId"]) == ("parent-of-about", 1)


def test_functions_of_the_host_and_of_workers_call_each_other(js: Client, served: Fleet) -> None:
    assert js.run("mixed", "hi") == "HI!"
    assert served.result("native_parent", 1) == 6


def test_a_large_payload_goes_through(js: Client) -> None:
    assert js.run("long_input", "x" * 1_000_000) == 1_000_000


# --- the client ------------------------------------------------------------------------------------------------------


def test_start_and_look(js: Client) -> None:
    assert js.get("nobody", True) is None
    assert js.ended("nobody") is None
    given = {"instanceId": "look-1", "tags": {"team": "a"}, "version": "1.0"}
    assert js.start("quick", {"x": 1}, given) == "look-1"
    state = js.ended("look-1")
    assert (state["name"], state["serializedInput"], state["serializedOutput"]) == (
        "quick",
        '{"x":1}',
        '{"x":1}',
    )
    assert state["tags"] == {"team": "a"}
    assert state["createdAt"] <= state["lastUpdatedAt"]
    assert "failure" not in state
    bare = js.get("look-1", False)
    assert not bare.get("serializedInput")
    assert not bare.get("serializedOutput")
    running = waiting(js)
    with pytest.raises(ClientError, match=r"(?i)already exists"):
        js.start("quick", None, {"instanceId": running})
    with pytest.raises(ClientError, match="Timed out"):
        js.ended(running, 0.05)
    js.raise_(running, "go", 1)
    assert js.ended(running)["runtimeStatus"] == "COMPLETED"


def test_a_start_may_be_put_off(js: Client) -> None:
    at = datetime.now(UTC) + timedelta(milliseconds=700)
    instance_id = js.start("quick", 1, {"startAt": at.isoformat()})
    assert js.get(instance_id, True)["runtimeStatus"] == "PENDING"
    assert js.ended(instance_id)["runtimeStatus"] == "COMPLETED"
    assert datetime.now(UTC) >= at


def test_an_instance_is_suspended_and_resumed(js: Client) -> None:
    instance_id = waiting(js)
    js.suspend(instance_id)
    until(lambda: js.get(instance_id, False)["runtimeStatus"] == "SUSPENDED")
    js.raise_(instance_id, "go", 1)
    time.sleep(0.2)
    assert js.get(instance_id, False)["runtimeStatus"] == "SUSPENDED"
    js.resume(instance_id)
    assert js.ended(instance_id)["serializedOutput"] == "[1]"
    with pytest.raises(ClientError, match="NOT_FOUND"):
        js.suspend("nobody")


def test_an_instance_is_terminated_alone_or_with_its_children(js: Client) -> None:
    instance_id = waiting(js)
    js.terminate(instance_id, "enough")
    state = js.ended(instance_id)
    assert (state["runtimeStatus"], state["serializedOutput"]) == ("TERMINATED", '"enough"')
    instance_id = waiting(js)
    js.terminate(instance_id, {"why": [1]})
    assert json.loads(js.ended(instance_id)["serializedOutput"]) == {"why": [1]}
    parent = js.start("waiting_parent")
    until(lambda: js.get(f"{parent}-child", False))
    js.terminateAll(parent, "all of it")
    assert js.ended(parent)["runtimeStatus"] == "TERMINATED"
    assert js.ended(f"{parent}-child")["runtimeStatus"] == "TERMINATED"


def test_an_instance_is_restarted(js: Client) -> None:
    instance_id = js.start("chain", 1)
    js.ended(instance_id)
    assert js.restart(instance_id, False) == instance_id
    assert js.ended(instance_id)["serializedOutput"] == "6"
    anew = js.restart(instance_id, True)
    assert anew != instance_id
    assert js.ended(anew)["serializedOutput"] == "6"
    with pytest.raises(ClientError, match="not found"):
        js.restart("nobody", True)


def test_what_failed_is_rewound_and_only_that_runs_again(js: Client, served: Fleet) -> None:
    instance_id = js.start("rewindable", 2)
    for number in (1, 2):
        assert f"try {number}" in js.ended(instance_id)["failure"]["message"]
        js.rewind(instance_id, "there is paper now")
    assert json.loads(js.ended(instance_id)["serializedOutput"]) == ["try 3", 3]
    ran = Counter(served.effects.read_text().splitlines())
    assert (ran[f"increase {instance_id} 1"], ran[f"increase {instance_id} 2"]) == (1, 1)
    with pytest.raises(ClientError, match="not found"):
        js.rewind("nobody", "why")


def test_instances_are_found_and_purged(js: Client) -> None:
    began = datetime.now(UTC).isoformat()
    ids = [f"find-{number}" for number in range(5)]
    for instance_id in ids:
        js.start("quick", 1, {"instanceId": instance_id})
    for instance_id in ids:
        js.ended(instance_id)
    asked = {
        "instanceIdPrefix": "find-",
        "names": ["COMPLETED"],
        "pageSize": 2,
        "fetchInputsAndOutputs": True,
    }
    pages = js.query(asked)
    assert [len(page) for page in pages] == [2, 2, 1]
    assert sorted(state["instanceId"] for page in pages for state in page) == ids
    assert {state["serializedOutput"] for page in pages for state in page} == {"1"}
    assert js.query({"instanceIdPrefix": "find-", "names": ["FAILED"]}) == [[]]
    assert js.purge("find-0") == {"deletedInstanceCount": 1}
    assert js.purge("find-0") == {"deletedInstanceCount": 0}
    assert js.get("find-0", True) is None
    assert js.purgeWhere(["COMPLETED"], began)["deletedInstanceCount"] == 4
    parent = js.start("parent", 0)
    js.ended(parent)
    assert js.purge(parent, {"recursive": True}) == {"deletedInstanceCount": 3}


def test_ids_of_what_has_ended_are_listed(js: Client) -> None:
    instance_id = js.start("quick")
    js.ended(instance_id)
    found: list[str] = []
    key = None
    while True:
        page = js.list({"names": ["COMPLETED"], "pageSize": 3, **({"lastInstanceKey": key} if key else {})})
        found += page["values"]
        key = page.get("continuationToken")
        if not key:
            break
    assert instance_id in found
    assert len(found) == len(set(found))


def test_a_history_is_told_as_the_scheduler_tells_it(js: Client) -> None:
    instance_id = js.start("three_steps", 1)
    assert js.ended(instance_id)["serializedOutput"] == "7"
    history = js.history(instance_id)
    assert [event["type"] for event in history] == [
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
    ids = [event["eventId"] for event in history if event["eventId"] >= 0]
    assert ids == sorted(set(ids))
    child = history[8]
    assert re.fullmatch(r"[0-9a-f]{32}:[0-9a-f]{4}", child["instanceId"])
    started = js.history(child["instanceId"])[1]
    assert started["parentInstance"]["taskScheduledId"] == child["eventId"]
    assert started["parentInstance"]["name"] == history[1]["name"]
    assert js.history("nobody") == []


# --- entities --------------------------------------------------------------------------------------------------------


def test_entities_and_their_locks(js: Client) -> None:
    ids = [js.start("banking", "shared") for _ in range(6)]
    results = [json.loads(js.ended(instance_id)["serializedOutput"]) for instance_id in ids]
    assert all("not you" in result[2] for result in results)
    assert sorted(result[1] for result in results) == [20, 40, 60, 80, 100, 120]
    assert js.entity("shared")["state"] == {"sum": 66}


def test_a_client_signals_entities_and_looks_at_them(js: Client) -> None:
    assert js.entity("mine") is None
    js.signal("mine", "deposit", 5)
    js.signal("mine", "deposit", 7)
    found = until(lambda: (one := js.entity("mine")) and one["state"]["sum"] == 12 and one)
    assert found["id"] == "@account@mine"
    assert found["includesState"]
    assert js.entity("mine", False)["includesState"] is False
    js.signal("mine", "report", "yours")
    assert until(lambda: js.entity("yours"))["state"] == {"sum": 12}
    until(lambda: js.get("report-yours", True))
    assert js.ended("report-yours")["serializedOutput"] == "12"
    at = datetime.now(UTC) + timedelta(milliseconds=300)
    js.signal("late", "deposit", 1, {"signalTime": at.isoformat()})
    until(lambda: js.entity("late"))
    assert datetime.now(UTC) >= at
    for key in ("q1", "q2", "q3"):
        js.signal(key, "deposit", 1)
    until(lambda: all(js.entity(key) for key in ("q1", "q2", "q3")))
    pages = js.entities({"instanceIdStartsWith": "@Account@q", "includeState": True, "pageSize": 2})
    assert [one["id"] for page in pages for one in page] == ["@account@q1", "@account@q2", "@account@q3"]
    js.signal("mine", "delete")
    until(lambda: js.entity("mine") is None)
    assert js.clean()["emptyEntitiesRemoved"] >= 0


# --- with others -----------------------------------------------------------------------------------------------------


def test_workers_of_two_languages_call_each_other(programs: list[str], tmp_path: Path) -> None:
    with fleet(tmp_path, f"sqlite:///{tmp_path}/hub.db") as served:
        served.start_worker("own")
        served.start_worker("js_", program=programs)
        result = served.result("there_and_back", 4)
        assert [row[:3] for row in result] == [
            ["python", 5, 4],
            ["js", 4, 3],
            ["python", 3, 2],
            ["js", 2, 1],
        ]
        assert result[0][3] == "RangeError: no ink"
        assert re.fullmatch(r"(builtins\.)?ValueError: no paper", result[1][3])
        first, *_ = served.result("js_there_and_back", 1)
        assert first[:3] == ["js", 2, 1]


def test_workers_take_instances_of_their_version_and_the_activities_of_these(
    programs: list[str], tmp_path: Path
) -> None:
    with fleet(tmp_path, f"sqlite:///{tmp_path}/hub.db") as served:
        served.start_worker("", "2.0", program=programs)
        older = served.start("chain", 1, version="1.0")
        newer = served.start("chain", 10, version="2.0")
        assert served.ended(newer).get_output() == 15
        assert served.status(older) == "PENDING"
        served.start_worker("", "1.0", program=programs)
        assert served.ended(older).get_output() == 6


def test_a_key_is_shown_as_metadata(
    programs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = f"sqlite:///{tmp_path}/hub.db"
    command = [sys.executable, "-m", "durably", "keys", "create", "w", "--role", "admin", "--hub", hub]
    made = subprocess.run([*command, "-o", "json"], capture_output=True, text=True, check=True)
    folder = Path(programs[-1]).parent
    with fleet(tmp_path, hub) as served:
        with Client(folder, served.place) as stranger, pytest.raises(ClientError, match="UNAUTHENTICATED"):
            stranger.get("nobody", True)
        key = json.loads(made.stdout)["key"]
        monkeypatch.setenv("DURABLY_KEY", key)
        served.start_worker(program=programs)
        with Client(folder, served.place) as js:
            assert js.run("chain", 1) == 6
        metadata = [("x-functions-key", key)]
        with TaskHubGrpcClient(host_address=served.place, metadata=metadata) as client:
            state = client.wait_for_orchestration_completion(client.schedule_new_orchestration("quick"))
            assert state is not None
            assert state.runtime_status.name == "COMPLETED"


def test_a_worker_that_stops_ends_what_it_runs(programs: list[str], tmp_path: Path) -> None:
    with fleet(tmp_path, f"sqlite:///{tmp_path}/hub.db") as served:
        worker = served.start_worker(program=programs)
        instance_id = served.start("slowly", 0.3)
        until(lambda: "begun" in served.effects.read_text())
        worker.terminate()
        assert worker.wait(timeout=PATIENCE_S) == 0
        served.start_worker(program=programs)
        assert served.ended(instance_id).get_output() == "done"
        assert served.effects.read_text().count("slow ") == 1


def test_a_worker_goes_on_after_the_host_and_others_were_killed(programs: list[str], tmp_path: Path) -> None:
    with fleet(tmp_path, f"sqlite:///{tmp_path}/hub.db") as served:
        killed = served.start_worker(program=programs)
        served.start_worker(program=programs)
        ids = [served.start("chain", 100 * number) for number in range(20)]
        time.sleep(0.1)
        served.kill_worker(killed)
        time.sleep(0.1)
        served.kill_host()
        served.start_host()
        assert [served.ended(id_).get_output() for id_ in ids] == [100 * number + 5 for number in range(20)]
        assert len(Counter(served.effects.read_text().splitlines())) == 20 * 5
