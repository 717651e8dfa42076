"""A folder of blobs that is away, slow, or not all ours; and what is on the disk when a write returns."""

import asyncio
import errno
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from durably import BlobNotFoundError, BrokerError, InvalidTextError
from durably.bindings.blobs.folder import FolderStore
from durably.bindings.blobs.names import PARTS_MAX
from durably.bindings.blobs.store import read


async def names(store: FolderStore) -> list[str]:
    return [one.name async for page in store.list("docs") for one in page]


@pytest.mark.parametrize("away", ["root", "root/docs"])
def test_a_folder_that_is_away_is_no_blob_that_is_gone(tmp_path: Path, away: str) -> None:
    async def main() -> None:
        store = FolderStore(tmp_path / "root")
        written = await store.write("docs", "in/a", b"a")
        for put in ("nothing", "a file", "a link"):
            (tmp_path / away).rename(tmp_path / "aside")
            if put == "a file":
                (tmp_path / away).write_text("")
            elif put == "a link":
                (tmp_path / away).symlink_to(away)
            with pytest.raises(BrokerError, match="refuses"):
                await store.head("docs", "in/a")
            (tmp_path / away).unlink(missing_ok=True)
            (tmp_path / "aside").rename(tmp_path / away)
            assert await store.head("docs", "in/a") == written
        assert await store.head("docs", "out/a") is None  # the container is there, and says so
        await store.close()

    asyncio.run(main())


def test_a_read_that_hangs_stops_neither_the_loop_nor_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a network disk whose server is away."""
    begun, go = threading.Event(), threading.Event()
    real = os.read

    def hangs(fd: int, most: int) -> bytes:
        begun.set()
        assert go.wait(60)
        return real(fd, most)

    async def main() -> None:
        store = FolderStore(tmp_path)
        await store.write("docs", "big", b"x" * (1 << 20))
        pieces = store.stream("docs", "big")
        await anext(pieces)
        monkeypatch.setattr(os, "read", hangs)
        reading = asyncio.ensure_future(anext(pieces))
        await asyncio.to_thread(begun.wait)
        reading.cancel()
        freed = threading.Timer(20, go.set)  # without the mend, the loop itself waits for this
        freed.start()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert not go.is_set()
        freed.cancel()
        go.set()
        monkeypatch.setattr(os, "read", real)
        assert len(await read(store, "docs", "big")) == 1 << 20
        await store.close()

    asyncio.run(main())


def test_a_root_that_hangs_lets_the_store_be_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = threading.Event(), threading.Event()
    real = Path.stat

    def hangs(path: Path, **options: Any) -> os.stat_result:
        if path == tmp_path:
            begun.set()
            assert go.wait(60)
        return real(path, **options)

    async def main() -> None:
        store = FolderStore(tmp_path)
        await store.write("docs", "a", b"")
        monkeypatch.setattr(Path, "stat", hangs)
        looking = asyncio.ensure_future(store.head("docs", "a"))
        await asyncio.to_thread(begun.wait)
        freed = threading.Timer(20, go.set)
        freed.start()
        await store.close()
        assert not go.is_set()
        freed.cancel()
        go.set()
        await asyncio.gather(looking, return_exceptions=True)

    asyncio.run(main())


def test_folders_use_no_threads_of_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the default threads of the loop are busy with is none of a folder's business, nor the other way round."""
    used: set[str] = set()
    real = os.fsync

    def fsync(fd: int) -> None:
        used.add(threading.current_thread().name.rpartition("_")[0])
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)

    async def main() -> None:
        store = FolderStore(tmp_path)
        await asyncio.gather(*(store.write("docs", str(number), b"") for number in range(40)))
        await store.close()
        await store.close()
        assert len(await names(store)) == 40  # it opens again
        await store.close()

    asyncio.run(main())
    assert used == {"durably-folder"}


def test_folders_that_are_made_are_on_the_disk_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        real(fd)

    async def main() -> None:
        store = FolderStore(tmp_path / "new" / "root")
        monkeypatch.setattr(os, "fsync", fsync)
        await store.write("docs", "in/a", b"")
        made = [
            tmp_path,
            *(tmp_path / path for path in ("new", "new/root", "new/root/docs", "new/root/docs/in")),
        ]
        assert {path.stat().st_ino for path in made} <= set(synced)
        synced.clear()
        await store.write("docs", "in/a", b"")  # they were there: the file and its folder
        assert len(synced) == 2
        await store.close()

    asyncio.run(main())


def test_a_folder_of_somebody_else_is_left_out_and_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    docs = tmp_path / "docs"
    for folder in ("a", "theirs", "z"):
        (docs / folder).mkdir(parents=True)
        (docs / folder / "file").write_text("")
    (docs / "theirs").chmod(0o744)
    real = os.stat

    def as_another(path: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
        """Tests may run as root, whom nothing is refused."""
        if dir_fd is not None and os.fstat(dir_fd).st_mode & 0o777 == 0o744:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "stat", as_another)

    async def main() -> None:
        store = FolderStore(tmp_path)
        for _ in range(3):
            assert await names(store) == ["a/file", "z/file"]
        await store.close()

    with caplog.at_level(logging.WARNING, "durably.blob"):
        asyncio.run(main())
    (said,) = [one.getMessage() for one in caplog.records]
    assert "docs/theirs" in said
    assert "Permission denied" in said


def test_folders_in_folders_are_looked_into_so_far_and_no_further(tmp_path: Path) -> None:
    deep = tmp_path / "docs"
    for _ in range(PARTS_MAX - 1):
        deep = deep / "d"
    (deep / "d").mkdir(parents=True)
    (deep / "last").write_text("")
    (deep / "d" / "beyond").write_text("")
    long = tmp_path / "docs" / "/".join(["x" * 250] * 4)
    (long / ("y" * 100)).mkdir(parents=True)
    (long / "short").write_text("")
    (long / ("y" * 100) / "z").write_text("")

    async def main() -> None:
        store = FolderStore(tmp_path)
        found = await names(store)
        assert found == ["d/" * (PARTS_MAX - 1) + "last", ("x" * 250 + "/") * 4 + "short"]
        for name in found:
            assert await store.head("docs", name) is not None
        with pytest.raises(InvalidTextError, match=f"{PARTS_MAX} at most"):
            await store.write("docs", "d/" * PARTS_MAX + "beyond", b"")
        with pytest.raises(BlobNotFoundError):
            await read(store, "docs", "d/last")
        await store.close()

    asyncio.run(main())
