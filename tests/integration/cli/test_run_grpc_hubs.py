"""``durably run --grpc --grpc-hubs``: several hubs behind one server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.worker import TaskHubGrpcWorker

from tests.integration.cli.programs import PATIENCE_S, Folder, interrupted
from tests.integration.cli.test_run_grpc import announced, place_of

HOST = ("run", "--grpc", "127.0.0.1:0", "--no-http", "--grpc-hubs")


def client_of(place: str, hub: str, key: str = "") -> TaskHubGrpcClient:
    metadata = [("taskhub", hub), *([("x-functions-key", key)] if key else [])]
    return TaskHubGrpcClient(host_address=place, metadata=metadata)


def _answer(text: str) -> Callable[[Any, Any], str]:
    def answer(ctx: Any, given: Any) -> str:
        return f"{text} {given}"

    return answer


@contextmanager
def worker_of(place: str, hub: str) -> Iterator[None]:
    """A worker whose orchestrator tells which hub it works for."""
    with TaskHubGrpcWorker(host_address=place, metadata=[("taskhub", hub)]) as worker:
        worker._registry.add_named_orchestrator("answer", _answer(hub))  # pyright: ignore[reportPrivateUsage]
        worker.start()
        yield


def outcome(client: TaskHubGrpcClient, instance_id: str) -> Any:
    state = client.wait_for_orchestration_completion(instance_id, timeout=int(PATIENCE_S))
    assert state is not None
    return state.get_output()


def test_each_hub_has_its_own_instances_and_workers_and_keeps_them(folder: Folder) -> None:
    with folder.started(*HOST, "Orders,mails") as process:
        place = place_of(announced(process))
        assert not (folder.path / "orders.db").exists()  # made when it is first used
        with client_of(place, "orders") as orders, client_of(place, "mails") as mails:
            for client in (orders, mails):
                client.schedule_new_orchestration("answer", instance_id="i", input=1)
            with worker_of(place, "mails"):
                assert outcome(mails, "i") == "mails 1"
                state = orders.get_orchestration_state("i")
                assert state is not None
                assert state.runtime_status is OrchestrationStatus.PENDING
            with TaskHubGrpcClient(host_address=place) as own:
                assert own.get_orchestration_state("i") is None
        interrupted(process)
    assert (folder.path / "orders.db").exists()
    with folder.started(*HOST, "*") as process:
        place = place_of(announced(process))
        with client_of(place, "ORDERS") as orders, worker_of(place, "orders"):
            assert outcome(orders, "i") == "orders 1"
        interrupted(process)


@pytest.mark.parametrize(
    ("hub", "code", "text"),
    [
        ("others", grpc.StatusCode.NOT_FOUND, "Task hub 'others' is not served here"),
        ("../secret", grpc.StatusCode.NOT_FOUND, "is not served here"),
    ],
)
def test_a_hub_that_is_not_named_is_not_served(
    folder: Folder, hub: str, code: grpc.StatusCode, text: str
) -> None:
    with folder.started(*HOST, "orders") as process:
        refused(place_of(announced(process)), hub, code, text)
        interrupted(process)
    assert not list(folder.path.glob("others*"))


@pytest.mark.parametrize("hub", ["../secret", "a/b", "1st", "x" * 46, "hub.db"])
def test_a_name_is_no_path(folder: Folder, hub: str) -> None:
    with folder.started(*HOST, "*") as process:
        place = place_of(announced(process))
        before = sorted(folder.path.parent.rglob("*.db"))
        refused(place, hub, grpc.StatusCode.INVALID_ARGUMENT, "is not usable")
        assert sorted(folder.path.parent.rglob("*.db")) == before
        interrupted(process)


def test_the_key_of_one_hub_opens_no_other(folder: Folder) -> None:
    keys = {hub: key_of(folder, hub) for hub in ("durably", "orders", "mails")}
    with folder.started(*HOST, "*") as process:
        said = announced(process)
        place = said.partition("grpc://")[2].partition(" ")[0]
        for hub in ("orders", "mails"):
            for other in set(keys) - {hub}:
                refused(place, hub, grpc.StatusCode.UNAUTHENTICATED, "key is not valid", keys[other])
            refused(place, hub, grpc.StatusCode.UNAUTHENTICATED, "A credential is missing")
        assert not (folder.path / "orders.db").exists()  # nobody was let in
        with client_of(place, "orders", keys["orders"]) as client:
            assert client.get_orchestration_state("i") is None
        refused(place, "durably", grpc.StatusCode.UNAUTHENTICATED, "key is not valid", keys["orders"])
        interrupted(process)


def key_of(folder: Folder, hub: str) -> str:
    made = folder.run("keys", "create", "ann", "--role", "admin", "--hub", f"sqlite:///{hub}.db")
    assert made.code == 0, made.err
    return made.out.strip()


def refused(place: str, hub: str, code: grpc.StatusCode, text: str, key: str = "") -> None:
    with client_of(place, hub, key) as client, pytest.raises(grpc.RpcError) as caught:
        client.get_orchestration_state("i")
    error: Any = caught.value
    assert (error.code(), text in error.details()) == (code, True), error.details()


def test_hosts_of_all_hubs_end_with_the_process(folder: Folder) -> None:
    with folder.started(*HOST, "*") as process:
        place = place_of(announced(process))
        for number in range(5):
            with client_of(place, f"h{number}") as client:
                client.schedule_new_orchestration("answer", instance_id="i")
        assert interrupted(process).code == 0
    for number in range(5):
        assert not (folder.path / f"h{number}.db-wal").exists()
