"""Who is there: hosts that say so now and then, by the clock of the server."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import msgspec

from durably.storage.api import FUNCTIONS_MAX, HostInfo, HostReport, PartitionInfo, Survey
from durably.storage.postgres.calls import Connection

_SAY: Final = """, mine AS (
    INSERT INTO {s}.hosts AS h (host_id, report, since, seen_at, until)
    SELECT $1, $2, moment.now, moment.now, moment.now + make_interval(secs => $3) FROM moment
    ON CONFLICT (host_id) DO UPDATE SET report = excluded.report, seen_at = excluded.seen_at, until = excluded.until,
        since = CASE WHEN h.until < excluded.seen_at THEN excluded.since ELSE h.since END
    RETURNING host_id, report, since, seen_at, told_to_drain, since = seen_at AS is_new
), told AS (
    SELECT pg_notify($4, '') FROM mine WHERE is_new
), forgotten AS (
    DELETE FROM {s}.hosts h USING moment WHERE h.until < moment.now - interval '1 hour' AND h.host_id <> $1
)"""

_LOOK: Final = """
SELECT true, p.id, convert_to(p.owner, 'UTF8'), CASE WHEN p.lease_until >= moment.now THEN p.holder END,
    p.epoch, p.held AND p.lease_until < moment.now, NULL::bigint
FROM {s}.partitions p, moment
UNION ALL
SELECT false, 0, h.report, h.host_id, (extract(epoch FROM h.since) * 1000000)::bigint, h.told_to_drain,
    (extract(epoch FROM h.seen_at) * 1000000)::bigint
FROM {s}.hosts h, moment WHERE h.until >= moment.now"""

_ME: Final = """ AND h.host_id <> $1
UNION ALL
SELECT false, (SELECT count(*) FROM told)::int, report, host_id, (extract(epoch FROM since) * 1000000)::bigint,
    told_to_drain, (extract(epoch FROM seen_at) * 1000000)::bigint
FROM mine"""

_MOMENT: Final = "WITH moment AS MATERIALIZED (SELECT clock_timestamp() AS now)"

_WITHDRAW: Final = """
WITH gone AS (DELETE FROM {s}.hosts WHERE host_id = $1 RETURNING 1) SELECT pg_notify($2, '') FROM gone
"""
_DRAIN: Final = """
WITH asked AS (
    UPDATE {s}.hosts SET told_to_drain = true WHERE host_id = $1 AND until >= clock_timestamp() RETURNING 1
)
SELECT pg_notify($2, '') FROM asked
"""


class Hosts:
    """The hosts of a hub, as one store object sees them.

    Args:
        schema: Quoted.
        channel: On which others listen.
        holder: Random bytes that are this object.
        lease_s: For how long a host is taken to be alive that says nothing.
    """

    def __init__(self, schema: str, channel: str, holder: bytes, lease_s: float) -> None:
        self._channel = channel
        self._holder = holder
        self._lease_s = lease_s
        self._look = f"{_MOMENT}{_LOOK}".replace("{s}", schema)
        self._say_and_look = f"{_MOMENT}{_SAY}{_LOOK}{_ME}".replace("{s}", schema)
        self._withdraw = _WITHDRAW.replace("{s}", schema)
        self._drain = _DRAIN.replace("{s}", schema)

    async def survey(self, connection: Connection, report: HostReport | None) -> Survey:
        """See `Store.survey`."""
        if report is None:
            return self._read(await connection.rows(self._look))
        report = report._replace(functions=report.functions[:FUNCTIONS_MAX])
        said = msgspec.json.encode(report._asdict())
        return self._read(
            await connection.rows(self._say_and_look, self._holder, said, self._lease_s, self._channel)
        )

    def _read(self, rows: Any) -> Survey:
        partitions = [
            PartitionInfo(number, owner.decode(), None if host is None else host.hex(), epoch, orphaned)
            for is_partition, number, owner, host, epoch, orphaned, _ in rows
            if is_partition
        ]
        owned = Counter(partition.host_id for partition in partitions)
        hosts = [
            HostInfo(
                host.hex(),
                _report(said),
                since,
                seen_at,
                owned[host.hex()],
                is_me=host == self._holder,
                told_to_drain=told,
            )
            for is_partition, _, said, host, since, told, seen_at in rows
            if not is_partition
        ]
        return Survey(sorted(partitions), sorted(hosts, key=lambda host: (host.since, host.host_id)))

    async def withdraw(self, connection: Connection) -> None:
        """See `Store.withdraw`."""
        await connection.rows(self._withdraw, self._holder, self._channel)

    async def ask_to_drain(self, connection: Connection, host_id: str) -> bool:
        """See `Store.ask_to_drain`."""
        try:
            holder = bytes.fromhex(host_id)
        except ValueError:
            return False
        return bool(await connection.rows(self._drain, holder, self._channel))


class _Said(msgspec.Struct):
    """A report as it is stored. A host of another version may say more, or less."""

    name: str = ""
    version: str = ""
    functions: tuple[str, ...] = ()
    draining: bool = False
    backlog: int = 0
    oldest_us: int | None = None
    running: int = 0
    places: int = 0


def _report(said: bytes) -> HostReport:
    found = msgspec.json.decode(said, type=_Said)
    return HostReport(*msgspec.structs.astuple(found))
