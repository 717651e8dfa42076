"""Several processes on one file: locks, crashes, arrivals, limits."""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
from pathlib import Path

import apsw
import pytest

from durably.core.commit import Batch
from durably.errors import HubClosedError, HubLockedError, StoreUnavailableError
from durably.storage.sqlite import connection, wakeup
from durably.storage.sqlite.reader import Reader
from durably.storage.sqlite.store import SqliteStore
from durably.storage.sqlite.writer import Writer
from durably.testing.store_scene import FOREVER, instance_row, message
from tests.integration.sqlite.children import child, line_of, tell

KILLS = 20


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "hub.db")


def test_a_second_host_is_refused_and_told_who_the_first_one_is(path: str) -> None:
    async def refused(pid: int) -> None:
        store = SqliteStore(path)
        await store.open()
        with pytest.raises(HubLockedError, match=rf"'the child' \(process {pid} on .+, since \d{{4}}-"):
            await store.acquire(0, "second")
        await store.close()

    with child("host", path) as process:
        assert line_of(process) == "owner"
        asyncio.run(refused(process.pid))


def test_the_lock_of_a_process_that_ends_is_free_however_it_ends(path: str) -> None:
    async def epoch() -> int:
        store = SqliteStore(path)
        await store.open()
        lease = await store.acquire(0, "next")
        await store.close()
        return lease.epoch

    for expected, kill in ((2, True), (4, False)):
        with child("host", path) as process:
            assert line_of(process) == "owner"
            if kill:
                process.kill()
                process.wait()
            else:
                tell(process)
                assert line_of(process) == "closed"
            assert asyncio.run(epoch()) == expected


def test_a_forked_child_does_not_keep_the_lock(path: str) -> None:
    async def own() -> SqliteStore:
        store = SqliteStore(path)
        await store.open()
        await store.acquire(0, "parent")
        return store

    async def pass_on(store: SqliteStore) -> None:
        store._lock.drop()  # the parent dies
        heir = SqliteStore(path)
        await heir.open()
        await heir.acquire(0, "heir")
        await heir.close()
        await store.close()

    async def act() -> None:
        store = await own()
        until, release = os.pipe()
        alive, is_alive = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 and later: fork beside threads
            pid = os.fork()
        if pid == 0:
            os.close(release)
            os.write(is_alive, b"!")
            os.read(until, 1)
            os._exit(0)
        try:
            os.read(alive, 1)  # the child has been through what it does after a fork
            await pass_on(store)
        finally:
            os.close(alive)
            os.close(is_alive)
            os.close(release)
            os.close(until)
            reaped.append(pid)

    reaped: list[int] = []
    asyncio.run(act())
    os.waitpid(reaped[0], 0)


@pytest.mark.slow_once
def test_what_a_killed_process_had_acknowledged_is_there(path: str) -> None:
    async def check(acknowledged: int) -> None:
        store = SqliteStore(path)
        await store.open()
        lease = await store.acquire(0, "next")
        snapshot = await store.load(lease, FOREVER)
        assert snapshot.batch in {acknowledged, acknowledged + 1}
        assert len(snapshot.in_flight) == 8
        for stored in snapshot.in_flight:
            assert [row.seq for row in stored.history] == list(range(snapshot.batch))
        await store.close()
        database = apsw.Connection(path)
        assert database.pragma("integrity_check") == "ok"
        database.close()

    for attempt in range(KILLS):
        with child("write", path) as process:
            said = [line_of(process) for _ in range(1 + 3 * attempt % 7)]
            process.kill()
            assert process.stdout is not None
            said += process.stdout.read().split()
        asyncio.run(check(int(said[-1])))


def test_a_post_of_another_process_wakes_the_owner_by_the_socket(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeup, "_LOOK_S", 1_000)
    asyncio.run(_is_woken(path))
    assert not Path(f"{path}.sock").exists()


def test_a_post_of_another_process_is_seen_without_a_socket(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeup.Bell, "hang", lambda self: None)
    asyncio.run(_is_woken(path))


