"""Scenarios 31 and 32: a standby is promoted, synchronous or not; and the old primary comes back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from durably.core.commit import Batch
from durably.errors import HubLockedError, InvariantError, LeaseLostError, StoreUnavailableError
from durably.storage.api import Lease
from durably.storage.postgres.store import PostgresStore
from durably.testing.store_scene import FOREVER
from tests.faults.postgres.conftest import Report
from tests.faults.postgres.frozen import batch_of
from tests.faults.postgres.ledger import Ledger
from tests.faults.postgres.owners import Owner
from tests.support.postgres import PostgresServer
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually

PARTITIONS = 4
LEASE_S = 1.0


class Pair:
    """A primary and its standby, which follows through a proxy.

    Args:
        folder: For both.
    """

    def __init__(self, folder: Path) -> None:
        self.primary = PostgresServer(folder / "primary", durable=False)
        self.primary.start()
        try:
            self.wire = TcpProxy(self.primary.port).__enter__()
            self.standby = PostgresServer(
                folder / "standby", durable=False, copy_of=self.primary, through=self.wire.port
            )
            self.standby.start()
        except BaseException:
            self.primary.kill()
            raise

    def url(self, hub: str) -> str:
        """Of both: the primary first."""
        hosts = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        return f"postgresql://durably@{hosts}/postgres?hub={hub}"

    async def synchronous(self) -> None:
        """From now on the primary acknowledges what the standby has."""
        await self.primary.execute(
            "ALTER SYSTEM SET synchronous_standby_names = 'standby'", "SELECT pg_reload_conf()"
        )
        state = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        await eventually(lambda: self.primary.execute(state), "a synchronous standby")

    async def caught_up(self) -> None:
        """Return when the standby has all that the primary has."""
        state = (
            "SELECT count(*) FROM pg_stat_replication WHERE flush_lsn = pg_current_wal_lsn()"
            " AND replay_lsn = flush_lsn"
        )
        await eventually(lambda: self.primary.execute(state), "the standby has everything")

    async def promote(self) -> None:
        """The primary is gone, and the standby stands in for it."""
        await asyncio.to_thread(self.primary.kill)
        self.wire.cut()
        self.wire.flow()
        await asyncio.to_thread(self.standby.promote)

    def end(self) -> None:
        self.wire.__exit__(None, None, None)
        self.primary.kill()
        self.standby.kill()


@contextmanager
def pair_in(folder: Path) -> Iterator[Pair]:
    pair = Pair(folder)
    try:
        yield pair
    finally:
        pair.end()


@asynccontextmanager
async def opened(url: str, lease_s: float = LEASE_S) -> AsyncGenerator[PostgresStore]:
    store = PostgresStore(url, partitions=PARTITIONS, lease_s=lease_s)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.mark.slow_once
def test_a_synchronous_standby_has_all_that_was_acknowledged(
    tmp_path: Path, hub_name: str, report: Report
) -> None:
    """Under load; the hosts find the new primary by themselves."""

    async def main(pair: Pair) -> None:
        await pair.synchronous()
        ledger, over = Ledger(PARTITIONS, seed=31), False
        async with opened(pair.url(hub_name)) as one, opened(pair.url(hub_name)) as two:
            owners = [Owner(one, ledger, "one"), Owner(two, ledger, "two")]
            for mine in range(PARTITIONS):
                await owners[mine % 2].take(mine)
            works = [
                asyncio.create_task(owners[mine % 2].work(mine, lambda: over)) for mine in range(PARTITIONS)
            ]
            await eventually(lambda: min(ledger.batches) > 20, "commits")
            await pair.promote()
            before = list(ledger.batches)
            await eventually(lambda: all(a > b + 5 for a, b in zip(ledger.batches, before, strict=True)))
            over = True
            await asyncio.gather(*works)
        counts = sum((owner.counts for owner in owners), Counter[str]())
        verdict = await ledger.compare(pair.standby.dsn, hub_name)
        report(
            promotions=1,
            commits=counts["acknowledged"],
            retries=counts["unavailable"],
            lost=verdict.lost,
            doubled=verdict.doubled,
        )
        assert verdict.is_right, verdict.details
        assert counts["taken"] == PARTITIONS, "all went on where they were"

    with pair_in(tmp_path) as pair:
        asyncio.run(main(pair))


@pytest.mark.slow_once
@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
def test_nothing_is_acknowledged_before_the_standby_has_it(tmp_path: Path, hub_name: str, how: str) -> None:
    """Not even when somebody breaks off the wait: then the server says yes, and means that the standby may lack it."""

    async def main(pair: Pair) -> None:
        await pair.synchronous()
        async with opened(pair.url(hub_name), lease_s=15.0) as store:
            lease = await store.acquire(0, "owner")
            await store.commit(lease, batch_of(1, "owner"))
            pair.standby.pause()
            sent = asyncio.create_task(_committed(store, lease, batch_of(2, "owner")))
            waiting = (
                "SELECT pid FROM pg_stat_activity"
                " WHERE wait_event = 'SyncRep' AND application_name = 'durably commits'"
            )
            pids = set[int]()
            for _ in range(2):
                pid = await eventually(lambda: _another(pair, waiting, pids, sent), "the commit waits")
                pids.add(pid)
                await pair.primary.execute(f"SELECT {how}({pid})")
            await eventually(lambda: _another(pair, waiting, pids, sent), "it waits again")
            assert await pair.primary.execute(f"SELECT batch FROM {hub_name}.partitions WHERE id = 0") == 2
            pair.standby.go_on()
            await sent
            await pair.promote()
            assert await pair.standby.execute(f"SELECT batch FROM {hub_name}.partitions WHERE id = 0") == 2

    with pair_in(tmp_path) as pair:
        asyncio.run(main(pair))


async def _another(pair: Pair, waiting: str, known: set[int], sent: asyncio.Task[None]) -> int | None:
    assert not sent.done(), "it was acknowledged, and the standby does not have it"
    pid = await pair.primary.execute(waiting)
    return None if pid in known else pid


@pytest.mark.slow_once
def test_an_asynchronous_standby_lacks_the_tail_and_the_old_primary_comes_back(
    tmp_path: Path, hub_name: str, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    async def main(pair: Pair) -> None:
        async with opened(pair.url(hub_name)) as store:
            leases = [await store.acquire(mine, "owner") for mine in range(PARTITIONS)]
            for mine in range(PARTITIONS):
                await _fill(store, leases[mine], 1, 5)
            await pair.caught_up()
            pair.wire.stall()
            for mine in range(PARTITIONS):
                await _fill(store, leases[mine], 6, 8)  # acknowledged, and lost
            leases[3] = await store.acquire(3, "owner")  # an epoch that another one will get, too
            await pair.promote()
            await _nobody_goes_on_over_a_gap(store, leases[:3])
            await _one_epoch_two_owners(pair, hub_name, store, leases[3])
            await _old_primary(pair, hub_name, store, leases[0])
        report(acknowledged_and_lost_by_the_server=3 * PARTITIONS, commits_over_a_gap=0, on_the_old_primary=0)

    async def _old_primary(pair: Pair, hub: str, store: PostgresStore, lease: Lease) -> None:
        await asyncio.to_thread(pair.primary.start)
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'durably%'"
        await pair.standby.execute(end)
        await _committed(store, lease, batch_of(7, "new"))  # it stands first in the URL, and takes writes
        for machine, url in (("this", pair.url(hub)), ("another", pair.url(hub))):
            monkeypatch.setenv("DURABLY_STATE_DIR", str(tmp_path / machine))
            async with opened(url) as fresh:
                assert (await fresh.load(lease, FOREVER)).batch == 7, machine
        monkeypatch.setenv("DURABLY_STATE_DIR", str(tmp_path / "another"))
        with pytest.raises(StoreUnavailableError, match="an old primary that came back"):
            async with opened(pair.primary.url(hub)):
                pass
        await store.release(lease)  # for another one: what is kept does not run out
        await _a_name_that_points_back(pair, hub, lease)
        assert await pair.primary.execute(f"SELECT max(batch) FROM {hub}.partitions") == 8, "as it was"

    with pair_in(tmp_path / "servers") as pair:
        asyncio.run(main(pair))


async def _fill(store: PostgresStore, lease: Lease, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await store.commit(lease, _batch(lease.partition, number, "old"))


def _batch(mine: int, number: int, word: str) -> Batch:
    batch = batch_of(number, word)
    batch.instances = [row._replace(instance_id=f"a{mine}") for row in batch.instances]
    return batch


async def _committed(store: PostgresStore, lease: Lease, batch: Batch) -> None:
    """Commit, however often the server is away."""
    while True:
        try:
            return await store.commit(lease, batch)
        except StoreUnavailableError:
            await asyncio.sleep(0.02)


async def _nobody_goes_on_over_a_gap(store: PostgresStore, leases: list[Lease]) -> None:
    for lease in leases:
        with pytest.raises(
            InvariantError, match="the server is at 5: what it had acknowledged behind that is gone"
        ):
            await _committed(store, lease, batch_of(9, "new"))
        snapshot = await store.load(lease, FOREVER)  # as an engine does with an invariant that is broken
        assert snapshot.batch == 5
        await store.commit(lease, batch_of(6, "new"))


async def _one_epoch_two_owners(pair: Pair, hub: str, store: PostgresStore, lease: Lease) -> None:
    """Rows went back behind an acquisition: the next one gets the same epoch, and only that one may commit."""
    async with opened(pair.url(hub)) as other:
        other_lease = await eventually(lambda: _acquired(other, lease.partition), "the lease ran out")
        assert isinstance(other_lease, Lease)
        assert other_lease.epoch == lease.epoch
        with pytest.raises(LeaseLostError, match="held by another host"):
            await store.commit(lease, batch_of(6, "old"))
        await other.commit(other_lease, batch_of(6, "new"))


async def _acquired(store: PostgresStore, mine: int) -> Lease | None:
    try:
        return await store.acquire(mine, "other")
    except HubLockedError:
        await asyncio.sleep(0.05)
        return None


async def _a_name_that_points_back(pair: Pair, hub: str, lease: Lease) -> None:
    """A host that is told one name only, which is moved from the new primary to the old one and back."""
    with TcpProxy(pair.standby.port) as name:
        async with opened(name.url(hub)) as store:
            mine = await eventually(lambda: _acquired(store, lease.partition), "a lease")
            assert isinstance(mine, Lease)
            name.server_port = pair.primary.port
            name.cut()
            for call in (store.commit(mine, batch_of(8, "new")), store.renew(mine), store.post([])):
                with pytest.raises(
                    StoreUnavailableError, match="timeline 1, but the hub was seen on timeline 2"
                ):
                    await call
            name.server_port = pair.standby.port
            name.cut()
            await _committed(store, mine, batch_of(8, "new"))


@pytest.mark.slow_once
def test_acknowledged_is_durable_where_the_server_is_lax(
    tmp_path: Path, hub_name: str, report: Report
) -> None:
    """`synchronous_commit = off` is for those who may lose something."""

    async def main(server: PostgresServer) -> None:
        ledger = Ledger(PARTITIONS, seed=9)
        async with opened(server.url(hub_name)) as store:
            owner = Owner(store, ledger, "owner")
            for mine in range(PARTITIONS):
                await owner.take(mine)
            for _ in range(3):
                for mine in range(PARTITIONS):
                    assert await owner.commit(mine, ledger.batch(mine))
            server.kill()
            await asyncio.to_thread(server.start)
            verdict = await ledger.compare(server.dsn, hub_name)
        report(commits=3 * PARTITIONS, lost=verdict.lost, doubled=verdict.doubled)
        assert verdict.is_right, verdict.details

    lax = {"synchronous_commit": "off", "wal_writer_delay": "10s"}
    server = PostgresServer(tmp_path / "lax", durable=False, settings=lax)
    server.start()
    try:
        asyncio.run(main(server))
    finally:
        server.kill()
