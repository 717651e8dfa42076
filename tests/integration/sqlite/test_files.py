"""What is found where a hub should be: nothing, something else, a wreck, or a newer hub."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

import apsw
import pytest

from durably.core.commit import Batch, InboxRow
from durably.errors import (
    DurablyError,
    HubNotFoundError,
    HubVersionError,
    StoreFailedError,
    StoreRefusedError,
)
from durably.storage.sqlite import schema, writer
from durably.storage.sqlite.store import SqliteStore
from durably.testing.store_scene import history_row, instance_row
from tests.integration.sqlite.children import child, line_of


async def _open(path: Path | str, *, create: bool = True) -> SqliteStore:
    store = SqliteStore(str(path))
    await store.open(create=create)
    return store


def _refusal(path: Path | str, kind: type[DurablyError], *, create: bool = True) -> str:
    with pytest.raises(kind) as caught:
        asyncio.run(_open(path, create=create))
    assert str(path) in str(caught.value)
    return str(caught.value)


async def _make(path: Path) -> None:
    store = await _open(path)
    lease = await store.acquire(0, "first")
    rows = [history_row(number, 0, data=b"x" * 500) for number in range(1, 200)]
    await store.commit(lease, Batch(1, history=rows, instances=[instance_row("a", in_flight=True)]))
    await store.close()


def test_a_missing_hub_is_not_made_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    assert "does not exist" in _refusal(path, HubNotFoundError, create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("create", [True, False])
def test_a_missing_folder_is_named_and_not_made(tmp_path: Path, create: bool) -> None:
    path = tmp_path / "mistyped" / "folder" / "hub.db"
    assert f"there is no folder '{tmp_path / 'mistyped'}'" in _refusal(path, HubNotFoundError, create=create)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert f"there is no folder '{tmp_path / 'file'}'" in _refusal(
        tmp_path / "file" / "hub.db", HubNotFoundError
    )


def _modes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


def test_only_its_owner_may_use_the_files_of_a_hub(tmp_path: Path) -> None:
    async def look() -> dict[str, int]:
        store = await _open(tmp_path / "hub.db")
        lease = await store.acquire(0, "host")
        await store.work_log(lease)
        await store.get_instance("a")
        modes = _modes(tmp_path)
        await store.close()
        return modes

    before = os.umask(0)
    try:
        modes = asyncio.run(look())
    finally:
        os.umask(before)
    suffixes = ("", "-shm", "-wal", ".lock", ".running", ".sock")
    assert modes == {f"hub.db{suffix}": 0o600 for suffix in suffixes}


def test_an_empty_file_becomes_a_hub(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    path.touch()
    assert "is empty" in _refusal(path, HubNotFoundError, create=False)
    asyncio.run(_make(path))


def test_a_directory_is_not_a_hub(tmp_path: Path) -> None:
    assert "is a directory" in _refusal(tmp_path, HubNotFoundError)


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Sir or Madam, " * 100)
    assert "not a SQLite database" in _refusal(path, HubNotFoundError)
    assert path.read_text().startswith("Dear")


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    database = apsw.Connection(str(path))
    database.execute("CREATE TABLE letters (text)")
    database.close()
    before = path.read_bytes()
    assert "another program" in _refusal(path, HubNotFoundError)
    assert path.read_bytes() == before


def test_a_newer_hub_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    asyncio.run(_make(path))
    database = apsw.Connection(str(path))
    database.pragma("user_version", schema.VERSION + 1)
    database.close()
    assert f"version {schema.VERSION + 1}" in _refusal(path, HubVersionError)


def _make_by(version: int, path: Path) -> None:
    """A hub as an earlier durably left it, with one instance."""
    database = apsw.Connection(str(path))
    for script in schema._SCRIPTS[:version]:
        database.execute(script)
    database.pragma("application_id", schema.APPLICATION_ID)
    database.pragma("user_version", version)
    row = instance_row("old", 3, status="Failed")._asdict()
    del row["bases"]
    names = ", ".join(row)
    marks = ", ".join("?" * len(row))
    database.execute(f"INSERT INTO instances ({names}) VALUES ({marks})", tuple(row.values()))
    database.close()


@pytest.mark.parametrize("version", [1, 2])
def test_a_hub_of_an_earlier_version_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    async def use(path: Path) -> None:
        store = await _open(path)
        assert await store.get_instance("old") == instance_row("old", 3, status="Failed")
        lease = await store.acquire(0, "test")
        rewound = instance_row("old", 4, bases=b"[3]")
        await store.commit(lease, Batch(number=1, instances=[rewound], history=[history_row(4, 0)]))
        assert await store.get_instance("old") == rewound
        await store.close()

    path = tmp_path / "hub.db"
    _make_by(version, path)
    asyncio.run(use(path))
    database = apsw.Connection(str(path))
    assert database.pragma("user_version") == schema.VERSION
    database.close()


def test_a_hub_is_recognized_and_has_the_newest_version(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    asyncio.run(_make(path))
    database = apsw.Connection(str(path))
    assert database.pragma("application_id") == schema.APPLICATION_ID
    assert database.pragma("user_version") == schema.VERSION
    assert database.pragma("journal_mode") == "wal"
    database.close()


@pytest.mark.parametrize("what", ["file", "directory"])
def test_missing_rights_are_named_with_the_cure(what: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="durably-rights-"))
    path = folder / "hub.db"
    try:
        asyncio.run(_make(path))
        folder.chmod(0o777 if what == "file" else 0o555)
        path.chmod(0o444 if what == "file" else 0o666)
        with child("open_as_nobody", path) as process:
            said = line_of(process)
        assert said.startswith("StoreUnavailableError")
        assert str(path if what == "file" else folder) in said
        assert "read and write it" in said
    finally:
        folder.chmod(0o700)
        shutil.rmtree(folder)


def test_a_damaged_hub_fails_and_says_which_file(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    asyncio.run(_make(path))
    content = bytearray(path.read_bytes())
    for page in range(1, len(content) // 4096):
        content[page * 4096 : page * 4096 + 200] = b"\xff" * 200
    path.write_bytes(content)

    async def use() -> None:
        store = await _open(path)
        try:
            lease = await store.acquire(0, "owner")
            await store.load(lease, 0)
        finally:
            await store.close()

    with pytest.raises(StoreFailedError, match=str(path)):
        asyncio.run(use())


def test_a_payload_beyond_the_limit_is_refused_and_others_go_on(tmp_path: Path) -> None:
    async def act() -> None:
        store = await _open(tmp_path / "hub.db")
        lease = await store.acquire(0, "owner")
        await store._writes.submit(lambda writer: writer.connection.limit(apsw.SQLITE_LIMIT_LENGTH, 10_000))
        with pytest.raises(StoreRefusedError):
            await store.commit(
                lease, Batch(1, history=[history_row(1, 0), history_row(1, 1, data=b"x" * 10_001)])
            )
        await store.commit(lease, Batch(1, history=[history_row(1, 0, data=b"x" * 9_000)]))
        await store.close()

    asyncio.run(act())


def test_several_may_create_a_hub_at_once(tmp_path: Path) -> None:
    async def act() -> None:
        for attempt in range(5):
            stores = [SqliteStore(str(tmp_path / f"{attempt}.db")) for _ in range(6)]
            await asyncio.gather(*(store.open() for store in stores))
            await asyncio.gather(*(store.close() for store in stores))

    asyncio.run(act())


def test_a_hub_is_created_though_somebody_else_is_at_it(tmp_path: Path) -> None:
    """To switch to a log, SQLite goes from a read to a write, and refuses at once where it would wait else."""
    path = tmp_path / "hub.db"
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")

    async def act() -> None:
        store = SqliteStore(str(path))
        opening = asyncio.create_task(store.open())
        await asyncio.wait({opening}, timeout=0.2)
        assert not opening.done()
        other.execute("COMMIT")
        await opening
        await store.close()

    asyncio.run(act())
    other.close()


def test_the_log_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_CHECKPOINT_PAGES", 50)

    path = tmp_path / "hub.db"

    def log_and_file() -> tuple[int, int]:
        return Path(f"{path}-wal").stat().st_size, path.stat().st_size

    async def act() -> None:
        store = await _open(path)
        lease = await store.acquire(0, "owner")
        for number in range(1, 301):
            await store.commit(lease, Batch(number, history=[history_row(1, number - 1, data=b"x" * 3_000)]))
        log, file = log_and_file()
        assert log < 80 * 4_200
        assert file > 250 * 3_000
        assert (await store.load(lease, 0)).batch == 300
        await store.close()

    asyncio.run(act())


def test_the_log_does_not_grow_with_what_others_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_CHECKPOINT_PAGES", 50)
    path = tmp_path / "hub.db"

    def log_size() -> int:
        return Path(f"{path}-wal").stat().st_size

    async def act() -> None:
        store, client = await _open(path), await _open(path)
        lease = await store.acquire(0, "owner")
        for number in range(1, 101):
            await client.post(
                [InboxRow(f"m{number}", "i", 1, b"x" * 40_000)]
            )  # ten pages; the owner writes two
            await store.commit(lease, Batch(number, inbox_consumed=[f"m{number}"]))
        assert log_size() < 150 * 4_200
        await client.close()
        await store.close()

    asyncio.run(act())
