"""Scenario 33 and its relatives: the server is there, and says no. All of it is retried, or may be tried again."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import asyncpg
import pytest

from durably.core.commit import Batch
from durably.errors import StoreUnavailableError
from durably.storage.api import Lease
from durably.storage.postgres.store import PostgresStore
from durably.testing.store_scene import FOREVER
from tests.faults.injectors.full_disk import small_disk
from tests.faults.postgres.conftest import Report
from tests.faults.postgres.ledger import Ledger
from tests.faults.postgres.owners import Owner
from tests.support.postgres import PostgresServer
from tests.support.tcp_proxy import Fault, Statement, TcpProxy, no_fault
from tests.support.waiting import eventually

PARTITIONS = 4

_RAISER = """
CREATE FUNCTION {s}.raiser() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE chosen text;
BEGIN
    SELECT f.state INTO chosen FROM {s}.faults f WHERE random() < f.share ORDER BY random() LIMIT 1;
    IF FOUND THEN RAISE EXCEPTION USING ERRCODE = chosen, MESSAGE = 'injected ' || chosen; END IF;
    RETURN NULL;
END $$;
CREATE TABLE {s}.faults (state text, share float);
CREATE TRIGGER raiser AFTER INSERT ON {s}.inbox FOR EACH STATEMENT EXECUTE FUNCTION {s}.raiser();
CREATE TRIGGER raiser AFTER INSERT ON {s}.history FOR EACH STATEMENT EXECUTE FUNCTION {s}.raiser();
"""


class Database:
    """A database of a test's own on the shared server; its name is that of the hub, too."""

    def __init__(self, server: PostgresServer, name: str) -> None:
        self.server = server
        self.name = name
        self.dsn = server.database(name)
        self.url = f"{self.dsn}?hub={name}"

    async def execute(self, *texts: str) -> Any:
        return await self.server.execute(
            *(text.replace("{s}", self.name) for text in texts), database=self.name
        )

    async def set(self, **settings: object) -> None:
        """Settings of all sessions that begin from now on."""
        for name, value in settings.items():
            await self.execute(f"ALTER DATABASE {self.name} SET {name} = '{value}'")

    async def faults(self, *faults: tuple[str, float]) -> None:
        """From now on, that share of statements fail with that state."""
        await self.execute("DELETE FROM {s}.faults")
        for state, share in faults:
            await self.execute(f"INSERT INTO {{s}}.faults VALUES ('{state}', {share})")

    @asynccontextmanager
    async def session(self, *texts: str) -> AsyncGenerator[Any]:
        """Another session, in a transaction that has done this."""
        connection = await cast("Any", asyncpg).connect(self.dsn)
        try:
            async with connection.transaction():
                for text in texts:
                    await connection.execute(text.replace("{s}", self.name))
                yield connection
        finally:
            await connection.close()


@asynccontextmanager
async def owned(
    database: Database, *, owners: int = 1, url: str = ""
) -> AsyncGenerator[tuple[Ledger, list[Owner]]]:
    """Owners of all partitions; when it is over, the tables are what they must be."""
    ledger = Ledger(PARTITIONS, seed=33)
    made: list[Owner] = []
    for number in range(owners):
        store = PostgresStore(url or database.url, partitions=PARTITIONS, lease_s=600.0)
        await store.open()
        made.append(Owner(store, ledger, f"owner {number}"))
    for mine in range(PARTITIONS):
        await made[mine % owners].take(mine)
    try:
        yield ledger, made
    finally:
        await asyncio.gather(*(owner.store.close() for owner in made))
    verdict = await ledger.compare(database.dsn, database.name)
    assert verdict.is_right, verdict.details


async def told(owner: Owner, lease: Lease, batch: Batch) -> StoreUnavailableError | None:
    """None when it was committed; what else may come is an error of the test."""
    try:
        async with asyncio.timeout(30):
            await owner.store.commit(lease, batch)
    except StoreUnavailableError as error:
        return error
    return None


async def all_told(owner: Owner, ledger: Ledger) -> list[StoreUnavailableError | None]:
    """Send the next batch of all partitions, once; those that are applied are noted."""
    batches = {mine: ledger.batch(mine) for mine in owner.leases}
    said = await asyncio.gather(*(told(owner, owner.leases[mine], batch) for mine, batch in batches.items()))
    for (mine, batch), error in zip(batches.items(), said, strict=True):
        if error is None:
            ledger.applied(mine, batch)
    return said


