"""Instances over gRPC, as the published client asks for them and as clients of other languages do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from durabletask.client import TaskHubGrpcClient

from durably.executors.remote.wire import pb, text_value, timestamp
from tests.grpc.scene import PATIENCE_S, Scene, refused, serving, until

Code = grpc.StatusCode
PENDING, RUNNING, SUSPENDED, TERMINATED, COMPLETED, FAILED = (
    getattr(pb, f"ORCHESTRATION_STATUS_{name}")
    for name in ("PENDING", "RUNNING", "SUSPENDED", "TERMINATED", "COMPLETED", "FAILED")
)


def test_an_instance_runs_and_has_all_its_fields(scene: Scene) -> None:
    state = scene.finished("shout", "runs", "hello", tags={"color": "red"}, version="2")
    assert (state.runtime_status.name, state.get_output(), state.get_input()) == (
        "COMPLETED",
        "HELLO",
        "hello",
    )
    assert (state.name, state.serialized_custom_status, state.failure_details) == ("shout", None, None)
    raw = scene.raw("runs").orchestrationState
    assert dict(raw.tags) == {"color": "red"}
    assert raw.version.value == "2"
    assert len(raw.executionId.value) == 32
    unset = ("failureDetails", "customStatus", "parentInstanceId", "scheduledStartTimestamp")
    assert not any(raw.HasField(field) for field in unset)
    assert raw.completedTimestamp.seconds == raw.lastUpdatedTimestamp.seconds >= raw.createdTimestamp.seconds
    assert raw.createdTimestamp.seconds > 0


def test_payloads_are_left_out_when_nobody_asks_for_them(scene: Scene) -> None:
    scene.start("waits", "bare", {"a": 1})
    until(lambda: scene.raw("bare").orchestrationState.customStatus.value, '{"waits":true}')
    raw = scene.raw("bare", payloads=False).orchestrationState
    assert not any(raw.HasField(field) for field in ("input", "output"))
    assert raw.customStatus.value == '{"waits":true}'
    scene.client.raise_orchestration_event("bare", "go", data=[1])
    assert scene.ended("bare").get_output() == [1]
    assert not scene.raw("bare", payloads=False).orchestrationState.HasField("output")


def test_a_failure_comes_with_its_cause(scene: Scene) -> None:
    state = scene.finished("fails", "failing")
    assert (state.runtime_status.name, state.failure_details.message) == ("FAILED", "out of paper")
    details = scene.raw("failing").orchestrationState.failureDetails
    assert (details.errorType, details.innerFailure.errorType) == ("ValueError", "KeyError")
    assert "out of paper" in details.stackTrace.value
    assert not details.innerFailure.HasField("innerFailure")


@pytest.mark.parametrize("target", ["nobody", "", "@counter@a"])
def test_nobody_is_not_an_error(scene: Scene, target: str) -> None:
    client = scene.client
    assert client.get_orchestration_state(target) is None
    assert client.wait_for_orchestration_start(target, timeout=PATIENCE_S) is None
    assert client.wait_for_orchestration_completion(target, timeout=PATIENCE_S) is None
    client.terminate_orchestration(target)
    assert client.purge_orchestration(target).deleted_instance_count == 0


@pytest.mark.parametrize("target", ["nobody", "", "@counter@a", "x/y", "x" * 300])
@pytest.mark.parametrize("call", ["raise", "suspend", "resume", "restart", "rewind"])
def test_what_needs_an_instance_says_that_there_is_none(scene: Scene, call: str, target: str) -> None:
    client = scene.client
    calls: dict[str, Callable[[], object]] = {
        "raise": lambda: client.raise_orchestration_event(target, "go"),
        "suspend": lambda: client.suspend_orchestration(target),
        "resume": lambda: client.resume_orchestration(target),
        "restart": lambda: client.restart_orchestration(target),
        "rewind": lambda: client.rewind_orchestration(target),
    }
    with refused(Code.NOT_FOUND, target):
        calls[call]()


def test_what_is_asked_of_one_that_has_ended_changes_nothing(scene: Scene) -> None:
    scene.finished("echo", "over", 1)
    client = scene.client
    client.raise_orchestration_event("over", "go")
    client.terminate_orchestration("over", output="late")
    client.suspend_orchestration("over")
    client.resume_orchestration("over")
    assert scene.ended("over").get_output() == 1


# --- start -----------------------------------------------------------------------------------------------------------


def started(scene: Scene, **fields: Any) -> str:
    return scene.stub.StartInstance(pb.CreateInstanceRequest(**{"name": "echo", **fields})).instanceId


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({"instanceId": "x" * 101}, Code.INVALID_ARGUMENT, "length"),
        ({"instanceId": "@counter@a"}, Code.INVALID_ARGUMENT, "reserved for entities"),
        ({"instanceId": "a/b"}, Code.INVALID_ARGUMENT, "'/'"),
        ({"name": "no_such"}, Code.INVALID_ARGUMENT, "no_such"),
        ({"name": "durably:notice"}, Code.PERMISSION_DENIED, "runtime's own"),
        ({"tags": {"durably:other": "1"}}, Code.INVALID_ARGUMENT, "runtime's own"),
        (
            {"instanceId": "p", "orchestrationIdReusePolicy": {"replaceableStatus": [RUNNING, COMPLETED]}},
            Code.INVALID_ARGUMENT,
            "Invalid reusable statuses: cannot exclude 'Terminated' while also allowing reuse of running instances",
        ),
    ],
)
def test_starts_that_are_refused(scene: Scene, fields: dict[str, Any], code: Code, text: str) -> None:
    with refused(code, text):
        started(scene, **fields)


def test_an_id_is_made_when_there_is_none(scene: Scene) -> None:
    made = started(scene)
    assert len(made) == 32
    assert int(made, 16)
    assert scene.ended(made).runtime_status.name == "COMPLETED"
    assert started(scene, instanceId="y" * 100) == "y" * 100


def test_what_clients_of_javascript_send_for_nothing(scene: Scene) -> None:
    epoch = timestamp(0)
    started(
        scene, instanceId="js", input=text_value(""), scheduledStartTimestamp=epoch, version=text_value("")
    )
    state = scene.ended("js")
    assert (state.runtime_status.name, state.serialized_input, state.serialized_output) == (
        "COMPLETED",
        None,
        None,
    )
    raw = scene.raw("js").orchestrationState
    assert not raw.HasField("scheduledStartTimestamp")
    assert abs(raw.createdTimestamp.seconds - time.time()) < 60


def test_a_payload_is_kept_as_it_is(scene: Scene) -> None:
    text = '{ "b" :1.50,\n"a": "ä€😀" }'
    started(scene, name="waits", instanceId="verbatim", input=text_value(text))
    assert scene.raw("verbatim").orchestrationState.input.value == text


def test_the_execution_id_of_the_caller_is_taken(scene: Scene) -> None:
    mine = "0123456789abcdef" * 2
    started(scene, instanceId="mine", executionId=text_value(mine))
    assert scene.raw("mine").orchestrationState.executionId.value == mine


def test_a_start_in_the_future_is_pending_until_then(scene: Scene) -> None:
    later = datetime.now(UTC) + timedelta(seconds=0.6)
    scene.start("echo", "later", 7, start_at=later)
    assert scene.status("later") == "PENDING"
    assert scene.raw("later").orchestrationState.HasField("scheduledStartTimestamp")
    with pytest.raises(TimeoutError):
        scene.client.wait_for_orchestration_start("later", timeout=0.1)
    state = scene.client.wait_for_orchestration_start("later", timeout=PATIENCE_S)
    assert state is not None
    assert state.runtime_status.name in {"RUNNING", "COMPLETED"}
    assert datetime.now(UTC) >= later
    assert scene.ended("later").get_output() == 7


# --- ids that are taken ----------------------------------------------------------------------------------------------

CASES: tuple[tuple[str, list[int] | None, bool], ...] = (
    ("waits", None, False),
    ("echo", None, False),
    ("waits", [], False),
    ("echo", [], False),
    ("waits", [COMPLETED, FAILED, TERMINATED], False),
    ("waits", [RUNNING, TERMINATED], True),
    ("waits", [PENDING, TERMINATED], False),
    ("echo", [COMPLETED], True),
    ("echo", [FAILED, TERMINATED], False),
    ("echo", [RUNNING, TERMINATED], False),
    ("fails", [FAILED], True),
    ("fails", [COMPLETED], False),
)


@pytest.mark.parametrize(("there", "replaceable", "replaced"), CASES)
def test_policies_for_an_id_that_is_taken(
    scene: Scene, there: str, replaceable: list[int] | None, replaced: bool
) -> None:
    target = f"taken-{CASES.index((there, replaceable, replaced))}"
    scene.start(there, target, 1)
    if there == "waits":
        until(lambda: scene.status(target), "RUNNING")
    else:
        scene.ended(target)
    before = scene.raw(target).orchestrationState.executionId.value
    policy = None if replaceable is None else pb.OrchestrationIdReusePolicy(replaceableStatus=replaceable)  # type: ignore[arg-type]
    fields = {} if policy is None else {"orchestrationIdReusePolicy": policy}
    if not replaced:
        with refused(Code.ALREADY_EXISTS, target):
            started(scene, instanceId=target, input=text_value("2"), **fields)
        assert scene.raw(target).orchestrationState.executionId.value == before
        return
    started(scene, instanceId=target, input=text_value("2"), **fields)
    assert scene.ended(target).get_output() == 2
    raw = scene.raw(target).orchestrationState
    assert (raw.name, raw.executionId.value == before) == ("echo", False)


def test_a_policy_does_not_matter_for_an_id_that_is_free(scene: Scene) -> None:
    policy = pb.OrchestrationIdReusePolicy(replaceableStatus=[COMPLETED])
    assert started(scene, instanceId="free", orchestrationIdReusePolicy=policy) == "free"


# --- waiting ---------------------------------------------------------------------------------------------------------


def test_a_wait_without_a_deadline_ends_with_the_instance(scene: Scene) -> None:
    scene.start("waits", "patient")
    request = pb.GetInstanceRequest(instanceId="patient", getInputsAndOutputs=True)
    waiting = scene.stub.WaitForInstanceCompletion.future(request)  # as clients of JavaScript do
    scene.client.raise_orchestration_event("patient", "go", data="now")
    assert waiting.result(PATIENCE_S).orchestrationState.output.value == '"now"'


def test_a_wait_ends_when_its_client_goes(scene: Scene) -> None:
    scene.start("waits", "left")
    waiters = scene.host.engine.waiters
    request = pb.GetInstanceRequest(instanceId="left")

    def there() -> bool:
        return "left" in waiters._waiting  # pyright: ignore[reportPrivateUsage]

    waiting = scene.stub.WaitForInstanceCompletion.future(request)
    until(there, True)
    waiting.cancel()
    until(there, False)
    with pytest.raises(TimeoutError):
        scene.client.wait_for_orchestration_completion("left", timeout=0.05)
    until(there, False)


def test_a_wait_ends_when_the_instance_is_purged(scene: Scene) -> None:
    scene.finished("echo", "gone", 1)
    assert scene.client.purge_orchestration("gone").deleted_instance_count == 1
    assert scene.ended("gone") is None


def test_an_instance_that_nobody_has_begun_is_pending(tmp_path: Path) -> None:
    unstarted = {"a"}
    with serving(tmp_path, is_unstarted=unstarted.__contains__) as scene:
        scene.start("waits", "a")
        scene.start("waits", "b")
        until(lambda: scene.raw("a").orchestrationState.customStatus.value, '{"waits":true}')
        assert (scene.status("a"), scene.status("b")) == ("PENDING", "RUNNING")
        found = {
            status: [
                one.instanceId
                for one in scene.stub.QueryInstances(
                    pb.QueryInstancesRequest(query=pb.InstanceQuery(runtimeStatus=[status]))
                ).orchestrationState
            ]
            for status in (PENDING, RUNNING)
        }
        assert found == {PENDING: ["a"], RUNNING: ["b"]}
        begun: list[Any] = []
        waiting = threading.Thread(
            target=lambda: begun.append(scene.client.wait_for_orchestration_start("a", timeout=PATIENCE_S))
        )
        waiting.start()
        with pytest.raises(TimeoutError):
            scene.client.wait_for_orchestration_start("a", timeout=0.05)
        unstarted.clear()
        scene.client.raise_orchestration_event("a", "other")  # something that is committed
        waiting.join(PATIENCE_S)
        assert begun[0].runtime_status.name == "RUNNING"


# --- events and orders -----------------------------------------------------------------------------------------------


def test_an_event_before_the_first_turn_is_kept(scene: Scene) -> None:
    scene.start("waits", "early", start_at=datetime.now(UTC) + timedelta(seconds=0.2))
    scene.client.raise_orchestration_event("early", "GO", data={"n": 1})
    assert scene.ended("early").get_output() == {"n": 1}


def test_an_event_without_a_name_is_refused(scene: Scene) -> None:
    with refused(Code.INVALID_ARGUMENT, "name of an external event"):
        scene.client.raise_orchestration_event("early", "")


@pytest.mark.parametrize(
    ("output", "comes_out"),
    [("enough", "enough"), (None, None), ({"a": 1}, {"a": 1}), ([1, "x"], [1, "x"]), (7, 7), ("ä\n", "ä\n")],
)
def test_a_terminated_instance_has_the_output_that_was_given(
    scene: Scene, output: Any, comes_out: Any
) -> None:
    target = f"terminated-{type(output).__name__}-{str(output)[:1]}"
    scene.start("waits", target)
    scene.client.terminate_orchestration(target, output=output)
    state = scene.ended(target)
    assert (state.runtime_status.name, state.failure_details) == ("TERMINATED", None)
    assert state.get_output() == comes_out


@pytest.mark.parametrize(("recursive", "child"), [(True, "TERMINATED"), (False, "RUNNING")])
def test_descendants_end_with_an_instance_when_that_is_meant(
    scene: Scene, recursive: bool, child: str
) -> None:
    name = f"family-{recursive}"
    scene.start("parent", name, f"{name}-child")
    until(lambda: scene.status(f"{name}-child"), "RUNNING")
    assert scene.raw(f"{name}-child").orchestrationState.parentInstanceId.value == name
    scene.client.terminate_orchestration(name, output="out", recursive=recursive)
    assert scene.ended(name).get_output() == "out"
    assert scene.status(f"{name}-child") == child


def test_suspended_and_resumed(scene: Scene) -> None:
    scene.start("waits", "paused")
    until(lambda: scene.status("paused"), "RUNNING")
    for _ in range(2):
        scene.client.suspend_orchestration("paused", reason="lunch")
    assert scene.status("paused") == "SUSPENDED"
    scene.client.raise_orchestration_event("paused", "go", data=1)
    assert scene.status("paused") == "SUSPENDED"
    for _ in range(2):
        scene.client.resume_orchestration("paused")
    assert scene.ended("paused").get_output() == 1


def test_a_suspended_instance_can_be_terminated(scene: Scene) -> None:
    scene.start("waits", "stuck")
    scene.client.suspend_orchestration("stuck")
    scene.client.terminate_orchestration("stuck")
    assert scene.ended("stuck").runtime_status.name == "TERMINATED"


def test_a_failed_instance_is_rewound(scene: Scene) -> None:
    assert scene.finished("flaky", "again", "k1").runtime_status.name == "FAILED"
    scene.client.rewind_orchestration("again", reason="mended")
    assert scene.ended("again").get_output() == "done"


def test_only_failed_instances_are_rewound(scene: Scene) -> None:
    scene.start("waits", "well")
    until(lambda: scene.status("well"), "RUNNING")
    with refused(Code.FAILED_PRECONDITION, "Running"):
        scene.client.rewind_orchestration("well")
    scene.finished("echo", "whole")
    with refused(Code.FAILED_PRECONDITION, "Completed"):
        scene.client.rewind_orchestration("whole")


def test_restart_under_the_same_id(scene: Scene) -> None:
    scene.finished("shout", "twice", "a", tags={"t": "1"}, version="7")
    before = scene.raw("twice").orchestrationState
    assert scene.client.restart_orchestration("twice") == "twice"
    assert scene.ended("twice").get_output() == "A"
    after = scene.raw("twice").orchestrationState
    assert after.executionId.value != before.executionId.value
    assert (dict(after.tags), after.version.value, after.input.value) == ({"t": "1"}, "7", '"a"')


def test_restart_of_one_that_runs_takes_a_new_id(scene: Scene) -> None:
    scene.start("waits", "busy", [1], tags={"t": "2"})
    until(lambda: scene.status("busy"), "RUNNING")
    with refused(Code.FAILED_PRECONDITION, "Running"):
        scene.client.restart_orchestration("busy")
    other = scene.client.restart_orchestration("busy", restart_with_new_instance_id=True)
    assert other != "busy"
    raw = scene.raw(other).orchestrationState
    assert (raw.name, raw.input.value, dict(raw.tags)) == ("waits", "[1]", {"t": "2"})
    assert scene.status("busy") == "RUNNING"


def test_a_canceled_instance_is_shown_as_one_that_the_client_knows(scene: Scene) -> None:
    scene.start("waits", "canceled")
    scene.run(scene.host.client.cancel("canceled"))
    assert scene.ended("canceled").runtime_status.name == "TERMINATED"


# --- the service -----------------------------------------------------------------------------------------------------


def test_hello(scene: Scene) -> None:
    from google.protobuf.empty_pb2 import Empty

    assert scene.stub.Hello(Empty()) == Empty()
    assert scene.stub.CreateTaskHub(pb.CreateTaskHubRequest()) == pb.CreateTaskHubResponse()


def test_what_is_not_there_says_so(scene: Scene) -> None:
    calls: tuple[Callable[[], object], ...] = (
        lambda: list(scene.stub.GetWorkItems(pb.GetWorkItemsRequest())),
        lambda: scene.stub.CompleteActivityTask(pb.ActivityResponse()),
        lambda: scene.stub.AbandonTaskEntityWorkItem(pb.AbandonEntityTaskRequest()),
        lambda: scene.stub.DeleteTaskHub(pb.DeleteTaskHubRequest()),
        lambda: scene.stub.CreateTaskHub(pb.CreateTaskHubRequest(recreateIfExists=True)),
    )
    for call in calls:
        with refused(Code.UNIMPLEMENTED, "No host"):
            call()


@pytest.mark.parametrize(("name", "found"), [("default", True), ("ORDERS", True), ("other", False)])
def test_a_hub_is_named_or_not(scene: Scene, name: str, found: bool) -> None:
    with TaskHubGrpcClient(host_address=scene.place, metadata=[("taskhub", name)]) as client:
        if found:
            assert client.get_orchestration_state("nobody") is None
        else:
            with refused(Code.NOT_FOUND, "'other'"):
                client.get_orchestration_state("nobody")


def test_large_messages_pass_both_ways(scene: Scene) -> None:
    text = "x" * (6 * 1024 * 1024)
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(scene.place, options) as channel:
        client = TaskHubGrpcClient(channel=channel)
        client.schedule_new_orchestration("echo", instance_id="large", input=text)
        state = client.wait_for_orchestration_completion("large", timeout=PATIENCE_S)
        assert state is not None
        assert state.get_output() == text
        client.purge_orchestration("large")
