"""Whatever fails while a batch is written: what was acknowledged is there, and no batch is there in part."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import apsw
import pytest

from durably.core.commit import Batch, InstanceRow
from durably.errors import OperationError, StoreFailedError, StoreUnavailableError
from durably.storage.api import Lease
from durably.storage.sqlite.store import SqliteStore
from durably.testing.store_scene import FOREVER, history_row, instance_row
from tests.faults.injectors.faulty_disk import FaultyDisk

_BATCHES = 3


def _batch(number: int) -> Batch:
    """Of two executions, so that a batch that is there in part would show."""
    rows = [history_row(execution, number - 1, data=b"x" * 500) for execution in (1, 2)]
    instances: list[InstanceRow] = []
    if number == 1:
        instances = [instance_row(f"{execution}", execution, in_flight=True) for execution in (1, 2)]
    return Batch(number, history=rows, instances=instances)


async def _write(store: SqliteStore, lease: Lease) -> tuple[int, OperationError | None]:
    """Commit until something fails; returns how many batches were acknowledged."""
    for number in range(1, _BATCHES + 1):
        try:
            await store.commit(lease, _batch(number))
        except OperationError as error:
            return number - 1, error
    return _BATCHES, None


async def _check(path: Path, acknowledged: int) -> None:
    """A new host finds all that was acknowledged, at most the batch in doubt beyond it, and goes on."""
    store = SqliteStore(str(path))
    await store.open()
    lease = await store.acquire(0, "next")
    snapshot = await store.load(lease, FOREVER)
    assert acknowledged <= snapshot.batch <= acknowledged + 1
    for stored in snapshot.in_flight:
        assert [row.seq for row in stored.history] == list(range(snapshot.batch))
    assert len(snapshot.in_flight) == (2 if snapshot.batch else 0)
    for number in range(snapshot.batch + 1, _BATCHES + 2):
        await store.commit(lease, _batch(number))
    await store.close()
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        assert connection.pragma("integrity_check") == "ok"


@pytest.mark.parametrize(("dead", "power"), [(False, False), (True, False), (True, True)])
def test_an_error_at_any_write_or_sync_loses_nothing_that_was_acknowledged(
    tmp_path: Path, dead: bool, power: bool
) -> None:
    async def attempt(fail_at: int) -> bool:
        path = tmp_path / f"{fail_at}.db"
        disk = FaultyDisk(error=apsw.IOError, dead=dead)
        store = SqliteStore(str(path), vfs=disk.name)
        await store.open()
        lease = await store.acquire(0, "first")
        disk.arm(fail_at)
        acknowledged, error = await _write(store, lease)
        if error is not None:
            assert isinstance(error, StoreFailedError)
            with pytest.raises(StoreFailedError):  # nothing is tried twice: a second fsync proves nothing
                await store.commit(lease, _batch(acknowledged + 1))
            with pytest.raises(StoreFailedError):
                await store.get_instance("1")
        await store.close()
        if power and disk.failed:
            disk.cut_power(path)
        await _check(path, acknowledged)
        return disk.failed

    async def sweep() -> int:
        fail_at = 1
        while await attempt(fail_at):
            fail_at += 1
        return fail_at

    assert asyncio.run(sweep()) > 3 * _BATCHES


def test_a_failure_while_opening_or_acquiring_leaves_a_hub_that_can_be_opened(tmp_path: Path) -> None:
    async def attempt(fail_at: int) -> bool:
        path = tmp_path / f"{fail_at}.db"
        disk = FaultyDisk(error=apsw.IOError, dead=False)
        disk.arm(fail_at)
        store = SqliteStore(str(path), vfs=disk.name)
        with contextlib.suppress(OperationError):
            await store.open()
            lease = await store.acquire(0, "first")
            await store.commit(lease, _batch(1))
        await store.close()
        again = SqliteStore(str(path))
        await again.open()
        await again.acquire(0, "next")
        await again.close()
        return disk.failed

    async def sweep() -> int:
        fail_at = 1
        while await attempt(fail_at):
            fail_at += 3
        return fail_at

    assert asyncio.run(sweep()) > 10


def test_a_full_disk_is_survived_without_opening_anew(tmp_path: Path) -> None:
    async def attempt(fail_at: int) -> bool:
        path = tmp_path / f"{fail_at}.db"
        disk = FaultyDisk(error=apsw.FullError, dead=True)
        store = SqliteStore(str(path), vfs=disk.name)
        await store.open()
        lease = await store.acquire(0, "first")
        disk.arm(fail_at)
        acknowledged, error = await _write(store, lease)
        if error is not None:
            assert isinstance(error, StoreUnavailableError)
            with pytest.raises(StoreUnavailableError):
                await store.commit(lease, _batch(acknowledged + 1))
            disk.arm(0)  # room again
            for number in range(acknowledged + 1, _BATCHES + 1):
                await store.commit(lease, _batch(number))
        snapshot = await store.load(lease, FOREVER)
        assert snapshot.batch == _BATCHES
        await store.close()
        await _check(path, _BATCHES)
        return disk.failed

    async def sweep() -> int:
        fail_at = 1
        while await attempt(fail_at):
            fail_at += 2
        return fail_at

    assert asyncio.run(sweep()) > 2 * _BATCHES
