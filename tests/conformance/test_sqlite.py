"""The SQLite store keeps the provider contract."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from durably.storage.api import Store
from durably.storage.sqlite.store import SqliteStore
from durably.testing.store_conformance import StoreConformance


class TestSqliteStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.paths = (tmp_path / f"{number}.db" for number in count())

    async def make(self) -> SqliteStore:
        return SqliteStore(str(next(self.paths)))

    async def reopen(self, store: Store) -> SqliteStore:
        return SqliteStore(store.url.removeprefix("sqlite:///"))

    async def crash(self, store: Store) -> None:
        # What the kernel does to a process that dies, as far as other processes can tell.
        assert isinstance(store, SqliteStore)
        store._lock.drop()
