# ruff: noqa: S608 - statements are put together from constants of this file; values are bound
"""How much waits in a hub on PostgreSQL: by indexes, and never more than so many rows of each."""

from __future__ import annotations

from typing import Final

from durably.storage.api import WORKLOAD_MAX, Workload
from durably.storage.postgres.calls import Connection

_NOW: Final = "(SELECT at FROM moment)"

_HELD: Final = (
    f"(i.status = 'Suspended' OR i.blocked IS NOT NULL OR i.parked IS NOT NULL OR i.start_at > {_NOW})"
)
"""Neither true nor false of an instance that is not there, or has no time to begin."""

_INSTANCE: Final = (
    "LATERAL (SELECT * FROM {s}.instances i WHERE i.instance_id = {}.instance_id OFFSET 0) i ON true"
)
"""Looked up one by one: a planner that joins reads the whole table for some thousand rows."""

WORKLOAD: Final = f"""
WITH moment AS MATERIALIZED (
    SELECT coalesce($1::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) AS at
), unread AS MATERIALIZED (
    SELECT m.instance_id, m.at FROM {{s}}.inbox m ORDER BY m.partition, m.position LIMIT {WORKLOAD_MAX}
), due AS MATERIALIZED (
    SELECT t.instance_id, t.due_at FROM {{s}}.partitions p, LATERAL (
        SELECT t.instance_id, t.due_at FROM {{s}}.timers t WHERE t.partition = p.id AND t.due_at <= {_NOW}
        ORDER BY t.due_at LIMIT {WORKLOAD_MAX}
    ) t LIMIT {WORKLOAD_MAX}
), working AS MATERIALIZED (
    SELECT i.* FROM {{s}}.partitions p, LATERAL (
        SELECT i.status, i.blocked, i.parked, i.start_at FROM {{s}}.instances i WHERE i.in_flight AND i.partition = p.id
        ORDER BY i.execution LIMIT {WORKLOAD_MAX}
    ) i LIMIT {WORKLOAD_MAX}
), messages AS (
    SELECT count(*) FILTER (WHERE {_HELD} IS NOT TRUE) AS number, min(m.at) FILTER (WHERE {_HELD} IS NOT TRUE) AS oldest,
        max(m.at) FILTER (WHERE {_HELD}) AS held, count(*) AS looked_at
    FROM unread m LEFT JOIN {_INSTANCE.replace("{}", "m")}
), timers AS (
    SELECT count(*) FILTER (WHERE {_HELD} IS NOT TRUE) AS number, min(t.due_at) FILTER (WHERE {_HELD} IS NOT TRUE) AS oldest,
        count(*) AS looked_at
    FROM due t LEFT JOIN {_INSTANCE.replace("{}", "t")}
), instances AS (
    SELECT count(*) FILTER (WHERE {_HELD} IS NOT TRUE) AS number, count(*) AS looked_at FROM working i
), next AS (
    SELECT min(t.due_at) AS due_at FROM {{s}}.partitions p, LATERAL (
        SELECT t.due_at FROM {{s}}.timers t WHERE t.partition = p.id AND t.due_at > {_NOW} ORDER BY t.due_at LIMIT 1
    ) t
), unclaimed AS (
    SELECT count(*) AS number, min(t.at) AS oldest
    FROM (SELECT t.at FROM {{s}}.tasks t WHERE t.claimer IS NULL LIMIT {WORKLOAD_MAX}) t
), hidden AS (
    SELECT {" OR ".join(f"{part}.number = 0 AND {part}.looked_at >= {WORKLOAD_MAX}" for part in ("messages", "timers", "instances"))}
        AS perhaps FROM messages, timers, instances
)
SELECT {_NOW}, greatest(messages.number, hidden.perhaps::int), messages.oldest, messages.held, timers.number, timers.oldest, next.due_at,
    instances.number, unclaimed.number, unclaimed.oldest
FROM messages, timers, instances, next, unclaimed, hidden
"""


async def workload(connection: Connection, schema: str, now: int | None) -> Workload:
    """See `Store.workload`."""
    (found,) = await connection.rows(WORKLOAD.replace("{s}", schema), now)
    return Workload(*found)
