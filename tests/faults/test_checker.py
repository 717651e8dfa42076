"""The checker finds what it is there to find: each lie about a sound run is called by the number of its rule."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from durably.errors import DurablyError
from tests.faults.checker import check
from tests.faults.clients import jobs, live_through
from tests.faults.evidence import Evidence

WORK = jobs(8, first=8)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    evidence = Evidence.in_folder(tmp_path_factory.mktemp("sound"))
    assert asyncio.run(live_through(evidence, WORK))
    return evidence


def forged(text: str) -> Callable[[Evidence], None]:
    def lie(evidence: Evidence) -> None:
        with contextlib.closing(apsw.Connection(str(evidence.hub))) as connection:
            connection.execute(text)
            assert connection.changes() > 0

    return lie


def appended(line: str) -> Callable[[Evidence], None]:
    def lie(evidence: Evidence) -> None:
        with evidence.side.open("a") as file:
            file.write(line.format(first=evidence.side.read_text().splitlines()[0].split(" ")[2]))

    return lie


LIES: dict[str, tuple[Callable[[Evidence], object], str]] = {
    "a start that is lost": (lambda evidence: evidence.started.add(99), "C1"),
    "an event that is lost": (
        lambda evidence: (evidence.raising.append("tally-14/0.9"), evidence.raised.add("tally-14/0.9")),
        "C1",
    ),
    "another result": (lambda evidence: evidence.results.update({8: 17}), "C1"),
    "a stranger": (lambda evidence: evidence.starting.clear(), "C1"),
    "a history row that is gone": (forged("DELETE FROM history WHERE seq = 1"), "row|decision|C3"),
    "a history row that is not its own": (
        forged("UPDATE history SET data = x'90' WHERE seq = 0"),
        "checksum",
    ),
    "an epoch from the future": (forged("UPDATE partition SET batch_epoch = 99"), "C2"),
    "rows without an owner": (forged("INSERT INTO timers VALUES (999, 0, 0, 0, 'x')"), "C11"),
    "a message to nobody": (
        forged("INSERT INTO inbox (message_id, instance_id, at, body) VALUES ('m', 'x', 0, x'00')"),
        "C11",
    ),
    "an instance that is not over": (forged("UPDATE instances SET status = 'Running'"), "C10"),
    "a child that is gone": (
        forged("UPDATE instances SET parent_instance_id = 'chain-8' WHERE parent_instance_id IS NOT NULL"),
        "C13",
    ),
    "an activity that ran twice": (appended("0 start {first} 1 2\n"), "C5"),
    "an activity that nobody scheduled": (appended("0 start {first}7 1 1\n"), "C5"),
    "an end that was taken back": (lambda evidence: evidence.note("seen", ["chain-8", "Running"]), "C12"),
    "calls without an answer": (lambda evidence: evidence.calls.update({"in doubt": 1_000}), "C15"),
}


def test_a_sound_run_passes(sound: Evidence) -> None:
    assert check(sound, floor=1.0).completed == len(WORK)


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_found(sound: Evidence, tmp_path: Path, name: str) -> None:
    lie, rule = LIES[name]
    evidence = copy.deepcopy(sound)
    evidence.hub, evidence.side = tmp_path / "hub.db", tmp_path / "side.txt"
    shutil.copy(sound.hub, evidence.hub)
    shutil.copy(sound.side, evidence.side)
    lie(evidence)
    with pytest.raises((AssertionError, DurablyError), match=rule):
        check(evidence, floor=0.5)
