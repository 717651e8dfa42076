# ruff: noqa: S608 - statements are put together from constants; values are bound
"""What is read, by the owner and by anybody. Each answer is of one moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from durably.core.commit import EntityRow, HistoryRow, InboxRow, InstanceRow, ParkedMessage, TimerRow
from durably.storage.api import HubIdentity, Snapshot, StoredInstance
from durably.storage.postgres import rows
from durably.storage.postgres.calls import Connection
from durably.storage.postgres.columns import key, keys


class Reader:
    """The statements of one hub.

    Args:
        schema: Quoted.
        history_max: Bytes of the largest history that the owner brings into memory.
    """

    def __init__(self, schema: str, history_max: int) -> None:
        self.schema = schema
        self._history_max = history_max
        self._by_id = self._sql(
            f"SELECT {rows.INSTANCE} FROM {{s}}.instances i WHERE i.instance_id = ANY($1)"
        )
        self._alone_by_id = self._sql(
            f"SELECT {rows.INSTANCE_ALONE} FROM {{s}}.instances i WHERE i.instance_id = ANY($1)"
        )
        self._ids = self._sql("SELECT instance_id FROM {s}.instances WHERE instance_id = ANY($1)")
        self._history = self._sql(
            f"SELECT {rows.HISTORY} FROM {{s}}.instances i JOIN {{s}}.history h"
            " ON h.partition = i.partition AND h.execution = i.execution"
            " WHERE i.instance_id = ANY($1) ORDER BY h.execution, h.seq"
        )
        self._messages = self._sql(
            f"SELECT {rows.INBOX} FROM {{s}}.inbox m WHERE m.instance_id = ANY($1) ORDER BY m.position"
        )

        self._inbox_of = self._sql(
            "SELECT a.place, r.* FROM unnest($1::int[], $2::bigint[]) WITH ORDINALITY AS a (partition, after, place),"
            f" LATERAL (SELECT {rows.INBOX} FROM {{s}}.inbox m WHERE m.partition = a.partition AND m.position > a.after"
            " ORDER BY m.position) r"
        )
        self._timers_of = self._sql(
            "SELECT a.place, r.* FROM unnest($1::int[], $2::bigint[], $3::bigint[])"
            " WITH ORDINALITY AS a (partition, after, until, place),"
            f" LATERAL (SELECT {rows.TIMER} FROM {{s}}.timers t WHERE t.partition = a.partition AND t.due_at > a.after"
            " AND t.due_at <= a.until ORDER BY due_at, execution, seq, kind) r"
        )

    def _sql(self, text: str) -> str:
        return text.replace("{s}", self.schema)

    # --- the owner ---------------------------------------------------------------------------------------------------

    async def load(self, connection: Connection, partition: int, timers_until: int) -> Snapshot:
        """See `Store.load`."""
        async with connection.moment():
            ((batch, execution),) = await connection.rows(
                self._sql("SELECT batch, execution FROM {s}.partitions WHERE id = $1"), partition
            )
            instances = await connection.rows(
                self._sql(
                    f"SELECT {rows.INSTANCE} FROM {{s}}.instances i WHERE i.in_flight AND i.partition = $1"
                    " ORDER BY i.execution"
                ),
                partition,
            )
            history = await connection.rows(
                self._sql(
                    f"SELECT {rows.HISTORY} FROM {{s}}.instances i JOIN {{s}}.history h"
                    " ON h.partition = i.partition AND h.execution = i.execution"
                    " WHERE i.in_flight AND i.partition = $1 ORDER BY h.execution, h.seq"
                ),
                partition,
            )
            timers = await self.read_timers(connection, partition, None, timers_until)
            inbox = await self.read_inbox(connection, partition, 0)
            tasks = await connection.rows(
                self._sql("SELECT task_id FROM {s}.tasks WHERE partition = $1"), partition
            )
        in_flight = rows.assemble(map(rows.as_instance, instances), history, [], self._history_max)
        return Snapshot(
            batch, execution, in_flight, timers, inbox, frozenset(row[0].decode() for row in tasks)
        )

    async def read_instances(
        self, connection: Connection, instance_ids: Sequence[str]
    ) -> list[StoredInstance | None]:
        """See `Store.read_instances`."""
        # Mostly it is asked for ids of new instances, which are not there: one statement says so.
        ids = [row[0] for row in await connection.rows(self._ids, keys(dict.fromkeys(instance_ids)))]
        if not ids:
            return [None] * len(instance_ids)
        async with connection.moment():
            instances = await connection.rows(self._by_id, ids)
            history = await connection.rows(self._history, ids)
            inbox = await connection.rows(self._messages, ids)
        stored = rows.assemble(map(rows.as_instance, instances), history, inbox, self._history_max)
        found = {instance.row.instance_id: instance for instance in stored}
        return [found.get(instance_id) for instance_id in instance_ids]

    async def read_timers(
        self, connection: Connection, partition: int, after: int | None, until: int
    ) -> list[TimerRow]:
        """See `Store.read_timers`; without `after` however old."""
        found = await connection.rows(
            self._sql(
                f"SELECT {rows.TIMER} FROM {{s}}.timers WHERE partition = $1 AND due_at <= $2"
                " AND ($3::bigint IS NULL OR due_at > $3) ORDER BY due_at, execution, seq, kind"
            ),
            partition,
            until,
            after,
        )
        return list(map(rows.as_timer, found))

    async def read_timers_of(
        self, connection: Connection, asked: Sequence[tuple[int, int, int]]
    ) -> list[list[TimerRow]]:
        """See `Store.read_timers`: of several partitions, each with its own bounds."""
        found = await connection.rows(self._timers_of, *map(list, zip(*asked, strict=True)))
        answers: list[list[TimerRow]] = [[] for _ in asked]
        for row in found:
            place: int = row[0] - 1
            answers[place].append(rows.as_timer(row[1:]))
        return answers

    async def read_inbox_of(
        self, connection: Connection, asked: Sequence[tuple[int, int]]
    ) -> list[list[InboxRow]]:
        """See `Store.read_inbox`: of several partitions, each with its own position."""
        found = await connection.rows(self._inbox_of, *map(list, zip(*asked, strict=True)))
        answers: list[list[InboxRow]] = [[] for _ in asked]
        for row in found:
            place: int = row[0] - 1
            answers[place].append(rows.as_message(row[1:]))
        return answers

    async def read_inbox(self, connection: Connection, partition: int, after: int) -> list[InboxRow]:
        """See `Store.read_inbox`."""
        found = await connection.rows(
            self._sql(
                f"SELECT {rows.INBOX} FROM {{s}}.inbox m WHERE m.partition = $1 AND m.position > $2 ORDER BY m.position"
            ),
            partition,
            after,
        )
        return list(map(rows.as_message, found))

    # --- anybody -----------------------------------------------------------------------------------------------------

    async def identity(self, connection: Connection) -> HubIdentity:
        """See `Store.identity`."""
        async with connection.moment():
            ((hub_id, used),) = await connection.rows(
                self._sql(
                    "SELECT hub_id, EXISTS (SELECT 1 FROM {s}.partitions WHERE batch > 0)"
                    " OR EXISTS (SELECT 1 FROM {s}.inbox) OR EXISTS (SELECT 1 FROM {s}.tombstones) FROM {s}.hub"
                )
            )
            used_keys = await connection.rows(self._sql("SELECT key_id, proof FROM {s}.encryption_keys"))
        return HubIdentity(hub_id, not used, {row[0].decode(): row[1] for row in used_keys})

    async def get_instances(
        self, connection: Connection, instance_ids: Sequence[str], *, payloads: bool = True
    ) -> list[InstanceRow | None]:
        """See `Store.get_instances`."""
        text = self._by_id if payloads else self._alone_by_id
        read = map(rows.as_instance, await connection.rows(text, keys(dict.fromkeys(instance_ids))))
        found = {row.instance_id: row for row in read}
        return [found.get(instance_id) for instance_id in instance_ids]

    async def verdicts(self, connection: Connection, message_ids: Sequence[str]) -> list[bytes | None]:
        """See `Store.verdicts`."""
        read = await connection.rows(
            self._sql("SELECT message_id, verdict FROM {s}.tombstones WHERE message_id = ANY($1)"),
            keys(message_ids),
        )
        found: dict[str, bytes] = {row[0].decode(): row[1] for row in read}
        return [found.get(message_id) for message_id in message_ids]

    async def read_parked(
        self, connection: Connection, after: int, limit: int, message_id: str | None
    ) -> list[ParkedMessage]:
        """See `Store.read_parked`."""
        which: tuple[Any, ...] = (after, limit)
        text = (
            f"SELECT {rows.PARKED} FROM {{s}}.parked_messages WHERE position > $1 ORDER BY position LIMIT $2"
        )
        if message_id is not None:
            text = f"SELECT {rows.PARKED} FROM {{s}}.parked_messages WHERE message_id = $1"
            which = (key(message_id),)
        return list(map(rows.as_parked, await connection.rows(self._sql(text), *which)))

    async def read_messages(self, connection: Connection, instance_id: str) -> list[InboxRow]:
        """See `Store.read_messages`."""
        return list(map(rows.as_message, await connection.rows(self._messages, keys([instance_id]))))

    async def read_history(self, connection: Connection, instance_id: str) -> list[HistoryRow]:
        """See `Store.read_history`."""
        return list(map(rows.as_history, await connection.rows(self._history, keys([instance_id]))))

    async def read_entities(
        self, connection: Connection, instance_ids: Sequence[str]
    ) -> list[EntityRow | None]:
        """See `Store.read_entities`."""
        text = f"SELECT {rows.ENTITY} FROM {{s}}.entities WHERE instance_id = ANY($1)"
        read = map(rows.as_entity, await connection.rows(self._sql(text), keys(dict.fromkeys(instance_ids))))
        found = {row.instance_id: row for row in read}
        return [found.get(instance_id) for instance_id in instance_ids]
