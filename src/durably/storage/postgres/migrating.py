"""Brings the schema of a hub to the version of this code: by one process at a time, each step wholly or again.

Whoever runs a step holds a lock of the server for as long as a transaction, which also works past PgBouncer in transaction
mode. The others ask for it again and again instead of waiting in a statement: ``CREATE INDEX CONCURRENTLY`` waits for every
statement that began before it, so one that waits for the lock would wait for it in turn, for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from durably.core.dump import EXECUTIONS_BITS
from durably.errors import AccessDeniedError, HubVersionError
from durably.storage.postgres.address import Address
from durably.storage.postgres.calls import Connection
from durably.storage.postgres.failures import LOCK_TIMEOUT, state_of
from durably.storage.postgres.migrations import STEPS, Step
from durably.storage.postgres.pool import Pool
from durably.storage.postgres.recorded import Recorded, check_age, look, schema_exists
from durably.storage.postgres.schema import quoted

_log = logging.getLogger("durably.storage")

Told: TypeAlias = Callable[[Step, str], None]
"""Called when a step begins, with "", and behind each of its statements."""

LOCK: Final = "pg_advisory_xact_lock(hashtextextended({key}, 20261121))"
_TRY: Final = "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 20261121))"
_AGAIN_S: Final = 0.1

_GENTLE: Final = "SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"
"""A change of a table that waits behind a long reader keeps all others out: it gives up soon, and tries again."""

_LOCK_TRIES: Final = 30
_LOCK_PAUSE_S: Final = 1.0

_TOLD_AFTER: Final = 50
"""So many vain attempts at the lock are worth a line in the log."""


def _untold(step: Step, statement: str) -> None:
    """Nobody is told."""


# --- statements ------------------------------------------------------------------------------------------------------


def recorded_as(step: Step, schema: str, *, done: bool = True) -> str:
    """The statement that notes a step."""
    values = f"{step.number}, {step.version}, '{step.phase}', '{step.name}', clock_timestamp()"
    text = (
        f"INSERT INTO {schema}.migrations (step, version, phase, name, begun_at, done_at) VALUES ({values}, "  # noqa: S608
    )
    text += "clock_timestamp())" if done else "NULL)"
    change = "done_at = excluded.done_at" if done else "begun_at = excluded.begun_at"
    return f"{text} ON CONFLICT (step) DO UPDATE SET {change}"


def making(address: Address, partitions: int, steps: Sequence[Step]) -> list[tuple[Step, str]]:
    """The statements that make a hub, in one transaction; nobody can be in its way, so nothing is built concurrently."""
    schema = quoted(address.schema)
    numbers = f"SELECT p, p::bigint << {EXECUTIONS_BITS} FROM generate_series(0, {partitions - 1}) AS p"  # noqa: S608
    found: list[tuple[Step, str]] = []
    for step in steps:
        texts = [text.replace("{s}", schema).replace(" CONCURRENTLY", "") for text in step.statements]
        if step.number == 1:
            texts += [
                f"INSERT INTO {schema}.hub (hub_id, partitions) VALUES (uuid_send(gen_random_uuid()), {partitions})",  # noqa: S608
                f"INSERT INTO {schema}.partitions (id, execution) {numbers}",
            ]
        found += [(step, text) for text in (*texts, recorded_as(step, schema))]
    return found


def of_step(address: Address, step: Step) -> list[str]:
    """The statements of a step on a hub that is there, and those that note it."""
    schema = quoted(address.schema)
    texts = [text.replace("{s}", schema) for text in step.statements]
    begun = [recorded_as(step, schema, done=False)] if step.concurrently else []
    return [*begun, *texts, recorded_as(step, schema)]


# --- running ---------------------------------------------------------------------------------------------------------


async def migrate(
    pool: Pool,
    address: Address,
    partitions: int,
    *,
    post: bool = False,
    steps: Sequence[Step] = STEPS,
    told: Told = _untold,
) -> Recorded:
    """Make the hub where there is none, and do what is pending; or wait until another process has.

    Args:
        pool: Of two connections.
        address: The hub.
        partitions: Of a new hub.
        post: Also the steps that wait until the last older host is gone.
        steps: All that there are.
        told: See `Told`.

    Raises:
        AccessDeniedError: There is something to do, and this role may not do it; the message names the command.
        HubVersionError: The hub is newer than `steps`; or hosts serve it that would be left behind.
    """
    vain = blocked = 0
    while True:
        async with pool.use() as connection:
            found = await look(connection, address)
            if found is not None:
                check_age(found, address.url, steps[-1].version)
                if not found.pending(steps, post=post):
                    return found
            await _check_rights(connection, address, found, steps)
            try:
                mine = await _one(pool, connection, address, partitions, steps, post=post, told=told)
            except Exception as error:
                blocked += 1
                if state_of(error) != LOCK_TIMEOUT or blocked >= _LOCK_TRIES:
                    raise
                _log.info("Hub %s: a table is in use, its migration tries again", address.url)
                await asyncio.sleep(_LOCK_PAUSE_S)
                continue
        if not mine:
            vain += 1
            if vain == _TOLD_AFTER:
                _log.info("Hub %s: waiting for another process that migrates it", address.url)
            await asyncio.sleep(_AGAIN_S)


async def _one(
    pool: Pool,
    connection: Connection,
    address: Address,
    partitions: int,
    steps: Sequence[Step],
    *,
    post: bool,
    told: Told,
) -> bool:
    """Do what is next, if this process gets the lock for it."""
    async with connection.transaction():
        await connection.script(_GENTLE)
        if not await connection.value(_TRY, address.schema):
            return False
        found = await look(connection, address)
        if found is None:
            if not await schema_exists(connection, address):
                await connection.script(f"CREATE SCHEMA {quoted(address.schema)}")
            for step, text in making(address, partitions, steps):
                await connection.script(text)
                told(step, text)
            return True
        pending = found.pending(steps, post=post)
        if not pending:
            return True
        await _check_hosts(connection, address, found, steps)
        step = pending[0]
        told(step, "")
        texts = of_step(address, step)
        if not step.concurrently:
            for text in texts:
                await connection.script(text)
                told(step, text)
            return True
        # The lock is held here meanwhile. The portal of the last answer keeps its snapshot, which the step would wait for; a
        # statement without parameters takes its place, and leaves none.
        await connection.script("SELECT 1")
        async with pool.use() as beside:
            for text in texts:
                await beside.script(text)
                told(step, text)
        return True


# --- what is not done ------------------------------------------------------------------------------------------------


async def _check_rights(
    connection: Connection, address: Address, found: Recorded | None, steps: Sequence[Step]
) -> None:
    if found is None:
        ((user, may),) = await connection.rows(
            "SELECT current_user, coalesce((SELECT has_schema_privilege(oid, 'CREATE') FROM pg_catalog.pg_namespace"
            " WHERE nspname = $1), has_database_privilege(current_database(), 'CREATE'))",
            address.schema,
        )
        if not may:
            raise AccessDeniedError(
                f"Hub {address.url} does not exist, and role '{user}' may not make it: let a role that may create schemas "
                f"run durably hub migrate --grant {user}"
            )
        return
    ((user, may),) = await connection.rows(
        "SELECT current_user, pg_has_role(relowner, 'USAGE') FROM pg_catalog.pg_class"
        " WHERE oid = to_regclass($1 || '.hub')",
        quoted(address.schema),
    )
    if not may:
        raise HubVersionError(
            f"Hub {address.url} has schema version {found.version} and misses steps of version {steps[-1].version}, which role "
            f"'{user}' may not make: let the role that owns schema '{address.schema}' run durably hub migrate"
        )


async def _check_hosts(
    connection: Connection, address: Address, found: Recorded, steps: Sequence[Step]
) -> None:
    """Hosts that are two versions behind do not survive what is to be done."""
    newest = steps[-1].version
    if found.version >= newest - 1:
        return
    served = await connection.rows(
        f"SELECT owner FROM {quoted(address.schema)}.partitions WHERE lease_until >= clock_timestamp() LIMIT 1"  # noqa: S608
    )
    if served:
        raise HubVersionError(
            f"Hub {address.url} has schema version {found.version}, this durably writes version {newest}, and '{served[0][0]}' "
            "still serves it: deploy the versions between one after the other, or stop all hosts first"
        )
