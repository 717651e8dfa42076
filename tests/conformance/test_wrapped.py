"""A store that compresses and encrypts keeps the provider contract, whatever it stands around."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from durably.codec.keys import EncryptionKeys
from durably.storage.api import Store
from durably.storage.memory import MemoryStore
from durably.storage.sqlite.store import SqliteStore
from durably.storage.wrapped import WrappedStore
from durably.testing.store_conformance import StoreConformance

KEYS = EncryptionKeys({"k1": bytes(range(32))})


def wrapped(store: Store) -> WrappedStore:
    return WrappedStore(store, KEYS, compress_above=1)


class TestEncryptedMemory(StoreConformance):
    async def make(self) -> Store:
        return wrapped(MemoryStore())

    async def reopen(self, store: Store) -> Store:
        assert isinstance(store, WrappedStore)
        assert isinstance(store.inner, MemoryStore)
        return wrapped(MemoryStore(store.inner.hub))

    async def crash(self, store: Store) -> None:
        assert isinstance(store, WrappedStore)
        assert isinstance(store.inner, MemoryStore)
        store.inner.abandon()


class TestEncryptedSqlite(StoreConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.paths = (tmp_path / f"{number}.db" for number in count())

    async def make(self) -> Store:
        return wrapped(SqliteStore(str(next(self.paths))))

    async def reopen(self, store: Store) -> Store:
        return wrapped(SqliteStore(store.url.removeprefix("sqlite:///")))

    async def crash(self, store: Store) -> None:
        assert isinstance(store, WrappedStore)
        assert isinstance(store.inner, SqliteStore)
        store.inner._lock.drop()


class TestCompressedMemory(TestEncryptedMemory):
    async def make(self) -> Store:
        return WrappedStore(MemoryStore(), compress_above=1)

    async def reopen(self, store: Store) -> Store:
        assert isinstance(store, WrappedStore)
        assert isinstance(store.inner, MemoryStore)
        return WrappedStore(MemoryStore(store.inner.hub), compress_above=1)
