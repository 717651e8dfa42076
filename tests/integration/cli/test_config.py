"""``durably config``, and what the files beside an app do to the program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.cli.programs import Folder, Run

HOST = """{
  "version": "2.0",  // as Functions has it
  "functionTimeout": "00:01:00",
  "extensions": {
    "durableTask": {
      "hubName": "%SITE%Hub",
      "maxConcurentActivityFunctions": 7,
      "maxOrchestrationActions": 50,
      "tracing": {"version": "V2"}
    }
  }
}
"""

LOCAL = """{
  "IsEncrypted": false,
  "Values": {
    "SITE": "Shop",
    "AzureWebJobsStorage": "DefaultEndpointsProtocol=https;AccountKey=s3cret",
    "DURABLY_KEEP_FINISHED_S": "60",
    "DURABLY_WEBHOOK_SECRET": "whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"
  }
}
"""

UNKNOWN = (
    "Warning: host.json:7: extensions.durableTask.maxConcurentActivityFunctions is unknown: did you mean "
    "extensions.durableTask.maxConcurrentActivityFunctions?"
)
UNSUPPORTED = (
    "Warning: host.json:9: extensions.durableTask.tracing.version is not supported: traces are not there yet"
)


@pytest.fixture
def functions_app(folder: Folder) -> Folder:
    folder.write("host.json", HOST)
    folder.write("local.settings.json", LOCAL)
    return folder


@pytest.fixture(autouse=True)
def environment(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the program adds to its environment goes with the test."""
    monkeypatch.setattr("os.environ", dict(folder.environment))


def rows(run: Run, *arguments: str) -> dict[str, tuple[object, str]]:
    done = run("config", "show", "-o", "json", *arguments)
    assert done.code == 0, done.err
    return {row["name"]: (row["value"], row["origin"]) for row in json.loads(done.out)}


