"""A backup while a host writes as fast as it can is one moment of the hub: nothing torn, nothing accepted missing."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress

import pytest

from durably import App, AppHost, OrchestrationContext
from durably.core.dump import DumpChunk
from durably.core.query import InstanceQuery
from durably.engine.listing import count_instances
from durably.storage.api import Store
from durably.storage.moving import Counted, export_hub, import_hub
from durably.storage.open import moved_store, open_store
from durably.storage.postgres.store import PostgresStore
from durably.storage.wrapped import WrappedStore
from tests.integration.moving.flight import check_histories

Urls = Callable[[], str]

STEPS = 8
AT_ONCE = 40
BACKUPS = 2

app = App()


@app.activity
async def add(number: int) -> int:
    return number + 1


@app.entity
class Tally:
    value: int = 0

    def add(self, amount: int) -> None:
        self.value += amount


@app.orchestrator
async def chain(ctx: OrchestrationContext, name: str) -> int:
    number = 0
    for step in range(STEPS):
        number = await ctx.call_activity(add, number)
        if step == STEPS // 2:
            ctx.signal_entity(f"@tally@{name}", "add", number)
    return number


class Slow:
    """Dumps a store so that the hub changes between any two parts."""

    def __init__(self, store: Store, acknowledged: list[str]) -> None:
        self._store = store
        self._acknowledged = acknowledged

    async def dump(self) -> AsyncGenerator[DumpChunk]:
        async with aclosing(self._store.dump()) as chunks:
            async for chunk in chunks:
                enough = len(self._acknowledged) + 3
                while len(self._acknowledged) < enough:  # noqa: ASYNC110 - a host is at work
                    await asyncio.sleep(0.001)
                yield chunk


async def load(host: AppHost, acknowledged: list[str]) -> None:
    """Start chain after chain, some at once, and remember whose start was acknowledged."""
    numbers = iter(range(1_000_000))

    async def line() -> None:
        for number in numbers:
            name = f"chain-{number}"
            handle = await host.client.start(chain, name, instance_id=name)
            acknowledged.append(name)
            await handle.result()

    await asyncio.gather(*(line() for _ in range(AT_ONCE)))


async def backups(host: AppHost, source: Callable[[], Store]) -> list[tuple[list[str], bytes]]:
    """Exports of a busy hub, each with the instances that were there for sure when it began."""
    acknowledged: list[str] = []
    loading = asyncio.ensure_future(load(host, acknowledged))
    found: list[tuple[list[str], bytes]] = []
    while len(found) < BACKUPS:
        before, file = len(acknowledged), io.BytesIO()
        while len(acknowledged) < before + 2 * AT_ONCE:
            assert not loading.done(), loading
            await asyncio.sleep(0.001)
        known = list(acknowledged)
        store = source()
        await store.open(create=False)
        await export_hub(Slow(store, acknowledged), file.write, 0, Counted())  # type: ignore[arg-type]
        await store.close()
        found.append((known, file.getvalue()))
    loading.cancel()
    with suppress(asyncio.CancelledError):
        await loading
    return found


async def check(known: list[str], file: bytes, url: str) -> None:
    """The copy is whole, and all that it has under way comes to its end."""
    await import_hub(io.BytesIO(file).read, "the export", moved_store(url), Counted())
    store = open_store(url)
    await store.open(create=False)
    assert await check_histories(store) >= len(known)
    count = sum((await count_instances(store, InstanceQuery())).values())
    await store.close()
    assert {*known} <= {row async for row in _ids(url)}
    async with app.host(url) as host, asyncio.timeout(60):
        for name in known:
            assert await host.client.handle(name).result() == STEPS
        for name in known:
            while await host.client.read_entity(f"@tally@{name}") != {"value": STEPS // 2 + 1}:  # noqa: ASYNC110 - a host is at work
                await asyncio.sleep(0.01)
        assert await host.client.count_instances() == count


async def _ids(url: str) -> AsyncIterator[str]:
    store = open_store(url)
    await store.open(create=False)
    after = InstanceQuery().after
    while after is not None:
        asked = await store.query_with_waiting(InstanceQuery(after=after, page_size=1_000))
        for row in (*asked.found.rows, *asked.waiting):
            yield row.instance_id
        after = asked.found.next_after
    await store.close()


@pytest.mark.parametrize("provider", ["sqlite", "postgres"])
def test_a_backup_of_a_busy_hub_is_one_moment_of_it(
    provider: str, sqlite_url: Urls, postgres_url: Urls
) -> None:
    async def main() -> None:
        source = sqlite_url() if provider == "sqlite" else postgres_url()
        hub = source if provider == "sqlite" else WrappedStore(PostgresStore(source, partitions=1))
        async with app.host(hub) as host:
            found = await backups(host, lambda: moved_store(source))
        sizes: list[int] = []
        for known, file in found:
            await check(known, file, sqlite_url())
            sizes.append(len(known))
        print(
            f"{provider}: {len(found)} backups with {sizes} instances, {len(found[-1][1]):,} bytes the last"
        )

    asyncio.run(main())
