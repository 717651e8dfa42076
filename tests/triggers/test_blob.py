"""Blobs in a folder: each version is handled once, and starts once what it starts."""

import asyncio
import logging
from pathlib import Path
from typing import Annotated, Any

import pytest

from durably import (
    App,
    Blob,
    BlobNotFoundError,
    BlobOutput,
    BrokerError,
    Client,
    EngineOptions,
    InvalidTextError,
    OrchestrationContext,
    Out,
    QueueMessage,
    QueueOutput,
    RegistrationError,
    UsageError,
)
from durably.testing import DurableEnvironment
from tests.support.waiting import eventually

SOON = 0.02
"""Seconds between two looks."""


def hub_in(folder: Path) -> str:
    return f"sqlite:///{folder / 'hub.db'}"


def copies(app: App) -> None:
    @app.orchestrator
    async def copy(ctx: OrchestrationContext, text: str) -> str:
        return text.upper()


def test_a_version_triggers_once_overwriting_again_and_deleting_does_not(tmp_path: Path) -> None:
    """Statement 4.13.4."""
    app = App()
    copies(app)
    taken: list[tuple[str, bytes]] = []

    @app.blob("docs/{name}.txt", interval=SOON)
    async def take(name: str, content: bytes, client: Client) -> None:
        taken.append((name, content))
        await client.start("copy", content.decode())

    async def main() -> None:
        async with app.host(hub_in(tmp_path)) as host:
            docs = host.blobs("docs")
            await docs.write("a.txt", b"one")
            await docs.write("in/b.txt", "two")
            await docs.write("other.md", b"not asked for")
            await eventually(lambda: len(taken) == 2)
            assert sorted(taken) == [("a", b"one"), ("in/b", b"two")]
            await docs.write("a.txt", b"ONE")
            await eventually(lambda: len(taken) == 3)
            assert await docs.delete("in/b.txt")
            receipts = await host.client.query_entities(name="durably.blob")
            assert len(receipts.entities) == 2

            async def marked() -> bool:
                found = await host.client.query_entities(name="durably.blob")
                return [one.state["name"] for one in found.entities if one.state.get("gone")] == ["in/b.txt"]

            await eventually(marked)
            assert taken[2] == ("a", b"ONE")
        # Neither another host, nor one that remembers no instance, begins anew.
        async with app.host(hub_in(tmp_path), options=EngineOptions(queue_keep_s=0.001)) as host:

            async def forgotten() -> bool:
                return await host.client.count_instances(instance_id_prefix="blob:take:") == 0

            await eventually(forgotten)
            await host.blobs("docs").write("c.txt", b"three")
            await eventually(lambda: len(taken) == 4)

            async def four() -> bool:
                return await host.client.count_instances(name="copy") == 4

            await eventually(four)
            page = await host.client.query_instances(name="copy")
            assert sorted(one.instance_id.rpartition(":")[0] for one in page.instances) == [
                "docs:a.txt",
                "docs:a.txt",
                "docs:c.txt",
                "docs:in-b.txt",
            ]

    asyncio.run(main())
    assert taken[3:] == [("c", b"three")]


def test_a_blob_that_comes_again_after_it_was_deleted_triggers_again(tmp_path: Path) -> None:
    app = App()
    taken: list[str] = []

    @app.blob("docs", interval=SOON)
    async def take(blob: Blob) -> None:
        taken.append(f"{blob.name} {(await blob.read()).decode()}")

    async def main() -> None:
        async with app.host(hub_in(tmp_path)) as host:
            docs = host.blobs("docs")
            for number in range(3):
                await docs.write("a", str(number))
                await eventually(lambda number=number: len(taken) == number + 1)
                assert await docs.delete("a")
            # Moved away and back, it is the version that was handled.
            await docs.write("b", "b")
            await eventually(lambda: len(taken) == 4)
            there = tmp_path / "blobs" / "docs" / "b"
            there.rename(tmp_path / "aside")

            async def gone() -> bool:
                found = await host.client.query_entities(name="durably.blob")
                return sum(one.state.get("gone", False) for one in found.entities) == 2

            await eventually(gone)
            (tmp_path / "aside").rename(there)
            await docs.write("c", "c")
            await eventually(lambda: len(taken) == 5)

    asyncio.run(main())
    assert taken == ["a 0", "a 1", "a 2", "b b", "c c"]


