"""``durably hub``, and everything else that is asked of a hub on PostgreSQL from a command line."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
from collections.abc import Iterator
from itertools import count
from typing import Any

import asyncpg
import pytest

from durably import Client
from durably.storage.postgres.address import Address
from durably.storage.postgres.migrations import STEPS, VERSION
from durably.storage.postgres.store import PostgresStore
from durably.storage.sqlite import schema
from tests.integration.cli.programs import Done, Folder, Run
from tests.support.postgres import PostgresServer, program

_hubs = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def url(server: PostgresServer, monkeypatch: pytest.MonkeyPatch, folder: Folder) -> str:
    """A hub that is not there, named in the environment, with a password that the server does not ask for."""
    url = server.url(f"cli_{next(_hubs)}").replace("durably@", "durably:s3cret@")
    monkeypatch.setenv("DURABLY_HUB", url)
    monkeypatch.setenv("DURABLY_STATE_DIR", str(folder.path))
    return url


def sql(url: str, text: str) -> list[Any]:
    async def ask() -> list[Any]:
        address = Address.of(url)
        connection = await asyncpg.connect(address.dsn)
        try:
            return [tuple(row) for row in await connection.fetch(text.replace("{s}", address.schema))]
        finally:
            await connection.close()

    return asyncio.run(ask())


def psql(url: str, script: str) -> None:
    done = subprocess.run(
        [program("psql"), Address.of(url).dsn, "-v", "ON_ERROR_STOP=1", "-q"],
        input=script,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def status(run: Run) -> dict[str, Any]:
    done = run("hub", "status", "-o", "json")
    assert (done.code, done.err) == (0, ""), done
    return json.loads(done.out)


def findings(done: Done) -> dict[str, Any]:
    assert "s3cret" not in done.out
    return {one["subject"]: one for one in json.loads(done.out)["findings"]}


# --- migrate ---------------------------------------------------------------------------------------------------------


def test_migrate_makes_a_hub_and_then_has_nothing_to_do(url: str, run: Run) -> None:
    done = run("hub", "status")
    assert (done.code, "does not exist" in done.err, "s3cret" in done.err) == (4, True, False)
    done = run("hub", "migrate", "--partitions", "3")
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines() == [f"Step {step}" for step in STEPS]
    assert run("hub", "migrate").err == "The schema of the hub is up to date\n"
    state = status(run)
    assert (state["version"], state["pending"], state["hosts"]) == (VERSION, [], [])
    assert len(state["partitions"]) == 3
    assert "s3cret" not in json.dumps(state)
    done = run("hub", "migrate", "--partitions", "4")
    assert (done.code, "has 3 partitions, 4 are asked for" in done.err) == (2, True)


def test_the_sql_that_is_printed_does_the_same(url: str, server: PostgresServer, run: Run) -> None:
    script = run("hub", "migrate", "--print-sql", "--partitions", "2").out
    assert "s3cret" not in script
    assert run("hub", "status").code == 4  # nothing was done
    psql(url, script)
    state = status(run)
    assert (state["pending"], len(state["partitions"])) == ([], 2)
    assert "Step" not in run("hub", "migrate", "--print-sql").out
    hosts = next(step.number for step in STEPS if step.name == "hosts")
    sql(url, f"DELETE FROM {{s}}.migrations WHERE step = {hosts}")
    sql(url, "DROP TABLE {s}.hosts")
    assert [step["number"] for step in status(run)["pending"]] == [hosts]
    psql(url, run("hub", "migrate", "--print-sql").out)
    assert status(run)["pending"] == []


def test_a_role_without_rights_to_the_schema_runs_hosts(url: str, run: Run, folder: Folder) -> None:
    role = f"runtime_{next(_hubs)}"
    sql(url, f"CREATE ROLE {role} LOGIN")
    plain = url.replace("durably:s3cret@", f"{role}@")
    done = run("hub", "migrate", "--hub", plain)
    assert (done.code, done.err.count(f"run durably hub migrate --grant {role}")) == (3, 1)
    assert run("hub", "migrate", "--grant", "nobody_of_this_name").code == 2
    assert run("hub", "status").code == 4  # and nothing was made
    assert run("hub", "migrate", "--partitions", "1", "--grant", "durably").code == 0
    done = run("instances", "list", "--hub", plain)
    assert (done.code, f"--grant {role}" in done.err) == (3, True)
    psql(url, run("hub", "migrate", "--print-sql", "--grant", role).out)
    done = folder.run(
        "exec", "shop.py", "steps", "--input", '["a"]', "--hub", plain, DURABLY_STATE_DIR=str(folder.path)
    )
    assert (done.code, folder.worked()) == (0, ["a"]), done.err
    found = findings(run("doctor", "--hub", plain, "-o", "json"))
    assert "not change its schema: its owner runs durably hub migrate" in found["rights"]["text"]
    done = run("hub", "export", plain, "backup.hub")
    assert done.code == 0, done.err
    # It may not touch what says what the schema is.
    sql(url, f"DELETE FROM {{s}}.migrations WHERE step = {len(STEPS)}")
    done = run("hub", "migrate", "--hub", plain)
    assert (
        done.code,
        "let the role that owns schema" in done.err,
        "run durably hub migrate" in done.err,
    ) == (1, True, True)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        sql(plain, "UPDATE {s}.hub SET partitions = 2")


def test_what_later_steps_make_is_granted_too(url: str, run: Run) -> None:
    role = f"runtime_{next(_hubs)}"
    sql(url, f"CREATE ROLE {role} LOGIN")
    assert run("hub", "migrate", "--grant", role).code == 0
    sql(url, "CREATE TABLE {s}.colours (name text)")
    plain = url.replace("durably:s3cret@", f"{role}@")
    sql(plain, "INSERT INTO {s}.colours VALUES ('red')")


def test_a_hub_file_is_migrated_and_looked_at_in_the_same_way(run: Run, folder: Folder) -> None:
    done = run("hub", "status")
    assert (done.code, "does not exist" in done.err) == (4, True)
    script = run("hub", "migrate", "--print-sql").out
    with sqlite3.connect(folder.path / "printed.db", isolation_level=None) as file:
        file.executescript(script)
    file.close()
    assert run("hub", "migrate").code == 0
    assert run("hub", "migrate").err == "The schema of the hub is up to date\n"
    for hub in ("sqlite:///durably.db", "sqlite:///printed.db"):
        state = json.loads(run("hub", "status", "-o", "json", "--hub", hub).out)
        assert (state["version"], state["pending"]) == (state["known_version"], [])
        assert state["partitions"][0]["owner"] is None
    assert run("exec", "shop.py", "steps", "--input", '["a"]').code == 0
    lines = run("hub", "status").out.splitlines()
    assert "hosts        none" in lines
    assert "instances    1 Completed" in lines
    assert run("hub", "migrate", "--partitions", "2").code == 2
    assert run("hub", "migrate", "--grant", "ann").code == 2
    assert run("hub", "status", "--hub", "memory://").code == 2


def test_migrations_of_an_old_file_are_shown_before_they_are_made(run: Run, folder: Folder) -> None:
    with sqlite3.connect(folder.path / "durably.db", isolation_level=None) as file:
        file.executescript(schema.scripts(0)[0])
        file.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        file.execute("PRAGMA user_version = 1")
    file.close()
    state = status(run)
    assert (state["version"], len(state["pending"])) == (1, schema.VERSION - 1)
    assert run("hub", "migrate").err.splitlines()[0] == "Step 2 (version 2, pre of version 2)"
    assert status(run)["version"] == schema.VERSION


# --- at work ---------------------------------------------------------------------------------------------------------


def test_commands_work_on_a_hub_that_a_host_serves(url: str, run: Run, folder: Folder) -> None:
    run("hub", "migrate", "--partitions", "1")
    environment = {"DURABLY_HUB": url, "DURABLY_STATE_DIR": str(folder.path)}
    with folder.started("run", "shop.py", **environment) as process:
        assert process.stdout is not None
        shown = ""
        while "Ready" not in shown:
            line = process.stdout.readline()
            assert line, process.communicate()
            shown += line
        assert "s3cret" not in shown
        assert run("instances", "start", "wait", "--id", "w").code == 0
        assert run("instances", "raise", "w", "Go", "-d", '"on"').code == 0
        assert run("instances", "watch", "w").code == 0
        assert json.loads(run("instances", "list", "-o", "json").out)[0]["instance_id"] == "w"
        assert run("instances", "history", "w").code == 0
        state = status(run)
        assert (len(state["hosts"]), state["instances"]) == (1, {"Completed": 1})
        assert 0 < state["partitions"][0]["lease_left_s"] <= 15
        assert "s of its lease left" in run("hub", "status").out
        found = findings(run("doctor", "-o", "json"))
        assert {one["level"] for one in found.values()} == {"OK"}, found
        assert found["leases"]["text"].startswith("all 1 partitions are served, by ")


# --- doctor ----------------------------------------------------------------------------------------------------------


def test_doctor_says_what_is_wrong_with_a_server(url: str, run: Run, server: PostgresServer) -> None:
    nowhere = url.replace(f":{server.port}/", ":1/")
    done = run("doctor", "--hub", nowhere, "-o", "json")
    assert (done.code, findings(done)["server"]["level"]) == (1, "FAIL")
    done = run("doctor", "-o", "json")
    found = findings(done)
    assert (done.code, found["server"]["level"], found["schema"]["level"]) == (1, "OK", "FAIL")
    assert list(found) == ["durably", "server", "settings", "sessions", "clock", "schema"]
    run("hub", "migrate")
    careless = f"careless_{next(_hubs)}"
    sql(url, f"CREATE ROLE {careless} LOGIN SUPERUSER")
    sql(url, f"ALTER ROLE {careless} SET synchronous_commit = off")
    done = run("doctor", "-o", "json", "--hub", url.replace("durably:s3cret@", f"{careless}@"))
    assert (done.code, findings(done)["settings"]["text"]) == (
        1,
        "synchronous_commit is off: what was acknowledged is lost when the server ends",
    )


def test_doctor_says_what_waits(url: str, run: Run) -> None:
    run("hub", "migrate", "--partitions", "1")
    assert findings(run("doctor", "-o", "json"))["leases"]["level"] == "OK"
    assert run("instances", "start", "wait", "--id", "w").code == 0
    done = run("doctor", "-o", "json")
    found = findings(done)
    assert (done.code, found["leases"]["level"], found["inbox"]["level"]) == (0, "WARN", "WARN")
    sql(url, f"DELETE FROM {{s}}.migrations WHERE step = {len(STEPS)}")
    done = run("doctor", "-o", "json")
    assert (done.code, findings(done)["schema"]["advice"].split(",")[0]) == (1, "durably hub migrate")


def test_keys_and_logs_of_a_hub_without_a_file_have_a_place_of_their_own(url: str, run: Run) -> None:
    for command in ("keys", "audit"):
        done = run(command, "list" if command == "keys" else "verify")
        assert (done.code, "s3cret" in done.err) == (2, False), done


def test_a_hub_is_deleted_when_nobody_serves_it(url: str, run: Run) -> None:
    run("hub", "migrate", "--partitions", "1")

    async def serve() -> PostgresStore:
        store = PostgresStore(url)
        await store.open()
        await store.acquire(0, "somebody")
        done = await asyncio.to_thread(_delete, run)
        assert (done.code, "'somebody'" in done.err) == (5, True)
        await store.close()
        return store

    asyncio.run(serve())
    done = _delete(run)
    assert (done.code, "s3cret" in done.err) == (0, False)
    assert run("hub", "status").code == 4


def _delete(run: Run) -> Done:
    return run("func-durable", "delete-task-hub")


def test_the_load_of_a_hub_on_postgresql(url: str, run: Run) -> None:
    assert run("hub", "load").code == 4  # there is no hub
    assert run("hub", "migrate", "--partitions", "4").code == 0
    assert run("hub", "load").out.splitlines() == [
        "waiting      0 messages, 0 due timers, 0 activities",
        "running      0 activities; 0 instances have work under way",
        "next timer   none",
        "hosts        0, recommended 0; 4 of 4 partitions have no owner",
    ]

    async def start() -> None:
        async with Client(url) as client:
            await client.start("steps", [], instance_id="i")

    asyncio.run(start())
    done = run("hub", "load", "-o", "json")
    found = json.loads(done.out)
    assert (found["messages"], found["backlog"], found["hosts"], found["recommended_hosts"]) == (1, 1, 0, 1)
    assert 0 <= found["oldest_wait_s"] < 60
    assert found["next_timer"] is None


def test_the_load_of_a_hub_in_a_file(run: Run) -> None:
    assert run("exec", "shop.py", "steps", "-i", '["a"]', "--hub", "sqlite:///hub.db").code == 0
    assert "hosts        0, recommended 0" in run("hub", "load", "--hub", "sqlite:///hub.db").out
