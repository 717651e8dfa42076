"""Scenario 22: an I/O error at the k-th write or sync of a whole host, for every k."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import apsw
import pytest

from durably.errors import OperationError, StoreFailedError
from durably.storage.sqlite.store import SqliteStore
from tests.faults.checker import check
from tests.faults.clients import Clients, jobs, live_through, serving
from tests.faults.evidence import Evidence
from tests.faults.injectors.faulty_disk import FaultyDisk

WORK = jobs(8, first=8)


async def life_and_next(evidence: Evidence, k: int, *, dead: bool, power: bool) -> bool:
    """A host whose disk fails at the k-th operation, and the one after it. False when there were fewer than k."""
    disk = FaultyDisk(error=apsw.IOError, dead=dead)
    disk.arm(k)
    try:
        async with serving(evidence, SqliteStore(str(evidence.hub), vfs=disk.name)) as host:
            ended = await Clients(evidence, WORK).drive(host)
            if not ended:
                assert isinstance(host.engine.failure, StoreFailedError), (
                    f"it failed with {host.engine.failure}"
                )
                with pytest.raises(OperationError):
                    await host.client.start("chain", 1)
                with pytest.raises(StoreFailedError):
                    await host.client.get_status(WORK[0].instance_id)
    except OperationError:
        assert disk.failed, "it failed with a disk that works"  # while it opened the hub
    if power and disk.failed:
        disk.cut_power(evidence.hub)
    evidence.deaths += disk.failed and evidence.deaths == 0
    assert await live_through(evidence, WORK)
    return disk.failed


def sweep(folder: Path, *, dead: bool, power: bool, step: int) -> int:
    k = 1
    while True:
        evidence = Evidence.in_folder(folder / str(k))
        evidence.hub.parent.mkdir()
        failed = asyncio.run(life_and_next(evidence, k, dead=dead, power=power))
        verdict = check(evidence, floor=0.3)
        assert verdict.completed == len(WORK)
        if not failed:
            return k
        k += step


@pytest.mark.slow_once
@pytest.mark.parametrize(("dead", "power"), [(False, False), (True, True)])
def test_an_error_at_a_write_or_sync_stops_the_host_and_the_next_one_goes_on(
    tmp_path: Path, dead: bool, power: bool
) -> None:
    assert sweep(tmp_path, dead=dead, power=power, step=17) > 50


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize(("dead", "power"), [(False, False), (True, False), (True, True)])
def test_an_error_at_every_write_and_sync(tmp_path: Path, dead: bool, power: bool) -> None:
    operations = sweep(tmp_path, dead=dead, power=power, step=1)
    sys.stdout.write(f"each of {operations - 1} writes, truncations and syncs failed once\n")
    assert operations > 50
