"""``durably instances`` on a hub that nobody serves: everything can be looked at, and what is asked for is kept."""

import io
import json
import os
import re
import sqlite3
import sys
from pathlib import Path

import pytest

from tests.integration.cli import scene
from tests.integration.cli.programs import Folder, Run, interrupted


@pytest.fixture
def hub(folder: Folder) -> Folder:
    scene.build(folder.path, scene.one_of_each)
    return folder


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch):
    def stdin(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    return stdin


def listed(run: Run, *arguments: str) -> list[str]:
    done = run("instances", "list", "-o", "ids", *arguments)
    assert (done.code, done.err) == (0, "")
    return done.out.split()


# --- start -----------------------------------------------------------------------------------------------------------


def test_a_start_waits_for_a_host_and_can_be_looked_at_meanwhile(folder: Folder, run: Run):
    done = run(
        "instances", "start", "buy", "-i", '{"sku": "tea"}', "--id", "b1", "--tag", "a=b=c", "--version", "2"
    )
    assert (done.code, done.out) == (0, "b1\n")
    assert "No host serves the hub: the next one starts it" in done.err
    shown = json.loads(run("instances", "show", "b1", "-o", "json").out)
    assert (shown["status"], shown["input"], shown["tags"], shown["version"]) == (
        "Pending", {"sku": "tea"}, {"a": "b=c"}, "2",
    )  # fmt: skip
    assert run("instances", "why", "b1").out.startswith("Waits to be started, but no host serves the hub; ")
    history = run("instances", "history", "b1", "-o", "json")
    assert (history.code, history.out) == (0, "[]\n")


def test_a_start_without_an_id_gives_one_and_at_a_moment_waits_for_it(run: Run):
    done = run("instances", "start", "wait", "--at", "3d", "-o", "json")
    instance_id = json.loads(done.out)["instance_id"]
    assert re.fullmatch("[0-9a-f]{32}", instance_id)
    assert "Waits for its scheduled start at" in run("instances", "why", instance_id).out


def test_waiting_ends_after_its_time(run: Run):
    done = run("instances", "start", "wait", "--id", "w", "--wait", "--timeout", "0.2")
    assert (done.code, done.out) == (6, "")
    assert "Started w\nNo host serves the hub: waiting for one\n" in done.err
    assert "Instance 'w' has not ended within 0.2 s" in done.err


def test_an_id_that_is_taken(hub: Folder, run: Run):
    refused = run("instances", "start", "pay", "--id", "paid-1", "--on-existing", "fail")
    assert refused.code == 5
    assert "Instance 'paid-1' already exists and is Completed" in refused.err


# --- result ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instance_id", "code", "words"),
    [
        ("failed-1", 7, "Instance 'failed-1' ended as Failed\nTaskFailedError: Task 'charge' (#0) failed"),
        ("stopped-1", 7, "Instance 'stopped-1' ended as Terminated\nTerminated: ordered twice"),
        ("nope", 4, "Instance 'nope' is not in this hub"),
        ("=wait+1", 6, "No host serves the hub: waiting for one"),
    ],
)
def test_the_exit_code_of_a_result_says_how_it_ended(
    hub: Folder, run: Run, instance_id: str, code: int, words: str
):
    done = run("instances", "result", instance_id, "--timeout", "0.1")
    assert (done.code, done.out) == (code, "")
    assert words in done.err


def test_a_failure_for_programs(hub: Folder, run: Run):
    answer = json.loads(run("instances", "result", "failed-1", "-o", "json").out)
    assert (answer["status"], answer["result"]) == ("Failed", None)
    assert answer["failure"]["inner"]["message"] == "no -7"


def test_the_id_may_come_from_stdin(hub: Folder, run: Run, typed):
    typed("\npaid-1\n")
    assert run("instances", "result", "-").out == '"paid 7"\n'
    typed("a\nb\n")
    refused = run("instances", "result", "-")
    assert (refused.code, "Expected one id on stdin, found 2" in refused.err) == (2, True)


# --- list ------------------------------------------------------------------------------------------------------------


def test_filters(hub: Folder, run: Run):
    assert listed(run, "--name", "pay") == ["paid-1", "failed-1", "later-1"]
    assert listed(run, "--status", "failed,Suspended", "--status", "Terminated") == [
        "failed-1", "suspended-1", "stopped-1",
    ]  # fmt: skip
    assert listed(run, "--prefix", "parent-") == ["parent-1", "parent-1:0:0000"]
    assert listed(run, "--tag", "region=eu", "--tag", "k==1") == ["paid-1"]
    assert listed(run, "--tag", "region=us") == []
    assert listed(run, "--limit", "2") == ["paid-1", "failed-1"]
    assert listed(run, "--created-from", "2026-03-01T12:00:06Z") == ["retry-1", "later-1"]
    assert listed(run, "--created-to", "2026-03-01T13:00:01+01:00") == ["paid-1", "failed-1"]
    assert listed(run, "--created-from", "1h") == []
    assert len(listed(run, "--created-from", "5000w")) == 9
    assert listed(run, "--updated-to", "2026-03-01T12:00:00Z") == ["paid-1"]
    assert listed(run, "--stuck") == []
    assert listed(run, "--parent", "parent-1") == ["parent-1:0:0000"]
    assert listed(run, "--parent", "paid-1") == []


