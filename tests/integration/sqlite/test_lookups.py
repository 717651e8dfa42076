"""Instances that are asked for at the same time are read together, and each of those who ask has an answer of their own."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from durably.core.commit import Batch, InstanceRow
from durably.errors import HubClosedError
from durably.storage.sqlite.reader import Reader
from durably.storage.sqlite.store import SqliteStore
from durably.testing.store_scene import instance_row

Test = Callable[[SqliteStore, list[list[str]]], Awaitable[None]]
COUNT = 150


def with_hub(folder: Path, monkeypatch: pytest.MonkeyPatch, test: Test) -> None:
    """Run a test on a hub of instances, and with the ids of each read."""
    reads: list[list[str]] = []
    read = Reader.get_instances

    def noted(reader: Reader, ids: Sequence[str]) -> list[InstanceRow | None]:
        reads.append(list(ids))
        return read(reader, ids)

    monkeypatch.setattr(Reader, "get_instances", noted)

    async def whole() -> None:
        store = SqliteStore(str(folder / "hub.db"))
        await store.open(create=True)
        try:
            lease = await store.acquire(0, "test")
            rows = [instance_row(f"i{number}", number + 1, input=b"%d" % number) for number in range(COUNT)]
            await store.commit(lease, Batch(1, instances=rows))
            await test(store, reads)
        finally:
            await store.close()

    asyncio.run(whole())


def test_who_asks_at_the_same_time_is_answered_by_few_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(store: SqliteStore, reads: list[list[str]]) -> None:
        ids = [*(f"i{number}" for number in range(COUNT)), "nobody", "i7", "\ud800"]
        rows = await asyncio.gather(*map(store.get_instance, ids))
        assert [row and row.input for row in rows] == [*(b"%d" % n for n in range(COUNT)), None, b"7", None]
        assert [one for read in reads for one in read] == ids
        assert len(reads) == 3  # of 64 rows at most
        alone = await asyncio.gather(*(store.get_instance(one, payloads=False) for one in ids))
        assert [row and (row.instance_id, row.input) for row in alone] == [
            row and (row.instance_id, None) for row in rows
        ]
        assert len(reads) == 3

    with_hub(tmp_path, monkeypatch, test)


def test_who_leaves_takes_nobody_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(store: SqliteStore, reads: list[list[str]]) -> None:
        early, late, stays = (asyncio.create_task(store.get_instance(f"i{number}")) for number in range(3))
        await asyncio.sleep(0)  # they have asked
        early.cancel()
        await asyncio.sleep(0)  # one read is under way for those who are left
        late.cancel()
        row = await stays
        assert row is not None
        assert row.input == b"2"
        assert early.cancelled()
        assert late.cancelled()

    with_hub(tmp_path, monkeypatch, test)


def test_who_asks_a_store_that_is_closed_meanwhile_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(store: SqliteStore, reads: list[list[str]]) -> None:
        asked = [asyncio.create_task(store.get_instance(f"i{number}")) for number in range(3)]
        await asyncio.sleep(0)  # they have asked, and nothing is read yet
        await store.close()
        for one in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(one, HubClosedError)
        with pytest.raises(HubClosedError):
            await store.get_instance("i0")

    with_hub(tmp_path, monkeypatch, test)