def test_a_host_without_a_socket_is_a_live_one_too(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeup.Bell, "hang", lambda self: None)

    async def act() -> None:
        host, client = SqliteStore(path), SqliteStore(path)
        await host.open()
        await client.open()
        lease = await host.acquire(0, "owner")
        assert await client.post(())
        await host.release(lease)
        assert not await client.post(())
        await client.close()
        await host.close()

    asyncio.run(act())


def test_what_the_owner_writes_itself_is_no_arrival(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeup, "_LOOK_S", 0.001)

    async def act() -> None:
        store = SqliteStore(path)
        await store.open()
        lease = await store.acquire(0, "owner")
        calls: list[int] = []
        store.on_arrival(lambda: calls.append(1))
        looks = 0
        look = Writer.data_version

        def count(writer: Writer) -> int:
            nonlocal looks
            looks += 1
            return look(writer)

        monkeypatch.setattr(Writer, "data_version", count)
        for number in range(1, 1_000):
            await store.commit(lease, Batch(number))
            if looks > 5:
                break
        assert len(calls) == 1  # the first look always tells
        await store.close()

    asyncio.run(act())


def test_a_path_too_long_for_a_socket_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeup, "_LOOK_S", 1_000)
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    asyncio.run(_is_woken(str(folder / "hub.db")))


async def _is_woken(path: str) -> None:
    store = SqliteStore(path)
    await store.open()
    lease = await store.acquire(0, "owner")
    told = asyncio.Event()
    store.on_arrival(told.set)
    await asyncio.wait_for(told.wait(), 60)  # the first look always tells
    assert _mode(f"{path}.sock") in {None, 0o600}
    with child("post", path) as process:
        assert await asyncio.to_thread(line_of, process) == "ready"
        for number in range(3):
            told.clear()
            tell(process, f"{number}")
            await asyncio.wait_for(told.wait(), 60)
            assert await asyncio.to_thread(line_of, process) == "posted"
        assert [row.message_id for row in await store.read_inbox(lease)] == ["0", "1", "2"]
    await store.close()


def _mode(path: str) -> int | None:
    return Path(path).stat().st_mode & 0o777 if Path(path).exists() else None


def test_a_lock_of_another_process_is_waited_for(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_BUSY_MS", 200)

    async def act() -> None:
        store = SqliteStore(path)
        await store.open()
        other = apsw.Connection(path)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError):
            await store.post([message("too late")])
        asyncio.get_running_loop().call_later(0.05, other.execute, "COMMIT")
        await store.post([message("in time")])
        other.close()
        lease = await store.acquire(0, "owner")
        assert [row.message_id for row in await store.read_inbox(lease)] == ["in time"]
        await store.close()

    asyncio.run(act())


def test_a_limit_on_the_size_of_files_is_a_full_disk(path: str) -> None:
    with child("outgrow", path) as process:
        assert [line_of(process) for _ in range(3)] == ["StoreUnavailableError", "StoreUnavailableError", "2"]


def test_a_reader_that_stays_keeps_nobody_from_writing(path: str) -> None:
    async def act() -> None:
        store = SqliteStore(path)
        await store.open()
        await store.acquire(0, "owner")
        other = apsw.Connection(path)
        other.execute("BEGIN")
        other.execute("SELECT * FROM instances").fetchall()
        for number in range(3):
            await store.post([message(f"{number}")])
        other.close()
        await store.close()

    asyncio.run(act())


def test_no_connection_is_left_when_a_store_is_closed(path: str) -> None:
    def ours() -> int:  # not all of the process: those of earlier tests go when they are collected
        return sum(one.filename == path for one in apsw.connections())

    async def act() -> None:
        store = SqliteStore(path)
        await store.open()
        await store.get_instance(instance_row("a").instance_id)
        assert ours() > 0
        await store.close()

    asyncio.run(act())
    assert ours() == 0
    assert not Path(f"{path}-wal").exists()


def test_closing_does_not_wait_for_a_long_query(path: str) -> None:
    count_for_ever = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"

    async def act() -> None:
        store = SqliteStore(path)
        await store.open()
        began = threading.Event()

        def read(reader: Reader) -> None:
            began.set()
            reader.execute(count_for_ever).fetchall()

        reading = store._reads("anybody").submit(read)
        await asyncio.to_thread(began.wait)
        await store.close()
        with pytest.raises(HubClosedError):
            await reading

    asyncio.run(act())
