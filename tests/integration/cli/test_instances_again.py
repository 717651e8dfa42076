"""``durably instances rewind``, ``restart``, and orders to whole families, beside a host in another process."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.integration.cli.programs import PATIENCE_S, Done, Folder, Run

BANK = """
from pathlib import Path
from durably import App, OrchestrationContext

app = App()


@app.activity
def charge(amount: int) -> str:
    if not Path("open").exists():
        raise ValueError("the bank is closed")
    return f"paid {amount}"


@app.orchestrator
async def pay(ctx: OrchestrationContext, amount: int) -> str:
    return await ctx.call_activity(charge, amount)


@app.orchestrator
async def wait(ctx: OrchestrationContext) -> str:
    return await ctx.wait_for_external_event("Go", str)


@app.orchestrator
async def parent(ctx: OrchestrationContext) -> str:
    return await ctx.call_sub_orchestrator(wait)
"""


@pytest.fixture
def host(folder: Folder) -> Iterator[subprocess.Popen[str]]:
    folder.write("bank.py", BANK)
    with folder.started("run", "bank.py") as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("Ready"):
            assert process.poll() is None
        yield process


def until(run: Run, words: str, *arguments: str) -> Done:
    """What a command says, once it says these words."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        done = run(*arguments)
        if words in done.out:
            return done
        assert time.monotonic() < deadline, done


def test_what_failed_is_rewound_from_a_pipe_or_by_filter(
    host: subprocess.Popen[str], folder: Folder, run: Run
):
    for number in range(5):
        assert run("instances", "start", "pay", "-i", "7", "--id", f"p{number}", "--wait").code == 7
    folder.write("open", "")
    ids = run("instances", "list", "--status", "Failed", "--limit", "2", "-o", "ids").out
    piped = folder.run("instances", "rewind", "-", "--reason", "open again", stdin=ids)
    assert (piped.code, piped.err) == (0, "2 instances rewound\n")
    done = run("instances", "rewind", "--name", "pay", "--yes")
    assert (done.code, done.err) == (0, "3 instances rewound\n")
    for number in range(5):
        assert run("instances", "result", f"p{number}", "--timeout", "20").out == '"paid 7"\n'
    assert "Rewound" in run("instances", "history", "p0").out
    refused = run("instances", "rewind", "p0")
    assert (refused.code, "Error: p0: Cannot rewind instance 'p0': it is Completed" in refused.err) == (
        5,
        True,
    )
    assert run("instances", "rewind", "nope").code == 4


def test_restart_prints_the_id(host: subprocess.Popen[str], folder: Folder, run: Run):
    assert run("instances", "start", "pay", "-i", "7", "--id", "p1", "--tag", "a=b", "--wait").code == 7
    folder.write("open", "")
    again = run("instances", "restart", "p1", "--reason", "open again")
    assert (again.code, again.out, again.err) == (0, "p1\n", "1 instance restarted\n")
    assert run("instances", "result", "p1", "--timeout", "20").out == '"paid 7"\n'
    other = json.loads(run("instances", "restart", "p1", "--new-id", "-o", "jsonl").out)
    assert (other["instance_id"], other["ok"], len(other["new_instance_id"])) == ("p1", True, 32)
    new_id = other["new_instance_id"]
    assert run("instances", "result", new_id, "--timeout", "20").out == '"paid 7"\n'
    assert json.loads(run("instances", "show", new_id, "-o", "json").out)["tags"] == {"a": "b"}
    many = run("instances", "restart", "--name", "pay", "--new-id", "--yes", "-o", "ids")
    assert (many.code, len(many.out.split())) == (0, 2)  # and not those that it makes
    assert run("instances", "restart", "nope").code == 4


def test_orders_to_a_family(host: subprocess.Popen[str], run: Run):
    for number in (1, 2):
        run("instances", "start", "parent", "--id", f"f{number}")
        until(run, "(Running)", "instances", "why", f"f{number}")
    assert run("instances", "terminate", "f1").code == 0
    assert run("instances", "terminate", "f2", "--recursive").code == 0
    until(run, "Terminated", "instances", "why", "f2:0:0000")
    assert "Waits for event 'Go'" in run("instances", "why", "f1:0:0000").out
    assert run("instances", "purge", "f2", "--recursive").code == 0
    until(run, "[]", "instances", "list", "--prefix", "f2", "-o", "json")
