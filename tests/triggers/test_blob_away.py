"""Blobs whose folder is away, or refuses, for a moment: each version is handled all the same, and no try is lost."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from durably import App, Blob, BrokerError
from durably.bindings.blobs.folder import FolderStore
from durably.triggers import blob_orchestrator, blob_watch
from durably.triggers.blob_watch import BlobWatch
from tests.support.waiting import eventually

SOON = 0.02


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes minutes takes moments."""
    monkeypatch.setattr(blob_orchestrator, "_LATER_S", 0.05)
    monkeypatch.setattr(blob_watch, "_LOAD_S", 0.1, raising=False)


def hub_in(folder: Path) -> str:
    return f"sqlite:///{folder / 'hub.db'}"


def one_by_one(app: App, taken: list[str], begun: asyncio.Event, go: asyncio.Event) -> None:
    @app.blob("docs", interval=SOON, max_concurrent=1)
    async def take(blob: Blob) -> None:
        begun.set()
        await go.wait()
        taken.append(f"{blob.name} {(await blob.read()).decode()} {blob.try_count}")


async def receipts(host: Any) -> list[Any]:
    found = await host.client.query_entities(name="durably.blob")
    return [one.state for one in found.entities]


async def outputs(host: Any) -> list[Any]:
    page = await host.client.query_instances(name="durably:blob")
    return [one.output for one in page.instances if one.output is not None]


@pytest.mark.parametrize("away", ["blobs", "blobs/docs"])
def test_a_folder_that_is_away_at_the_turn_of_a_blob(tmp_path: Path, away: str) -> None:
    app, taken, begun, go = App(), list[str](), asyncio.Event(), asyncio.Event()
    one_by_one(app, taken, begun, go)

    async def main() -> None:
        async with app.host(hub_in(tmp_path)) as host:
            docs = host.blobs("docs")
            await docs.write("a", b"one")
            await begun.wait()
            await docs.write("b", b"two")

            async def found() -> bool:
                return await host.client.count_instances(name="durably:blob") == 2

            await eventually(found)
            (tmp_path / away).rename(tmp_path / "aside")
            go.set()

            async def both_wait() -> bool:
                page = await host.client.query_instances(name="durably:blob")
                return sum("refuses" in str(one.custom_status) for one in page.instances) == 2

            await eventually(both_wait)
            (tmp_path / "aside").rename(tmp_path / away)
            await eventually(lambda: len(taken) == 2)
            assert await host.client.queue("webjobs-blobtrigger-poison").count() == 0

    asyncio.run(main())
    assert sorted(taken) == ["a one 1", "b two 1"]


@pytest.mark.parametrize("interval", [SOON, 0.5])
def test_a_blob_that_is_away_at_its_turn_and_comes_back(tmp_path: Path, interval: float) -> None:
    """Whether or not a look finds it missing meanwhile."""
    app, begun, go = App(), asyncio.Event(), asyncio.Event()
    taken: list[str] = []

    @app.blob("docs", interval=interval, max_concurrent=1)
    async def take(blob: Blob) -> None:
        begun.set()
        await go.wait()
        taken.append(blob.name)

    async def main() -> None:
        async with app.host(hub_in(tmp_path)) as host:
            docs = host.blobs("docs")
            await docs.write("a", b"one")
            await docs.write("b", b"two")
            await begun.wait()

            async def found() -> bool:
                return await host.client.count_instances(name="durably:blob") == 2

            await eventually(found)
            there = [tmp_path / "blobs" / "docs" / name for name in ("a", "b")]
            for one in there:
                one.rename(tmp_path / one.name)
            go.set()

            async def given_up() -> bool:
                return sorted(await outputs(host)) == ["done", "gone"]

            await eventually(given_up)
            for one in there:
                (tmp_path / one.name).rename(one)
            await eventually(lambda: len(taken) == 2)

    asyncio.run(main())
    assert sorted(taken) == ["a", "b"]