def test_nothing_that_matches(hub: Folder, run: Run):
    for output, text in (("json", "[]\n"), ("jsonl", ""), ("table", ""), ("ids", "")):
        assert run("instances", "list", "--name", "x", "-o", output).out == text
    assert run("instances", "count", "--name", "x").out == "NAME   TOTAL\nTOTAL      0\n"
    assert run("instances", "list", "--name", "x", "-o", "csv").out.startswith("instance_id,name,")


# --- many at once ----------------------------------------------------------------------------------------------------


def test_ids_from_a_pipe_and_failures_that_do_not_stop_the_others(hub: Folder, run: Run, typed):
    typed("suspended-1\n\n  nope \nfailed-1\nsuspended-1\n=wait+1\n")
    done = run("instances", "terminate", "-", "-r", "enough", "-o", "ids")
    assert (done.code, sorted(done.out.split())) == (1, ["=wait+1", "suspended-1"])
    assert "Error: nope: Instance 'nope' is not in this hub" in done.err
    assert "Error: failed-1: Cannot terminate instance 'failed-1': it is Failed" in done.err
    assert "2 instances terminated, 2 failed\n" in done.err
    assert "No host serves the hub: what was accepted happens when the next one starts" in done.err


def test_the_exit_code_of_one_failure_or_of_many_alike(hub: Folder, run: Run):
    assert run("instances", "purge", "nope").code == 4
    assert run("instances", "purge", "nope", "nada").code == 4
    assert run("instances", "resume", "paid-1").code == 5
    assert run("instances", "purge", "nope", "=wait+1").code == 1


def test_filters_instead_of_ids_need_a_yes_or_somebody_to_ask(hub: Folder, run: Run):
    refused = run("instances", "purge", "--status", "Completed")
    assert (
        refused.code,
        "Nobody can be asked whether to purge all that match: add --yes" in refused.err,
    ) == (2, True)
    for arguments, words in (
        ((), "Which instances to purge? Expected ids, - for ids on stdin, or filters"),
        (("--limit", "3", "--yes"), "Which instances to purge?"),
        (("paid-1", "--name", "pay"), "Ids and filters exclude each other"),
        (("-", "paid-1"), "- reads the ids from stdin: expected no others beside it"),
        (("--limit", "1", "--all"), "--limit and --all exclude each other"),
        (("",), "An id is empty"),
    ):
        refused = run("instances", "purge", *arguments)
        assert (refused.code, words in " ".join(refused.err.split())) == (2, True), refused.err
    done = run("instances", "purge", "--name", "pay", "--limit", "1", "--yes")
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith("1 instance purged\n")


def test_a_dry_run_changes_nothing(hub: Folder, run: Run):
    done = run("instances", "terminate", "--all", "--dry-run", "-o", "ids")
    assert (done.code, len(done.out.split())) == (0, 6)  # those that it applies to
    assert done.err == "6 instances would be terminated\n"
    done = run("instances", "terminate", "--all", "--status", "Failed", "--dry-run", "-o", "ids")
    assert (done.code, done.out) == (0, "failed-1\n")
    done = run("instances", "purge", "paid-1", "nope", "--dry-run", "-o", "ids")
    assert (done.code, done.out) == (4, "paid-1\n")
    assert "Error: nope: Instance 'nope' is not in this hub" in done.err
    with sqlite3.connect(hub.path / scene.HUB) as file:
        messages = file.execute("SELECT count(*) FROM inbox WHERE instance_id <> 'later-1'").fetchall()
    file.close()
    assert messages == [(0,)]


# --- wrong ways ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("list", "--status", "Fialed"),
            "'Fialed' is no status: did you mean 'Failed'? Statuses are Pending, ",
        ),
        (("list", "--created-from", "soon"), "'soon' is no moment: expected an instant such as 2026-11-20"),
        (("list", "--tag", "eu"), "'eu' is no tag: expected KEY=VALUE"),
        (("list", "--limit", "0"), "0 is not in the range x>=1"),
        (("start", "wait", "-i", "{"), "--input is not JSON"),
        (("start", "wait", "--id", "a/b"), "Instance id 'a/b' holds '/'"),
        (("start", "wait", "--timeout", "1"), "--timeout is for waiting: add --wait"),
        (("raise", "x", "Go", "-d", "no"), "--data is not JSON"),
        (("raise", "x", ""), "The name of an external event is empty"),
        (("raise", "-", "Go", "-d", "-"), "Ids and --data cannot both come from stdin"),
        (("show",), "Missing argument 'ID...'"),
        (("terminte", "x"), "No such command 'terminte': did you mean 'terminate'?"),
        (("list", "--hub", "memory://"), "A hub in memory ends with its host"),
        (("list", "--hub", "mysql://x"), "unknown scheme 'mysql'"),
    ],
)
def test_wrong_arguments(hub: Folder, run: Run, arguments: tuple[str, ...], words: str):
    done = run("instances", *arguments)
    assert (done.code, done.out) == (2, "")
    assert words in " ".join(done.err.split())
    assert "Traceback" not in done.err


