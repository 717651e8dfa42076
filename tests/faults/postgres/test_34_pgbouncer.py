"""Scenario 34: PgBouncer in transaction mode is in between. What a store promises it promises there, too."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from durably.storage.api import Store
from durably.storage.postgres.store import PostgresStore
from durably.testing.commit_conformance import CommitConformance
from durably.testing.inbox_conformance import InboxConformance
from durably.testing.store_conformance import PartitionConformance, StoreConformance, TasksConformance
from durably.testing.store_scene import StoreHooks
from tests.faults.postgres.conftest import Report
from tests.faults.postgres.ledger import Ledger
from tests.faults.postgres.owners import Owner
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import PostgresServer
from tests.support.waiting import eventually

_hubs = count()

PARTITIONS = 6
LEASE_S = 3.0


@pytest.fixture(scope="module")
def bouncer(shared_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PgBouncer]:
    with PgBouncer(tmp_path_factory.mktemp("bouncer") / "transactions", shared_server) as bouncer:
        yield bouncer


class ThroughPgBouncer(StoreHooks):
    """What a provider says about itself, with PgBouncer in between."""

    tells = False

    @pytest.fixture(autouse=True)
    def _servers(self, bouncer: PgBouncer, shared_server: PostgresServer) -> None:
        self.bouncer = bouncer
        self.server = shared_server

    async def make(self) -> PostgresStore:
        return await self.make_of(1)

    async def make_of(self, partitions: int) -> PostgresStore:
        return PostgresStore(
            self.bouncer.url(f"pooled_{next(_hubs)}"), partitions=partitions, lease_s=LEASE_S
        )

    async def reopen(self, store: Store) -> PostgresStore:
        return PostgresStore(store.url, lease_s=LEASE_S)

    async def crash(self, store: Store) -> None:
        assert isinstance(store, PostgresStore)
        await self._change(store, "UPDATE {s}.hosts SET until = '-infinity' WHERE host_id = {h}")
        await self._change(
            store, "UPDATE {s}.partitions SET lease_until = '-infinity', holder = '' WHERE holder = {h}"
        )
        await self._change(
            store, "UPDATE {s}.tasks SET due = '-infinity', claimer = 'dead' WHERE claimer = {h}"
        )
        await store.close()

    async def expire(self, store: Store) -> None:
        assert isinstance(store, PostgresStore)
        await self._change(store, "UPDATE {s}.partitions SET lease_until = '-infinity' WHERE holder = {h}")

    async def _change(self, store: PostgresStore, text: str) -> None:
        await self.server.execute(text.format(s=store._schema, h=f"'\\x{store._holder.hex()}'::bytea"))


@pytest.mark.slow_once
class TestEssentials(ThroughPgBouncer, CommitConformance, InboxConformance):
    """What a host needs most."""


@pytest.mark.soak
class TestEverything(ThroughPgBouncer, StoreConformance, PartitionConformance, TasksConformance):
    """The whole contract."""


@pytest.mark.slow_once
@pytest.mark.parametrize(
    "how",
    [
        {"size": 2},
        {"size": 1, "more": "ignore_startup_parameters = jit, enable_seqscan"},
        {"size": 20, "mode": "session", "more": "ignore_startup_parameters = jit, enable_seqscan"},
    ],
    ids=["transaction", "one server connection", "session"],
)
def test_load_through_pgbouncer(
    shared_server: PostgresServer, hub_name: str, tmp_path: Path, report: Report, how: dict[str, Any]
) -> None:
    async def main() -> None:
        ledger = Ledger(PARTITIONS, seed=34)
        with PgBouncer(tmp_path / "own" / "bouncer", shared_server, **how) as bouncer:
            counts = await _load(bouncer.url(hub_name), ledger)
        verdict = await ledger.compare(shared_server.dsn, hub_name)
        report(
            commits=counts["acknowledged"],
            retries=counts["unavailable"],
            lost=verdict.lost,
            doubled=verdict.doubled,
        )
        assert verdict.is_right, verdict.details
        assert counts["unavailable"] == 0

    asyncio.run(main())


async def _load(url: str, ledger: Ledger) -> Counter[str]:
    owners: list[Owner] = []
    for number in range(2):
        store = PostgresStore(url, partitions=PARTITIONS)
        await store.open()
        woken = asyncio.Event()
        store.on_arrival(woken.set)
        for _ in range(2):  # hosts poll
            await asyncio.wait_for(woken.wait(), 30)
            woken.clear()
        assert not store.listening
        owners.append(Owner(store, ledger, f"owner {number}"))
    for mine in range(PARTITIONS):
        await owners[mine % 2].take(mine)
    is_over = lambda: min(ledger.batches) >= 40  # noqa: E731
    reads = asyncio.create_task(_read(owners[0].store))
    await asyncio.gather(*(owners[mine % 2].work(mine, is_over) for mine in range(PARTITIONS)))
    reads.cancel()
    await asyncio.gather(*(owner.store.close() for owner in owners))
    return sum((owner.counts for owner in owners), Counter[str]())


async def _read(store: PostgresStore) -> None:
    while True:
        await asyncio.gather(*(store.get_instance(f"i{number}") for number in range(8)))


@pytest.mark.slow_once
def test_a_direct_connection_is_known_as_one(shared_server: PostgresServer, hub_name: str) -> None:
    async def main() -> None:
        store = PostgresStore(shared_server.url(hub_name))
        await store.open()
        store.on_arrival(lambda: None)

        async def listening() -> bool:
            return store.listening

        await eventually(listening, "a notice that was heard")
        await store.close()

    asyncio.run(main())
