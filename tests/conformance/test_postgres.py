"""The PostgreSQL store keeps the provider contract."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import asyncpg
import pytest

from durably.storage.api import Store
from durably.storage.postgres.store import PostgresStore
from durably.testing.store_conformance import PartitionConformance, StoreConformance, TasksConformance
from tests.support.postgres import PostgresServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path_factory.mktemp("postgres"), durable=False)
    server.start()
    yield server
    server.stop()


_hubs = count()

LEASE_S = 3.0


@pytest.mark.slow_once
class TestPostgresStore(StoreConformance, PartitionConformance, TasksConformance):
    @pytest.fixture(autouse=True)
    def _server(self, server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = server
        monkeypatch.setenv("DURABLY_STATE_DIR", str(tmp_path))

    async def make(self) -> PostgresStore:
        return await self.make_of(1)

    async def reopen(self, store: Store) -> PostgresStore:
        return PostgresStore(store.url, lease_s=LEASE_S)

    async def make_of(self, partitions: int) -> PostgresStore:
        return PostgresStore(self.server.url(f"hub_{next(_hubs)}"), partitions=partitions, lease_s=LEASE_S)

    async def crash(self, store: Store) -> None:
        # What a dead process leaves behind when its lease has run out.
        assert isinstance(store, PostgresStore)
        await self._change(store, "UPDATE {s}.hosts SET until = '-infinity' WHERE host_id = $1")
        await self.expire(store, "''")
        dead = "UPDATE {s}.tasks SET due = '-infinity', claimer = 'dead' WHERE claimer = $1"
        await self._change(store, dead)
        await store.close()

    async def expire(self, store: Store, holder: str = "holder") -> None:
        assert isinstance(store, PostgresStore)
        text = f"UPDATE {{s}}.partitions SET lease_until = '-infinity', holder = {holder} WHERE holder = $1"
        await self._change(store, text)

    async def _change(self, store: PostgresStore, text: str) -> None:
        connection = await asyncpg.connect(store._address.dsn)
        await connection.execute(text.replace("{s}", store._schema), store._leases._holder)
        await connection.close()
