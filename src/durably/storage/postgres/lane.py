"""The commit lane of a host: one statement at a time carries the batches of all its partitions.

While one is under way, the next one gathers. A statement applies all of its batches or none. When one of them does not fit,
the lane looks which, tells its owner, and sends the others again. An outcome that nobody knows, because the connection was
lost, is settled by sending again: the fence waits for the doubtful transaction, and then the batch applies or was applied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import uniform
from typing import Any, Final, NamedTuple

from durably.core.commit import Batch
from durably.errors import DurablyError, InvariantError, LeaseLostError
from durably.storage.api import Lease
from durably.storage.postgres.columns import Columns, keys
from durably.storage.postgres.commit_function import FENCED, MISSING, Shape, statement
from durably.storage.postgres.failures import as_store_error, is_lost, may_try_again, state_of
from durably.storage.postgres.pool import Pool

_TRIES: Final = 3
"""Of a statement whose outcome is unknown, or that the server rolled back; then its batches go back to their owners."""

_PAUSE_S: Final = 0.05
"""At most, before a statement that was rolled back is sent again: at once it would be in the same one's way again."""


class _Sent(NamedTuple):
    lease: Lease
    batch: Batch
    done: asyncio.Future[None]


class Lane:
    """Sends batches.

    Args:
        pool: Of one connection.
        schema: Quoted.
        url: Of the hub, for messages.
        partitions: How many the hub has.
        holder: The store object that holds the leases.
        landed: Called when something has become durable, with what that was.
        fenced: Called with a lease that turned out to be somebody else's.
    """

    def __init__(
        self,
        pool: Pool,
        schema: str,
        url: str,
        *,
        partitions: int,
        holder: bytes,
        landed: Callable[[Columns, Sequence[Batch]], None],
        fenced: Callable[[Lease], None],
    ) -> None:
        self._pool = pool
        self._schema = schema
        self._url = url
        self._partitions = partitions
        self._holder = holder
        self._landed = landed
        self._fenced = fenced
        self._texts: dict[Shape, str] = {}  # there are few: the server keeps each of them prepared
        self._waiting: list[_Sent] = []
        self._working: asyncio.Task[None] | None = None
        self._under_way: frozenset[int] = frozenset()  # partitions of the batches that were sent
        self._round: asyncio.Future[None] | None = None  # done when these have ended

    def commit(self, lease: Lease, batch: Batch) -> asyncio.Future[None]:
        """See `Store.commit`."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Sent(lease, batch, done))
        if self._working is None:
            self._working = asyncio.create_task(self._work(), name="durably-postgres-lane")
        return done

    async def idle(self) -> None:
        """Return when nothing is under way."""
        while self._working is not None:
            await asyncio.wait({self._working})

    async def settled(self, partition: int) -> None:
        """Return when nothing of this partition is under way. Others may be busy for ever."""
        while self._working is not None:
            if self._round is not None and partition in self._under_way:
                await asyncio.wait({self._round})
            elif any(sent.lease.partition == partition for sent in self._waiting):
                await asyncio.wait({self._round or self._working})
            else:
                return

    async def _work(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                self._under_way = frozenset(sent.lease.partition for sent in waiting)
                self._round = asyncio.get_running_loop().create_future()
                await self._send(waiting)
                self._end_round()
        finally:
            self._working = None
            self._end_round()
            for sent in self._waiting:  # only when this task was cancelled
                sent.done.cancel()

    def _end_round(self) -> None:
        if self._round is not None and not self._round.done():
            self._round.set_result(None)
        self._under_way, self._round = frozenset(), None

    async def _send(self, sents: list[_Sent]) -> None:
        """Send batches, and tell their owners what became of them. Never raises."""
        columns = Columns(self._partitions, self._holder)
        try:
            for sent in sents:
                columns.add(sent.lease, sent.batch)
            shape, values = columns.call()
            text = self._texts.get(shape)
            if text is None:
                text = self._texts[shape] = statement(shape, self._schema)
            await self._run(text, values)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the owner of a batch
            await self._divide(sents, error)
            return
        for sent in sents:
            _tell(sent, None)
        self._landed(columns, [sent.batch for sent in sents])

    async def _run(self, text: str, values: Sequence[Any]) -> None:
        for left in reversed(range(_TRIES)):
            try:
                async with self._pool.use() as connection:
                    await connection.value(text, *values)
            except DurablyError as error:
                cause = error.__cause__
                if not left or cause is None or not (is_lost(cause) or may_try_again(cause)):
                    raise
                if isinstance(cause, TimeoutError):  # its owner has waited long enough to be told
                    raise
                if may_try_again(cause):
                    await asyncio.sleep(uniform(0.2, 1.0) * _PAUSE_S)  # noqa: S311 - no secret
                continue
            return

    async def _divide(self, sents: list[_Sent], error: Exception) -> None:
        """Find out whom an error is about; the others are sent again."""
        state = state_of(error)
        if state == FENCED:
            try:
                verdicts = await self._verdicts(sents)
            except DurablyError as unknown:
                error = unknown
            else:
                pairs = zip(sents, verdicts, strict=True)
                rest = [sent for sent, verdict in pairs if not self._judged(sent, verdict)]
                # When nobody was judged, they are in each other's way: one partition twice.
                for part in [rest] if len(rest) < len(sents) else [[sent] for sent in rest]:
                    if part:
                        await self._send(part)
                return
        elif len(sents) > 1 and _is_about_one(error):
            for sent in sents:
                await self._send([sent])
            return
        for sent in sents:
            try:
                told = await self._explained(error, sent)
            except DurablyError as unknown:  # the server went away: the owner finds out when it sends again
                told = unknown
            _tell(sent, told)

    async def _verdicts(self, sents: list[_Sent]) -> list[Any]:
        # The lock makes it a write, which is durable only when all before it is: a doubtful batch that is found applied may
        # have reached no standby yet, when the wait for that was broken off.
        text = (
            "SELECT id, epoch, batch, batch_epoch, holder FROM {s}.partitions WHERE id = ANY($1)"
            " ORDER BY id FOR UPDATE"
        )
        async with self._pool.use() as connection:
            found = await connection.rows(
                text.replace("{s}", self._schema), [sent.lease.partition for sent in sents]
            )
        by_id = {row[0]: row for row in found}
        return [by_id.get(sent.lease.partition) for sent in sents]

    def _judged(self, sent: _Sent, verdict: Any) -> bool:
        """Tell the owner of a batch that cannot be applied, or was; False for one that fits."""
        partition, epoch, newest, newest_epoch, holder = verdict or (sent.lease.partition, -1, -1, -1, b"")
        number = sent.batch.number
        refused = f"Batch {number} of epoch {sent.lease.epoch} refused: partition {partition}"
        if epoch != sent.lease.epoch:
            self._fenced(sent.lease)
            _tell(sent, LeaseLostError(f"{refused} is in epoch {epoch}"))
        elif holder != self._holder:  # released; or rows went back, and another host got the same epoch
            self._fenced(sent.lease)
            _tell(sent, LeaseLostError(f"{refused} is held by another host, or by nobody"))
        elif number == newest and newest_epoch == epoch:
            _tell(sent, None)
        elif number > newest + 1:
            gone = f"batch {number} was sent, but the server is at {newest}: what it had acknowledged behind that is gone"
            _tell(sent, InvariantError("I2", "", gone))
        elif number != newest + 1:
            _tell(sent, InvariantError("I2", "", f"batch {number} was sent, expected {newest + 1}"))
        else:
            return False
        return True

    async def _explained(self, error: Exception, sent: _Sent) -> DurablyError:
        cause = error.__cause__ if isinstance(error, DurablyError) else error
        if state_of(error) == MISSING:
            return await self._missing(sent)
        if getattr(cause, "table_name", None) == "history" and state_of(error) == "23505":
            return await self._repeated(sent)
        return as_store_error(error, self._url)

    async def _missing(self, sent: _Sent) -> DurablyError:
        ids = [change.instance_id for change in sent.batch.changes]
        text = "SELECT instance_id FROM {s}.instances WHERE instance_id = ANY($1)"
        async with self._pool.use() as connection:
            found = {
                row[0].decode() for row in await connection.rows(text.replace("{s}", self._schema), keys(ids))
            }
        removed = {removal.instance_id for removal in sent.batch.removed}
        found = (found - removed) | {row.instance_id for row in sent.batch.instances}
        missing = next((one for one in ids if one not in found), "")
        return InvariantError("I2", missing, "it was changed, but there is no such instance")

    async def _repeated(self, sent: _Sent) -> DurablyError:
        keys = [(row.execution, row.seq) for row in sent.batch.history]
        text = (
            "SELECT h.execution, h.seq FROM {s}.history h"
            " JOIN unnest($2::bigint[], $3::int[]) AS k (execution, seq) USING (execution, seq) WHERE h.partition = $1"
        )
        owner = "SELECT instance_id FROM {s}.instances WHERE partition = $1 AND execution = $2"
        partition = sent.lease.partition
        async with self._pool.use() as connection:
            executions, seqs = [key[0] for key in keys], [key[1] for key in keys]
            stored = {
                (row[0], row[1])
                for row in await connection.rows(
                    text.replace("{s}", self._schema), partition, executions, seqs
                )
            }
            seen: set[tuple[int, int]] = set()
            culprit = next((key for key in keys if key in stored or key in seen or seen.add(key)), keys[0])
            rows = await connection.rows(owner.replace("{s}", self._schema), partition, culprit[0])
        ids = [row.instance_id for row in sent.batch.instances if row.execution == culprit[0]]
        ids += [row[0].decode() for row in rows]
        what = f"history row {culprit[1]} of execution {culprit[0]} was sent, but it exists"
        return InvariantError("I1", ids[0] if ids else "", what)


def _is_about_one(error: Exception) -> bool:
    """True when one batch of several may be the reason."""
    cause = error.__cause__ if isinstance(error, DurablyError) else error
    return cause is None or not (is_lost(cause) or may_try_again(cause))


def _tell(sent: _Sent, error: DurablyError | None) -> None:
    if sent.done.done():  # cancelled
        return
    if error is None:
        sent.done.set_result(None)
    else:
        sent.done.set_exception(error)
