"""Group commit: one batch on its way to the store, the next one gathering; the disk sets the pace, no timer does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from durably.clock import Clock
from durably.core.commit import (
    Batch,
    EntityRow,
    HistoryRow,
    InboxRow,
    InstanceChange,
    InstanceRow,
    ParkedMessage,
    Removal,
    TaskRow,
    TimerKey,
    TimerRow,
    Tombstone,
)
from durably.core.events import Payload
from durably.core.history import chain, encode_body, encode_events, encode_failure
from durably.core.orchestration import Commit
from durably.engine.entity_residents import EntityResident
from durably.engine.options import EngineOptions
from durably.engine.residents import Delivery, Resident, encode_bases
from durably.engine.routes import Sent
from durably.errors import InvariantError, StoreRefusedError, StoreUnavailableError
from durably.storage.api import Lease, Store

RETRY_DELAY_MAX_US = 2_000_000
"""A store that stays unavailable is asked every two seconds: work goes on that soon after a disk has room again."""

TROUBLE_DELAY_US = 400_000
"""When the next attempt is so far away, several have failed: this is no moment's lock of another process."""

INTERNAL = "~"
"""First character of the ids of messages that no sender will ever repeat, and that need no tombstone."""


class Staged(msgspec.Struct, eq=False):
    """A commit and whose it is.

    Attributes:
        dropped: The execution was replaced within the batch: its effects are released, its rows are not written.
        execution: Number of the execution that the commit belongs to; the resident may turn to the next one meanwhile.
        touched: The instance row has to be written whatever it says.
    """

    resident: Resident
    commit: Commit
    execution: int
    dropped: bool = False
    touched: bool = False


class _UnsealableError(Exception):
    """What an instance gathered cannot be put into rows."""

    def __init__(self, staged: Staged, cause: Exception) -> None:
        super().__init__(str(cause))
        self.staged = staged
        self.cause = cause


class Gathering:
    """What becomes durable together, while it is still being added to.

    Attributes:
        staged: Commits, in the order in which they were opened.
        removed: Instances to delete.
        executions_dropped: Executions to delete.
        kept: Messages that outlive this batch: they get a row in the inbox.
        sent: Messages to other partitions: they get a row there.
        doubtful: The store was asked more than once: it may have been durable for a while when that is heard of.
        consumed: Ids of inbox rows that were dealt with.
        tombstones: Ids to remember.
        replies: Callers to answer once it is durable: with an error or a result.
        settled: Activity results that it makes durable: key and attempt.
        parked: Messages to set aside.
        unparked: Ids of messages set aside that go back to the inbox.
        parked_dropped: Ids of messages set aside that are deleted.
        entities: Entities whose rows are written.
        entity_timers: What becomes of their timers; None: cleared.
        vanishing: Ids that are removed; until it is durable, nobody may read their rows.
        offered: Attempts of activities for the queue that all hosts share.
        withdrawn: Ids of those that nobody wants any more.
        expected: Attempts that stay on this host, by activity, while others might take them; or None.
        operations: Of entities, performed in it.
        size: Bytes of payload, roughly.
    """

    def __init__(self) -> None:
        self.staged: list[Staged] = []
        self.removed: list[Removal] = []
        self.executions_dropped: list[int] = []
        self.kept: list[Delivery] = []
        self.sent: Sent | None = None
        self.doubtful = False
        self.consumed: list[str] = []
        self.tombstones: list[Tombstone] = []
        self.replies: list[tuple[asyncio.Future[Any], Exception | None, Payload]] = []
        self.settled: list[tuple[tuple[str, int], int]] = []
        self.parked: list[ParkedMessage] = []
        self.unparked: list[str] = []
        self.parked_dropped: list[str] = []
        self.entities: list[EntityResident] = []
        self.entity_timers: dict[TimerKey, TimerRow | None] = {}
        self.vanishing: list[str] = []
        self.offered: list[TaskRow] = []
        self.withdrawn: list[str] = []
        self.expected: Counter[str] | None = None
        self.operations = 0
        self.size = 0

    @property
    def deletes(self) -> bool:
        """True when rows have to go."""
        return bool(self.removed or self.executions_dropped or self.consumed or self.tombstones)

    @property
    def parks(self) -> bool:
        """True when messages are set aside, or come back."""
        return bool(self.parked or self.unparked or self.parked_dropped)