def test_parameters_get_parts_content_and_the_blob(tmp_path: Path) -> None:
    app = App()
    taken: dict[str, Any] = {}

    @app.blob("incoming/{customer}/{number}_{rest}.{ext}", interval=SOON)
    def plain(blob: Blob, number: int, ext: str, customer: str, text: str) -> None:
        taken["plain"] = (blob.container, blob.name, blob.size, blob.parts, number, ext, customer, text)

    @app.blob("incoming/", function_name="all", interval=SOON)
    async def whole(blob: Blob) -> None:
        pieces = [piece async for piece in blob.stream()]
        taken["all"] = (
            b"".join(pieces),
            await blob.read(3),
            blob.try_count,
            blob.modified.tzinfo is not None,
        )

    async def main() -> None:
        async with app.host(hub_in(tmp_path)) as host:
            await host.blobs("incoming").write("tea/co/17_leaf.csv", "ünits")
            await eventually(lambda: len(taken) == 2)

    asyncio.run(main())
    parts = {"customer": "tea/co", "number": "17", "rest": "leaf", "ext": "csv"}
    assert taken["all"] == ("ünits".encode(), b"\xc3\xbcn", 1, True)
    name = "tea/co/17_leaf.csv"
    assert taken["plain"] == ("incoming", name, 6, parts, 17, "csv", "tea/co", "ünits")


def test_five_failures_are_told_of_in_the_queue_of_poison_blobs(tmp_path: Path) -> None:
    app = App()
    copies(app)
    tries: list[int] = []
    told: list[QueueMessage] = []

    @app.blob("docs/{name}", interval=SOON)
    async def take(name: str, blob: Blob, client: Client) -> None:
        tries.append(blob.try_count)
        await client.start("copy", name)
        raise ValueError("not readable")

    @app.queue("webjobs-blobtrigger-poison")
    async def look_after(message: QueueMessage) -> None:
        told.append(message)

    async def main() -> None:
        async with app.host(hub_in(tmp_path)) as host:
            written = await host.blobs("docs").write("a/b.txt", b"one")
            await eventually(lambda: told)
            assert told[0].body == {
                "FunctionId": "take",
                "BlobType": "BlockBlob",
                "ContainerName": "docs",
                "BlobName": "a/b.txt",
                "ETag": written.version,
                "Cause": "ValueError: not readable",
            }
            assert told[0].failure == "ValueError: not readable"
            assert await host.client.count_instances(name="copy") == 1
            # The next version has tries of its own.
            await host.blobs("docs").write("a/b.txt", b"two")
            await eventually(lambda: len(told) == 2)

    asyncio.run(main())
    assert tries == [1, 2, 3, 4, 5] * 2


def test_a_file_that_is_written_slowly_counts_when_it_is_whole(tmp_path: Path) -> None:
    app = App()
    taken: list[tuple[str, bytes]] = []

    @app.blob("docs", interval=SOON)
    async def take(blob: Blob, content: bytes) -> None:
        taken.append((blob.name, content))

    docs = tmp_path / "blobs" / "docs"
    docs.mkdir(parents=True)

    async def main() -> None:
        async with app.host(hub_in(tmp_path)) as host:
            with (docs / "slow").open("wb", buffering=0) as file:
                for _ in range(100):  # faster than anybody looks
                    file.write(b"x")
                    await asyncio.sleep(SOON / 10)
            (docs / "aside.part").write_bytes(b"y" * 10)
            (docs / "aside.part").rename(docs / "renamed")
            await eventually(lambda: len(taken) >= 2)
            assert await host.blobs("docs").read("slow") == b"x" * 100

    asyncio.run(main())
    assert sorted(taken) == [("renamed", b"y" * 10), ("slow", b"x" * 100)]


def test_a_version_that_is_not_there_any_more_is_given_up(tmp_path: Path) -> None:
    app = App()
    begun, go = asyncio.Event(), asyncio.Event()
    taken: list[tuple[str, bytes]] = []

    @app.blob("docs", interval=SOON, max_concurrent=1)
    async def take(blob: Blob) -> None:
        begun.set()
        await go.wait()
        taken.append((blob.name, await blob.read()))

    async def main() -> None:
        async with app.host(hub_in(tmp_path)) as host:
            docs = host.blobs("docs")
            await docs.write("a", b"one")
            await begun.wait()
            await docs.write("b", b"never read")
            await eventually(lambda: found(host.client, 2))
            await docs.write("a", b"two")
            await eventually(lambda: found(host.client, 3))
            await docs.delete("b")
            go.set()
            await eventually(lambda: taken)
            outputs = await eventually(lambda: ended(host.client, 3))
            assert outputs == ["done", "gone", "gone"]
            assert await host.client.queue("webjobs-blobtrigger-poison").count() == 0

    async def found(client: Client, count: int) -> bool:
        return await client.count_instances(name="durably:blob") == count

    async def ended(client: Client, count: int) -> list[Any] | None:
        page = await client.query_instances(name="durably:blob")
        outputs = [one.output for one in page.instances if one.output is not None]
        return sorted(outputs) if len(outputs) == count else None

    asyncio.run(main())
    assert taken == [("a", b"two")]


