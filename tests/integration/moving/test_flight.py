"""Hubs with instances in flight move between storages, and everything goes on there as it would have here."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable

import pytest

from durably import AppHost, EncryptionKeys, EngineOptions
from durably.errors import EncryptionKeyError
from durably.storage.api import Store
from durably.storage.moving import Counted, copy_hub, export_hub, import_hub
from durably.storage.open import moved_store, open_store
from durably.storage.postgres.store import PostgresStore
from durably.storage.wrapped import WrappedStore
from tests.integration.moving.flight import app, arrive, check_histories, depart, later
from tests.support.clock import ManualClock

Urls = Callable[[], str]

KEYS = EncryptionKeys({"k1": bytes(range(32))})


def host(hub: str | Store, clock: ManualClock, keys: EncryptionKeys | None) -> AppHost:
    return app.host(hub, options=EngineOptions(encryption_keys=keys, drain_timeout_s=0), clock=clock)


async def departed(url: str, keys: EncryptionKeys | None) -> bytes:
    """An export of a hub, made while it is served."""
    file = io.BytesIO()
    async with host(url, ManualClock(), keys) as served:
        await depart(served)
        store = moved_store(url)
        await store.open(create=False)
        await export_hub(store, file.write, 0, Counted())
        await store.close()
    return file.getvalue()


async def copied(source: str, target: str) -> Counted:
    store, counted = moved_store(source), Counted()
    await store.open(create=False)
    await copy_hub(store, moved_store(target), counted)
    await store.close()
    return counted


async def imported(export: bytes, store: Store) -> None:
    await import_hub(io.BytesIO(export).read, "the export", store, Counted())


@pytest.mark.parametrize("keys", [None, KEYS], ids=["plain", "encrypted"])
def test_a_hub_goes_to_postgres_and_back_by_a_file_and_by_a_copy(
    sqlite_url: Urls, postgres_url: Urls, keys: EncryptionKeys | None
) -> None:
    async def main() -> None:
        there, back = postgres_url(), sqlite_url()
        export = await departed(sqlite_url(), keys)
        await imported(export, moved_store(there))
        for url in (there, back):
            if url == back:
                await copied(there, back)
            store = open_store(url, keys)
            await store.open(create=False)
            assert store.capabilities.partitions == (32 if url == there else 1)
            assert await check_histories(store) > 50
            await store.close()
        async with host(back, later(), keys) as served:
            await arrive(served)

    asyncio.run(main())


@pytest.mark.parametrize("keys", [None, KEYS], ids=["plain", "encrypted"])
def test_a_host_on_postgres_goes_on(
    sqlite_url: Urls, postgres_url: Urls, keys: EncryptionKeys | None
) -> None:
    async def main() -> None:
        url = postgres_url()
        await imported(await departed(sqlite_url(), keys), PostgresStore(url, partitions=1))
        async with host(WrappedStore(PostgresStore(url), keys), later(), keys) as served:
            await arrive(served)

    asyncio.run(main())


def test_an_encrypted_copy_needs_the_keys_of_the_hub(sqlite_url: Urls) -> None:
    async def main() -> None:
        source, target = sqlite_url(), sqlite_url()
        await departed(source, KEYS)
        await copied(source, target)
        other = EncryptionKeys({"k1": bytes(32)})
        for keys in (None, other):
            with pytest.raises(EncryptionKeyError):
                await open_store(target, keys).open()

    asyncio.run(main())