class Committer:
    """Writes gatherings of one partition, one at a time.

    Args:
        store: Where to.
        lease: By what right.
        clock: For retries and the time of tombstones.
        options: Limits.
        released: Takes a gathering that is durable.
        lost: Takes the error after which this committer must not be used any more, and what was to be committed.
        keep: Returns the messages that have to become rows of the batch being sealed.
        leaving: Returns the messages to other partitions that become rows with it.
        divide: Decides which attempts go to the queue that all hosts share; None where there is none.
    """

    def __init__(
        self,
        store: Store,
        lease: Lease,
        clock: Clock,
        options: EngineOptions,
        *,
        released: Callable[[Gathering], None],
        lost: Callable[[Exception, list[Staged]], None],
        keep: Callable[[], list[Delivery]],
        leaving: Callable[[], Sent | None],
        divide: Callable[[Gathering, int], None] | None = None,
    ) -> None:
        self.gathering = Gathering()
        self.closed = False
        self.number = 0
        """Of the newest batch applied; set by the owner once it is known."""
        self._store = store
        self._lease = lease
        self._clock = clock
        self._options = options
        self._released = released
        self._lost = lost
        self._keep = keep
        self._leaving = leaving
        self._divide = divide
        self._in_flight: Gathering | None = None
        self._batch: Batch | None = None
        self._sent: asyncio.Future[None] | None = None
        self._delay_us = 0
        self._refusal: StoreUnavailableError | None = None
        self._tombstones_checked_at = 0

    @property
    def busy(self) -> bool:
        """True when something is gathered or on its way."""
        return self._in_flight is not None or bool(
            self.gathering.staged
            or self.gathering.replies
            or self.gathering.consumed
            or self.gathering.removed
            or self.gathering.entities
            or self.gathering.offered
            or self.gathering.withdrawn
        )

    @property
    def trouble(self) -> StoreUnavailableError | None:
        """Why the store has not taken the batch on its way for a while, or None."""
        return self._refusal if self._delay_us >= TROUBLE_DELAY_US else None

    def flush(self) -> bool:
        """Send what is gathered, unless a batch is on its way: its receipt flushes again. True when it was sealed."""
        if self._in_flight is not None or self.closed:
            return False
        gathering = self.gathering
        try:
            batch = self._seal(gathering)
        except _UnsealableError as error:
            self.close()
            self._lost(StoreRefusedError(f"its data cannot be stored: {error.cause}"), [error.staged])
            return False
        if batch is None:
            if not (gathering.replies or gathering.settled or gathering.staged):
                return False
            self.gathering = Gathering()
            self._released(gathering)
            return True
        self.gathering = Gathering()
        self._in_flight = gathering
        self._batch = batch
        self._send()
        return True

    def close(self) -> None:
        """Send nothing more and forget what is gathered."""
        self.closed = True

    def in_doubt(self) -> frozenset[asyncio.Future[Any]]:
        """Whose answers hang on a batch that is on its way: once the lease is lost, nobody knows whether it was applied."""
        return (
            frozenset() if self._in_flight is None else frozenset(one[0] for one in self._in_flight.replies)
        )

    async def landed(self) -> Gathering | None:
        """After `close`: return when no batch is on its way any more, with what it gathered if it was applied.

        Whoever loads the partition anew waits for this: a batch that lands behind the load would be missing in memory. An
        unknown outcome is settled by sending the same batch again (rule 3), so nobody's call is applied twice.
        """
        gathering, batch, sent = self._in_flight, self._batch, self._sent
        delay_us = int(self._options.commit_retry_s * 1_000_000)
        while gathering is not None and batch is not None and sent is not None:
            sent.add_done_callback(_seen)  # also when whoever waits here is cancelled
            await asyncio.wait([sent])
            lost = StoreUnavailableError("the commit was cancelled")
            error = lost if sent.cancelled() else sent.exception()
            if error is None:
                self._in_flight = self._batch = None
                gathering.doubtful = True
                return gathering
            if not isinstance(error, StoreUnavailableError):
                return None
            waited = asyncio.Event()
            self._clock.call_later(delay_us, waited.set)
            await waited.wait()
            delay_us = min(2 * delay_us, RETRY_DELAY_MAX_US)
            sent = self._commit(batch)
        return None

    # --- sending -----------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        if self.closed or self._batch is None:
            return
        self._sent = self._commit(self._batch)
        self._sent.add_done_callback(self._received)

    def _commit(self, batch: Batch) -> asyncio.Future[None]:
        """Hand a batch to the store. One that raises at once has refused it, as one that answers so later."""
        try:
            sent: Awaitable[None] = self._store.commit(self._lease, batch)
            return asyncio.ensure_future(sent)
        except Exception as error:  # noqa: BLE001 - whoever takes the answer judges it
            refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            refused.set_exception(error)
            return refused

    def _received(self, sent: asyncio.Future[None]) -> None:
        error = None if sent.cancelled() else sent.exception()
        gathering = self._in_flight
        if self.closed or gathering is None:
            return
        if error is None and not sent.cancelled():
            self._in_flight = self._batch = None
            gathering.doubtful = self._delay_us > 0
            self._delay_us = 0
            self.number += 1
            self.flush()  # the disk first: the next batch is on its way while the effects of this one start
            self._released(gathering)
            self.flush()
        elif isinstance(error, StoreUnavailableError) or sent.cancelled():
            self._refusal = error if isinstance(error, StoreUnavailableError) else None
            first = int(self._options.commit_retry_s * 1_000_000)
            self._delay_us = min(max(first, 2 * self._delay_us), RETRY_DELAY_MAX_US)
            self._clock.call_later(self._delay_us, self._send)
        else:
            self.close()
            staged = [] if self._in_flight is None else self._in_flight.staged
            self._lost(
                error if isinstance(error, Exception) else RuntimeError(f"commit ended with {error!r}"),
                staged,
            )

    # --- sealing -----------------------------------------------------------------------------------------------------

    def _seal(self, gathering: Gathering) -> Batch | None:
        """Turn what is gathered into rows; None when nothing of it needs the store."""
        now = self._clock.now()
        if self._divide is not None:
            self._divide(gathering, now)
        history: list[HistoryRow] = []
        instances: list[InstanceRow] = []
        changes: list[InstanceChange] = []
        timers_set: list[TimerRow] = []
        timers_cleared: list[TimerKey] = []
        for staged in gathering.staged:
            if staged.dropped:
                continue
            resident, commit = staged.resident, staged.commit
            resident.commit = None
            resident.turns = 0
            try:
                if commit.events:
                    history.append(_history_row(resident, commit))
                if commit.timers:
                    _timer_rows(resident, commit, timers_set, timers_cleared)
                self._instance_rows(staged, instances, changes)
            except (UnicodeError, TypeError, ValueError, OverflowError) as error:
                raise _UnsealableError(staged, error) from error
        entities: list[EntityRow] = []
        entities_removed: list[Removal] = []
        if gathering.entities:
            _entity_rows(gathering, entities, entities_removed, timers_set, timers_cleared)
        inbox: list[InboxRow] = []
        for delivery in self._keep():
            delivery.stored = True
            gathering.kept.append(delivery)
            inbox.append(InboxRow(delivery.row or "", delivery.target, now, encode_body(delivery.body)))
        gathering.sent = self._leaving()
        for delivery in () if gathering.sent is None else gathering.sent.deliveries:
            delivery.stored, delivery.at = True, now
            inbox.append(InboxRow(delivery.row or "", delivery.target, now, encode_body(delivery.body)))
        for staged in gathering.staged:
            if not staged.dropped:
                staged.resident.batches += 1
        written = history or instances or changes or timers_set or timers_cleared or inbox
        written = written or entities or entities_removed or gathering.offered or gathering.withdrawn
        if not (written or gathering.deletes or gathering.parks):
            return None
        return Batch(
            number=self.number + 1,
            removed=gathering.removed,
            history=history,
            executions_dropped=gathering.executions_dropped,
            instances=instances,
            changes=changes,
            entities=entities,
            entities_removed=entities_removed,
            timers_set=timers_set,
            timers_cleared=timers_cleared,
            inbox_put=inbox,
            inbox_consumed=gathering.consumed,
            tombstones=gathering.tombstones,
            tombstones_before=self._tombstones_before(now),
            parked=gathering.parked,
            unparked=gathering.unparked,
            parked_dropped=gathering.parked_dropped,
            tasks_offered=gathering.offered,
            tasks_withdrawn=gathering.withdrawn,
        )

    def _tombstones_before(self, now: int) -> int:
        window = int(self._options.dedupe_window_s * 1_000_000)
        if now - self._tombstones_checked_at < window // 8:
            return 0
        self._tombstones_checked_at = now
        return max(0, now - window)

    def _instance_rows(
        self, staged: Staged, instances: list[InstanceRow], changes: list[InstanceChange]
    ) -> None:
        resident = staged.resident
        state = resident.state
        in_flight = (
            state.is_working or resident.blocked is not None or resident.is_unread_in_flight
        ) and not state.ended
        now = (state.status, state.custom_status, in_flight)
        if resident.is_new:
            resident.is_new = False
            instances.append(instance_row(resident, in_flight=in_flight))
        elif staged.touched or staged.commit.shown or now != resident.written:
            changes.append(
                InstanceChange(
                    resident.instance_id,
                    state.status,
                    state.now,
                    state.output,
                    state.custom_status,
                    encode_failure(state.failure),
                    resident.blocked,
                    resident.parked,
                    in_flight,
                    resident.pending.start_at if resident.pending is not None else None,
                )
            )
        resident.written = now


