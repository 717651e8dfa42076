"""``durably run --grpc`` as people run it."""

import os
import re
import signal
import socket
import subprocess

import pytest
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient

from tests.integration.cli.programs import PATIENCE_S, Folder, Run, interrupted


def announced(process: subprocess.Popen[str]) -> str:
    lines: list[str] = []
    assert process.stdout is not None
    while not lines or not lines[-1].startswith("Ready"):
        line = process.stdout.readline()
        assert line, process.communicate(timeout=PATIENCE_S)
        lines.append(line.rstrip())
    return "\n".join(lines)


def place_of(said: str) -> str:
    found = re.search(r"^  grpc +grpc://(\S+) \(no key is asked for until there is one\b", said, re.MULTILINE)
    assert found is not None, said
    return found[1]


def test_an_app_is_served_over_grpc(folder: Folder) -> None:
    with folder.started("run", "shop.py", "--grpc", "localhost:0") as process:
        with TaskHubGrpcClient(host_address=place_of(announced(process))) as client:
            client.schedule_new_orchestration("steps", instance_id="s1", input=["a", "b"])
            state = client.wait_for_orchestration_completion("s1", timeout=PATIENCE_S)
            assert state is not None
            assert state.get_output() == ["A", "B"]
        done = interrupted(process, signal.SIGTERM)
    assert done.code == 0
    assert done.err.endswith("Stopped\n")


def test_a_host_without_an_app_keeps_what_nobody_knows_yet(folder: Folder) -> None:
    """It belongs to workers then; whoever deploys an app for it instead begins it anew."""
    with folder.started("run", DURABLY_GRPC="127.0.0.1:0") as process:
        said = announced(process)
        assert "orchestrators  none" in said
        with TaskHubGrpcClient(host_address=place_of(said)) as client:
            client.schedule_new_orchestration("steps", instance_id="s1", input=["a"])
            state = client.get_orchestration_state("s1")
            assert state is not None
            assert state.runtime_status in {OrchestrationStatus.PENDING, OrchestrationStatus.RUNNING}
        interrupted(process)
    with folder.started("run", "shop.py", "--grpc", "127.0.0.1:0") as process:
        with TaskHubGrpcClient(host_address=place_of(announced(process))) as client:
            state = client.get_orchestration_state("s1")
            assert state is not None
            assert state.runtime_status == OrchestrationStatus.PENDING
            client.terminate_orchestration("s1")
            client.wait_for_orchestration_completion("s1", timeout=PATIENCE_S)
            client.restart_orchestration("s1", restart_with_new_instance_id=False)
            state = client.wait_for_orchestration_completion("s1", timeout=PATIENCE_S)
            assert state is not None
            assert state.get_output() == ["A"]
        interrupted(process)


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        ((), 2, "Missing argument 'APP...': expected a file or module, or --grpc ADDRESS:PORT"),
        (("--grpc", "4001"), 2, "--grpc is '4001': expected an address and a port, such as localhost:4001"),
        (
            ("--grpc", "0.0.0.0:0", "--hub", "memory://"),
            2,
            "--grpc 0.0.0.0:0: gRPC is to listen on '0.0.0.0'",
        ),
        (("shop.py", "--grpc-hubs", "orders"), 2, "--grpc-hubs has no gRPC to be served on"),
        (("shop.py", "--grpc", "localhost:0", "--dev"), 2, "leave --dev out"),
        (("shop.py", "--grpc", "localhost:0", "--processes", "2"), 2, "leave --processes out"),
    ],
)
def test_what_cannot_be_served_is_refused(
    run: Run, arguments: tuple[str, ...], code: int, expected: str
) -> None:
    done = run("run", *arguments)
    assert (done.code, expected in done.err) == (code, True), done.err


def test_a_port_that_is_taken_is_told(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("run", "--grpc", f"127.0.0.1:{port}", "--hub", "memory://")
    assert done.code == 1, done.err
    assert f"Cannot listen on 127.0.0.1:{port} for gRPC" in done.err
    assert "choose another place with --grpc" in done.err


def test_what_is_missing_is_named(folder: Folder) -> None:
    folder.write("durabletask.py", "raise ImportError('No module named durabletask')")
    done = folder.run(
        "run", "--grpc", "localhost:0", PYTHONPATH=f"{folder.path}:{os.environ.get('PYTHONPATH', '')}"
    )
    assert done.code == 1, done.err
    assert "pip install 'durably[grpc]'" in done.err
