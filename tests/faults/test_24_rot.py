"""Scenario 24: bytes of the closed file change."""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

from durably import AppHost, InstanceStatus
from durably.errors import HistoryCorruptError, HubNotFoundError, StoreFailedError
from tests.faults.checker import check
from tests.faults.clients import Clients, jobs, serving
from tests.faults.evidence import Evidence
from tests.faults.injectors.rot import flip, history_places
from tests.faults.plan import EVENTS, Job

WAITING = [job for job in jobs(24, first=8) if job.program in (*EVENTS, "tally")]
"""They wait for events: nothing of them is in memory when the file is opened again."""

DONE = [job for job in jobs(8, first=8) if job not in WAITING]


async def half_done(evidence: Evidence) -> None:
    """Some jobs have ended, others wait; the host has stopped in order, and its log is empty."""
    async with serving(evidence) as host:
        assert await Clients(evidence, DONE).drive(host)
        for job in WAITING:
            evidence.note("starting", job.number)
            await host.client.start(job.program, job.input, instance_id=job.instance_id)
            evidence.note("started", job.number)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    evidence = Evidence.in_folder(tmp_path_factory.mktemp("origin"))
    asyncio.run(half_done(evidence))
    return evidence


def copy_of(origin: Evidence, folder: Path) -> Evidence:
    folder.mkdir(exist_ok=True)
    evidence = Evidence.in_folder(folder)
    shutil.copy(origin.hub, evidence.hub)
    shutil.copy(origin.side, evidence.side)
    evidence.starting, evidence.started = set(origin.starting), set(origin.started)
    evidence.results, evidence.calls = dict(origin.results), Counter(origin.calls)
    return evidence


async def meet(evidence: Evidence, victim: Job) -> InstanceStatus:
    """Serve everything else to its end; returns what a client sees of the victim."""
    async with serving(evidence) as host:
        await host.client.raise_event(victim.instance_id, "Item", 0)  # accepted: it is kept
        others = [job for job in WAITING if job is not victim]
        assert await Clients(evidence, others).drive(host)
        status = await host.client.get_status(victim.instance_id)
        assert status is not None
        with pytest.raises(HistoryCorruptError, match=victim.instance_id):
            await host.client.get_history(victim.instance_id)
        assert host.engine.failure is None
        return status


@pytest.mark.parametrize("victim", WAITING[:3], ids=lambda job: job.instance_id)
def test_a_byte_of_a_history_row_sets_its_instance_aside_and_no_other(
    origin: Evidence, tmp_path: Path, victim: Job
) -> None:
    evidence = copy_of(origin, tmp_path)
    places = history_places(evidence.hub, victim.instance_id, 0)
    flip(evidence.hub, places[len(places) // 2])
    status = asyncio.run(meet(evidence, victim))
    assert status.blocked is not None
    for words in (victim.instance_id, "row 0", "checksum", "restore a backup"):
        assert words in status.blocked
    evidence.lost.add(victim.instance_id)
    check(evidence, floor=0.9)


async def serve(evidence: Evidence) -> str:
    """What became of a hub of which any byte may be wrong."""
    kind = "served"
    async with asyncio.timeout(60):
        async with serving(evidence) as host:
            clients = asyncio.ensure_future(Clients(evidence, WAITING).drive(host))
            while not clients.done():
                await asyncio.wait({clients}, timeout=0.05)
                parked = [job for job in WAITING if await is_parked(host, job)]
                if parked:
                    kind = "parked"
                    if all(job.number in evidence.results for job in WAITING if job not in parked):
                        clients.cancel()
            if host.engine.failure is not None:
                assert isinstance(host.engine.failure, StoreFailedError)
                raise host.engine.failure
    return kind


async def is_parked(host: AppHost, job: Job) -> bool:
    status = await host.client.get_status(job.instance_id)
    return status is not None and status.blocked is not None


def weather(origin: Evidence, folder: Path, flips: int, seed: int) -> Counter[str]:
    """Flip one byte anywhere, again and again; what is told to clients is right or nothing."""
    chance = random.Random(seed)
    size = origin.hub.stat().st_size
    outcomes: Counter[str] = Counter()
    for number in range(flips):
        evidence = copy_of(origin, folder / str(number))
        offset = chance.randrange(size)
        flip(evidence.hub, offset, 1 << chance.randrange(8))
        try:
            outcome = asyncio.run(serve(evidence))
        except (StoreFailedError, HubNotFoundError) as error:
            outcome = "refused" if str(evidence.hub) in str(error) else f"refused without a name: {error}"
        outcomes[outcome] += 1
        for job in WAITING:
            if job.program != "tally" and job.number in evidence.results:
                assert evidence.results[job.number] == job.result, f"byte {offset} gave another result"
    assert set(outcomes) <= {"served", "parked", "refused"}
    return outcomes


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_two_thousand_bytes_give_no_wrong_result(origin: Evidence, tmp_path: Path) -> None:
    outcomes = weather(origin, tmp_path, 2_000, seed=2)
    sys.stdout.write(f"{dict(outcomes)}\n")
    assert outcomes["served"] > 500


@pytest.mark.slow_once
def test_a_byte_anywhere_gives_no_wrong_result(origin: Evidence, tmp_path: Path) -> None:
    outcomes = weather(origin, tmp_path, 25, seed=1)
    sys.stdout.write(f"{dict(outcomes)}\n")
    assert outcomes["served"] > 5
