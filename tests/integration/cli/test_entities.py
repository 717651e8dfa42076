"""``durably entities`` as operators use it: on a hub that nobody serves, on a served one, and with a lock left behind."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from durably.core.entities import EntityId, EntityState, Holder
from tests.integration.cli import scene
from tests.integration.cli.programs import Folder, Run, interrupted
from tests.integration.cli.test_instances_golden import check
from tests.integration.cli.test_run import until_ready

ACCOUNTS = """
from tests.integration.cli.scene import app
"""


@pytest.fixture
def hub(folder: Folder) -> Folder:
    scene.build(folder.path, scene.with_entities)
    return folder


def ids(run: Run, *arguments: str) -> list[str]:
    done = run("entities", "list", "-o", "ids", *arguments)
    assert (done.code, done.err) == (0, "")
    return done.out.split()


def test_what_is_printed_stays_as_it_is(hub: Folder, run: Run):
    for output in ("table", "json", "jsonl", "csv", "ids"):
        check(f"entities_list.{output}", run("entities", "list", "--transient", "-o", output).out)
    for output in ("table", "json", "jsonl"):
        names = ("@account@ann", "@account@bob", "@account@later")
        check(f"entities_show.{output}", run("entities", "show", *names, "-o", output).out)
    shown = json.loads(run("entities", "show", "@ACCOUNT@bob", "-o", "json").out)
    assert (shown["locked_by"], shown["lock_waiters"], shown["waiting"]) == (
        "audit-1",
        ["audit-2", "audit-3"],
        3,
    )


def test_filters_narrow_the_list(hub: Folder, run: Run):
    assert ids(run) == ["@account@=cmd", "@account@ann", "@account@bob"]
    assert ids(run, "--transient") == ["@account@=cmd", "@account@ann", "@account@bob", "@account@later"]
    assert ids(run, "--name", "account", "--key-prefix", "b") == ["@account@bob"]
    assert ids(run, "--name", "nobody") == []
    assert ids(run, "--locked") == ["@account@bob"]
    assert ids(run, "--limit", "2") == ["@account@=cmd", "@account@ann"]
    assert len(ids(run, "--modified-to", "2020-01-01")) == 0
    assert len(ids(run, "--modified-from", "2020-01-01")) == 3
    assert run("entities", "list", "--key-prefix", "b").code == 2
    assert run("entities", "list", "--limit", "2", "--all").code == 2


def test_what_is_not_there_is_said(hub: Folder, run: Run):
    done = run("entities", "show", "@account@zoe", "@account@ann", "-o", "jsonl")
    assert (done.code, json.loads(done.out)["entity_id"]) == (4, "@account@ann")
    assert "Entity '@account@zoe' does not exist" in done.err
    done = run("entities", "show", "account@ann")
    assert done.code == 2
    assert "expected EntityId(name, key), or text such as '@counter@key'" in done.err


def test_what_is_asked_for_waits_for_a_host(hub: Folder, run: Run):
    done = run("entities", "signal", "@account@ann", "deposit", "-i", "3")
    assert (done.code, done.out) == (0, "")
    assert "No host serves the hub: the next one performs it" in done.err
    done = run("entities", "call", "@account@ann", "deposit", "-i", "3", "--timeout", "0.05")
    assert (done.code, done.out) == (6, "")
    assert json.loads(run("entities", "show", "@account@ann", "-o", "json").out)["waiting"] == 2
    assert run("entities", "signal", "@account@ann", "deposit", "-i", "{").code == 2
    assert run("entities", "signal", "@account@ann", "").code == 2


def test_a_host_performs_what_is_asked_for(hub: Folder, run: Run):
    hub.write("accounts.py", ACCOUNTS)
    with hub.started("run", "accounts.py", PYTHONPATH=str(Path(__file__).parents[3])) as process:
        until_ready(process)
        done = run("entities", "call", "@account@ann", "deposit", "-i", "4")
        assert (done.code, done.out, done.err) == (0, "9\n", "")
        done = run("entities", "call", "@account@ann", "withdraw", "-i", "99", "-o", "json")
        answer = json.loads(done.out)
        assert done.code == 7
        assert (answer["entity_id"], answer["operation"], answer["result"]) == (
            "@account@ann",
            "withdraw",
            None,
        )
        assert (answer["failure"]["type"], answer["failure"]["message"]) == ("ValueError", "9 are not enough")
        assert "Operation 'withdraw' of entity '@account@ann' failed" in done.err
        assert run("entities", "signal", "@account@ann", "deposit", "-i", "1").err == ""
        assert run("entities", "call", "@account@ann", "deposit", "-i", "0").out == "10\n"
        assert run("entities", "call", "@nobody@x", "deposit").code == 2
        interrupted(process)


# --- locks that nobody gives back ------------------------------------------------------------------------------------


def leave_a_lock(folder: Folder) -> None:
    """As of an orchestration whose history was lost: the row of the entity says that it has it locked."""
    with sqlite3.connect(folder.path / scene.HUB) as file:
        state = EntityState(
            "@account@left", 9_999, holder=Holder("gone:x:0", "gone", 1), created_at=1, updated_at=1
        )
        file.execute(f"INSERT INTO entities VALUES ({', '.join('?' * 10)})", tuple(state.row()))
    file.close()


def finding(run: Run, subject: str, *arguments: str) -> tuple[str, str]:
    found = json.loads(run("doctor", "-o", "json", *arguments).out)["findings"]
    return next((one["level"], one["text"]) for one in found if one["subject"] == subject)


def test_a_lock_that_was_left_behind_is_found_and_released(hub: Folder, run: Run):
    assert finding(run, "locks") == ("OK", "1 held")
    assert finding(run, "entities", "--deep") == ("OK", "4")
    leave_a_lock(hub)
    level, text = finding(run, "locks")
    assert level == "WARN"
    assert text == (
        "1 of 2 held by orchestrations that will not give them back: @account@left (by 'gone', which is gone)"
    )
    done = run("entities", "clean", "-o", "json")
    assert (done.code, json.loads(done.out)) == (0, {"released": 1, "removed": 1})
    assert "No host serves the hub: the next one releases them" in done.err
    assert finding(run, "locks") == ("OK", "2 held")  # its release waits for a host
    hub.write("accounts.py", ACCOUNTS)
    with hub.started("run", "accounts.py", PYTHONPATH=str(Path(__file__).parents[3])) as process:
        until_ready(process)
        assert run("entities", "call", str(EntityId("account", "left")), "deposit", "-i", "1").out == "1\n"
        assert run("entities", "clean").out == "0 locks released; of these entities, 0 did not exist\n"
        interrupted(process)
    assert finding(run, "locks") == ("OK", "1 held")


def test_messages_for_a_locked_entity_are_held_and_no_starts(hub: Folder, run: Run):
    level, text = finding(run, "inbox")
    assert level == "OK", text
    assert text.endswith("; 3 messages held for entities that are locked")


@pytest.mark.parametrize(
    ("change", "deep", "words"),
    [
        ("UPDATE entities SET state = x'31' WHERE instance_id = '@account@ann'", True, "@account@ann is not what was written"),
        ("UPDATE entities SET locked_by = 'x' WHERE instance_id = '@account@bob'", False, "is locked by 'audit-1' and stands"),
        ("UPDATE entities SET name = 'x' WHERE instance_id = '@account@ann'", True, "stands under the name 'x'"),
        ("DELETE FROM timers WHERE instance_id = '@account@later'", True, "@account@later has 0 timers, expected 1"),
        ("DELETE FROM entities WHERE instance_id = '@account@later'", True, "@account@later has a timer and no row"),
    ],
)  # fmt: skip
def test_rows_that_contradict_themselves_are_found(
    hub: Folder, run: Run, change: str, deep: bool, words: str
):
    with sqlite3.connect(hub.path / scene.HUB) as file:
        file.execute(change)
    file.close()
    level, text = finding(run, "entities", *(["--deep"] if deep else []))
    assert (level, words in text) == ("FAIL", True), text
    if "state" in change:
        assert "(damaged)" in run("entities", "list").out


def test_messages_that_were_set_aside_are_counted(hub: Folder, run: Run):
    assert finding(run, "parked") == ("OK", "none")
    with sqlite3.connect(hub.path / scene.HUB) as file:
        file.execute(
            "INSERT INTO parked_messages (message_id, instance_id, at, body, cause, parked_at) VALUES ('m', '@a@b', 1, x'00', 'c', 1)"
        )
    file.close()
    assert finding(run, "parked") == ("WARN", "1 message set aside")
