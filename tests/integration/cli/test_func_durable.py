"""``durably func-durable``: each verb of ``func durable`` with its options, on a real hub."""

import json

import pytest

from tests.integration.cli.programs import Folder, Run
from tests.integration.cli.test_run import until_ready
from tests.integration.cli.test_run_http import announced, url_of

FUNC = "func-durable"


def test_the_life_of_an_instance(folder: Folder, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write("data.json", '"from a file"')
    with folder.started("run", "shop.py") as process:
        until_ready(process)
        started = run(
            FUNC, "start-new", "--function-name", "wait", "--id", "-w1", "--task-hub-name", "durably"
        )
        assert (started.code, started.out) == (0, "-w1\n"), started.err
        status = json.loads(run(FUNC, "get-runtime-status", "--id", "-w1").out)
        assert (status["instance_id"], status["name"], "input" in status) == ("-w1", "wait", False)
        told = run(FUNC, "raise-event", "--id", "-w1", "--event-name", "Go", "--event-data", "@data.json")
        assert told.code == 0, told.err
        assert run("instances", "result", "--", "-w1").out == '"from a file"\n'
        for flag in (("--show-output",), ("--show-output", "true")):
            status = json.loads(run(FUNC, "get-runtime-status", "--id", "-w1", *flag).out)
            assert status["output"] == "from a file"
        history = json.loads(run(FUNC, "get-history", "--id", "-w1").out)
        assert [one["event_type"] for one in history][:2] == ["OrchestratorStarted", "ExecutionStarted"]

        run(FUNC, "start-new", "--function-name", "steps", "--input", '["a"]', "--id", "s1")
        run("instances", "result", "s1")
        status = json.loads(run(FUNC, "get-runtime-status", "--id", "s1", "--show-input").out)
        assert status["input"] == ["a"]
        run(FUNC, "start-new", "--function-name", "wait", "--id", "w2")
        assert run(FUNC, "terminate", "--id", "w2", "--reason", "ordered twice").code == 0
        failed = run(FUNC, "start-new", "--function-name", "buy", "--input", '{"sku": "x"}', "--id", "b1")
        assert failed.code == 0
        run("instances", "result", "b1")
        assert run(FUNC, "rewind", "--id", "b1", "--reason", "there is some").code == 0
        assert run("instances", "result", "b1").code == 7  # it ran again, and failed again
        assert run(FUNC, "terminate", "--id", "missing").code == 4


def test_inline_text_is_text_where_it_is_no_json(folder: Folder, run: Run) -> None:
    with folder.started("run", "shop.py") as process:
        until_ready(process)
        run(FUNC, "start-new", "--function-name", "wait", "--id", "w")
        run(FUNC, "raise-event", "--id", "w", "--event-name", "Go", "--event-data", "a word")
        assert run("instances", "result", "w").out == '"a word"\n'


def test_pages_purge_and_the_end_of_a_hub(folder: Folder, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_STORAGE", "sqlite:///shop.db")
    where = ("--connection-string-setting", "SHOP_STORAGE")
    with folder.started("run", "shop.py", "--hub", "sqlite:///shop.db") as process:
        until_ready(process)
        for number in range(3):
            assert (
                run(
                    FUNC,
                    "start-new",
                    "--function-name",
                    "steps",
                    "--id",
                    f"s{number}",
                    "--input",
                    "[]",
                    *where,
                ).code
                == 0
            )
            run("instances", "result", f"s{number}", "--hub", "sqlite:///shop.db")
        first = run(FUNC, "get-instances", "--top", "2", "--runtime-status", "completed failed", *where)
        assert [one["instance_id"] for one in json.loads(first.out)] == ["s0", "s1"]
        token = first.err.partition("'")[2].rpartition("'")[0]
        second = run(FUNC, "get-instances", "--top", "2", "--continuation-token", token, *where)
        assert [one["instance_id"] for one in json.loads(second.out)] == ["s2"]
        assert second.err == ""
        assert json.loads(run(FUNC, "get-instances", "--created-before", "2020-01-01", *where).out) == []
        assert run(FUNC, "purge-history", "--created-before", "2020-01-01", *where).code == 0
        assert len(json.loads(run(FUNC, "get-instances", *where).out)) == 3
        assert run(FUNC, "purge-history", "--runtime-status", "completed", *where).code == 0
        assert json.loads(run(FUNC, "get-instances", *where).out) == []
        served = run(FUNC, "delete-task-hub", *where)
        assert (served.code, (folder.path / "shop.db").exists()) == (5, True), served.err
    assert run(FUNC, "delete-task-hub", *where).code == 0
    assert not list(folder.path.glob("shop.db*"))
    assert run(FUNC, "delete-task-hub", *where).code == 4


def test_the_hub_is_the_one_that_is_named(folder: Folder, run: Run) -> None:
    for arguments, says in (
        (("--task-hub-name", "other"), "Task hub 'other' is not that of sqlite:///durably.db"),
        (("--connection-string-setting", "NOT_SET"), "'NOT_SET', which holds no hub URL"),
        (("--hub", "http://127.0.0.1:1", "--task-hub-name", "x"), "leave --task-hub-name out"),
        (("--runtime-status", "running done"), "'done' is no status"),
    ):
        done = run(FUNC, "get-instances", *arguments)
        assert (done.code, says in done.err) == (2, True), done.err
    assert "over HTTP" in run(FUNC, "delete-task-hub", "--hub", "http://127.0.0.1:1").err
    assert run(FUNC, "start-new").code == 2


def test_it_goes_over_http_with_a_key(folder: Folder, run: Run) -> None:
    key = run("keys", "renew", "system").out.strip()
    with folder.started("run", "shop.py", DURABLY_HTTP="on", DURABLY_HTTP_PORT="0") as process:
        where = ("--hub", url_of(announced(process)), "--key", key)
        assert run(FUNC, "start-new", "--function-name", "wait", "--id", "w", *where).out == "w\n"
        assert json.loads(run(FUNC, "get-instances", *where).out)[0]["instance_id"] == "w"
        assert run(FUNC, "terminate", "--id", "w", *where).code == 0
        assert run(FUNC, "terminate", "--id", "w", "--hub", where[1]).code == 3
