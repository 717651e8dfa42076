"""Who is let in over gRPC, and what is recorded of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from durabletask.client import TaskHubGrpcClient
from durabletask.entities import EntityInstanceId
from google.protobuf.empty_pb2 import Empty

from durably import UsageError
from durably.clock import SystemClock
from durably.executors.remote.wire import pb
from durably.grpc_server.served import Rpcs
from durably.security.audit_chain import lines_of
from durably.security.key_file import KeyFile
from tests.grpc.scene import PATIENCE_S, Scene, refused, serving, until
from tests.http.issuer import AUDIENCE, issuing, rsa

Code = grpc.StatusCode

CHANGES = {"control", "start", "purge"}


def keys_of(folder: Path) -> KeyFile:
    return KeyFile(folder / "orders.db.keys", SystemClock().now)


@contextmanager
def client_of(scene: Scene, *metadata: tuple[str, str]) -> Iterator[TaskHubGrpcClient]:
    with TaskHubGrpcClient(host_address=scene.place, metadata=list(metadata)) as client:
        yield client


def rpcs(scene: Scene) -> Rpcs:
    return scene.server._service.rpcs  # pyright: ignore[reportPrivateUsage]


def asked(scene: Scene, name: str, *metadata: tuple[str, str]) -> Code:
    """The code of the answer to an empty request."""
    rpc = rpcs(scene)[name]
    try:
        answer = getattr(scene.stub, name)(rpc.takes(), metadata=metadata, timeout=PATIENCE_S)
        if rpc.streams:
            list(answer)
    except grpc.RpcError as error:
        failed: Any = error
        return failed.code()
    return Code.OK


def test_every_call_but_hello_asks_for_a_credential_once_there_is_a_key(tmp_path: Path) -> None:
    with serving(tmp_path, max_failures_per_minute=10_000) as scene:
        names = [name for name, rpc in rpcs(scene).items() if rpc.needs]
        service = pb.DESCRIPTOR.services_by_name["TaskHubSidecarService"]
        assert {"Hello", *names} == {method.name for method in service.methods}
        assert scene.client.get_orchestration_state("nobody") is None  # nobody has made a key
        assert asked(scene, "GetInstance", ("x-forwarded-for", "192.0.2.1")) is Code.UNAUTHENTICATED
        key = keys_of(tmp_path).create("ann", "viewer")
        for name in names:
            for shown in ((), (("x-functions-key", "wrong"),), (("authorization", f"Bearer {key}"),)):
                assert asked(scene, name, *shown) is Code.UNAUTHENTICATED, (name, shown)
        assert asked(scene, "Hello") is Code.OK
        assert scene.stub.Hello(Empty(), metadata=[("x-functions-key", "wrong")]) == Empty()
        keys_of(tmp_path).delete("role", "ann")  # what was shut stays shut
        assert asked(scene, "GetInstance") is Code.UNAUTHENTICATED


def test_roles(tmp_path: Path) -> None:
    with serving(tmp_path) as scene:
        needed = {name: rpc.needs for name, rpc in rpcs(scene).items() if rpc.needs}
        may = {
            "viewer": {"read"},
            "operator": {"read", "payloads", "control"},
            "developer": {"read", "payloads", "control", "start"},
            "admin": set(needed.values()),
        }
        for role, permissions in may.items():
            key = ("x-functions-key", keys_of(tmp_path).create(role, role))
            for name, needs in needed.items():
                denied = asked(scene, name, key) is Code.PERMISSION_DENIED
                assert denied == (needs not in permissions), (role, name)


def test_who_may_not_see_payloads_sees_none(tmp_path: Path) -> None:
    with serving(tmp_path) as scene:
        scene.finished("echo", "secret", "in it", tags={"t": "1"})
        scene.finished("fails", "failed", "in it")
        entity = EntityInstanceId("note", "n")
        scene.client.signal_entity(entity, "write", input="in it")
        until(lambda: scene.client.get_entity(entity) is not None, True)
        key = ("x-functions-key", keys_of(tmp_path).create("v", "viewer"))
        with client_of(scene, key) as client:
            states = [client.get_orchestration_state("secret"), *client.get_all_orchestration_states()]
            states.append(client.wait_for_orchestration_completion("failed", timeout=PATIENCE_S))
            assert all(
                (state.serialized_input, state.serialized_output, state.failure_details) == (None,) * 3
                for state in states
                if state is not None
            )
            found = client.get_entity(entity)
            assert found is not None
            assert "in it" not in str(found.get_state())
            assert "in it" not in str([one.get_state() for one in client.get_all_entities()])


def test_bearer_tokens(tmp_path: Path) -> None:
    key = rsa("k1")
    with (
        issuing(key) as issuer,
        serving(tmp_path, oidc_issuer=issuer.url, oidc_audience=AUDIENCE) as scene,
    ):
        good = ("authorization", f"Bearer {issuer.token(key)}")
        assert asked(scene, "GetInstance") is Code.UNAUTHENTICATED
        assert asked(scene, "GetInstance", good) is Code.OK
        assert asked(scene, "PurgeInstances", good) is Code.PERMISSION_DENIED
        assert asked(scene, "GetInstance", good, good) is Code.UNAUTHENTICATED
        old = ("authorization", f"Bearer {issuer.token(key, exp=1_000_000)}")
        assert asked(scene, "GetInstance", old) is Code.UNAUTHENTICATED
        stranger = ("authorization", f"Bearer {issuer.token(rsa('k1'))}")
        assert asked(scene, "GetInstance", stranger) is Code.UNAUTHENTICATED


def test_who_fails_often_is_held_off_and_others_are_not(tmp_path: Path) -> None:
    good = keys_of(tmp_path).create("ann", "viewer")
    with serving(tmp_path, max_failures_per_minute=3) as scene:
        codes = [asked(scene, "GetInstance") for _ in range(5)]
        assert codes == [Code.UNAUTHENTICATED] * 3 + [Code.RESOURCE_EXHAUSTED] * 2
        assert asked(scene, "GetInstance", ("x-functions-key", good)) is Code.OK


def test_starts_are_counted(tmp_path: Path) -> None:
    with serving(tmp_path, max_starts_per_second=2) as scene:
        scene.start("echo", "a")
        scene.start("echo", "b")
        with refused(Code.RESOURCE_EXHAUSTED, "starts too many"):
            scene.start("echo", "c")


def test_no_own_orchestrator_is_restarted_but_by_an_admin(tmp_path: Path) -> None:
    key = keys_of(tmp_path).create("dev", "developer")
    with serving(tmp_path, insecure=False) as scene, client_of(scene, ("x-functions-key", key)) as client:
        client.schedule_new_orchestration("echo", instance_id="a")
        client.wait_for_orchestration_completion("a", timeout=PATIENCE_S)
        assert client.restart_orchestration("a") == "a"
        with refused(Code.PERMISSION_DENIED, "own"):
            client.schedule_new_orchestration("durably:notice")


# --- the audit log ---------------------------------------------------------------------------------------------------


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(placed.raw) for placed in lines_of(folder / "orders.db.audit")]


def test_each_call_that_changes_something_leaves_one_record(tmp_path: Path) -> None:
    with serving(tmp_path) as scene:
        expected = [name for name, rpc in rpcs(scene).items() if rpc.needs in CHANGES]
        for name in rpcs(scene):
            asked(scene, name)
        assert [record["action"] for record in records(tmp_path)] == [f"gRPC {name}" for name in expected]


def test_what_a_record_says(tmp_path: Path) -> None:
    key = keys_of(tmp_path).create("ann", "developer")
    with serving(tmp_path) as scene, client_of(scene, ("x-functions-key", key)) as client:
        client.schedule_new_orchestration("waits", instance_id="a", input="secret")
        client.suspend_orchestration("a", reason="lunch")
        with refused(Code.PERMISSION_DENIED):
            client.purge_orchestration("a")
        with refused(Code.NOT_FOUND):
            client.resume_orchestration("b")
        found = records(tmp_path)
        assert "secret" not in str(found)
        assert [(one["action"], one["status"]) for one in found] == [
            ("gRPC StartInstance", 200),
            ("gRPC SuspendInstance", 200),
            ("gRPC PurgeInstances", 403),
            ("gRPC ResumeInstance", 404),
        ]
        assert found[0]["target"] == {"instanceId": "a", "name": "waits"}
        assert (found[0]["made"], found[1]["reason"]) == ("a", "lunch")
        assert {(one["via"], one["origin"], one["hub"]) for one in found} == {("key", "127.0.0.1", "orders")}
        assert "ann" in found[0]["who"]
        assert found[3]["error"] == "InstanceNotFoundError"


def test_nothing_changes_while_that_cannot_be_recorded(tmp_path: Path) -> None:
    with serving(tmp_path, audit_file=str(tmp_path / "none" / "audit")) as scene:
        for _ in range(2):
            with refused(Code.INTERNAL):
                scene.start("echo", "a")
        assert scene.client.get_orchestration_state("b") is None


# --- beyond this machine ---------------------------------------------------------------------------------------------


def test_beyond_this_machine_there_is_no_way_in_without_a_credential(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="there is no credential yet"),
        serving(tmp_path, address="0.0.0.0:0"),
    ):
        raise AssertionError
    with pytest.raises(UsageError, match="insecure"), serving(tmp_path, address="0.0.0.0:0", insecure=True):
        raise AssertionError
    key = keys_of(tmp_path).create("ann", "viewer")
    with serving(tmp_path, address="0.0.0.0:0") as scene:
        assert scene.server.way_in == "keys: durably keys --help"
        place = f"127.0.0.1:{scene.place.rpartition(':')[2]}"
        metadata = [("x-functions-key", key)]
        with TaskHubGrpcClient(host_address=place, metadata=metadata) as client:
            assert client.get_orchestration_state("nobody") is None
        with (
            TaskHubGrpcClient(host_address=place) as client,
            refused(Code.UNAUTHENTICATED, "credential is missing"),
        ):
            client.get_orchestration_state("nobody")


def test_nobody_is_asked_where_that_is_meant(tmp_path: Path) -> None:
    keys_of(tmp_path).create("ann", "viewer")
    with serving(tmp_path, insecure=True) as scene:
        assert scene.server.way_in == "no keys are asked for"
        assert scene.stub.PurgeInstances(pb.PurgeInstancesRequest(instanceId="x")).deletedInstanceCount == 0
