"""``durably doctor`` on hubs that are well, and on hubs that are not."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli import scene
from tests.integration.cli.programs import Done, Folder, Run

FILE = scene.HUB


@pytest.fixture
def hub(folder: Folder) -> Folder:
    scene.build(folder.path, scene.one_of_each)
    return folder


def findings(done: Done) -> dict[str, Any]:
    return {one["subject"]: one for one in json.loads(done.out)["findings"]}


def level(done: Done, subject: str) -> tuple[str, str]:
    found = findings(done)[subject]
    return found["level"], found["text"]


def change(folder: Folder, text: str) -> None:
    with sqlite3.connect(folder.path / FILE) as file:
        file.executescript(text)
    file.close()


def test_each_thing_is_a_line_with_what_to_do(hub: Folder, run: Run):
    done = run("doctor", "--deep")
    assert (done.code, done.err) == (0, "")
    subjects = [line.split()[1] for line in done.out.splitlines() if line[0] != " "]
    assert subjects == [
        "durably", "sqlite", "file", "disk", "schema", "log", "host", "clock", "inbox", "blocked", "parked", "failed",
        "locks", "entities", "keys",
        "integrity",
    ]  # fmt: skip
    assert "WARN  host       no host serves the hub, and work waits for one\n" in done.out
    assert "→ durably run APP --hub URL\n" in done.out
    assert "OK    integrity  every page and index is sound\n" in done.out
    answer = json.loads(run("doctor", "-o", "json").out)
    assert (answer["hub"], answer["level"]) == ("sqlite:///durably.db", "WARN")
    assert "integrity" not in findings(run("doctor", "-o", "json"))


def test_starts_that_wait_and_messages_that_are_held(hub: Folder, run: Run):
    run("instances", "start", "pay", "-i", "1")
    run("instances", "raise", "suspended-1", "Approved")
    done = run("doctor", "-o", "json")
    state, text = level(done, "inbox")
    assert state == "WARN"
    assert text.startswith("3 messages, the oldest ")
    assert (
        "2 messages held for instances that are suspended, scheduled, blocked or parked; 1 start not taken in yet"
        in text
    )
    assert findings(done)["inbox"]["advice"] == "Start a host: they wait for one"


def test_a_host_is_named_and_gets_its_hub_while_somebody_looks(folder: Folder, run: Run):
    with folder.started("run", "shop.py") as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("Ready"):
            assert process.poll() is None
        state, text = level(run("doctor", "-o", "json"), "host")
        assert (state, f"(process {process.pid} on " in text) == ("OK", True)
        process.kill()
        process.wait()
    state, text = level(run("doctor", "-o", "json"), "host")
    assert (state, text) == ("OK", "no host serves the hub, and nothing waits for one")


def test_what_was_set_aside_and_what_failed(hub: Folder, run: Run):
    change(
        hub,
        """
        UPDATE instances SET blocked = 'x' WHERE instance_id LIKE '%wait%' OR instance_id LIKE 'parent%';
        UPDATE instances SET parked = 'x' WHERE instance_id = 'retry-1';
        UPDATE instances SET updated_at = 4102444800000000 WHERE status = 'Failed';
    """,
    )
    done = run("doctor", "-o", "json")
    assert done.code == 0
    assert level(done, "blocked") == (
        "WARN", "3 instances whose code and history disagree: =wait+1, parent-1, parent-1:0:0000",
    )  # fmt: skip
    assert level(done, "parked") == ("WARN", "1 instance set aside: retry-1")
    assert level(done, "failed") == ("WARN", "1 instance failed in the last 24 hours: failed-1")


def test_a_clock_that_was_set_back(hub: Folder, run: Run):
    change(hub, "UPDATE history SET at = 4102444800000000 WHERE rowid = (SELECT max(rowid) FROM history)")
    state, text = level(run("doctor", "-o", "json"), "clock")
    assert (state, "behind the newest event of the hub" in text) == ("WARN", True)


def test_an_older_and_a_newer_schema(hub: Folder, run: Run):
    change(hub, "PRAGMA user_version = 1")
    assert level(run("doctor", "-o", "json"), "schema")[0] == "WARN"
    change(hub, "PRAGMA user_version = 99")
    done = run("doctor", "-o", "json")
    assert (done.code, level(done, "schema")[0]) == (1, "FAIL")
    assert "has schema version 99" in level(done, "schema")[1]


def test_a_log_that_nobody_copies(hub: Folder, run: Run):
    reader = sqlite3.connect(hub.path / FILE)
    writer = sqlite3.connect(hub.path / FILE)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM instances").fetchall()
    writer.execute("PRAGMA synchronous = OFF")
    writer.execute("PRAGMA wal_autocheckpoint = 0")
    writer.execute("CREATE TABLE other (x)")
    writer.execute("INSERT INTO other VALUES (randomblob(70000000))")
    writer.commit()
    state, text = level(run("doctor", "-o", "json"), "log")
    reader.close()
    writer.close()
    assert (state, text[:3]) == ("WARN", "70 ") or text.startswith("71 MB"), text


def test_the_log_of_a_host_that_died_stays_where_it_is(folder: Folder, run: Run):
    with folder.started("run", "shop.py") as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("Ready"):
            assert process.poll() is None
        run("instances", "start", "wait")
        process.kill()
        process.wait()
    log = folder.path / f"{FILE}-wal"
    before = log.read_bytes()
    assert before
    assert run("doctor").code == 0
    assert log.read_bytes() == before


def test_a_damaged_page(hub: Folder, run: Run):
    path = hub.path / FILE
    octets = bytearray(path.read_bytes())
    page = 4096
    for at in range(2 * page, len(octets), page):
        octets[at : at + 200] = b"\xff" * 200
    path.write_bytes(octets)
    done = run("doctor", "--deep", "-o", "json")
    assert (done.code, level(done, "integrity")[0]) == (1, "FAIL")
    assert "restore a backup" in findings(done)["integrity"]["advice"]


@pytest.mark.parametrize(
    ("make", "subject", "words"),
    [
        (lambda path: None, "file", "does not exist"),
        (lambda path: path.mkdir(), "file", "is no file"),
        (lambda path: path.touch(), "schema", "the file is empty"),
        (lambda path: path.write_text("hello " * 1_000), "schema", "it is no SQLite database"),
        (lambda path: sqlite3.connect(path).execute("CREATE TABLE x (y)").connection.close(), "schema", "database of another program"),
    ],
)  # fmt: skip
def test_what_is_no_hub(folder: Folder, run: Run, make: Any, subject: str, words: str):
    path: Path = folder.path / FILE
    make(path)
    before = sorted(folder.path.iterdir())
    done = run("doctor", "-o", "json")
    assert done.code == 1
    state, text = level(done, subject)
    assert (state, words in text) == ("FAIL", True), text
    assert sorted(folder.path.iterdir()) == before
    assert run("doctor").out.splitlines()[-2 if subject == "file" else -1].startswith(("FAIL", "      "))


def test_a_hub_in_memory_cannot_be_examined(run: Run):
    done = run("doctor", "--hub", "memory://")
    assert (done.code, done.out) == (2, "")
    assert "there is nothing to examine" in done.err
