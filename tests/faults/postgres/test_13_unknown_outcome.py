"""Scenario 13: a commit is sent, and its reply is lost. The same batch is sent again: it is in the tables once."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable
from random import Random

import pytest

from durably.core.commit import Batch
from durably.errors import DurablyError, InvariantError, StoreUnavailableError
from durably.storage.postgres.store import PostgresStore
from durably.testing.store_scene import history_row, instance_row
from tests.faults.postgres.conftest import Report
from tests.faults.postgres.ledger import Ledger
from tests.faults.postgres.owners import Owner
from tests.support.postgres import PostgresServer
from tests.support.tcp_proxy import Fault, Statement, TcpProxy, no_fault

PARTITIONS = 32
OWNERS = 4


class LossyCommits:
    """A rule: commits meet faults, at random.

    Args:
        share: Of the commits whose reply is lost, or more.
        mixed: Other faults as well.

    Attributes:
        counts: Statements, by what became of them.
        batches: How many batches were in them: each owner of one has to find out about it.
    """

    def __init__(self, share: float, seed: int, *, mixed: bool = False) -> None:
        self.counts: Counter[Fault] = Counter()
        self.batches = 0
        self._share = share
        self._kinds = [Fault.LOSE_REPLY] * 3 + ([Fault.LOSE_REQUEST, Fault.CUT] if mixed else [])
        self._random = Random(seed)
        self._lock = threading.Lock()

    def __call__(self, statement: Statement) -> Fault:
        """In the thread of the proxy."""
        if "_fence_1(" not in statement.text or self._random.random() > self._share:
            return Fault.NONE
        with self._lock:
            fault = self._random.choice(self._kinds)
            self.counts[fault] += 1
            self.batches += statement.rows
        return fault


async def trials(
    server: PostgresServer, proxy: TcpProxy, hub: str, rule: LossyCommits, wanted: int
) -> tuple[Ledger, Counter[str]]:
    """Commit to all partitions from several stores until so many faults have been met."""
    ledger = Ledger(PARTITIONS, seed=13)
    stores = [PostgresStore(proxy.url(hub), partitions=PARTITIONS) for _ in range(OWNERS)]
    for store in stores:
        await store.open()
    owners = [Owner(store, ledger, f"owner {number}") for number, store in enumerate(stores)]
    for mine in range(PARTITIONS):
        await owners[mine % OWNERS].take(mine)
    proxy.rule = rule
    is_over = lambda: rule.batches >= wanted  # noqa: E731
    await asyncio.gather(*(owners[mine % OWNERS].work(mine, is_over) for mine in range(PARTITIONS)))
    await asyncio.gather(*(store.close() for store in stores))
    return ledger, sum((owner.counts for owner in owners), Counter())


def check(server: PostgresServer, hub: str, seed: int, wanted: int, report: Report, *, mixed: bool) -> None:
    async def main() -> None:
        rule = LossyCommits(0.7, seed, mixed=mixed)
        with TcpProxy(server.port) as proxy:
            ledger, counts = await trials(server, proxy, hub, rule, wanted)
        verdict = await ledger.compare(server.dsn, hub)
        report(
            trials=rule.batches,
            statements=rule.counts.total(),
            replies_lost=rule.counts[Fault.LOSE_REPLY],
            commits=counts["acknowledged"],
            retries=counts["unavailable"],
            lost=verdict.lost,
            doubled=verdict.doubled,
        )
        assert verdict.is_right, verdict.details
        assert counts["taken"] == PARTITIONS, "nobody lost a partition by it"
        assert counts["acknowledged"] >= wanted / 10

    asyncio.run(main())


@pytest.mark.slow_once
def test_a_thousand_lost_replies(shared_server: PostgresServer, hub_name: str, report: Report) -> None:
    check(shared_server, hub_name, 13, 1000, report, mixed=False)


@pytest.mark.slow_once
def test_requests_lost_replies_lost_and_what_nobody_knows(
    shared_server: PostgresServer, hub_name: str, report: Report
) -> None:
    check(shared_server, hub_name, 14, 300, report, mixed=True)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_many_thousands(shared_server: PostgresServer, hub_name: str, report: Report, seed: int) -> None:
    check(shared_server, f"{hub_name}_{seed}", seed, 5000, report, mixed=bool(seed % 2))


async def told(answer: Awaitable[None]) -> DurablyError | None:
    """What became of a commit; it must not take for ever to say."""
    try:
        async with asyncio.timeout(30):
            await answer
    except DurablyError as error:
        return error
    return None


@pytest.mark.slow_once
def test_a_connection_that_goes_while_the_culprit_is_looked_for(
    shared_server: PostgresServer, hub_name: str
) -> None:
    """The batch is broken; the server is gone when the lane wants to know why: its owner is told all the same."""

    async def main() -> None:
        with TcpProxy(shared_server.port) as proxy:
            store = PostgresStore(proxy.url(hub_name), partitions=1)
            await store.open()
            lease = await store.acquire(0, "owner")
            row = instance_row("a", 1)
            await store.commit(lease, Batch(number=1, instances=[row], history=[history_row(1, 0)]))
            broken = Batch(number=2, history=[history_row(1, 0)])

            def rule(statement: Statement) -> Fault:
                if "unnest" not in statement.text:
                    return Fault.NONE
                threading.Thread(target=proxy.refuse).start()
                return Fault.LOSE_REQUEST

            proxy.rule = rule
            assert isinstance(await told(store.commit(lease, broken)), StoreUnavailableError)
            proxy.rule = no_fault
            proxy.refuse(False)
            assert isinstance(await told(store.commit(lease, broken)), InvariantError)
            assert await told(store.commit(lease, Batch(number=2, history=[history_row(1, 1)]))) is None
            await store.close()

    asyncio.run(main())
