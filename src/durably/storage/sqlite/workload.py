# ruff: noqa: S608 - statements are put together from constants of this file; values are bound
"""How much waits in a hub on SQLite: by indexes, and never more than so many rows of each."""

from __future__ import annotations

from typing import Final

from durably.storage.api import WORKLOAD_MAX, Workload
from durably.storage.sqlite.calls import one_moment
from durably.storage.sqlite.reader import Reader

_MOMENT: Final = "WITH moment (at) AS (SELECT ?)"
_HELD: Final = "(i.status = 'Suspended' OR i.blocked IS NOT NULL OR i.parked IS NOT NULL OR i.start_at > (SELECT at FROM moment))"
"""Neither true nor false of an instance that is not there, or has no time to begin."""
_FREE: Final = f"{_HELD} IS NOT TRUE"

_NOW: Final = "SELECT coalesce(?, CAST(unixepoch('subsec') * 1000000 AS INTEGER))"

_MESSAGES: Final = f"""
{_MOMENT}
SELECT count(*) FILTER (WHERE {_FREE}), count(*), min(m.at) FILTER (WHERE {_FREE}), max(m.at) FILTER (WHERE {_HELD})
FROM (SELECT instance_id, at FROM inbox ORDER BY position LIMIT {WORKLOAD_MAX}) m LEFT JOIN instances i USING (instance_id)
"""
_DUE: Final = f"""
{_MOMENT}
SELECT count(*) FILTER (WHERE {_FREE}), count(*), min(t.due_at) FILTER (WHERE {_FREE})
FROM (SELECT instance_id, due_at FROM timers WHERE due_at <= (SELECT at FROM moment) ORDER BY due_at LIMIT {WORKLOAD_MAX}) t
LEFT JOIN instances i USING (instance_id)
"""
_NEXT: Final = "SELECT min(due_at) FROM timers WHERE due_at > ?"
_WORKING: Final = f"""
{_MOMENT}
SELECT count(*) FILTER (WHERE {_FREE}), count(*) FROM (
    SELECT status, blocked, parked, start_at FROM instances WHERE in_flight ORDER BY execution LIMIT {WORKLOAD_MAX}
) i
"""


def workload(reader: Reader, now: int | None) -> Workload:
    """See `Store.workload`."""
    with one_moment(reader.connection):
        ((at,),) = reader.execute(_NOW, (now,)).fetchall()
        ((messages, messages_seen, oldest_at, held_at),) = reader.execute(_MESSAGES, (at,)).fetchall()
        ((due, due_seen, due_at),) = reader.execute(_DUE, (at,)).fetchall()
        ((next_due_at,),) = reader.execute(_NEXT, (at,)).fetchall()
        ((working, working_seen),) = reader.execute(_WORKING, (at,)).fetchall()
    parts = ((messages, messages_seen), (due, due_seen), (working, working_seen))
    hidden = any(not free and seen >= WORKLOAD_MAX for free, seen in parts)
    return Workload(at, max(messages, int(hidden)), oldest_at, held_at, due, due_at, next_due_at, working)
