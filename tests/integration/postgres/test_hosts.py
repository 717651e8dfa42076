"""Hosts of a hub on PostgreSQL, as a client in another process sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from durably.client import Client
from durably.errors import HostNotFoundError
from durably.storage.api import HostReport
from durably.storage.postgres.store import PostgresStore


def test_hosts_are_listed_and_asked_to_drain(hub: Callable[..., PostgresStore]) -> None:
    async def main() -> None:
        stores = [hub(partitions=3), hub()]
        for number, store in enumerate(stores):
            await store.open()
            report = HostReport(f"host {number}", "1.2.3", ("activity:charge",), backlog=number)
            await store.survey(report._replace(oldest_us=1_500_000 if number else None))
            await store.acquire(number, "owner")
        await stores[0].acquire(2, "owner")
        async with Client(hub()) as client:
            first, second = await client.hosts()
            assert [(host.name, host.partitions, host.draining) for host in (first, second)] == [
                ("host 0", 2, False),
                ("host 1", 1, False),
            ]
            assert (second.version, second.functions) == ("1.2.3", ("activity:charge",))
            assert (second.backlog, second.oldest_wait) == (1, timedelta(seconds=1.5))
            assert first.oldest_wait is None
            assert datetime(2020, 1, 1, tzinfo=UTC) < first.since <= first.seen_at
            await client.drain_host(second.host_id)
            assert [host.draining for host in await client.hosts()] == [False, True]
            (told,) = [host for host in (await stores[1].survey()).hosts if host.is_me]
            assert told.told_to_drain
            await stores[1].close()
            with pytest.raises(HostNotFoundError, match=second.host_id):
                await client.drain_host(second.host_id)
            assert [host.host_id for host in await client.hosts()] == [first.host_id]
        await stores[0].close()

    asyncio.run(main())