def test_blobs_wait_for_their_function(tmp_path: Path) -> None:
    """One that was found and had no turn is handed out when a host has the function again."""
    begun = asyncio.Event()
    first = App()

    @first.blob("docs", function_name="docs", interval=SOON)
    async def never(blob: Blob) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def found() -> None:
        async with first.host(hub_in(tmp_path), options=EngineOptions(drain_timeout_s=0)) as host:
            await host.blobs("docs").write("a", b"one")
            await begun.wait()

    async def between() -> None:
        async with App().host(hub_in(tmp_path)) as host:

            async def waits() -> bool:
                page = await host.client.query_instances(name="durably:blob")
                return "no function 'docs'" in str([one.custom_status for one in page.instances])

            await eventually(waits)

    taken: list[str] = []
    second = App()

    @second.blob("docs", function_name="docs", interval=3600)
    async def take(blob: Blob) -> None:
        taken.append(blob.name)

    async def after() -> None:
        async with second.host(hub_in(tmp_path)):
            await eventually(lambda: taken)

    asyncio.run(found())
    asyncio.run(between())
    asyncio.run(after())
    assert taken == ["a"]


def test_connections_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABLY_BLOBS", f"file://{tmp_path}/usual")
    monkeypatch.setenv("ARCHIVE", f"file://{tmp_path}/kept%20here")
    monkeypatch.setenv("STAGE", "test")
    app = App()
    taken: list[str] = []

    @app.blob("%STAGE%-docs/{name}", interval=SOON)
    async def usual(name: str, text: str) -> None:
        taken.append(f"usual {name} {text}")

    @app.blob("test-docs/{name}", connection="ARCHIVE", interval=SOON)
    async def archive(name: str, text: str) -> None:
        taken.append(f"archive {name} {text}")

    async def main() -> None:
        async with app.host("memory://") as host:
            await host.blobs("test-docs").write("a", "1")
            await host.blobs("test-docs", connection="ARCHIVE").write("a", "2")
            await eventually(lambda: len(taken) == 2)

    asyncio.run(main())
    assert sorted(taken) == ["archive a 2", "usual a 1"]
    assert (tmp_path / "kept here" / "test-docs" / "a").read_text() == "2"

    for value, expected in {
        "": "ARCHIVE",
        "ftp://hunter2@nowhere": "ARCHIVE is no connection",
        "file://relative/path": "absolute",
        "file://": "absolute",
        "s3://bucket?password=hunter2": "'password'",
        "AccountKey=hunter2;BlobEndpoint=nonsense": "ARCHIVE",
    }.items():
        monkeypatch.setenv("ARCHIVE", value)
        with pytest.raises(RegistrationError, match=expected) as caught:
            app.host("memory://")
        assert "hunter2" not in str(caught.value)
    lost = App()
    lost.blob("%LOST%-docs", function_name="lost")(print)
    with pytest.raises(RegistrationError, match="LOST"):
        lost.host("memory://")


def test_what_a_function_does_not_say_itself_the_environment_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DURABLY_BLOB_MAX_TRIES", "2")
    monkeypatch.setenv("DURABLY_FUNCTION_TIMEOUT_S", "0.02")
    app = App()
    tries: list[int] = []

    @app.blob("docs", interval=SOON)
    async def take(blob: Blob) -> None:
        tries.append(blob.try_count)
        await asyncio.Event().wait()

    async def main() -> None:
        async with app.host(hub_in(tmp_path)) as host:
            await host.blobs("docs").write("a", b"")
            poison = host.client.queue("webjobs-blobtrigger-poison")

            async def told() -> bool:
                return await poison.count() == 1

            await eventually(told)
            (one,) = await poison.peek()
            assert "Blob function 'take'" in (one.failure or "")

    asyncio.run(main())
    assert tries == [1, 2]
    monkeypatch.setenv("DURABLY_BLOB_MAX_TRIES", "0")
    with pytest.raises(UsageError, match="DURABLY_BLOB_MAX_TRIES"):
        app.host("memory://")


def test_a_store_that_refuses_costs_no_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "blobs").write_text("a file where the folder should be")
    app = App()
    taken: list[str] = []

    @app.blob("docs/{name}", interval=SOON)
    async def take(name: str) -> None:
        taken.append(name)

    async def main() -> None:
        async with app.host(hub_in(tmp_path)) as host:
            with pytest.raises(BrokerError, match="blobs"):
                await host.blobs("docs").write("a", b"1")
            (tmp_path / "blobs").unlink()
            await host.blobs("docs").write("a", b"1")
            await eventually(lambda: taken)

    with caplog.at_level(logging.WARNING, "durably.blob"):
        asyncio.run(main())
    assert taken == ["a"]


