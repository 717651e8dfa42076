"""Scenario 21: the disk is full, and gets room again while the host goes on."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from durably import RuntimeStatus
from durably.errors import StoreUnavailableError
from tests.faults.checker import check
from tests.faults.children import child, line_of
from tests.faults.clients import Clients, jobs, live_through, serving
from tests.faults.evidence import Evidence
from tests.faults.injectors.full_disk import SmallDisk, small_disk
from tests.support.waiting import eventually

RESUME_S = 5.0
"""The bound of scenario 21, from the moment when there is room again.

Machines under test are busy: three times that fails.
"""

EARLIER, DURING, LATER = jobs(8, first=8), jobs(8, first=16), jobs(8, first=24)


async def full_and_free(evidence: Evidence, disk: SmallDisk) -> float:
    """Serve through a full disk; returns how long it took to go on once there was room."""
    async with serving(evidence, commit_retry_s=0.05) as host:
        assert await Clients(evidence, EARLIER).drive(host)
        assert host.engine.trouble is None
        disk.fill()
        # In doubt: sent before the host knew. They are not refused, they wait.
        waiting = asyncio.ensure_future(Clients(evidence, DURING).drive(host))
        trouble = await eventually(lambda: host.engine.trouble, "the host to notice")
        assert "nothing was changed" in str(trouble)
        for _ in range(3):
            with pytest.raises(StoreUnavailableError, match="nothing was changed"):
                await host.client.start("chain", 1, instance_id="refused")
        assert not waiting.done()
        for job in EARLIER:  # reads go on
            status = await host.client.get_status(job.instance_id)
            assert status is not None
            assert status.runtime_status is RuntimeStatus.Completed
        assert await host.client.get_status("refused") is None
        assert host.engine.failure is None
        disk.free()
        began = time.monotonic()
        assert await waiting
        took = time.monotonic() - began
        assert host.engine.trouble is None
        assert await Clients(evidence, LATER).drive(host)
        return took


@pytest.mark.slow_once
def test_a_full_disk_refuses_loses_nothing_and_needs_no_restart(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        evidence = Evidence(disk.folder / "hub.db", tmp_path / "side.txt")
        took = asyncio.run(full_and_free(evidence, disk))
        verdict = check(evidence, floor=0.9)
        sys.stdout.write(f"{took:.2f} s after there was room; {verdict}\n")
        assert verdict.completed == len(EARLIER + DURING + LATER)
        assert took <= 3 * RESUME_S


@pytest.mark.slow_once
def test_a_limit_on_the_size_of_files_is_a_full_disk(tmp_path: Path) -> None:
    with child("outgrow", tmp_path) as process:
        assert "nothing was changed" in line_of(process)
        assert line_of(process) == "all 16 ended"
        assert process.wait(60) == 0


@pytest.mark.slow_once
def test_a_host_that_starts_on_a_full_disk_says_so_and_starts_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        evidence = Evidence(disk.folder / "hub.db", tmp_path / "side.txt")
        assert asyncio.run(live_through(evidence, EARLIER))
        disk.fill()
        with pytest.raises(StoreUnavailableError, match=r"hub\.db.*(FullError|IOERR)"):
            asyncio.run(live_through(evidence, DURING))
        assert not evidence.started & {job.number for job in DURING}
        disk.free()
        assert asyncio.run(live_through(evidence, DURING))
        check(evidence, floor=0.9)
