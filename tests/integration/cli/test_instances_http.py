"""``durably instances --hub http://…``: a host in another process."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from tests.integration.cli.programs import Done, Folder, Run
from tests.integration.cli.test_run_http import announced, url_of

FLAWED = """
from pathlib import Path
from durably import App, OrchestrationContext

app = App()

@app.activity
def read() -> str:
    return Path("later.txt").read_text()

@app.orchestrator
async def fragile(ctx: OrchestrationContext) -> str:
    return await ctx.call_activity(read)
"""


class Asked:
    """The program, asking a host over HTTP with a key."""

    def __init__(self, run: Run, url: str, key: str) -> None:
        self._run = run
        self.url = url
        self.key = key

    def __call__(self, *arguments: str, code: int = 0) -> Done:
        done = self._run(*arguments, "--hub", self.url, "--key", self.key)
        assert done.code == code, done
        return done

    def row(self, instance_id: str) -> dict[str, object]:
        return json.loads(self("instances", "show", instance_id, "-o", "json").out)


@contextlib.contextmanager
def served(folder: Folder, run: Run) -> Iterator[Asked]:
    folder.write("flawed.py", FLAWED)
    key = run("keys", "renew", "system").out.strip()
    with folder.started("run", "shop.py", "flawed.py", DURABLY_HTTP="on", DURABLY_HTTP_PORT="0") as process:
        yield Asked(run, url_of(announced(process)), key)


def test_an_instance_from_its_start_to_its_end(folder: Folder, run: Run) -> None:
    with served(folder, run) as asked:
        assert asked("instances", "start", "wait", "--id", "a b:ü").out == "a b:ü\n"
        assert asked.row("a b:ü")["status"] in {"Pending", "Running"}
        asked("instances", "suspend", "a b:ü", "--reason", "audit")
        assert asked("instances", "list", "--status", "Suspended", "-o", "ids").out == "a b:ü\n"
        asked("instances", "resume", "a b:ü")
        asked("instances", "raise", "a b:ü", "Go", "--data", '"now"')
        assert asked("instances", "result", "a b:ü").out == '"now"\n'
        assert asked("instances", "why", "a b:ü").out.startswith("Ended as Completed")
        events = json.loads(asked("instances", "history", "a b:ü", "-o", "json", "--payloads").out)
        assert [one["event_type"] for one in events if one["name"] == "Go"] == ["EventAwaited", "EventRaised"]
        [again] = json.loads(asked("instances", "restart", "a b:ü", "--new-id", "-o", "json").out)
        asked("instances", "terminate", again["new_instance_id"], "--reason", "ordered twice")
        assert asked.row(again["new_instance_id"])["output"] == "ordered twice"
        asked("instances", "restart", "a b:ü")
        asked("instances", "terminate", "a b:ü")
        asked("instances", "purge", "a b:ü")
        asked("instances", "show", "a b:ü", code=4)


def test_a_failure_is_told_and_rewound(folder: Folder, run: Run) -> None:
    with served(folder, run) as asked:
        done = asked("instances", "start", "fragile", "--id", "f1", "--wait", code=7)
        assert "FileNotFoundError" in done.err
        failure = asked.row("f1")["failure"]
        assert isinstance(failure, dict)
        assert failure["type"] == "TaskFailedError"
        folder.write("later.txt", "mended")
        asked("instances", "rewind", "f1", "--reason", "the file is there")
        assert asked("instances", "result", "f1").out == '"mended"\n'


def test_many_by_filter(folder: Folder, run: Run) -> None:
    with served(folder, run) as asked:
        for number in range(5):
            asked("instances", "start", "wait", "--id", f"w{number}")
        asked("instances", "start", "steps", "--input", '["x"]', "--wait")
        counts = asked("instances", "count", "-o", "jsonl").out
        assert '"wait"' in counts
        listed = asked("instances", "list", "--name", "wait", "-o", "ids").out.split()
        assert listed == [f"w{number}" for number in range(5)]
        asked("instances", "raise", "Go", "--data", '"all"', "--name", "wait", "--yes")
        assert asked("instances", "result", "w4").out == '"all"\n'
        asked("instances", "purge", "--name", "wait", "--yes")
        assert asked("instances", "list", "--prefix", "w", "-o", "ids").out == ""


def test_refusals_of_the_host_keep_their_text_and_exit_code(folder: Folder, run: Run) -> None:
    with served(folder, run) as asked:
        asked("instances", "start", "wait", "--id", "w")
        assert "already exists" in asked("instances", "start", "wait", "--id", "w", code=5).err
        assert "it is " in asked("instances", "rewind", "w", code=5).err
        assert "nothing" in asked("instances", "start", "nothing", code=2).err
        asked("instances", "raise", "missing", "Go", code=4)
        asked("instances", "result", "w", "--timeout", "0.1", code=6)
        key, asked.key = asked.key, "wrong"
        denied = asked("instances", "list", code=3)
        assert "The key is not valid" in denied.err
        assert "DURABLY_KEY" in denied.err
        asked.key = key
    assert "Nobody answers at http://127.0.0.1" in asked("instances", "list", code=1).err


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://", "names no host"),
        ("http://me@127.0.0.1:1", "holds a user"),
        ("http://a?b=c", "names no host"),
    ],
)
def test_a_url_that_is_none(run: Run, url: str, says: str) -> None:
    done = run("instances", "list", "--hub", url)
    assert (done.code, says in done.err) == (2, True), done.err