def test_an_app_without_blob_functions_looks_at_nothing(tmp_path: Path) -> None:
    (tmp_path / "blobs" / "docs").mkdir(parents=True)

    async def tasks() -> list[str]:
        async with App().host(hub_in(tmp_path)):
            return [task.get_name() for task in asyncio.all_tasks()]

    assert "durably-blobs" not in asyncio.run(tasks())


def test_a_test_environment_finds_no_blobs_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blobs" / "docs").mkdir(parents=True)
    (tmp_path / "blobs" / "docs" / "a").write_text("not for tests")
    app = App()
    app.blob("docs", function_name="take", interval=SOON)(print)

    async def main() -> None:
        async with DurableEnvironment(app) as env:
            await asyncio.sleep(SOON * 5)
            assert await env.client.count_instances() == 0

    asyncio.run(main())


def test_outputs_are_named_by_parts_of_the_blob(tmp_path: Path) -> None:
    app = App()

    @app.blob("incoming/{name}.{ext}", interval=SOON)
    async def shout(
        text: str,
        copy: Annotated[Out[str], BlobOutput("outgoing/{name}/{ext}.txt")],
        done: Annotated[Out[str], QueueOutput("done")],
    ) -> None:
        copy.set(text.upper())
        done.set(text)

    async def main() -> None:
        async with app.host(hub_in(tmp_path)) as host:
            await host.blobs("incoming").write("a/b.md", b"tea")
            queue = host.client.queue("done")

            async def sent() -> bool:
                return [one.body for one in await queue.peek()] == ["tea"]

            await eventually(sent)
            assert await host.blobs("outgoing").read("a/b/md.txt") == b"TEA"
            assert await queue.count() == 1

    asyncio.run(main())
    wrong = App()

    @wrong.blob("incoming/{name}.{ext}")
    async def lost(copy: Annotated[Out[str], BlobOutput("outgoing/{customer}")]) -> None: ...

    with pytest.raises(RegistrationError, match="customer"):
        asyncio.run(wrong.host("memory://").start())


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    app = App()

    def take(blob: Blob) -> None: ...

    for wrong in ({"max_tries": 0}, {"max_concurrent": 0}, {"max_tries": 1.5}):
        with pytest.raises(RegistrationError, match=next(iter(wrong))):
            app.blob("docs", **wrong)(take)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="interval"):
        app.blob("docs", interval=0)(take)
    with pytest.raises(RegistrationError, match="function"):
        app.blob("docs")(7)  # type: ignore[type-var]
    with pytest.raises(RegistrationError, match="Connection"):
        app.blob("docs", connection="s3://key@bucket")(take)
    with pytest.raises(RegistrationError, match="a/b"):
        app.blob("docs", function_name="a/b")(take)
    app.blob("docs")(take)
    with pytest.raises(RegistrationError, match="'take'"):
        app.blob("others")(take)
    other = App()
    other.blob("others")(take)
    with pytest.raises(RegistrationError, match="'take'"):
        app.include(other)
    third = App()
    third.include(other)
    assert [function.name for function in third.blob_functions] == ["take"]

    def lost(blob: Blob, name: str, text: str, number: int) -> None: ...

    app.blob("docs/{name}")(lost)

    async def main() -> None:
        with pytest.raises(RegistrationError, match="'number'"):
            await app.host("memory://").start()
        async with App().host(hub_in(tmp_path)) as host:
            for container in ("", "ab", "Docs", "a--b", "../up", "a/b", 7):
                with pytest.raises(InvalidTextError, match="Container"):
                    host.blobs(container)  # type: ignore[arg-type]
            with pytest.raises(UsageError, match="bytes or str"):
                await host.blobs("docs").write("a", 7)  # type: ignore[arg-type]
            with pytest.raises(BlobNotFoundError, match="docs/a"):
                await host.blobs("docs").read("a")
            assert not await host.blobs("docs").delete("a")
            assert [one async for one in host.blobs("docs").list()] == []

    asyncio.run(main())
    assert not (tmp_path / "blobs").exists()


def test_content_that_does_not_fit_is_a_failure_that_says_so(tmp_path: Path) -> None:
    app = App()

    @app.blob("docs/{number}", interval=SOON, max_tries=1)
    async def take(number: int, text: str) -> None: ...

    async def main() -> None:
        async with app.host(hub_in(tmp_path)) as host:
            await host.blobs("docs").write("seven", b"text")
            await host.blobs("docs").write("8", b"\xff")
            poison = host.client.queue("webjobs-blobtrigger-poison")

            async def two() -> bool:
                return await poison.count() == 2

            await eventually(two)
            causes = sorted(one.failure or "" for one in await poison.peek())
            assert causes[0].startswith("PayloadError: The part {number} of the name is 'seven'")
            assert causes[1].startswith("UnicodeDecodeError")

    asyncio.run(main())
