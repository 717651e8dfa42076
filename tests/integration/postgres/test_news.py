"""What hosts tell those who wait: nothing while nobody heeds, and then enough that nobody has to look again and again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from durably import App, Client, EngineOptions, OrchestrationContext
from durably.client import endings, outside
from durably.client.outside import OutsideOperations
from durably.core.commit import Batch, Tombstone
from durably.engine.host import Host
from durably.storage.news import News
from durably.storage.postgres.news import _parsed, _texts
from durably.storage.postgres.store import PostgresStore
from durably.testing.store_scene import WAIT_S, instance_row
from tests.integration.postgres.test_leases import opened, sql, until

Hub = Callable[..., PostgresStore]


@asynccontextmanager
async def overheard(store: PostgresStore) -> AsyncGenerator[list[News]]:
    """What is said to those who heed, heard by somebody who has not said that he does."""
    texts: list[News] = []
    connection = await asyncpg.connect(store._address.dsn)
    try:
        await connection.add_listener(store._news._channel, lambda *args: texts.append(_parsed(args[3])))
        yield texts
    finally:
        await connection.close()


async def heeds(store: PostgresStore, callback: Callable[[News], Any]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not store.heed(callback):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.02)


def test_nothing_is_said_until_somebody_heeds(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with opened(hub, partitions=1) as host, opened(hub) as client, overheard(host) as said:
            host.on_arrival(lambda: None)
            await until(lambda: host.listening)
            host._news._heeded_until = 0.0  # who has just come tells for a while, whoever may be there
            lease = await host.acquire(0, "owner")
            said.clear()
            await host.commit(lease, Batch(1, tombstones=[Tombstone("m", 1)]))
            heard: list[News] = []
            await heeds(client, heard.append)
            assert not any(one.accepted for one in said)
            ended = instance_row("i", 1, status="Failed")
            gone = [Tombstone("n", 1), Tombstone("o", 1, b"no")]
            await host.commit(lease, Batch(2, instances=[ended, instance_row("j", 2)], tombstones=gone))
            expected = News(frozenset("n"), frozenset("o"), frozenset("i"))
            await until(lambda: expected in heard)
            assert expected in said

    asyncio.run(main())


def test_who_lost_the_server_does_not_believe_that_he_is_told(hub: Hub) -> None:
    async def main() -> None:
        async with opened(hub, partitions=1) as host, opened(hub) as client, sql(host) as run:
            host.on_arrival(lambda: None)
            heard: list[News] = []
            await heeds(client, heard.append)
            where = "FROM pg_stat_activity WHERE application_name = 'durably listener' AND query LIKE $1"
            await run(f"SELECT pg_terminate_backend(pid) {where}", f"%{client._news._channel}%")
            await until(lambda: not client.heed(heard.append))
            await heeds(client, heard.append)
            lease = await host.acquire(0, "owner")
            await host.commit(lease, Batch(1, tombstones=[Tombstone("m", 1)]))
            await until(lambda: any(news.accepted == {"m"} for news in heard))

    asyncio.run(main())


app = App()


@app.activity
async def double(number: int) -> int:
    await asyncio.sleep(0.05)
    return number * 2


@app.orchestrator
async def steps(ctx: OrchestrationContext, number: int) -> int:
    return await ctx.call_activity(double, number)


def test_who_is_told_need_not_look(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is not told is found by a look that comes after an hour."""
    monkeypatch.setattr(outside, "SELDOM_S", 3_600)
    monkeypatch.setattr(endings, "SELDOM_S", 3_600)
    store = hub()

    async def main() -> None:
        async with app.host(store.url, options=EngineOptions(partitions=4)), Client(store.url) as client:
            await client.start("steps", 1)
            management = client._management
            assert isinstance(management, OutsideOperations)
            await until(management._connection.heard.listen)
            handles = await asyncio.gather(*(client.start("steps", number) for number in range(100)))
            results = asyncio.gather(*(handle.result(timeout=None) for handle in handles))
            assert await asyncio.wait_for(results, WAIT_S) == [number * 2 for number in range(100)]

    asyncio.run(main())


def test_a_host_gives_new_instances_ids_of_its_own_while_it_is_calm(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = hub().url
    options = EngineOptions(partitions=8)

    async def main() -> None:
        async with app.host(url, options=options) as one, app.host(url, options=options) as other:
            hosts = (one.engine, other.engine)
            await until(lambda: all(len(host.partitions) == 4 for host in hosts))
            for host in (one, other):
                ids = [(await host.client.start(steps, 1)).instance_id for _ in range(20)]
                assert all(host.engine.serves(instance_id) for instance_id in ids)
                assert len(set(ids)) == 20
            monkeypatch.setattr(Host, "is_calm", False)
            ids = [(await one.client.start(steps, 1)).instance_id for _ in range(40)]
            assert 0 < sum(one.engine.serves(instance_id) for instance_id in ids) < 40

    asyncio.run(main())


def test_notices_are_as_short_as_the_server_wants_them() -> None:
    ids = frozenset(f"ünnamed instance {number:08}" for number in range(3_000))
    news = News(ids, frozenset(["a"]), ids | {"x" * 10_000})
    texts = _texts(news)
    assert max(len(text.encode()) for text in texts) < 7_900
    parts = [_parsed(f"me {text}") for text in texts]
    assert frozenset[str]().union(*(part.accepted for part in parts)) == ids
    assert frozenset[str]().union(*(part.ended for part in parts)) == ids
    assert _texts(News(frozenset(), frozenset(), frozenset())) == [json.dumps([[], [], []])]


@pytest.mark.parametrize("text", ["me", "me x", "me {}", "me []", "me [[], []]", "me 7", "me [1, 2, 3]"])
def test_what_another_version_says_is_no_news(text: str) -> None:
    assert not any(_parsed(text))
