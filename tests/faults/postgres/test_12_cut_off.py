"""Scenarios 10 and 12: an owner is cut off, or frozen, for longer than its lease; another takes over, and it is fenced."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from durably.errors import HubLockedError, LeaseLostError, StoreUnavailableError
from durably.storage.postgres.store import PostgresStore
from tests.faults.postgres.conftest import Report
from tests.faults.postgres.frozen import batch_of
from tests.faults.postgres.ledger import Ledger
from tests.faults.postgres.owners import Owner
from tests.support.postgres import PostgresServer
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually

PARTITIONS = 4
LEASE_S = 1.2
ROOT = Path(__file__).parents[3]


def cut_off(server: PostgresServer, hub: str, times: int, seed: int, report: Report) -> None:
    """One owner is cut off for three lease times while it commits, silently or loudly; the other one takes over."""

    async def main() -> Counter[str]:
        ledger, random, counts = Ledger(PARTITIONS, seed), Random(seed), Counter[str]()
        with TcpProxy(server.port) as proxy:
            cut = PostgresStore(proxy.url(hub), partitions=PARTITIONS, lease_s=LEASE_S)
            near = PostgresStore(server.url(hub), lease_s=LEASE_S)
            await cut.open()
            await near.open()
            for number in range(times):
                await _one_cut(
                    ledger, proxy, cut, near, counts, silently=bool(number % 2) or random.random() < 0.3
                )
            await cut.close()
            await near.close()
        verdict = await ledger.compare(server.dsn, hub)
        report(
            cuts=times,
            taken_over=counts["taken over"],
            commits=counts["acknowledged"],
            retries=counts["unavailable"],
            fenced=counts["fenced"],
            lost=verdict.lost,
            doubled=verdict.doubled,
        )
        assert verdict.is_right, verdict.details
        return counts

    counts = asyncio.run(main())
    assert counts["taken over"] == times * PARTITIONS
    assert counts["fenced"] == times * PARTITIONS, "whoever was cut off is told so by its next commit"


async def _one_cut(
    ledger: Ledger,
    proxy: TcpProxy,
    cut: PostgresStore,
    near: PostgresStore,
    counts: Counter[str],
    *,
    silently: bool,
) -> None:
    first, second = Owner(cut, ledger, "cut off"), Owner(near, ledger, "near")
    for mine in range(PARTITIONS):
        await first.take(mine)
    renewals = asyncio.create_task(first.renew(LEASE_S / 3))

    async def work(mine: int) -> None:
        while await first.commit(mine, ledger.batch(mine)):
            pass

    works = [asyncio.create_task(work(mine)) for mine in range(PARTITIONS)]
    before = list(ledger.batches)
    await eventually(lambda: all(now > then for now, then in zip(ledger.batches, before, strict=True)))
    if silently:
        proxy.stall()
    else:
        proxy.refuse()
    loop = asyncio.get_running_loop()
    heals = loop.time() + 3 * LEASE_S
    await asyncio.gather(*(second.take(mine) for mine in range(PARTITIONS)))
    counts["taken over"] += PARTITIONS
    over = False
    others = [asyncio.create_task(second.work(mine, lambda: over, 0.01)) for mine in range(PARTITIONS)]
    keeps = asyncio.create_task(second.renew(LEASE_S / 3))
    await asyncio.sleep(max(heals - loop.time(), 0))
    proxy.flow()
    proxy.refuse(False)
    async with asyncio.timeout(60):
        await asyncio.gather(*works)  # each ends when it is fenced
    over = True
    await asyncio.gather(*others)
    renewals.cancel()
    keeps.cancel()
    for mine, lease in second.leases.items():
        with pytest.raises(HubLockedError):
            await cut.acquire(mine, "cut off")
        await near.release(lease)
    counts.update(first.counts)
    counts.update({"acknowledged": second.counts["acknowledged"]})


@pytest.mark.slow_once
def test_an_owner_that_is_cut_off_is_replaced_and_fenced(
    shared_server: PostgresServer, hub_name: str, report: Report
) -> None:
    cut_off(shared_server, hub_name, 2, 12, report)


@pytest.mark.soak
def test_owners_are_cut_off_for_long(shared_server: PostgresServer, hub_name: str, report: Report) -> None:
    cut_off(shared_server, hub_name, 60, 120, report)


def frozen(server: PostgresServer, url: str, times: int, report: Report) -> None:
    async def main() -> None:
        counts = Counter[str]()
        rows: list[bytes] = []
        for _ in range(times):
            await _one_freeze(url, rows, counts)
        name = url.partition("hub=")[2]
        found = await server.execute(f"SELECT array_agg(data ORDER BY seq) FROM {name}.history")
        report(
            freezes=times, commits=len(rows), refused=counts["refused"], lost_or_doubled=int(found != rows)
        )
        assert found == rows
        assert counts["refused"] == times

    asyncio.run(main())


async def _one_freeze(url: str, rows: list[bytes], counts: Counter[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.faults.postgres.frozen",
        url,
        "0.5",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert (await process.stdout.readline()).startswith(b"owns")
        number = len(rows) + 1
        process.stdin.write(b"%d\n" % number)
        assert await process.stdout.readline() == b"done %d\n" % number
        rows.append(b"frozen %d" % number)
        process.send_signal(signal.SIGSTOP)
        store = PostgresStore(url, lease_s=0.5)
        await store.open()
        lease = await eventually(lambda: _acquired(store), "the lease ran out")
        process.stdin.write(b"%d\n" % (number + 1))
        process.send_signal(signal.SIGCONT)
        assert await process.stdout.readline() == b"refused LeaseLostError %d\n" % (number + 1)
        counts["refused"] += 1
        await store.commit(lease, batch_of(number + 1, "next"))
        rows.append(b"next %d" % (number + 1))
        await store.release(lease)
        await store.close()
    finally:
        process.kill()
        await process.wait()


async def _acquired(store: PostgresStore) -> object:
    try:
        return await store.acquire(0, "next")
    except HubLockedError:
        await asyncio.sleep(0.05)
        return None


@pytest.mark.slow_once
def test_a_frozen_owner_is_fenced_when_it_wakes(
    shared_server: PostgresServer, hub_name: str, report: Report
) -> None:
    frozen(shared_server, shared_server.url(hub_name), 2, report)


@pytest.mark.soak
def test_owners_are_frozen_for_long(shared_server: PostgresServer, hub_name: str, report: Report) -> None:
    frozen(shared_server, shared_server.url(hub_name), 50, report)


@pytest.mark.slow_once
def test_a_server_that_says_nothing_is_not_waited_for_for_ever(
    shared_server: PostgresServer, hub_name: str
) -> None:
    """What is cut off silently fails in the end, reads and renewals as well; and goes on when it is back."""

    async def main() -> None:
        with TcpProxy(shared_server.port) as proxy:
            store = PostgresStore(proxy.url(hub_name), partitions=1, lease_s=0.3)
            await store.open()
            lease = await store.acquire(0, "owner")
            await store.commit(lease, batch_of(1, "owner"))
            await store.get_instance("a")
            proxy.stall()
            async with asyncio.timeout(20):
                calls = (
                    store.commit(lease, batch_of(2, "owner")),
                    store.renew(lease),
                    store.get_instance("a"),
                )
                said = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(error) for error in said] == [StoreUnavailableError] * 3, said
            proxy.flow()
            await store.commit(lease, batch_of(2, "owner"))
            await store.close()

    asyncio.run(main())


@pytest.mark.slow_once
def test_a_released_partition_takes_no_commits(shared_server: PostgresServer, hub_name: str) -> None:
    async def main() -> None:
        store = PostgresStore(shared_server.url(hub_name), partitions=1)
        await store.open()
        lease = await store.acquire(0, "owner")
        await store.release(lease)
        with pytest.raises(LeaseLostError, match="by another host, or by nobody"):
            await store.commit(lease, batch_of(1, "owner"))
        await store.close()

    asyncio.run(main())
