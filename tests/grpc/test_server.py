"""Where the server listens, how it is encrypted, and how it stops."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from durabletask.client import TaskHubGrpcClient

from durably import HistoryCorruptError, HubClosedError, InvariantError, OperationError, UsageError
from durably.errors import HubSilentError, StoreRefusedError, StoreUnavailableError, UnknownFunctionError
from durably.executors.remote.wire import (
    failure_message,
    failure_of,
    has,
    instant_of,
    payload_of,
    pb,
    text_of,
    timestamp,
)
from durably.grpc_server.refusals import refusal_of
from durably.grpc_server.server import Address
from tests.grpc.scene import PATIENCE_S, Scene, serving, until
from tests.support.certificates import Authority

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("localhost:4001", ("localhost", 4001)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:4001", ("::1", 4001)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
    ],
)
def test_addresses(text: str, parsed: tuple[str, int]) -> None:
    assert Address.parse(text) == parsed
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "localhost", "4001", ":4001", "a:b", "::1:4001", "a:65536", "a:-1", "[]:1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--grpc .*localhost:4001"):
        Address.parse(text)


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_localhost_is_both_loopback_addresses(tmp_path: Path) -> None:
    with serving(tmp_path, address="localhost:0") as scene:
        port = scene.place.rpartition(":")[2]
        places = [f"127.0.0.1:{port}"] + ([f"[::1]:{port}"] if _has_ipv6() else [])
        for place in places:
            with TaskHubGrpcClient(host_address=place) as client:
                assert client.get_orchestration_state("nobody") is None


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_port_that_is_taken(tmp_path: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"{name}:{taken.getsockname()[1]}"
        match = f"Cannot listen on {address} for gRPC"
        with pytest.raises(OperationError, match=match), serving(tmp_path, address=address):
            raise AssertionError


def test_an_address_of_another_machine(tmp_path: Path) -> None:
    given = {"address": "192.0.2.1:0", "key_file": str(_key(tmp_path))}
    with pytest.raises(OperationError, match="for gRPC"), serving(tmp_path, **given):
        raise AssertionError


def _key(folder: Path) -> Path:
    from durably.clock import SystemClock
    from durably.security.key_file import KeyFile

    path = folder / "keys"
    KeyFile(path, SystemClock().now).create("ann", "viewer")
    return path


def test_who_waits_is_hung_up_on_when_the_server_stops(tmp_path: Path) -> None:
    told: list[Any] = []
    with serving(tmp_path) as scene:
        scene.start("waits", "a")
        request = pb.GetInstanceRequest(instanceId="a")
        waiting = scene.stub.WaitForInstanceCompletion.future(request)
        waiting.add_done_callback(lambda done: told.append(done.code()))
        until(lambda: scene.status("a"), "RUNNING")
        began = time.monotonic()
        scene.run(scene.server.stop(0.1))
        scene.run(scene.server.stop())
        until(lambda: len(told), 1)
        assert time.monotonic() - began < 5
    assert told[0] in {Code.UNAVAILABLE, Code.CANCELLED}


def test_many_wait_at_once(scene: Scene) -> None:
    ids = [f"crowd-{n}" for n in range(100)]
    for one in ids:
        scene.start("waits", one)
    requests = [pb.GetInstanceRequest(instanceId=one, getInputsAndOutputs=True) for one in ids]
    waiting = [scene.stub.WaitForInstanceCompletion.future(request) for request in requests]
    for one in ids:
        scene.client.raise_orchestration_event(one, "go", data=one)
    answers = [one.result(PATIENCE_S).orchestrationState.output.value for one in waiting]
    assert answers == [f'"{one}"' for one in ids]


# --- TLS -------------------------------------------------------------------------------------------------------------


def test_tls_and_a_certificate_that_is_renewed(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.pair("host")
    trusted = grpc.ssl_channel_credentials(authority.file.read_bytes())

    def serial(place: str) -> bytes:
        import ssl

        host, _, port = place.rpartition(":")
        return ssl.get_server_certificate((host, int(port)), timeout=PATIENCE_S).encode()

    with serving(tmp_path, **pair.options) as scene:
        assert scene.server.url.startswith("grpcs://")
        with grpc.secure_channel(scene.place, trusted) as channel:
            client = TaskHubGrpcClient(channel=channel)
            assert client.get_orchestration_state("nobody") is None
        assert serial(scene.place) == pair.certificate.read_bytes()
        old = pair.certificate.read_bytes()
        pair.certificate.write_bytes(authority.pair("other").certificate.read_bytes())
        assert serial(scene.place) == old  # half of a pair is not taken
        pair.key.write_bytes((tmp_path / "other.key").read_bytes())
        assert serial(scene.place) == pair.certificate.read_bytes() != old


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tls_certificate": "none.crt", "tls_key": "none.key"}, "none.crt"),
        ({"tls_certificate": "a", "tls_key": "b", "tls_passphrase": "c"}, "no key that is encrypted"),
    ],
)
def test_files_of_no_use_are_named(tmp_path: Path, options: dict[str, str], text: str) -> None:
    with pytest.raises(UsageError, match=text), serving(tmp_path, **options):
        raise AssertionError


# --- codes and messages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnknownFunctionError("x"), Code.INVALID_ARGUMENT),
        (StoreRefusedError("x"), Code.INVALID_ARGUMENT),
        (HistoryCorruptError("x"), Code.DATA_LOSS),
        (HubClosedError("x"), Code.UNAVAILABLE),
        (StoreUnavailableError("x"), Code.UNAVAILABLE),
        (HubSilentError("x"), Code.DEADLINE_EXCEEDED),
        (OperationError("x"), Code.INTERNAL),
        (TimeoutError("x"), Code.DEADLINE_EXCEEDED),
        (InvariantError("I1", "a", "x"), Code.INTERNAL),
        (ZeroDivisionError("secret"), Code.INTERNAL),
    ],
)
def test_errors_have_codes(error: Exception, code: Code) -> None:
    refusal = refusal_of(error)
    assert (refusal.code, "secret" in str(refusal)) == (code, False)


def test_a_failure_is_the_same_in_both_shapes() -> None:
    message = pb.TaskFailureDetails(errorType="shop.Empty", errorMessage="", isNonRetriable=True)
    message.stackTrace.value = ""
    message.innerFailure.innerFailure.errorMessage = "why"
    assert failure_message(failure_of(message)) == message
    bare = pb.TaskFailureDetails()
    assert failure_message(failure_of(bare)) == bare


def test_what_is_absent_is_not_what_is_empty() -> None:
    request = pb.CreateInstanceRequest()
    assert (text_of(request, "input"), payload_of(request, "input")) == (None, None)
    request.input.SetInParent()
    assert (text_of(request, "input"), payload_of(request, "input")) == ("", b"")
    assert not has(request, "a field that this version does not have")
    for instant in (0, -1, 1_700_000_000_123_456):
        found = pb.CreateInstanceRequest(scheduledStartTimestamp=timestamp(instant))
        assert instant_of(found, "scheduledStartTimestamp") == instant


def test_two_clients_may_ask_at_once(scene: Scene) -> None:
    answers: list[Any] = []

    def ask(name: str) -> None:
        with TaskHubGrpcClient(host_address=scene.place) as client:
            for n in range(20):
                client.schedule_new_orchestration("echo", instance_id=f"{name}-{n}", input=n)
            answers.extend(
                client.wait_for_orchestration_completion(f"{name}-{n}", timeout=PATIENCE_S).get_output()  # type: ignore[union-attr]
                for n in range(20)
            )

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted([*range(20), *range(20)])
