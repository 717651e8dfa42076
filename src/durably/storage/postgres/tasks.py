# ruff: noqa: S608 - statements are put together from constants of this package; values are bound
"""The queue of activities that all hosts share, for those who run them: claimed with ``SKIP LOCKED``, under a token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import starmap
from typing import Any, Final

from durably.core.commit import TaskRow
from durably.core.shared_tasks import TaskInfo
from durably.storage.postgres.calls import Connection
from durably.storage.postgres.columns import Row, key, message_row
from durably.storage.postgres.task_schema import RESULT
from durably.storage.shared_tasks import Claim, TaskResult
from durably.storage.slots import partition_of

_CLAIM: Final = (
    "SELECT task_id, instance_id, name, at, body, deliveries, token FROM {s}.claim_1($1, $2, $3, $4, $5)"
)

_CLAIM_INTERRUPTED: Final = "SELECT task_id, instance_id, name, at, body, deliveries, token FROM {s}.claim_interrupted_1($1, $2, $3, $4)"

_HELD: Final = "unnest($2::int[], $3::bytea[], $4::bigint[]) AS r (partition, task_id, token)"
_MINE: Final = (
    f"{{s}}.tasks t JOIN {_HELD} ON t.partition = r.partition AND t.task_id = r.task_id AND t.token = r.token"
    " WHERE t.claimer = $1"
)

_STILL: Final = f"SELECT t.task_id FROM {_MINE}"

_FREE: Final = """
UPDATE {s}.tasks t SET claimer = NULL, deliveries = t.deliveries - 1, due = clock_timestamp()
FROM mine m WHERE t.partition = m.partition AND t.task_id = m.task_id RETURNING 1
"""

_GIVE_BACK: Final = f"WITH mine AS (SELECT t.partition, t.task_id FROM {_MINE} ORDER BY t.partition, t.task_id FOR UPDATE OF t){_FREE}"

_KEEP_ONLY: Final = f"""
WITH mine AS (
    SELECT t.partition, t.task_id FROM {{s}}.tasks t WHERE t.claimer = $1 AND NOT EXISTS (
        SELECT FROM {_HELD} WHERE t.partition = r.partition AND t.task_id = r.task_id AND t.token = r.token
    ) ORDER BY t.partition, t.task_id FOR UPDATE OF t
){_FREE}"""

_KEEP: Final = """
WITH mine AS (SELECT partition, task_id FROM {s}.tasks WHERE claimer = $1 FOR UPDATE SKIP LOCKED)
UPDATE {s}.tasks t SET due = clock_timestamp() + make_interval(secs => $2)
FROM mine m WHERE t.partition = m.partition AND t.task_id = m.task_id RETURNING 1
"""

_LET_GO: Final = f"""
WITH mine AS (
    SELECT partition, task_id FROM {{s}}.tasks WHERE claimer = $1 ORDER BY partition, task_id FOR UPDATE
){_FREE}"""

_OF_INSTANCE: Final = "SELECT task_id, name, at, claimer FROM {s}.tasks WHERE partition = $1 AND instance_id = $2 ORDER BY at, task_id"


class PostgresTasks:
    """A `SharedTasks` in the schema of a hub.

    Args:
        schema: Quoted.
        holder: The store object.
        partitions: How many the hub has.
        lease_s: How long a claim lasts.
        use: A connection.
        claimed: Called when there are claims to be renewed.
        told: Called when something was finished, or given back: others want to know.
        watch: Takes what is called back when somebody offers or withdraws.
    """

    def __init__(
        self,
        schema: str,
        holder: bytes,
        partitions: int,
        lease_s: float,
        *,
        use: Callable[[], AbstractAsyncContextManager[Connection]],
        claimed: Callable[[], None],
        told: Callable[..., None],
        watch: Callable[[Callable[[], None], Callable[[], None]], None],
    ) -> None:
        self._holder = holder
        self._partitions = partitions
        self._lease_s = lease_s
        self._use = use
        self._claimed = claimed
        self._told = told
        self._watch = watch
        self._claim = _CLAIM.replace("{s}", schema)
        self._claim_interrupted = _CLAIM_INTERRUPTED.replace("{s}", schema)
        self._still = _STILL.replace("{s}", schema)
        self._give_back = _GIVE_BACK.replace("{s}", schema)
        self._keep_only = _KEEP_ONLY.replace("{s}", schema)
        self._of_instance = _OF_INSTANCE.replace("{s}", schema)
        places = ", ".join(f"${place}" for place in range(1, len(RESULT) + 2))
        self._finish = f"SELECT {schema}.finish_1({places})"

    def on_change(self, *, offered: Callable[[], None], withdrawn: Callable[[], None]) -> None:
        """See `SharedTasks.on_change`."""
        self._watch(offered, withdrawn)

    async def claim(self, wanted: Mapping[str, int], limit: int) -> list[Claim]:
        """See `SharedTasks.claim`."""
        names, most = [key(name) for name in wanted], list(wanted.values())
        return await self._take(self._claim, names, most, limit)

    async def claim_interrupted(self, names: Sequence[str], rooms: Sequence[int]) -> list[Claim]:
        """See `SharedTasks.claim_interrupted`."""
        return await self._take(self._claim_interrupted, list(map(key, names)), list(rooms))

    async def _take(self, text: str, *values: Any) -> list[Claim]:
        async with self._use() as connection:
            found = await connection.rows(text, self._holder, self._lease_s, *values)
        if found:
            self._claimed()
        return [
            Claim(TaskRow(row[0].decode(), row[1].decode(), row[2].decode(), row[3], row[4]), row[5], row[6])
            for row in found
        ]

    async def lost(self, claims: Sequence[Claim]) -> list[Claim]:
        """See `SharedTasks.lost`."""
        async with self._use() as connection:
            found = await connection.rows(self._still, self._holder, *self._keys(claims))
        still = {row[0].decode() for row in found}
        return [claim for claim in claims if claim.row.task_id not in still]

    async def finish(self, results: Sequence[TaskResult]) -> list[bool]:
        """See `SharedTasks.finish`."""
        rows: list[Row] = []
        for claim, message in results:
            message_id, place, *rest = message_row(message, self._partitions)
            rows.append((place, claim.row.task_id.encode(), claim.token, message_id, *rest))
        async with self._use() as connection:
            columns = zip(*rows, strict=True) if rows else [()] * len(RESULT)
            found = await connection.rows(self._finish, self._holder, *map(list, columns))
        done = {row[0].decode() for row in found}
        if done:
            self._told(offered=False, withdrawn=False)
        return [result.claim.row.task_id in done for result in results]

    async def give_back(self, claims: Sequence[Claim]) -> None:
        """See `SharedTasks.give_back`."""
        await self._free(self._give_back, claims)

    async def keep_only(self, claims: Sequence[Claim]) -> int:
        """See `SharedTasks.keep_only`."""
        return await self._free(self._keep_only, claims)

    async def _free(self, text: str, claims: Sequence[Claim]) -> int:
        async with self._use() as connection:
            found = await connection.rows(text, self._holder, *self._keys(claims))
        if found:
            self._told(offered=True, withdrawn=False)
        return len(found)

    def _keys(self, claims: Sequence[Claim]) -> list[Sequence[Any]]:
        return [
            [partition_of(claim.row.instance_id, self._partitions) for claim in claims],
            [key(claim.row.task_id) for claim in claims],
            [claim.token for claim in claims],
        ]

    async def of_instance(self, instance_id: str) -> list[TaskInfo]:
        """See `SharedTasks.of_instance`."""
        place = partition_of(instance_id, self._partitions)
        async with self._use() as connection:
            found = await connection.rows(self._of_instance, place, key(instance_id))
        return list(starmap(_info, found))


def _info(task_id: bytes, name: bytes, at: int, claimer: bytes | None) -> TaskInfo:
    return TaskInfo(task_id.decode(), name.decode(), at, None if claimer is None else claimer.hex())


async def keep(connection: Connection, schema: str, holder: bytes, lease_s: float) -> bool:
    """Renew all claims of a store object; False when it has none."""
    return bool(await connection.rows(_KEEP.replace("{s}", schema), holder, lease_s))


async def let_go(connection: Connection, schema: str, holder: bytes) -> bool:
    """Give all claims of a store object back; False when it has none."""
    return bool(await connection.rows(_LET_GO.replace("{s}", schema), holder))
