"""What those who look after a hub on PostgreSQL do with it: bring its schema to this version, and look at it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from durably.errors import UsageError
from durably.storage.hub_state import HubState, SchemaStep
from durably.storage.postgres import state as states
from durably.storage.postgres.address import Address
from durably.storage.postgres.grants import grants
from durably.storage.postgres.hub import PARTITIONS
from durably.storage.postgres.migrating import LOCK, making, migrate, of_step
from durably.storage.postgres.migrations import STEPS, Step
from durably.storage.postgres.pool import Pool
from durably.storage.postgres.recorded import check_age, look, schema_exists
from durably.storage.postgres.schema import quoted
from durably.storage.postgres.servers import Servers


@asynccontextmanager
async def _pool(address: Address) -> AsyncGenerator[Pool]:
    pool = Pool(Servers(address), address.url, name="durably hub", size=2, answer_s=None)
    try:
        yield pool
    finally:
        await pool.close()


async def hub_state(url: str) -> HubState:
    """See `states.state`."""
    address = Address.of(url)
    async with _pool(address) as pool, pool.use() as connection:
        return await states.state(connection, address)


async def migrate_hub(
    url: str,
    *,
    post: bool,
    partitions: int | None,
    grant: str | None,
    told: Callable[[SchemaStep], None],
) -> list[SchemaStep]:
    """Make a hub, or bring it to this version.

    Args:
        url: Of the hub.
        post: Also what waits until the last older host is gone.
        partitions: Of a new hub; of one that is there it must be the same.
        grant: A role that shall be able to run hosts.
        told: Called with each step that begins.

    Returns:
        What is left to be done, behind the last older host.

    Raises:
        AccessDeniedError: This role may not make it.
        HubVersionError: It is newer; or this role may not change it; or hosts are in the way.
        UsageError: It has another number of partitions; or there is no such role.
    """
    address = Address.of(url)
    async with _pool(address) as pool:
        if grant is not None:
            await _check_role(pool, address, grant)
        seen: set[int] = set()

        def begun(step: Step, _: str) -> None:
            if step.number not in seen:
                seen.add(step.number)
                told(states.described(step))

        found = await migrate(pool, address, partitions or PARTITIONS, post=post, told=begun)
        if partitions is not None and partitions != found.partitions:
            raise UsageError(
                f"Hub {address.url} has {found.partitions} partitions, {partitions} are asked for: their number never changes"
            )
        if grant is not None:
            await _grant(pool, address, grant)
        return [states.described(step) for step in found.pending(post=True)]


async def _check_role(pool: Pool, address: Address, role: str) -> None:
    async with pool.use() as connection:
        found = await connection.rows("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1", role)
    if not found:
        raise UsageError(
            f"There is no role '{role}' on the server of hub {address.url}: let an administrator make it (CREATE ROLE)"
        )


async def _grant(pool: Pool, address: Address, role: str) -> None:
    async with pool.use() as connection, connection.transaction():
        for text in grants(address, role):
            await connection.script(text)


async def migration_script(url: str, *, post: bool, partitions: int | None, grant: str | None) -> str:
    """The SQL that `migrate_hub` would run now, for psql. Raises as `migrate_hub`; changes nothing."""
    address = Address.of(url)
    async with _pool(address) as pool, pool.use() as connection:
        found = await look(connection, address)
        there = await schema_exists(connection, address)
    lines = [f"-- {address.url}", "-- Run by the role that owns the hub: psql -v ON_ERROR_STOP=1 -f FILE"]
    if found is None:
        schema = quoted(address.schema)
        texts = [text for _, text in making(address, partitions or PARTITIONS, STEPS)]
        lines += _transaction(address, texts if there else [f"CREATE SCHEMA {schema}", *texts])
    else:
        check_age(found, address.url)
        for step in found.pending(post=post):
            lines += ["", f"-- Step {step}"]
            texts = of_step(address, step)
            lines += [f"{text};" for text in texts] if step.concurrently else _transaction(address, texts)
    if grant is not None:
        lines += [
            "",
            f"-- What role {quoted(grant)} needs to run hosts",
            *_transaction(address, grants(address, grant)),
        ]
    return "\n".join(lines)


def _transaction(address: Address, texts: list[str]) -> list[str]:
    lock = f"SELECT {LOCK.replace('{key}', _literal(address.schema))}"
    return ["BEGIN;", *(f"{text.rstrip().rstrip(';')};" for text in (lock, *texts)), "COMMIT;"]


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
