"""A hub as a whole: made, brought to the version of this code, deleted."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from hashlib import blake2b
from pathlib import Path
from typing import Final

from durably.core.dump import DumpChunk
from durably.errors import DurablyError, HubNotFoundError, HubVersionError, UsageError
from durably.storage.postgres.address import Address
from durably.storage.postgres.calls import Connection
from durably.storage.postgres.leases import Leases
from durably.storage.postgres.migrating import LOCK, making, migrate
from durably.storage.postgres.migrations import STEPS, VERSION
from durably.storage.postgres.pool import Pool
from durably.storage.postgres.recorded import Recorded, check_age, look, schema_exists
from durably.storage.postgres.restore import fill, lock_unused
from durably.storage.postgres.schema import quoted

PARTITIONS: Final = 32
"""Of a new hub."""


async def open_hub(pool: Pool, address: Address, partitions: int | None, *, create: bool) -> Recorded:
    """Find the hub, or make it; several processes may try at once.

    Args:
        pool: To the database, of two connections.
        address: The hub.
        partitions: See `PostgresStore`.
        create: It may be made, and brought to the version of this code.

    Raises:
        HubNotFoundError: It does not exist, and `create` is False; or the schema is something else.
        HubVersionError: It is too new, or too old and may not be changed.
        AccessDeniedError: This role may not use it, or make it.
        UsageError: See `PostgresStore.open`.
    """
    async with pool.use() as connection:
        encoding = await connection.value("SHOW server_encoding")
        if encoding != "UTF8":
            raise UsageError(
                f"The database of hub {address.url} is in {encoding}, which holds not every text: expected UTF8"
            )
        found = await look(connection, address)
    if found is not None:
        check_age(found, address.url)
    if found is None or found.pending():
        if not create:
            raise _missing(found, address)
        found = await migrate(pool, address, partitions or PARTITIONS)
    _check_number(address, found.partitions, partitions)
    return found


def _missing(found: Recorded | None, address: Address) -> DurablyError:
    if found is None:
        return HubNotFoundError(
            f"Hub {address.url} does not exist: its database has no schema '{address.schema}'; start a host, or run durably "
            "hub migrate, to make it"
        )
    steps = ", ".join(map(str, found.pending()))
    return HubVersionError(
        f"Hub {address.url} has schema version {found.version}, this durably needs version {VERSION}, and who only looks does "
        f"not change it: start a host of this version, or run durably hub migrate. Missing: step {steps}"
    )


def _check_number(address: Address, there: int, wanted: int | None) -> None:
    if wanted is not None and wanted != there:
        raise UsageError(
            f"Hub {address.url} has {there} partitions, {wanted} are asked for: their number never changes"
        )


async def restore_hub(
    connection: Connection,
    address: Address,
    chunks: AsyncIterator[DumpChunk],
    *,
    partitions: int | None,
    leases: Leases,
) -> None:
    """Make the hub of a dump, in one transaction; a hub that nobody has used is taken, with its number of partitions.

    Args:
        connection: To the database.
        address: The hub.
        chunks: Of the dump.
        partitions: See `PostgresStore`.
        leases: Of the hub.

    Raises:
        HubNotEmptyError: It exists, and was used.
        HubLockedError: A live host serves it.
        HubNotFoundError: The schema is something else.
        HubVersionError: It was made by another version.
    """
    schema = quoted(address.schema)
    async with connection.transaction():
        await connection.rows(f"SELECT {LOCK.replace('{key}', '$1')}", address.schema)
        found = await look(connection, address)
        if found is None:
            there = partitions or PARTITIONS
            if not await schema_exists(
                connection, address
            ):  # whoever may not make one may use one that is there
                await connection.script(f"CREATE SCHEMA {schema}")
            for _, text in making(address, there, STEPS):
                await connection.script(text)
        else:
            there = found.partitions
            check_age(found, address.url)
            if found.pending():
                raise HubVersionError(
                    f"Hub {address.url} is empty and has schema version {found.version}, this durably needs version "
                    f"{VERSION}: run durably hub migrate first, or delete it"
                )
            await lock_unused(connection, schema, address.url)
            await leases.refuse_if_served(connection)
            _check_number(address, there, partitions)
        await fill(connection, schema, there, chunks)


async def delete(connection: Connection, address: Address, leases: Leases) -> None:
    """Delete the hub and all that is in it, unless somebody serves it. Idempotent."""
    async with connection.transaction():
        await connection.rows(f"SELECT {LOCK.replace('{key}', '$1')}", address.schema)
        if await look(connection, address) is not None:
            await leases.refuse_if_served(connection)
            await connection.script(f"DROP SCHEMA {quoted(address.schema)} CASCADE")


def log_path(hub_id: bytes, address: Address, partition: int) -> Path:
    """Where the log of running work of a partition is on this machine. A copy of a hub has its id, and another place."""
    place = blake2b(address.place.encode(), digest_size=8).hexdigest()
    return state_folder() / f"{hub_id.hex()}-{place}-{partition}.running"


def state_folder() -> Path:
    """Where a host keeps what belongs to this machine."""
    state = os.environ.get("DURABLY_STATE_DIR")
    folder = Path(state) if state else Path(tempfile.gettempdir()) / f"durably-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
