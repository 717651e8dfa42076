"""A hub file is made of a dump as a whole or not at all, whatever the disk does; and a dump lets everybody else go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import count
from pathlib import Path

import apsw
import pytest

from durably.core.commit import Batch
from durably.core.dump import DumpChunk
from durably.errors import (
    HubLockedError,
    HubNotEmptyError,
    StoreFailedError,
    StoreUnavailableError,
)
from durably.storage.memory import MemoryStore
from durably.storage.sqlite.store import SqliteStore
from durably.testing.store_scene import history_row, instance_row, message
from tests.faults.injectors.faulty_disk import FaultyDisk

COUNT = 30


async def source() -> list[DumpChunk]:
    store = MemoryStore()
    await store.open()
    lease = await store.acquire(0, "owner")
    rows = [instance_row(f"i{n}", n, input=b"x" * 20_000) for n in range(1, COUNT + 1)]
    history = [history_row(n, 0, data=b"y" * 5_000) for n in range(1, COUNT + 1)]
    await store.commit(lease, Batch(1, instances=rows, history=history, inbox_put=[message("m", "i1")]))
    return [chunk async for chunk in store.dump()]


async def given(chunks: list[DumpChunk]) -> AsyncGenerator[DumpChunk]:
    for chunk in chunks:
        yield chunk


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("error", "raised"), [(apsw.IOError, StoreFailedError), (apsw.FullError, StoreUnavailableError)]
)
def test_a_disk_that_fails_at_any_write_leaves_no_hub(
    tmp_path: Path, error: type[apsw.Error], raised: type[Exception]
) -> None:
    async def main() -> None:
        chunks = await source()
        for number in count(1, 7):
            disk = FaultyDisk(error=error, dead=True)
            disk.arm(number)
            store = SqliteStore(str(tmp_path / "hub.db"), vfs=disk.name)
            try:
                await store.restore(given(chunks))
            except raised:
                assert names(tmp_path) == []
            finally:
                disk.unregister()
            if not disk.failed:
                break
        assert number > 50
        assert names(tmp_path) == ["hub.db", "hub.db.lock"]
        store = SqliteStore(str(tmp_path / "hub.db"))
        await store.open(create=False)
        assert await store.get_instance("i1") == instance_row("i1", 1, input=b"x" * 20_000)
        await store.close()

    asyncio.run(main())


def test_a_cancelled_import_leaves_no_hub(tmp_path: Path) -> None:
    async def main() -> None:
        chunks = await source()
        waits = asyncio.Event()

        async def slow() -> AsyncGenerator[DumpChunk]:
            for chunk in chunks[:-1]:
                yield chunk
            waits.set()
            await asyncio.Event().wait()

        task = asyncio.ensure_future(SqliteStore(str(tmp_path / "hub.db")).restore(slow()))
        await waits.wait()
        assert "hub.db.import" in names(tmp_path)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert names(tmp_path) == []

    asyncio.run(main())


def test_neither_a_host_nor_another_import_comes_in_between(tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "hub.db")
        chunks = await source()

        async def meanwhile() -> AsyncGenerator[DumpChunk]:
            yield chunks[0]
            with pytest.raises(HubLockedError, match="'import'"):
                await SqliteStore(path).restore(given(chunks))
            other = SqliteStore(path)  # a client may make a hub: then the import gives way
            await other.open()
            with pytest.raises(HubLockedError, match="'import'"):
                await other.acquire(0, "host")
            await other.post([message("posted")])
            await other.close()
            for chunk in chunks[1:]:
                yield chunk

        with pytest.raises(HubNotEmptyError):
            await SqliteStore(path).restore(meanwhile())
        assert "hub.db.import" not in names(tmp_path)
        store = SqliteStore(path)
        await store.open(create=False)
        lease = await store.acquire(0, "host")
        assert [row.message_id for row in await store.read_inbox(lease)] == ["posted"]
        await store.close()

    asyncio.run(main())


def test_what_is_left_of_a_deleted_hub_is_not_taken_for_a_newer_one(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "hub.db"
        for _ in range(3):
            store = SqliteStore(str(path))
            await store.open()
            await store.acquire(0, "owner")
            await store.close()
        path.unlink()
        await SqliteStore(str(path)).restore(given(await source()))
        store = SqliteStore(str(path))
        await store.open()
        assert (await store.acquire(0, "owner")).epoch == 2
        await store.close()

    asyncio.run(main())


def test_a_dump_holds_up_no_commit(tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "hub.db")
        await SqliteStore(path).restore(given(await source()))
        store, other = SqliteStore(path), SqliteStore(path)
        await store.open()
        await other.open()
        lease = await store.acquire(0, "owner")
        number = (await store.load(lease, 0)).batch
        async with aclosing(other.dump()) as chunks:
            async for _ in chunks:
                for _ in range(20):
                    number += 1
                    rows = [instance_row(f"n{number}", 1_000 + number, input=b"z" * 100_000)]
                    await store.commit(lease, Batch(number, instances=rows))
        await other.close()
        await store.close()

    asyncio.run(main())
