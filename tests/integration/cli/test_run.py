"""``durably run`` as people run it."""

import asyncio
import json
import signal
import subprocess

import pytest

from durably.engine.host import Host
from durably.errors import StoreFailedError
from tests.integration.cli.programs import PATIENCE_S, Folder, Run, interrupted, until_says

STEPS = ("exec", "shop.py", "steps", "--id", "s1")

MORE = """
from durably import App
app = App()
@app.activity
def pack(n: int) -> int:
    return n
@app.entity
class Counter:
    value: int = 0
"""


def until_ready(process: subprocess.Popen[str]) -> list[str]:
    lines: list[str] = []
    assert process.stdout is not None
    while not lines or not lines[-1].startswith("Ready"):
        line = process.stdout.readline()
        assert line, process.communicate(timeout=PATIENCE_S)
        lines.append(line.rstrip())
    return lines


def test_it_says_what_it_serves_and_stops_in_order(folder: Folder):
    folder.write("more.py", MORE)
    with folder.started("run", "shop.py", "more:app") as process:
        assert until_ready(process) == [
            f"Serving sqlite:///durably.db (pid {process.pid})",
            "  orchestrators  buy, steps, wait",
            "  activities     declined, pack, work",
            "  entities       counter",
            "Ready; Ctrl-C stops",
        ]
        done = interrupted(process, signal.SIGTERM)
    assert (done.code, done.out) == (0, "")
    assert done.err.endswith("Stopped\n")


def test_it_goes_on_with_what_it_finds_and_serves_its_hub_alone(folder: Folder, run: Run):
    with folder.started(*STEPS, "-i", '["a", "b"]', HOLD="b") as process:
        folder.until_working_on("b", process)
        interrupted(process, signal.SIGKILL)
    with folder.started("run", "shop.py", HOLD="b", DURABLY_DRAIN_TIMEOUT_S="1000") as process:
        until_ready(process)
        refused = run(*STEPS)
        assert refused.code == 5
        assert str(process.pid) in refused.err
        process.send_signal(signal.SIGINT)
        until_says(process, "Stopping")
        assert interrupted(process).code == 130  # the second signal does not wait for the activity
    assert json.loads(run(*STEPS).out) == ["A", "B"]
    assert folder.worked() == ["a", "b", "b", "b"]


def test_a_host_that_cannot_go_on_ends_the_program(run: Run, monkeypatch: pytest.MonkeyPatch):
    start = Host.start

    async def start_and_fail(host: Host) -> None:
        await start(host)
        error = StoreFailedError("the disk is gone")
        asyncio.get_running_loop().call_soon(host._own.holdings[0]._lost, error, None)

    monkeypatch.setattr(Host, "start", start_and_fail)
    done = run("run", "shop.py", "--hub", "memory://")
    assert done.code == 1
    assert done.err.endswith("Error: The host of memory:// stopped by itself: the disk is gone\n")


def test_an_app_that_cannot_be_loaded_starts_nothing(folder: Folder, run: Run):
    """Alone; beside others that can, they are served: tests/faults/test_07_broken_import.py."""
    folder.write("broken.py", "import not_there\n")
    done = run("run", "broken.py")
    assert done.code == 2
    assert 'broken.py", line 1' in done.err
    assert done.err.endswith(
        "Error: 'broken.py' could not be imported: ModuleNotFoundError: No module named 'not_there'\n"
    )
    assert not (folder.path / "durably.db").exists()


def test_several_processes_need_a_hub_that_they_can_share(run: Run) -> None:
    for hub in ("sqlite:///hub.db", "memory://"):
        done = run("run", "shop.py", "--hub", hub, "--processes", "2")
        assert done.code == 2
        assert f"--processes 2: hub {hub} is served by one process at a time" in done.err
        assert "postgresql://host/database?hub=name" in done.err
    done = run("run", "shop.py", "--dev", "--processes", "2")
    assert (done.code, "--dev reloads one process: leave --processes out" in done.err) == (2, True)
