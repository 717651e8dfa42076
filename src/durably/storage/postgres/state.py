# ruff: noqa: S608 - statements are put together from constants and the quoted schema; values are bound
"""A hub on PostgreSQL as a whole: see `HubState`."""

from __future__ import annotations

from typing import Final

from durably.errors import HubNotFoundError
from durably.storage.hub_state import HubState, PartitionState, SchemaStep
from durably.storage.postgres.address import Address
from durably.storage.postgres.calls import Connection
from durably.storage.postgres.migrations import VERSION, Step
from durably.storage.postgres.recorded import Recorded, look
from durably.storage.postgres.schema import quoted

_PARTITIONS: Final = """
SELECT id, CASE WHEN lease_until >= clock_timestamp() THEN owner END, epoch, batch,
    CASE WHEN lease_until >= clock_timestamp() THEN extract(epoch FROM lease_until - clock_timestamp())::float END
FROM {s}.partitions ORDER BY id
"""
_ROWS: Final = {
    "messages": "inbox",
    "timers": "timers",
    "entities": "entities",
    "parked messages": "parked_messages",
}
_SIZES: Final = """
SELECT c.relname, pg_total_relation_size(c.oid) FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind = 'r' ORDER BY 2 DESC, 1
"""


async def state(connection: Connection, address: Address) -> HubState:
    """Look at a hub; of any version.

    Raises:
        HubNotFoundError: There is none.
    """
    async with connection.moment():
        found = await look(connection, address)
        if found is None:
            raise HubNotFoundError(
                f"Hub {address.url} does not exist: start a host, or run durably hub migrate, to make it"
            )
        schema = quoted(address.schema)
        instances = await connection.rows(
            f"SELECT status, count(*) FROM {schema}.instances GROUP BY status ORDER BY status"
        )
        rows = {
            name: await connection.value(f"SELECT count(*) FROM {schema}.{table}")
            for name, table in _ROWS.items()
        }
        return HubState(
            url=address.url,
            hub_id=found.hub_id.hex(),
            server=f"PostgreSQL {await connection.value('SHOW server_version')}",
            version=found.version,
            known=VERSION,
            pending=[described(step) for step in found.pending(post=True)],
            partitions=await partitions(connection, schema),
            instances={row[0].decode(): row[1] for row in instances},
            rows=rows,
            sizes={row[0]: row[1] for row in await connection.rows(_SIZES, address.schema)},
        )


async def partitions(connection: Connection, schema: str) -> list[PartitionState]:
    """All partitions, in order."""
    return [PartitionState(*row) for row in await connection.rows(_PARTITIONS.replace("{s}", schema))]


def described(step: Step) -> SchemaStep:
    """A step, for people."""
    return SchemaStep(step.number, step.version, step.phase, step.name)


def missing(found: Recorded) -> list[SchemaStep]:
    """What hosts of this installation need and the hub has not."""
    return [described(step) for step in found.pending()]
