"""Who owns which partition, by the clock of the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from durably.errors import HubLockedError, LeaseLostError
from durably.storage.api import Lease
from durably.storage.postgres.calls import Connection

_ACQUIRE: Final = """
UPDATE {s}.partitions p SET epoch = p.epoch + 1, held = true, owner = $2, holder = $3,
    lease_until = clock_timestamp() + make_interval(secs => $4)
FROM (SELECT id, held FROM {s}.partitions WHERE id = $1 FOR UPDATE) AS before
WHERE p.id = before.id AND (p.holder = $3 OR p.lease_until < clock_timestamp())
RETURNING p.epoch, before.held
"""
_OWNER: Final = "SELECT owner, lease_until - clock_timestamp() FROM {s}.partitions WHERE id = $1"
_RENEW: Final = """
UPDATE {s}.partitions SET lease_until = clock_timestamp() + make_interval(secs => $4)
WHERE id = $1 AND epoch = $2 AND holder = $3 AND lease_until >= clock_timestamp() RETURNING epoch
"""

# A batch that is being committed locks its partition. To wait for several of them is to deadlock with the next batch of
# this host: rows that are locked are left out, and then waited for one by one.
_RENEW_MOST: Final = """
WITH wanted AS (
    SELECT p.id FROM {s}.partitions p JOIN unnest($1::int[], $2::bigint[]) AS w (id, epoch) USING (id, epoch)
    WHERE p.holder = $3 AND p.lease_until >= clock_timestamp() FOR NO KEY UPDATE OF p SKIP LOCKED
)
UPDATE {s}.partitions p SET lease_until = clock_timestamp() + make_interval(secs => $4)
FROM wanted WHERE p.id = wanted.id RETURNING p.id
"""
_RELEASE: Final = """
WITH released AS (
    UPDATE {s}.partitions SET held = false, holder = '', lease_until = '-infinity'
    WHERE id = $1 AND epoch = $2 AND holder = $3 RETURNING id
)
SELECT pg_notify($4, '') FROM released
"""
_LET_GO: Final = """
WITH released AS (
    UPDATE {s}.partitions SET holder = '', lease_until = '-infinity' WHERE holder = $1 RETURNING 1
), gone AS (
    DELETE FROM {s}.hosts WHERE host_id = $1 RETURNING 1
)
SELECT pg_notify($2, '') WHERE EXISTS (SELECT 1 FROM released) OR EXISTS (SELECT 1 FROM gone)
"""
_SERVED: Final = (
    "SELECT owner FROM {s}.partitions WHERE lease_until >= clock_timestamp() AND holder <> $1 LIMIT 1"
)


class Leases:
    """The leases of one store object.

    Args:
        schema: Quoted.
        url: Of the hub, for messages.
        channel: On which others listen.
        holder: Random bytes that are this object.
        lease_s: How long a lease lasts that is not renewed.
    """

    def __init__(self, schema: str, url: str, channel: str, holder: bytes, lease_s: float) -> None:
        self._schema = schema
        self._url = url
        self._channel = channel
        self._holder = holder
        self.lease_s = lease_s

    def _sql(self, text: str) -> str:
        return text.replace("{s}", self._schema)

    async def acquire(self, connection: Connection, partition: int, owner: str) -> Lease:
        """See `Store.acquire`."""
        found = await connection.rows(self._sql(_ACQUIRE), partition, owner, self._holder, self.lease_s)
        if found:
            return Lease(partition, owner, found[0][0], orphaned=found[0][1])
        ((other, left),) = await connection.rows(self._sql(_OWNER), partition)
        raise HubLockedError(
            f"Partition {partition} of hub {self._url} is served by '{other}', whose lease lasts for "
            f"{left.total_seconds():.1f} s more; stop that host first, or use a client to talk to it"
        )

    async def renew(self, connection: Connection, lease: Lease) -> None:
        """See `Store.renew`."""
        if not await self.renew_one(connection, lease):
            raise LeaseLostError(
                f"The lease of epoch {lease.epoch} of partition {lease.partition} is over: it ran out, was acquired anew, "
                "or released"
            )

    async def renew_one(self, connection: Connection, lease: Lease) -> bool:
        """Renew a lease; waits for a batch that is being committed. False: it is over."""
        mine = (lease.partition, lease.epoch, self._holder, self.lease_s)
        return bool(await connection.rows(self._sql(_RENEW), *mine))

    async def renew_most(self, connection: Connection, leases: Sequence[Lease]) -> set[int]:
        """Renew those that nothing is being committed to; returns their partitions. The others may be over, or not."""
        partitions, epochs = [lease.partition for lease in leases], [lease.epoch for lease in leases]
        found = await connection.rows(self._sql(_RENEW_MOST), partitions, epochs, self._holder, self.lease_s)
        return {row[0] for row in found}

    async def release(self, connection: Connection, lease: Lease) -> bool:
        """See `Store.release`; False when it was over already."""
        mine = (lease.partition, lease.epoch, self._holder, self._channel)
        return bool(await connection.rows(self._sql(_RELEASE), *mine))

    async def let_go(self, connection: Connection) -> None:
        """Hold nothing any more, and be gone. What was not released was not brought to its end."""
        await connection.rows(self._sql(_LET_GO), self._holder, self._channel)

    async def refuse_if_served(self, connection: Connection) -> None:
        """Raise `HubLockedError` when a live host of somebody else owns a partition."""
        found: list[Any] = list(await connection.rows(self._sql(_SERVED), self._holder))
        if found:
            raise HubLockedError(f"Hub {self._url} is served by '{found[0][0]}'; stop that host first")
