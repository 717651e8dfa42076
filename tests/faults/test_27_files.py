"""Scenario 27: files of the hub are deleted, moved or replaced, while it is closed and while it is open."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from durably.errors import DurablyError, HubNotFoundError, StoreFailedError, StoreUnavailableError
from durably.storage.sqlite import files
from tests.faults.checker import check
from tests.faults.clients import Clients, jobs, live_through, serving
from tests.faults.evidence import Evidence
from tests.faults.lives import Lives, lives

EARLIER, WORK = jobs(8, first=8), jobs(8, first=16)

NOTICE_S = 1.0
"""How soon a host notices that its files are not its files any more."""


@pytest.fixture(scope="module")
def process() -> Iterator[Lives]:
    with lives() as found:
        yield found


def died(process: Lives, folder: Path) -> Evidence:
    """A hub whose host was killed: its log holds what the file does not."""
    assert not process.live(folder, WORK, "after commit", 8)
    assert (folder / "hub.db-wal").stat().st_size > 0
    return Evidence.of_journal(folder)


def refusal(evidence: Evidence, kind: type[DurablyError]) -> str:
    with pytest.raises(kind) as caught:
        asyncio.run(live_through(evidence, WORK))
    return str(caught.value)


def goes_on(evidence: Evidence) -> None:
    assert asyncio.run(live_through(evidence, WORK))
    assert check(evidence, floor=0.5).completed >= len(WORK)


# --- while it is closed ----------------------------------------------------------------------------------------------


@pytest.mark.slow_once
def test_a_log_that_was_deleted_is_missed(process: Lives, tmp_path: Path) -> None:
    evidence = died(process, tmp_path)
    log, aside = tmp_path / "hub.db-wal", tmp_path / "aside"
    log.rename(aside)
    said = refusal(evidence, StoreFailedError)
    for words in ("hub.db-wal", "was deleted", "expected 1", "hub.db.lock"):
        assert words in said
    log.unlink(missing_ok=True)
    aside.rename(log)
    (tmp_path / "hub.db-shm").unlink(missing_ok=True)
    goes_on(evidence)


@pytest.mark.slow_once
def test_a_hub_file_that_was_deleted_is_not_made_anew_beside_its_log(process: Lives, tmp_path: Path) -> None:
    evidence = died(process, tmp_path)
    aside = evidence.hub.rename(tmp_path / "aside")
    said = refusal(evidence, HubNotFoundError)
    assert "its log" in said
    assert "Put it back" in said
    assert not evidence.hub.exists()
    evidence.hub.touch()
    assert "its log" in refusal(evidence, HubNotFoundError)
    aside.rename(evidence.hub)
    goes_on(evidence)


def test_an_older_copy_in_the_place_of_the_hub_is_recognized(tmp_path: Path) -> None:
    evidence = Evidence.in_folder(tmp_path)
    assert asyncio.run(live_through(evidence, EARLIER))
    shutil.copy(evidence.hub, tmp_path / "old")
    assert asyncio.run(live_through(evidence, WORK))
    evidence.hub.rename(tmp_path / "new")
    (tmp_path / "old").rename(evidence.hub)
    assert "the file was replaced" in refusal(evidence, StoreFailedError)
    (tmp_path / "new").rename(evidence.hub)
    goes_on(evidence)


def test_a_backup_that_is_restored_on_purpose_is_served(tmp_path: Path) -> None:
    evidence = Evidence.in_folder(tmp_path)
    assert asyncio.run(live_through(evidence, EARLIER))
    shutil.copy(evidence.hub, tmp_path / "backup")
    later = Evidence.in_folder(tmp_path)
    assert asyncio.run(live_through(later, WORK))
    (tmp_path / "backup").rename(evidence.hub)
    (tmp_path / "hub.db.lock").unlink()
    evidence.side.unlink()
    evidence.starting.clear()
    assert asyncio.run(live_through(Evidence(evidence.hub, tmp_path / "side2.txt"), WORK))


def test_a_hub_that_is_deleted_after_an_orderly_stop_is_begun_anew(tmp_path: Path) -> None:
    assert asyncio.run(live_through(Evidence.in_folder(tmp_path), EARLIER))
    (tmp_path / "hub.db").unlink()
    (tmp_path / "side.txt").unlink()
    goes_on(Evidence.in_folder(tmp_path))


# --- while it is open ------------------------------------------------------------------------------------------------


def deleted(path: Path) -> Callable[[], None]:
    path.unlink()
    return lambda: None


def moved(path: Path) -> Callable[[], None]:
    aside = path.rename(path.with_name("aside"))
    return lambda: shutil.move(aside, path)


def replaced(path: Path) -> Callable[[], None]:
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    back = moved(path)
    copy.rename(path)
    return back


async def disturbed(
    evidence: Evidence, damage: Callable[[], Callable[[], None]]
) -> tuple[Callable[[], None], float]:
    """Serve; let the damage be done; returns how to undo it, and how long it took to be noticed."""
    async with serving(evidence) as host:
        assert await Clients(evidence, EARLIER).drive(host)
        await asyncio.sleep(0.1)  # it has looked at its files
        began = time.monotonic()
        back = damage()
        async with asyncio.timeout(60):
            await host.engine.failed()
        took = time.monotonic() - began
        assert isinstance(host.engine.failure, StoreFailedError)
        assert "deleted, moved or replaced" in str(host.engine.failure)
        with pytest.raises(StoreFailedError):
            await host.client.start("chain", 1)
        return back, took


@pytest.mark.slow_once
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("damage", [deleted, moved, replaced])
def test_a_host_whose_files_are_taken_away_stops_and_says_so(
    tmp_path: Path, damage: Callable[[Path], Callable[[], None]], suffix: str
) -> None:
    evidence = Evidence.in_folder(tmp_path)
    path = tmp_path / f"hub.db{suffix}"
    back, took = asyncio.run(disturbed(evidence, lambda: damage(path)))
    sys.stdout.write(f"noticed after {took:.2f} s\n")
    assert took <= 3 * NOTICE_S
    if suffix == "" and damage is deleted:
        return  # there is nothing left to go on with
    back()
    goes_on(evidence)


# --- where it lies ---------------------------------------------------------------------------------------------------

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /mnt/share rw,relatime shared:2 - nfs4 server:/export rw,vers=4.2
31 30 0:41 / /mnt/share/my\\040disk rw - xfs /dev/sdb rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/hub.db", "ext4"),
        ("/mnt/share/deep/er/hub.db", "nfs4"),
        ("/mnt/share/my disk/hub.db", "xfs"),
        ("/mnt/sharesome/hub.db", "ext4"),
    ],
)
def test_the_file_system_under_a_path_is_that_of_its_nearest_mount(path: str, kind: str) -> None:
    assert files.file_system_of(Path(path), MOUNTS) == kind


def test_a_network_file_system_is_refused_unless_it_is_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "file_system_of", lambda path, mounts: "nfs4")
    evidence = Evidence.in_folder(tmp_path)
    said = refusal(evidence, StoreUnavailableError)
    assert "network file system (nfs4)" in said
    assert not evidence.hub.exists()
    monkeypatch.setenv(files.ALLOW_NETWORK, "1")
    goes_on(evidence)
