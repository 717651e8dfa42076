"""The limit of a history that is brought into memory."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Any

import apsw
import pytest

from durably.errors import UsageError
from durably.storage import limits
from durably.storage.sqlite import reader
from durably.storage.sqlite.store import SqliteStore
from durably.testing.store_scene import Scene, StoreHooks, history_row, instance_row


def test_only_the_first_row_of_a_history_that_is_too_large_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(limits.HISTORY_MIB, "1")

    async def run() -> None:
        store = SqliteStore(str(tmp_path / "hub.db"))
        await store.open()
        scene = Scene(StoreHooks(), store)
        scene.lease = await store.acquire(0, "test")
        large = [history_row(1, seq, data=bytes(400_000)) for seq in range(3)]
        small = [history_row(2, seq) for seq in range(3)]
        rows = [instance_row("large", 1, in_flight=True), instance_row("small", 2, in_flight=True)]
        await scene.commit(history=[*large, *small], instances=rows)
        in_flight = (await store.load(scene.lease, 0)).in_flight
        for found in (in_flight, await store.read_instances(scene.lease, ["large", "small"])):
            first, second = (one for one in found if one is not None)
            assert (len(first.history), second.history) == (1, small)
            assert second.oversize is None
            assert "1 MiB" in (first.oversize or "")
            assert limits.HISTORY_MIB in (first.oversize or "")
        await store.close()

    asyncio.run(run())


@pytest.mark.parametrize("text", ["0", "-1", "many", ""])
def test_a_limit_that_is_none_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(limits.HISTORY_MIB, text)
    with pytest.raises(UsageError, match=limits.HISTORY_MIB):
        SqliteStore(str(tmp_path / "hub.db"))


def test_histories_are_read_in_their_order_without_being_sorted(tmp_path: Path) -> None:
    """A sort would hold all of a history in memory, whatever the limit."""
    hub = tmp_path / "hub.db"

    async def run() -> None:
        store = SqliteStore(str(hub))
        await store.open()
        await store.close()

    asyncio.run(run())
    with contextlib.closing(apsw.Connection(str(hub))) as connection:
        asked: list[tuple[str, Any]] = []
        connection.exec_trace = lambda _, text, bindings: not asked.append((text, bindings))
        reader.load(connection, 0, 1)
        for count in (1, 2, 40):
            reader._HISTORY_BY_ID.run(connection.execute, [str(n) for n in range(count)])
        connection.exec_trace = None
        joins = [(text, bindings) for text, bindings in asked if "JOIN history" in text]
        assert len(joins) > 3
        for text, bindings in joins:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {text}", bindings).fetchall()
            assert not [step for *_, step in plan if "TEMP B-TREE" in step]


def test_reads_beyond_the_limit_wait_in_their_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "READS_MAX", 3)

    async def run() -> None:
        store = SqliteStore(str(tmp_path / "hub.db"))
        await store.open()
        lane = store._reads("anybody")
        go_on = threading.Event()
        began = threading.Event()
        held = lane.submit(lambda _: (began.set(), go_on.wait(60)))
        assert await asyncio.to_thread(began.wait, 60)  # it waits in the queue no more
        reads = [asyncio.create_task(store.get_instance(f"i{n}")) for n in range(20)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert lane._jobs.qsize() <= 3
        owned = await store.read_instances(
            await store.acquire(0, "test"), ["i"]
        )  # the owner has a lane of its own
        assert owned == [None]
        go_on.set()
        assert await asyncio.gather(*reads) == [None] * 20
        await held
        await store.close()

    asyncio.run(run())
