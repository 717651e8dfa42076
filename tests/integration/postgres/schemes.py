"""Steps of versions that are not there yet, for tests of migrating."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg

from durably.storage.postgres.address import Address
from durably.storage.postgres.migrating import Told, migrate
from durably.storage.postgres.migrations import STEPS, VERSION, Step, index
from durably.storage.postgres.pool import Pool
from durably.storage.postgres.recorded import Recorded
from durably.storage.postgres.servers import Servers

_LAST = len(STEPS)

NEXT = (
    *STEPS,
    Step(
        _LAST + 1,
        VERSION + 1,
        "pre",
        "colours",
        (
            "CREATE TABLE {s}.colours (name text PRIMARY KEY)",
            "ALTER TABLE {s}.instances ADD COLUMN colour text",
            "INSERT INTO {s}.colours VALUES ('red')",
        ),
    ),
    Step(
        _LAST + 2,
        VERSION + 1,
        "pre",
        "index of colours",
        index("instances_by_colour", "instances (colour)"),
        concurrently=True,
    ),
    Step(_LAST + 3, VERSION + 1, "post", "no keys", ("DROP TABLE {s}.encryption_keys",)),
)
"""What the next version could bring."""

LATER = (
    *NEXT,
    Step(_LAST + 4, VERSION + 2, "pre", "shapes", ("CREATE TABLE {s}.shapes (name text PRIMARY KEY)",)),
)
"""And the one behind it."""

NUMBERS = frozenset(step.number for step in NEXT)


def _untold(step: Step, text: str) -> None:
    pass


async def migrated(
    url: str,
    steps: Sequence[Step] = NEXT,
    *,
    post: bool = False,
    partitions: int = 2,
    told: Told = _untold,
) -> Recorded:
    """Migrate, as a process with these steps does."""
    address = Address.of(url)
    pool = Pool(Servers(address), address.url, name="durably migrating", size=2, answer_s=None)
    try:
        return await migrate(pool, address, partitions, post=post, steps=steps, told=told)
    finally:
        await pool.close()


async def asked(url: str, text: str, *values: Any) -> Any:
    """Rows of a query with ``{s}``, as tuples."""
    address = Address.of(url)
    connection = await asyncpg.connect(address.dsn)
    try:
        return [tuple(row) for row in await connection.fetch(text.replace("{s}", address.schema), *values)]
    finally:
        await connection.close()


async def shape(url: str) -> Any:
    """All columns, indexes and functions of a hub."""
    schema = Address.of(url).schema
    columns = await asked(
        url,
        "SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns"
        " WHERE table_schema = $1 ORDER BY 1, 2",
        schema,
    )
    indexes = await asked(
        url,
        "SELECT c.relname::text, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 ORDER BY 1",
        schema,
    )
    functions = await asked(
        url,
        "SELECT proname::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = $1 ORDER BY 1",
        schema,
    )
    return columns, indexes, functions


def run(work: Any) -> Any:
    return asyncio.run(work)