EVERY = (
    ("list",), ("count",), ("show", "x"), ("why", "x"), ("history", "x"), ("result", "x"), ("watch", "x"),
    ("raise", "x", "Go"), ("cancel", "x"), ("terminate", "x"), ("suspend", "x"), ("resume", "x"), ("purge", "x"),
    ("purge", "--all", "--yes"), ("purge", "--all", "--dry-run"),
)  # fmt: skip


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_a_hub_that_is_not_there(folder: Folder, run: Run, command: tuple[str, ...]):
    done = run("instances", *command)
    assert (done.code, done.out) == (4, "")
    assert "durably.db' does not exist; check the URL" in done.err
    assert not (folder.path / scene.HUB).exists()


@pytest.mark.parametrize("command", [one for one in EVERY if "x" in one], ids=" ".join)
def test_an_unknown_id(hub: Folder, run: Run, command: tuple[str, ...]):
    done = run("instances", *command)
    assert (done.code, done.out) == (4, "")
    assert "Instance 'x' is not in this hub; it was never started, or it was purged\n" in done.err


def test_a_file_of_another_program(folder: Folder, run: Run):
    with sqlite3.connect(folder.path / scene.HUB) as file:
        file.execute("CREATE TABLE something_else (x)")
    file.close()
    done = run("instances", "list")
    assert (done.code, done.out) == (4, "")
    assert "is not a hub: it is a database of another program" in done.err
    (folder.path / "text.db").write_text("hello " * 1_000)
    assert "it is not a SQLite database" in run("instances", "list", "--hub", "sqlite:///text.db").err


# --- terminals and pipes ---------------------------------------------------------------------------------------------


def test_control_characters_do_not_reach_the_terminal(folder: Folder, run: Run):
    run(
        "instances",
        "start",
        "evil\x1b[31m",
        "-i",
        '"\x1b]0;title\x07"'.replace("\x1b", "\\u001b").replace("\x07", "\\u0007"),
        "--id",
        "e1",
    )
    shown = run("instances", "show", "e1").out
    assert "\x1b" not in shown
    assert "evil\\x1b[31m" in shown


def test_whoever_has_seen_enough_ends_the_pipe_in_silence(folder: Folder):
    scene.build(folder.path, scene.many(2_000))
    with folder.started("instances", "list", "-o", "jsonl") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["instance_id"] == "wait-000000"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 1


def test_ctrl_c_ends_bulk_work_and_says_how_far_it_got(folder: Folder):
    scene.build(
        folder.path, scene.many(10_000)
    )  # more lines than a pipe holds: it cannot be done before we read
    with folder.started("instances", "suspend", "--all", "--yes", "-o", "ids") as process:
        assert process.stdout is not None
        # Not `readline`, which takes more lines than it returns: `communicate` would never see them.
        first = b""
        while not first.endswith(b"\n"):
            first += os.read(process.stdout.fileno(), 1)
        assert first == b"wait-000000\n"
        done = interrupted(process)
    assert done.code == 130
    found = re.search(r"^(\d+) instances? suspended, ([\d,]+) left$", done.err, re.MULTILINE)
    assert found is not None, done.err
    assert int(found[1]) == len(done.out.split()) + 1


@pytest.mark.slow_once
def test_a_list_of_20_000_comes_as_a_stream(folder: Folder, run: Run, monkeypatch: pytest.MonkeyPatch):
    scene.build(folder.path, scene.many(20_000))
    from durably.cli.formats import Table

    held: list[int] = []
    plain = Table.row

    def row(table: Table, given: object) -> None:
        plain(table, given)  # type: ignore[arg-type]
        held.append(len(table._sample))

    monkeypatch.setattr(Table, "row", row)
    done = run("instances", "list")
    assert len(done.out.splitlines()) == 20_001
    assert max(held) < 200
    counted = json.loads(run("instances", "count", "-o", "json", "--tag", "half=yes").out)
    assert counted == [{"name": "approve", "status": "Running", "count": 10_000}]


def test_the_hub_may_come_from_the_environment(
    hub: Folder, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setenv("DURABLY_HUB", f"sqlite:///{hub.path / scene.HUB}")
    monkeypatch.setenv("DURABLY_OUTPUT", "ids")
    monkeypatch.setenv("DURABLY_INSTANCES_LIST_STATUS", "Failed,Completed")
    assert run("instances", "list").out == "paid-1\nfailed-1\n"
