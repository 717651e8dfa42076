"""Scenario 23: the power goes at any moment; unsynced writes are dropped, torn or reordered."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from durably.core.commit import TimerRow
from durably.core.invariants import check_instance
from durably.core.status import TERMINAL
from durably.storage.open import open_store
from durably.storage.sqlite import writer
from durably.storage.sqlite.store import SqliteStore
from tests.faults.checker import check
from tests.faults.clients import Clients, jobs, live_through, serving
from tests.faults.evidence import Evidence
from tests.faults.injectors.power import RecordingDisk, image
from tests.faults.plan import Job

_FOREVER = 2**62


class Recording:
    """A life of a host on a recorded disk, and the hub that it left."""

    def __init__(self, folder: Path, work: list[Job]) -> None:
        self.work = work
        self.evidence = Evidence.in_folder(folder)
        self.disk = RecordingDisk(self.evidence.side)
        self._notes: list[tuple[int, str, Any]] = []
        note = self.evidence.note

        def noted(what: str, value: Any) -> None:
            self._notes.append((len(self.disk.log), what, value))
            note(what, value)

        self.evidence.note = noted  # type: ignore[method-assign]
        asyncio.run(self._live())
        self.history = rows_of(self.evidence.hub)

    async def _live(self) -> None:
        store = SqliteStore(str(self.evidence.hub), vfs=self.disk.name)
        async with serving(self.evidence, store) as host:
            assert await Clients(self.evidence, self.work).drive(host)

    def at(self, moment: int, folder: Path, chance: random.Random) -> Evidence:
        """The files after a power cut, and what clients had been told by then."""
        folder.mkdir()
        image(self.disk.log, moment, chance, folder)
        evidence = Evidence.in_folder(folder)
        evidence.side.write_bytes(self.evidence.side.read_bytes()[: self.disk.witnessed[moment - 1]])
        for at, what, value in self._notes:
            if at <= moment or what in ("starting", "raising"):  # sent is soon
                evidence.note(what, value)
        evidence.note("death", 1)
        return evidence


def rows_of(hub: Path) -> dict[tuple[int, int], bytes]:
    with contextlib.closing(apsw.Connection(str(hub))) as connection:
        assert connection.pragma("integrity_check") == "ok"
        rows = connection.execute("SELECT execution, seq, data FROM history").fetchall()
        return {(execution, seq): data for execution, seq, data in rows}


async def inspect(evidence: Evidence) -> None:
    """All that was acknowledged is there, and what is there makes sense."""
    store = open_store(evidence.url)
    await store.open()
    try:
        snapshot = await store.load(await store.acquire(0, "judge"), _FOREVER)
        ids = [Job(number).instance_id for number in evidence.starting]
        found = dict(zip(ids, await store.read_instances(await store.acquire(0, "judge"), ids), strict=True))
        starts = {row.instance_id for row in snapshot.inbox}
        for instance_id, stored in found.items():
            if stored is not None:
                timers: list[TimerRow] = [one for one in snapshot.timers if one.instance_id == instance_id]
                inbox = [one for one in snapshot.inbox if one.instance_id == instance_id]
                check_instance(stored.row, stored.history, timers, inbox)
        for number in evidence.started:
            instance_id = Job(number).instance_id
            assert found[instance_id] is not None or instance_id in starts, f"C1: {instance_id} is lost"
        for number, result in evidence.results.items():
            stored = found[Job(number).instance_id]
            assert stored is not None
            assert stored.row.status in TERMINAL, f"C12: {stored.row.instance_id} is {stored.row.status}"
            assert msgspec.json.decode(stored.row.output or b"null") == result
        for token in evidence.raised:
            stored = found[token.partition("/")[0]]
            assert stored is not None
            text = token.encode()
            kept = [row.data for row in stored.history] + [row.body for row in snapshot.inbox]
            assert any(text in data for data in kept), f"C1: event {token} is lost"
    finally:
        await store.close()


def cut(recording: Recording, folder: Path, images: int, *, finish_every: int, seed: int) -> Counter[str]:
    """Cut the power again and again, at moments that chance chooses."""
    chance = random.Random(seed)
    told: Counter[str] = Counter()
    for number in range(images):
        moment = chance.randrange(1, len(recording.disk.log) + 1)
        evidence = recording.at(moment, folder / str(number), chance)
        asyncio.run(inspect(evidence))
        for place, data in rows_of(evidence.hub).items():
            # An execution that continued as new or ended in the meantime is not in the hub of later; its rows are.
            assert recording.history.get(place, data) == data, f"image {number}: row {place} is another one"
        told["acknowledged"] += len(evidence.started) + len(evidence.raised) + len(evidence.results)
        if number % finish_every == 0:
            assert asyncio.run(live_through(evidence, recording.work))
            assert check(evidence, floor=0.9).completed == len(recording.work)
            told["finished"] += 1
    return told


@pytest.fixture(scope="module", params=[4_000, 20], ids=["no checkpoint", "many checkpoints"])
def recording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "_CHECKPOINT_PAGES", request.param)
        return Recording(tmp_path_factory.mktemp("recorded"), jobs(16, first=8))


@pytest.mark.slow_once
def test_what_a_power_cut_leaves_holds_all_that_was_acknowledged(
    recording: Recording, tmp_path: Path
) -> None:
    told = cut(recording, tmp_path, 60, finish_every=10, seed=1)
    sys.stdout.write(f"60 images of {len(recording.disk.log)} operations: {dict(told)}\n")
    assert told["acknowledged"] > 200


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_a_thousand_power_cuts(recording: Recording, tmp_path: Path) -> None:
    """Two recordings: 2,000 in all."""
    told = cut(recording, tmp_path, 1_000, finish_every=20, seed=2)
    sys.stdout.write(f"1,000 images of {len(recording.disk.log)} operations: {dict(told)}\n")
    assert told["acknowledged"] > 5_000
