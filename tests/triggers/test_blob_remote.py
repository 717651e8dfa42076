"""Azure Blob Storage (Azurite) and S3 (moto), as real servers: the contract of a store, and the trigger over them."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from durably import App, Blob, BlobNotFoundError, BrokerError, Client, InvalidTextError, OrchestrationContext
from durably.bindings.blobs.accounts import BlobAccounts
from durably.bindings.blobs.store import BlobStore, read
from tests.support.blob_servers import (
    azurite_blobs,
    make_bucket,
    make_container,
    put_object,
    s3_server,
)
from tests.support.servers import Server
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow_once

NAMES = ["10:00.csv", "a b%2f.txt", "a.b/c", "a/b.txt", "a/b/c", "q?#&+=", "x..y", "~*", "é/ü", "日本"]


class Service(NamedTuple):
    """A store, the setting that names it, and a container that nobody else uses."""

    server: Server
    url: str
    container: str


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    made = {
        "azure": azurite_blobs(tmp_path_factory.mktemp("azurite")),
        "s3": s3_server(tmp_path_factory.mktemp("s3")),
    }
    try:
        for server in made.values():
            server.start()
        yield made
    finally:
        for server in made.values():
            server.kill()


@pytest.fixture(params=["azure", "s3", "s3 folder"])
def service(
    request: pytest.FixtureRequest, servers: dict[str, Server], monkeypatch: pytest.MonkeyPatch
) -> Service:
    kind, container = request.param, f"c{os.urandom(6).hex()}"
    server = servers[kind.partition(" ")[0]]
    url = server.url
    if kind == "azure":
        make_container(server, container)
    elif kind == "s3":
        make_bucket(server, container)
    else:
        make_bucket(server, f"b{container}")
        url = url.replace("s3://", f"s3://b{container}/in/here")
    monkeypatch.setenv("BLOBS", url)
    return Service(server, url, container)


def store_of(service: Service) -> BlobStore:
    return BlobAccounts("memory://", {"BLOBS": service.url}).store("BLOBS")


def test_the_contract_of_a_store(service: Service) -> None:
    container = service.container

    async def main() -> None:
        store = store_of(service)
        assert [page async for page in store.list(container)] == []
        assert await store.head(container, "a") is None
        assert not await store.delete(container, "a")
        for name in reversed(NAMES):
            written = await store.write(container, name, name.encode() * 1000)
            assert written == await store.head(container, name)
            assert written.whole
            assert await read(store, container, name, version=written.version) == name.encode() * 1000
            assert await read(store, container, name, limit=3) == (name.encode() * 3)[:3]
            listed = [one async for page in store.list(container, name) for one in page]
            assert written in listed
        for prefix in ("", "a", "a/", "a/b/", "nothing"):
            for after in ("", "a/b.txt"):
                found = [one.name async for page in store.list(container, prefix, after) for one in page]
                assert found == [name for name in NAMES if name.startswith(prefix) and name > after]
        big = os.urandom(3 << 20)
        first = await store.write(container, "big", big)
        assert await read(store, container, "big", version=first.version) == big
        second = await store.write(container, "big", b"")
        assert second.version != first.version
        assert await read(store, container, "big") == b""
        for name, version in (("big", first.version), ("none", None), ("none", first.version)):
            with pytest.raises(BlobNotFoundError):
                await read(store, container, name, version=version)
        assert await store.delete(container, "big")
        assert await store.head(container, "big") is None
        for name in ("../x", "/x", "a//b", "a/./b", "a\\b", "a\0", ""):
            for call in (store.write(container, name, b""), store.head(container, name)):
                with pytest.raises(InvalidTextError, match="Blob name"):
                    await call
        await store.close()

    asyncio.run(main())


def test_containers_that_are_not_there(service: Service) -> None:
    async def main() -> None:
        store = store_of(service)
        assert [page async for page in store.list("not-there")] == []
        assert await store.head("not-there", "a") is None
        assert not await store.delete("not-there", "a")
        if "/in/here" not in service.url:
            with pytest.raises(BrokerError, match="not-there"):
                await store.write("not-there", "a", b"")
        await store.close()

    asyncio.run(main())


def test_each_version_is_handled_once(service: Service, tmp_path: Path) -> None:
    app = App()
    taken: list[tuple[str, bytes]] = []

    @app.orchestrator
    async def size(ctx: OrchestrationContext, count: int) -> int:
        return count

    @app.blob(f"{service.container}/in/{{name}}.bin", connection="BLOBS", interval=0.05)
    async def take(name: str, blob: Blob, client: Client) -> None:
        taken.append((name, await blob.read()))
        await client.start(size, blob.size)

    async def life(docs: list[tuple[str, bytes]], count: int) -> None:
        async with app.host(f"sqlite:///{tmp_path / 'hub.db'}") as host:
            container = host.blobs(service.container, connection="BLOBS")
            for name, data in docs:
                await container.write(name, data)
            await eventually(lambda: len(taken) == count)

            async def started() -> bool:
                return await host.client.count_instances(name="size", runtime_status=["Completed"]) == count

            await eventually(started)
            await container.delete("in/0.bin")

    files = [(f"in/{number}.bin", b"x" * number) for number in range(20)]
    asyncio.run(life([*files, ("out/1.bin", b""), ("in/1.txt", b"")], 20))
    asyncio.run(life([("in/3.bin", b"anew"), ("in/20.bin", b"more")], 22))
    assert sorted(taken[:20]) == sorted((str(number), b"x" * number) for number in range(20))
    assert sorted(taken[20:]) == [("20", b"more"), ("3", b"anew")]


def test_secrets_are_in_no_error(servers: dict[str, Server]) -> None:
    """Of a store that cannot be reached, or takes no such key."""
    urls = [
        "s3://?endpoint=http://127.0.0.1:1&region=r&access_key_id=hunter1&secret_access_key=hunter2",
        servers["azure"].url.replace("Eby8vdM02xNO", "aHVudGVyMgAA"),
        "BlobEndpoint=http://127.0.0.1:1/account;SharedAccessSignature=?sv=2024&sig=hunter2",
    ]

    async def main() -> None:
        for url in urls:
            store = BlobAccounts("memory://", {"BLOBS": url}).store("BLOBS")
            with pytest.raises(BrokerError, match="'docs'") as caught:
                await store.head("docs", "a")
            assert "hunter" not in str(caught.value)
            assert "aHVudGVyMg" not in str(caught.value)
            await store.close()

    asyncio.run(main())


def test_a_name_that_the_library_refuses_is_named(servers: dict[str, Server]) -> None:
    """object_store lists no bucket that holds one; whoever reads the log can tell what has to go."""
    server = servers["s3"]
    make_bucket(server, "odd-names")
    put_object(server, "odd-names", "a/%2e%2e/secret")

    async def main() -> None:
        store = BlobAccounts("memory://", {"BLOBS": server.url}).store("BLOBS")
        with pytest.raises(BrokerError, match=r"a/\.\./secret"):
            _ = [page async for page in store.list("odd-names")]
        await store.close()

    asyncio.run(main())