@pytest.mark.usefixtures("functions_app")
def test_show_tells_each_value_and_where_it_was_set(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABLY_INBOX_POLL_S", "2")
    found = rows(run, "--port", "8080")
    assert found["DURABLY_HUB"] == ("sqlite:///ShopHub.db", "host.json:6 extensions.durableTask.hubName")
    assert found["DURABLY_MAX_ACTIONS"][0] == "50"
    assert found["DURABLY_FUNCTION_TIMEOUT_S"] == ("60", "host.json:3 functionTimeout")
    assert found["DURABLY_STALL_LIMIT_S"] == (60.0, "DURABLY_FUNCTION_TIMEOUT_S")
    assert found["DURABLY_KEEP_FINISHED_S"] == ("60", "local.settings.json:6")
    assert found["DURABLY_INBOX_POLL_S"] == ("2", "environment")
    assert found["DURABLY_HTTP_PORT"] == ("8080", "--port")
    assert found["DURABLY_BATCH_BYTES"] == (1 << 20, "default")
    assert found["DURABLY_WEBHOOK_SECRET"] == ("***", "local.settings.json:7")
    assert found["AzureWebJobsStorage"] == ("***", "local.settings.json:5")
    assert rows(run, "--hub", "memory://")["DURABLY_HUB"] == ("memory://", "--hub")


def test_a_passphrase_is_not_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABLY_HTTP_TLS_PASSPHRASE", "s3cret")
    assert rows(run)["DURABLY_HTTP_TLS_PASSPHRASE"] == ("***", "environment")


@pytest.mark.usefixtures("functions_app")
def test_show_for_people(run: Run) -> None:
    done = run("config", "show")
    lines = done.out.splitlines()
    assert lines[0].split() == ["DURABLY_HUB", "sqlite:///ShopHub.db"]
    assert not any("BATCH_BYTES" in line for line in lines)
    assert "s3cret" not in done.out
    assert done.err.splitlines() == [UNKNOWN, UNSUPPORTED]
    with_origin = run("config", "show", "--origin").out.splitlines()
    assert with_origin[0].endswith("host.json:6 extensions.durableTask.hubName")
    assert any(line.split() == ["DURABLY_BATCH_BYTES", "1048576", "default"] for line in with_origin)


def test_nothing_is_set(run: Run) -> None:
    done = run("config", "show", "shop.py", "--http")
    assert [line.split()[0] for line in done.out.splitlines()] == ["DURABLY_HTTP"]
    assert run("config", "validate").err == "All settings are known, and mean something\n"


def test_validate_names_all_that_is_wrong(
    functions_app: Folder, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DURABLY_MAX_ACTION", "1")
    monkeypatch.setenv("DURABLY_HTTP_PORT", "90000")
    done = run("config", "validate", "shop.py")
    assert done.code == 1
    assert done.err.splitlines() == [
        UNKNOWN,
        UNSUPPORTED,
        "Warning: environment: DURABLY_MAX_ACTION is unknown: did you mean DURABLY_MAX_ACTIONS?",
        "Error: port is 90000: expected 0 to 65535",
    ]
    functions_app.write("host.json", '{"functionTimeout": "soon",}')
    wrong = "host.json:1: functionTimeout is 'soon': expected a span of time such as 00:05:00"
    assert f"Error: {wrong}" in run("config", "validate").err
    monkeypatch.delenv("DURABLY_HTTP_PORT")
    shown = run("config", "show")
    assert (shown.code, shown.err.splitlines()[-1]) == (2, f"Error: {wrong}")


def test_the_program_hosts_what_the_files_say_and_names_what_they_do_not_mean(
    functions_app: Folder, run: Run
) -> None:
    functions_app.write(
        "site.py",
        "import os\nfrom durably import App, OrchestrationContext\napp = App()\nSITE = os.environ['SITE']\n"
        "@app.orchestrator\nasync def site(ctx: OrchestrationContext) -> str:\n    return SITE\n",
    )
    done = run("exec", "site.py", "site", "--id", "s1", "-q")
    assert (done.code, done.out) == (0, '"Shop"\n')
    assert done.err.splitlines() == [UNKNOWN, UNSUPPORTED]
    assert (functions_app.path / "ShopHub.db").exists()
    assert "s1" in run("instances", "list").out  # other commands find the hub of this folder


def test_files_are_looked_for_beside_the_app_and_flags_go_first(
    folder: Folder, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = folder.path / "shop"
    app.mkdir()
    (folder.path / "shop.py").rename(app / "shop.py")
    (app / "host.json").write_text('{"extensions": {"durableTask": {"hubName": "ShopHub"}}}')
    assert rows(run, "shop/shop.py:app")["DURABLY_HUB"][0] == "sqlite:///ShopHub.db"
    assert run("exec", "shop/shop.py", "steps", "-i", "[]", "-q").code == 0
    assert Path("ShopHub.db").exists()
    monkeypatch.setenv("PLACE", "Else")
    assert run("exec", "shop/shop.py", "steps", "-i", "[]", "-q", "--hub", "sqlite:///%PLACE%.db").code == 0
    assert Path("Else.db").exists()


def test_broken_files_here_are_nothing_to_an_app_that_has_its_own(folder: Folder, run: Run) -> None:
    app = folder.path / "shop"
    app.mkdir()
    (folder.path / "shop.py").rename(app / "shop.py")
    (app / "host.json").write_text('{"extensions": {"durableTask": {"hubName": "ShopHub"}}}')
    folder.write("host.json", "{")
    assert rows(run, "shop/shop.py")["DURABLY_HUB"][0] == "sqlite:///ShopHub.db"
    done = run("exec", "shop/shop.py", "steps", "-i", "[]", "-q")
    assert (done.code, done.err) == (0, "")
    assert run("config", "show").code == 2


def test_keys_and_the_audit_log_are_those_that_the_files_name(folder: Folder, run: Run) -> None:
    values = {"DURABLY_HTTP_KEY_FILE": "shop.keys", "DURABLY_HTTP_AUDIT_FILE": "shop.audit"}
    folder.write("local.settings.json", json.dumps({"Values": values | {"DURABLY_HTTP_HUB_NAME": "Shop"}}))
    assert run("keys", "renew", "system").code == 0
    assert "system" in run("keys", "list").out
    record = json.loads(run("audit", "list", "-o", "json").out)
    assert (record["action"], record["hub"]) == ("keys renew", "Shop")
    made = {path.name for path in folder.path.iterdir()} - {"shop.py", "local.settings.json"}
    assert {name.partition(".")[0] for name in made} == {"shop"}
    folder.write("local.settings.json", json.dumps({"Values": values | {"DURABLY_HTTP_AUDIT": False}}))
    assert run("keys", "renew", "system").code == 0
    assert len(run("audit", "list", "-o", "json").out.splitlines()) == 1


def test_a_file_that_is_broken_stops_the_program(folder: Folder, run: Run) -> None:
    folder.write("host.json", '{\n  "version": "2.0"\n  "functionTimeout": "00:01:00"\n}')
    done = run("run", "shop.py")
    assert (done.code, done.err) == (
        2,
        "Error: host.json, line 3: expected ',' or '}', found '\"functionTimeout\"'\n",
    )