@pytest.fixture
def database(shared_server: PostgresServer, hub_name: str) -> Database:
    asyncio.run(shared_server.execute(f"CREATE DATABASE {hub_name}"))
    return Database(shared_server, hub_name)


def rolled_back(database: Database, seconds: float, report: Report) -> None:
    """One in five statements is rolled back by the server; sessions are serializable, so that it does so on its own, too."""

    async def main() -> None:
        await database.set(default_transaction_isolation="serializable")
        since = time.monotonic()
        counts: Counter[str] = Counter()
        async with owned(database, owners=2) as (_, owners):
            await database.execute(_RAISER, "SELECT 1")
            await database.faults(("40001", 0.1), ("40P01", 0.1))
            is_over = lambda: time.monotonic() - since > seconds  # noqa: E731
            await asyncio.gather(*(owners[mine % 2].work(mine, is_over) for mine in range(PARTITIONS)))
            for owner in owners:
                counts += owner.counts
        rollbacks = await database.execute(
            "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        )
        report(
            commits=counts["acknowledged"],
            rolled_back=rollbacks,
            retries=counts["unavailable"],
            lost=0,
            doubled=0,
        )
        assert counts["acknowledged"] > 5 * seconds
        assert rollbacks > counts["acknowledged"] / 20
        assert counts["taken"] == PARTITIONS

    asyncio.run(main())


@pytest.mark.slow_once
def test_serialization_failures_and_deadlocks(database: Database, report: Report) -> None:
    rolled_back(database, 2.0, report)


@pytest.mark.soak
def test_serialization_failures_and_deadlocks_for_long(database: Database, report: Report) -> None:
    rolled_back(database, 300.0, report)


@pytest.mark.slow_once
def test_a_real_deadlock_is_retried(database: Database) -> None:
    """Another session waits for a row of ours and has a table that we want next: we find out, so we are the victim."""

    async def main() -> None:
        await database.set(deadlock_timeout="10ms")
        row = f"SELECT 1 FROM {database.name}.partitions WHERE id = %d FOR UPDATE"
        async with owned(database) as (ledger, (owner,)):
            await all_told(owner, ledger)
            table = "LOCK TABLE {s}.history IN SHARE MODE"
            async with database.session("SET deadlock_timeout = '60s'", table) as other:
                async with database.session(row % (PARTITIONS - 1)):
                    sent = asyncio.create_task(all_told(owner, ledger))
                    await eventually(lambda: database.execute(_WAITING), "the lane waits")
                    waits = asyncio.create_task(other.execute(row % 0))
                    await eventually(lambda: _two_wait(database), "the other one waits")
                await waits
            assert await sent == [None] * PARTITIONS
            assert "deadlock detected" in (database.server.folder / "log").read_text()

    asyncio.run(main())


_WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


async def _two_wait(database: Database) -> bool:
    return await database.execute(_WAITING) == 2


@pytest.mark.slow_once
def test_a_locked_partition_fails_alone_and_the_others_go_on(database: Database) -> None:
    async def main() -> None:
        await database.set(lock_timeout="50ms")
        async with owned(database) as (ledger, (owner,)):
            await all_told(owner, ledger)
            async with database.session("SELECT 1 FROM {s}.partitions WHERE id = 2 FOR UPDATE"):
                for _ in range(3):
                    said = await all_told(owner, ledger)
                    assert [error is None for error in said] == [True, True, False, True], said
            assert await all_told(owner, ledger) == [None] * PARTITIONS

    asyncio.run(main())


@pytest.mark.slow_once
def test_statements_that_take_too_long_for_the_server(database: Database) -> None:
    async def main() -> None:
        await database.set(statement_timeout="100ms")
        async with owned(database) as (ledger, (owner,)):
            async with database.session("LOCK TABLE {s}.history IN SHARE MODE"):
                said = await all_told(owner, ledger)
                assert all("QueryCanceledError" in str(error) for error in said), said
            assert await all_told(owner, ledger) == [None] * PARTITIONS

    asyncio.run(main())


@pytest.mark.slow_once
def test_the_server_hangs_up_on_who_is_slow_within_a_transaction(database: Database) -> None:
    async def main() -> None:
        await database.set(idle_in_transaction_session_timeout="50ms")
        with TcpProxy(database.server.port) as proxy:
            async with owned(
                database,
                url=f"{database.dsn.replace(str(database.server.port), str(proxy.port))}?hub={database.name}",
            ) as (
                ledger,
                (owner,),
            ):
                await all_told(owner, ledger)

                def slowly(statement: Statement) -> Fault:
                    if statement.name == "durably owner" and "timers" in statement.text:
                        time.sleep(0.2)  # in the thread of the proxy
                    return Fault.NONE

                proxy.rule = slowly
                with pytest.raises(StoreUnavailableError):
                    await owner.store.load(owner.leases[0], FOREVER)
                proxy.rule = no_fault
                assert (await owner.store.load(owner.leases[0], FOREVER)).batch == ledger.batches[0]
                assert await all_told(owner, ledger) == [None] * PARTITIONS

    asyncio.run(main())


@pytest.mark.slow_once
@pytest.mark.parametrize("state", ["53100", "53200", "55P03", "57P03", "58030"])
def test_what_the_server_lacks_for_a_time(database: Database, state: str) -> None:
    """No disk, no memory, no lock, no disk that works: nothing is applied, and the same batch is taken later."""

    async def main() -> None:
        async with owned(database) as (ledger, (owner,)):
            await database.execute(_RAISER, "SELECT 1")
            await all_told(owner, ledger)
            batches = [ledger.batch(mine) for mine in range(PARTITIONS)]
            await database.faults((state, 1.1))
            for _ in range(2):
                said = [await told(owner, owner.leases[mine], batches[mine]) for mine in range(PARTITIONS)]
                assert None not in said
            await database.faults()
            for mine, batch in enumerate(batches):
                assert await told(owner, owner.leases[mine], batch) is None
                ledger.applied(mine, batch)

    asyncio.run(main())


@pytest.mark.slow_once
@pytest.mark.skipif(
    os.getuid() != 0, reason="only root mounts a small disk; the test above says the same by a trigger"
)
def test_a_disk_that_is_full(database: Database, report: Report) -> None:
    async def main() -> None:
        with small_disk(database.server.folder / "small") as disk:
            space = disk.folder / "space"
            space.mkdir()
            shutil.chown(space, "nobody")
            await database.execute(
                f"CREATE TABLESPACE small LOCATION '{space}'",
                f"ALTER DATABASE {database.name} SET default_tablespace = small",
                "SELECT 1",
            )
            full = 0
            async with owned(database) as (ledger, (owner,)):
                await all_told(owner, ledger)
                disk.fill()
                while full < 3 * PARTITIONS:  # until pages that are there already are full
                    said = await all_told(owner, ledger)
                    full += sum(error is not None for error in said)
                    assert all("DiskFullError" in str(error) for error in said if error), said
                disk.free()
                assert await all_told(owner, ledger) == [None] * PARTITIONS
            report(batches=sum(ledger.batches), refused=full, lost=0, doubled=0)
            await database.execute(
                f"DROP SCHEMA {database.name} CASCADE", "DROP TABLESPACE small", "SELECT 1"
            )

    asyncio.run(main())


@pytest.mark.slow_once
def test_no_connection_is_left(database: Database) -> None:
    """And not the superuser: what a host looks at anybody may look at."""

    async def main() -> None:
        role, name = f"role_{database.name}", database.name
        await database.execute(
            f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 2",
            f"GRANT CREATE ON DATABASE {name} TO {role}",
            "SELECT 1",
        )
        url = f"{database.server.database(name, role)}?hub={name}"
        async with owned(database, url=url) as (ledger, (owner,)):
            await all_told(owner, ledger)  # the connections of the lane and of the owner
            with pytest.raises(StoreUnavailableError, match="TooManyConnectionsError"):
                await owner.store.get_instance("a")
            await database.execute(f"ALTER ROLE {role} CONNECTION LIMIT 8", "SELECT 1")
            assert await owner.store.get_instance("a") is None
            assert await all_told(owner, ledger) == [None] * PARTITIONS

    asyncio.run(main())


@pytest.mark.slow_once
def test_a_server_that_takes_no_writes_for_a_time(database: Database) -> None:
    async def main() -> None:
        read_only = "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"
        async with owned(database) as (ledger, (owner,)):
            await all_told(owner, ledger)
            batch = ledger.batch(0)
            await database.execute(*read_only)
            try:
                await eventually(lambda: told(owner, owner.leases[0], batch), "the server is read-only")
                error = await told(owner, owner.leases[0], batch)
                assert "takes no writes: it is read-only" in str(error)
            finally:
                await database.execute("ALTER SYSTEM RESET default_transaction_read_only", read_only[1])
            await eventually(lambda: _comes(owner, batch), "the server takes writes")
            ledger.applied(0, batch)

    async def _comes(owner: Owner, batch: Batch) -> bool:
        return await told(owner, owner.leases[0], batch) is None

    asyncio.run(main())
