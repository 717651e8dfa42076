"""Past a pooler in transaction mode, where each transaction may be another server connection's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

from durably import App, Client, OrchestrationContext
from durably.storage.postgres.migrations import STEPS
from durably.storage.postgres.store import PostgresStore
from durably.testing.store_scene import message
from tests.integration.postgres.schemes import NUMBERS, asked, migrated
from tests.support.pooler import Pooler
from tests.support.postgres import PostgresServer

_hubs = count()


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABLY_STATE_DIR", str(tmp_path))


@asynccontextmanager
async def pooled(server: PostgresServer) -> AsyncGenerator[tuple[str, str]]:
    """The URL of a hub past a pooler, and without."""
    async with Pooler(server.port).running() as pooler:
        direct = server.url(f"pooled_{next(_hubs)}")
        yield direct.replace(f":{server.port}/", f":{pooler.port}/"), direct


def test_ten_at_once_migrate_one_after_the_other(server: PostgresServer) -> None:
    async def main() -> None:
        async with pooled(server) as (url, direct):
            stores = [PostgresStore(url, partitions=2) for _ in range(10)]
            await asyncio.gather(*(store.open() for store in stores))
            await asyncio.gather(*(store.close() for store in stores))
            done: list[int] = []
            found = await asyncio.gather(
                *(
                    migrated(
                        url, post=True, told=lambda step, text: None if text else done.append(step.number)
                    )
                    for _ in range(10)
                )
            )
            assert {one.done for one in found} == {NUMBERS}
            assert done == sorted(NUMBERS - {step.number for step in STEPS})
            assert await asked(direct, "SELECT 1 FROM pg_locks WHERE locktype = 'advisory'") == []

    asyncio.run(main())


def test_a_host_learns_of_messages_by_looking(server: PostgresServer) -> None:
    async def main() -> None:
        async with pooled(server) as (url, direct):
            host = PostgresStore(url, partitions=1)
            await host.open()
            lease = await host.acquire(0, "a host")
            woken = asyncio.Event()
            host.on_arrival(woken.set)
            await asyncio.wait_for(woken.wait(), 30)
            client = PostgresStore(direct)
            await client.open()
            await client.post([message("m1", "i1")])
            woken.clear()
            await asyncio.wait_for(woken.wait(), 30)
            assert [row.message_id for row in await host.read_inbox(lease)] == ["m1"]
            await client.close()
            await host.close()

    asyncio.run(main())


app = App()


@app.activity
async def double(number: int) -> int:
    return number * 2


@app.orchestrator
async def steps(ctx: OrchestrationContext, number: int) -> int:
    for _ in range(3):
        number = await ctx.call_activity(double, number)
    return number


def test_host_and_client_work(server: PostgresServer) -> None:
    async def main() -> None:
        async with pooled(server) as (url, _):
            store = PostgresStore(url, partitions=1)
            await store.open()
            await store.close()
            async with app.host(url) as host, Client(url, app=app) as client:
                handles = await asyncio.gather(*(client.start(steps, number) for number in range(20)))
                results = await asyncio.gather(*(handle.result(timeout=60) for handle in handles))
                assert results == [number * 8 for number in range(20)]
                assert (await host.client.count_instances()) == 20

    asyncio.run(main())