@pytest.mark.parametrize("how", ["bytes", "read", "stream"])
def test_a_blob_that_cannot_be_read_now_costs_no_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """As a file that is dropped with mode 0600, and gets its owner a second later."""
    app, taken = App(), list[tuple[bytes, int]]()
    refusals = iter(range(7))
    real = FolderStore._begin

    def begin(store: FolderStore, *of: Any) -> Any:
        """Tests may run as root, whom nothing is refused."""
        if next(refusals, None) is not None:
            raise PermissionError(13, "Permission denied", "a")
        return real(store, *of)

    monkeypatch.setattr(FolderStore, "_begin", begin)
    monkeypatch.setattr(blob_orchestrator, "_LATER_MAX_S", 0.05)
    if how == "bytes":

        @app.blob("docs", function_name="take", interval=SOON)
        async def given(blob: Blob, content: bytes) -> None:
            taken.append((content, blob.try_count))
    else:

        @app.blob("docs", function_name="take", interval=SOON)
        async def reads(blob: Blob) -> None:
            pieces = [await blob.read()] if how == "read" else [piece async for piece in blob.stream()]
            taken.append((b"".join(pieces), blob.try_count))

    async def main() -> None:
        async with app.host(hub_in(tmp_path)) as host:
            await host.blobs("docs").write("a", b"one")

            async def ended() -> list[Any]:
                return await outputs(host)

            assert await eventually(ended) == ["done"]

    asyncio.run(main())
    assert taken == [(b"one", 1)]


def test_another_store_that_refuses_is_a_failure_of_the_function(tmp_path: Path) -> None:
    app, tries = App(), list[int]()

    @app.blob("docs", interval=SOON, max_tries=2)
    async def take(blob: Blob) -> None:
        tries.append(blob.try_count)
        raise BrokerError("another one")

    async def main() -> None:
        async with app.host(hub_in(tmp_path)) as host:
            await host.blobs("docs").write("a", b"one")

            async def ended() -> list[Any]:
                return await outputs(host)

            assert await eventually(ended) == ["poison"]

    asyncio.run(main())
    assert tries == [1, 2]


def test_receipts_stay_while_the_container_is_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    app, taken = App(), list[str]()

    @app.blob("docs", interval=SOON)
    async def take(blob: Blob) -> None:
        taken.append(blob.name)

    async def main() -> None:
        async with app.host(hub_in(tmp_path)) as host:
            docs = host.blobs("docs")
            await docs.write("a", b"one")
            await eventually(lambda: taken)
            (tmp_path / "blobs" / "docs").rename(tmp_path / "aside")
            await eventually(lambda: "container 'docs' is looked at again later" in caplog.text)
            assert not any(one.get("gone") for one in await receipts(host))
            (tmp_path / "aside").rename(tmp_path / "blobs" / "docs")
            await docs.write("b", b"two")
            await eventually(lambda: len(taken) == 2)

    with caplog.at_level(logging.WARNING, "durably.blob"):
        asyncio.run(main())
    assert taken == ["a", "b"]


def test_a_host_that_does_not_see_a_blob_does_not_end_its_receipt(tmp_path: Path) -> None:
    """Its own folder is empty, as nothing is mounted there: it says so once, and a host that sees the blob corrects it."""
    app, taken = App(), list[str]()

    @app.blob("docs", interval=SOON)
    async def take(blob: Blob) -> None:
        taken.append(blob.name)

    async def main() -> None:
        async with app.host(hub_in(tmp_path)) as host:
            await host.blobs("docs").write("a", b"one")
            await eventually(lambda: taken)
            (tmp_path / "other" / "docs").mkdir(parents=True)
            other = BlobWatch(
                "docs", FolderStore(tmp_path / "other"), list(app.blob_functions), host._operations
            )
            looking = asyncio.create_task(other.run())

            async def is_gone(gone: bool) -> bool:
                return [one.get("gone", False) for one in await receipts(host)] == [gone]

            await eventually(lambda: is_gone(True))
            await eventually(lambda: is_gone(False))
            for _ in range(3):  # it reads that, and leaves it so
                read_at = other._load_at
                await eventually(lambda read_at=read_at: other._load_at > read_at)
                assert await is_gone(False)
            looking.cancel()
            await asyncio.wait([looking])

    asyncio.run(main())
    assert taken == ["a"]
