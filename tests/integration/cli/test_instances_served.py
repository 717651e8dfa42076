"""``durably instances`` beside a host in another process."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.integration.cli.programs import PATIENCE_S, Done, Folder, Run, interrupted, until_says

CHAIN = """
from datetime import timedelta
from durably import App, OrchestrationContext

app = App()


@app.orchestrator
async def wait(ctx: OrchestrationContext) -> str:
    return await ctx.wait_for_external_event("Go", str)


@app.orchestrator
async def parent(ctx: OrchestrationContext) -> str:
    return await ctx.call_sub_orchestrator(wait)


@app.orchestrator
async def clean(ctx: OrchestrationContext) -> None:
    try:
        await ctx.create_timer(timedelta(days=3))
    finally:
        ctx.set_custom_status("cleaned")
"""


@pytest.fixture
def host(folder: Folder) -> Iterator[subprocess.Popen[str]]:
    folder.write("chain.py", CHAIN)
    with folder.started("run", "chain.py") as process:
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


def test_an_instance_from_its_start_to_its_purge(host: subprocess.Popen[str], run: Run):
    assert run("instances", "start", "wait", "--id", "w1").err == ""
    until(run, "Waits for event 'Go' since", "instances", "why", "w1")
    done = run("instances", "suspend", "w1", "--reason", "audit")
    assert (done.code, done.err) == (0, "1 instance suspended\n")
    assert "'audit'; it goes on when it is resumed." in run("instances", "why", "w1").out
    assert run("instances", "resume", "w1").code == 0
    refused = run("instances", "purge", "w1")
    assert refused.code == 5
    assert "Error: w1: Cannot purge instance 'w1': it is Running" in refused.err
    assert run("instances", "raise", "w1", "go", "--data", '"now"').err == "1 instance told\n"
    assert run("instances", "result", "w1").out == '"now"\n'
    events = run("instances", "history", "w1", "-o", "json")
    assert [event["event_type"] for event in json.loads(events.out)][-1] == "ExecutionCompleted"
    assert run("instances", "terminate", "w1").code == 5
    assert run("instances", "purge", "w1").code == 0
    assert run("instances", "show", "w1").code == 4


def test_children_cancellation_and_bulk(host: subprocess.Popen[str], run: Run):
    run("instances", "start", "parent", "--id", "p1")
    until(run, "with id 'p1:0:0000' (Running) since", "instances", "why", "p1")
    run("instances", "suspend", "p1:0:0000")
    until(run, "with id 'p1:0:0000' (Suspended) since", "instances", "why", "p1")
    run("instances", "start", "clean", "--id", "c1")
    until(run, "Waits for the timer due at", "instances", "why", "c1")
    assert run("instances", "cancel", "c1").err == "1 instance asked to cancel\n"
    done = run("instances", "result", "c1", "--timeout", "10")
    assert (done.code, "Instance 'c1' ended as Canceled" in done.err) == (7, True)
    for number in range(40):
        run("instances", "start", "wait", "--id", f"bulk-{number}", "--tag", "set=bulk")
    done = run("instances", "raise", "Go", "--tag", "set=bulk", "--data", '"all"', "--yes", "-o", "jsonl")
    assert (done.code, done.err) == (0, "40 instances told\n")
    assert all(json.loads(line)["ok"] for line in done.out.splitlines())
    until(run, '"Completed", "count": 40', "instances", "count", "--tag", "set=bulk", "-o", "json")
    assert run("instances", "purge", "--prefix", "bulk-", "-y").err == "40 instances purged\n"
    assert run("doctor").code == 0


def test_waiting_for_a_result(host: subprocess.Popen[str], folder: Folder, run: Run):
    with folder.started("instances", "start", "wait", "--id", "w2", "--wait", "-o", "json") as waiting:
        until_says(waiting, "Started w2")
        run("instances", "raise", "w2", "Go", "-d", "[1]")
        out, err = waiting.communicate(timeout=PATIENCE_S)
    assert waiting.returncode == 7  # [1] is no text
    assert json.loads(out)["status"] == "Failed"
    assert "ended as Failed" in err


def test_watching(host: subprocess.Popen[str], folder: Folder, run: Run):
    run("instances", "start", "parent", "--id", "p2")
    until(run, "(Running)", "instances", "why", "p2")
    with (
        folder.started("instances", "watch", "p2") as first,
        folder.started("instances", "watch", "p2") as second,
    ):
        until_says(first, "event Go")
        until_says(second, "event Go")
        left = interrupted(first)
        assert (left.code, left.out) == (130, "")
        assert "Instance 'p2' goes on; it is not watched any more" in left.err
        run("instances", "raise", "p2:0:0000", "Go", "-d", '"x"')
        out, err = second.communicate(timeout=PATIENCE_S)
    assert (second.returncode, out) == (0, "")
    assert "completed parent  p2" in err
    assert run("instances", "watch", "p2").code == 0
    run("instances", "start", "wait", "--id", "w3")
    done = run("instances", "watch", "w3", "--timeout", "0.2")
    assert (done.code, "has not ended within 0.2 s; it goes on" in done.err) == (6, True)


def test_code_that_does_not_fit_is_told_in_a_sentence(host: subprocess.Popen[str], folder: Folder, run: Run):
    run("instances", "start", "wait", "--id", "w4")
    until(run, "event 'Go'", "instances", "why", "w4")
    assert interrupted(host, signal.SIGTERM).code == 0
    folder.write("chain.py", CHAIN.replace('"Go"', '"Stop"'))
    with folder.started("run", "chain.py") as changed:
        assert changed.stdout is not None
        while not changed.stdout.readline().startswith("Ready"):
            assert changed.poll() is None
        run("instances", "raise", "w4", "Go", "-d", '"x"')
        done = until(run, "Is blocked", "instances", "why", "w4")
        assert "history says: wait for external event 'Go' (#0); code now does:" in done.out
        assert "Running (blocked)" in run("instances", "list").out
        assert "WARN  blocked    1 instance code and history" not in run("doctor").out
        assert "w4" in run("doctor").out
        run("instances", "terminate", "w4", "-q")
