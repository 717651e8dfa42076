"""Ways to a server: encrypted ones, and those where one of several servers takes writes."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from durably.core.commit import Batch
from durably.errors import StoreUnavailableError, UsageError
from durably.storage.postgres import calls
from durably.storage.postgres.store import PostgresStore
from durably.storage.slots import partition_of
from durably.testing.store_scene import history_row, instance_row
from tests.integration.postgres.schemes import asked
from tests.support.certificates import Authority
from tests.support.postgres import PostgresServer, program


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABLY_STATE_DIR", str(tmp_path))


async def open_and_close(url: str) -> None:
    store = PostgresStore(url, partitions=1)
    await store.open()
    await store.close()


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> list[Authority]:
    return [Authority(tmp_path_factory.mktemp(name)) for name in ("ours", "theirs")]


@pytest.fixture(scope="module")
def encrypted(
    authorities: list[Authority], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PostgresServer]:
    server = PostgresServer(
        tmp_path_factory.mktemp("encrypted"), durable=False, pair=authorities[0].pair("server")
    )
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca", "require"])
def test_a_server_that_our_authority_vouches_for_is_talked_to_in_private(
    encrypted: PostgresServer, authorities: list[Authority], mode: str
) -> None:
    async def main() -> None:
        url = f"{encrypted.url('tls')}&sslmode={mode}&sslrootcert={authorities[0].file}"
        await open_and_close(url)
        text = "SELECT ssl FROM pg_stat_ssl JOIN {s}.hub ON true WHERE pid = pg_backend_pid()"
        assert await asked(url, text) == [(True,)]

    asyncio.run(main())


def test_a_server_that_somebody_else_vouches_for_is_refused(
    encrypted: PostgresServer, authorities: list[Authority]
) -> None:
    url = f"{encrypted.url('tls')}&sslmode=verify-full&sslrootcert={authorities[1].file}"
    with pytest.raises(StoreUnavailableError, match="certificate verify failed"):
        asyncio.run(open_and_close(url))


def test_a_server_under_another_name_is_refused(
    encrypted: PostgresServer, authorities: list[Authority]
) -> None:
    url = f"{encrypted.url('tls')}&sslmode=verify-full&sslrootcert={authorities[0].file}"
    elsewhere = url.replace("127.0.0.1", "127.0.0.2")
    with pytest.raises(StoreUnavailableError):
        asyncio.run(open_and_close(elsewhere))


def test_what_the_driver_does_not_understand_is_an_error_of_the_url(
    encrypted: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # there is no authority
    with pytest.raises(UsageError, match=r"root certificate file .* does not exist"):
        asyncio.run(open_and_close(f"{encrypted.url('tls')}&sslmode=verify-full"))


# --- one of several --------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[PostgresServer, PostgresServer]]:
    first = PostgresServer(tmp_path / "first", durable=False)
    first.start()
    second = first.standby(tmp_path / "second")
    second.start()
    yield first, second
    first.stop()
    second.stop()


def both(first: PostgresServer, second: PostgresServer, hub: str = "both") -> str:
    hosts = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
    return f"postgresql://durably@{hosts}/postgres?hub={hub}&target_session_attrs=primary"


def test_the_server_that_takes_writes_is_found_before_and_after_a_failover(
    pair: tuple[PostgresServer, PostgresServer],
) -> None:
    first, second = pair

    async def main() -> None:
        for url in (both(first, second), both(second, first)):
            await open_and_close(url)
        store = PostgresStore(both(second, first))
        await store.open()
        lease = await store.acquire(0, "a host")
        await _commit(store, lease, 1)
        await _followed(first, second)
        first.kill()
        second.promote()
        # The host goes on with the server that is there now, without being started anew.
        async with asyncio.timeout(60):
            while True:
                try:
                    await _commit(store, lease, 2)
                    break
                except StoreUnavailableError:
                    await asyncio.sleep(0.05)
        assert [row is not None for row in await store.get_instances(["i1", "i2"])] == [True, True]
        await store.close()

    asyncio.run(main())


async def _commit(store: PostgresStore, lease: object, number: int) -> None:
    row = instance_row(f"i{number}", number)
    assert partition_of(row.instance_id, 1) == 0
    await store.commit(lease, Batch(number=number, instances=[row], history=[history_row(number, 0)]))  # type: ignore[arg-type]


async def _followed(first: PostgresServer, second: PostgresServer) -> None:
    ((here,),) = await asked(first.url("x"), "SELECT pg_current_wal_lsn()::text")
    text = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn"
    async with asyncio.timeout(60):
        while await asked(second.url("x"), text, here) != [(True,)]:  # noqa: ASYNC110 - it happens on the server
            await asyncio.sleep(0.02)


def test_a_standby_alone_is_no_hub(pair: tuple[PostgresServer, PostgresServer]) -> None:
    first, second = pair
    asyncio.run(open_and_close(first.url("both")))
    with pytest.raises(StoreUnavailableError, match="takes no writes: it is a standby"):
        asyncio.run(open_and_close(second.url("both")))
    first.kill()
    with pytest.raises(
        StoreUnavailableError, match=rf"no host of the URL takes writes \(127.0.0.1:{first.port}: .*; 127"
    ):
        asyncio.run(open_and_close(both(first, second)))


def test_a_host_that_says_nothing_keeps_nobody_from_the_other_one(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "CONNECT_S", 600.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = server.url("silent").replace("127.0.0.1:", f"127.0.0.1:{silent.getsockname()[1]},127.0.0.1:")
        asyncio.run(open_and_close(url))


def test_the_driver_of_the_server_agrees(encrypted: PostgresServer, authorities: list[Authority]) -> None:
    """The URL without ``hub`` is one of libpq."""
    url = f"postgresql://durably@127.0.0.1:{encrypted.port}/postgres?sslmode=verify-full&sslrootcert={authorities[0].file}"
    done = subprocess.run(
        [program("psql"), url, "-Atc", "SELECT 1"], check=False, capture_output=True, text=True
    )
    assert done.stdout == "1\n", done.stderr