def _seen(sent: asyncio.Future[None]) -> None:
    if not sent.cancelled():
        sent.exception()


def _history_row(resident: Resident, commit: Commit) -> HistoryRow:
    data = encode_events(commit.events)
    resident.checksum = chain(resident.checksum, data)
    row = HistoryRow(resident.execution, resident.next_seq, commit.state.now, data, resident.checksum)
    resident.next_seq += 1
    return row


def _timer_rows(
    resident: Resident, commit: Commit, timers_set: list[TimerRow], timers_cleared: list[TimerKey]
) -> None:
    for (seq, kind), due_at in commit.timers.items():
        if due_at is None:
            timers_cleared.append(TimerKey(resident.execution, seq, kind))
        else:
            timers_set.append(TimerRow(resident.execution, seq, kind, due_at, resident.instance_id))


def _entity_rows(
    gathering: Gathering,
    rows: list[EntityRow],
    removed: list[Removal],
    timers_set: list[TimerRow],
    timers_cleared: list[TimerKey],
) -> None:
    """The rows of entities as they are now; one that is gone takes its timers along."""
    gone: set[int] = set()
    for resident in gathering.entities:
        resident.staged = False
        resident.batches += 1
        state = resident.state
        if not state.gone:
            rows.append(state.row())
            resident.stored = True
            continue
        gone.add(state.execution)
        if resident.stored:
            removed.append(Removal(resident.instance_id, state.execution))
        resident.forget()
    for key, row in gathering.entity_timers.items():
        if row is None or key.execution in gone:
            gathering.entity_timers[key] = None
            timers_cleared.append(key)
        else:
            timers_set.append(row)


def instance_row(resident: Resident, *, in_flight: bool) -> InstanceRow:
    """The whole read model of an instance: of the execution that began, or of the start that it waits for."""
    state = resident.state
    source = state.started if state.started is not None else resident.pending
    if source is None:
        raise InvariantError(
            "I2", resident.instance_id, "an instance row was asked for before anything started"
        )
    return InstanceRow(
        instance_id=resident.instance_id,
        execution=resident.execution,
        ordinal=resident.ordinal,
        execution_id=source.execution_id,
        name=source.name,
        version=source.version,
        status=state.status,
        created_at=resident.created_at,
        updated_at=max(state.now, resident.created_at),
        input=source.input,
        output=state.output,
        custom_status=state.custom_status,
        failure=encode_failure(state.failure),
        blocked=resident.blocked,
        parked=resident.parked,
        in_flight=in_flight,
        parent_instance_id=source.parent.instance_id if source.parent is not None else None,
        tags=msgspec.json.encode(source.tags) if source.tags else None,
        start_at=resident.pending.start_at if resident.pending is not None else None,
        bases=encode_bases(resident.bases) if resident.bases else None,
    )
