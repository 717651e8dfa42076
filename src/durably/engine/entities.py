"""The entities of a partition: one operation after the other, all of a batch made durable by one row.

The way of a message: the partition hands it to `take`; `work` looks at everything that came, in order, and performs,
delays, or lets it wait. What waits has a row in the inbox, so that it outlives the process in its order; only calls of
clients of this process wait in memory, as their callers do.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from durably.clock import Random
from durably.core.commit import EntityRow, InboxRow
from durably.core.entities import EntityId, Holder
from durably.core.history import encode_body
from durably.core.messages import (
    CallEntity,
    ChildDone,
    Discard,
    EntityDone,
    EntityLocked,
    LockEntity,
    Redrive,
    ReleaseEntity,
    TimerDue,
)
from durably.core.operations import KEEP_ALARM, Operation, OperationOutcome, child_ended
from durably.engine.desk import Desk
from durably.engine.entity_keeping import EntityKeeping
from durably.engine.entity_residents import EntityResident
from durably.engine.entity_trials import EntityTrials
from durably.engine.eviction import Crowd
from durably.engine.executor import EntityCode
from durably.engine.options import EngineOptions
from durably.engine.parking import Parking
from durably.engine.reads import Reads
from durably.engine.residents import Delivery
from durably.errors import (
    EntityCorruptError,
    EntityOperationFailedError,
    FailureDetails,
    InstanceNotFoundError,
    UnknownFunctionError,
)
from durably.schedules.entity import ScheduleCode
from durably.schedules.spec import SCHEDULE

_log = logging.getLogger("durably.entity")

_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
"""An operation that does not wait for anything ends before its task is put into a queue."""


class Limits(NamedTuple):
    """Attributes as in `EngineOptions`; `partitions` of the host share what may be resident."""

    operations_per_batch: int
    batch_bytes: int
    resident: int
    partitions: Callable[[], int]

    @classmethod
    def of(cls, options: EngineOptions, partitions: Callable[[], int]) -> Limits:
        """Those of the engine."""
        operations, size = options.entity_operations_per_batch, options.batch_bytes
        return cls(operations, size, options.max_resident_entities, partitions)


class Entities:
    """The entities of one partition, those in memory and the way to the others.

    Args:
        desk: What becomes of messages, and the batch that gathers.
        parking: Takes messages that nobody can deal with.
        trials: Judges operations that killed a process.
        reads: Reads rows.
        limits: How much of everything.
        random: Source of ids that operations ask for.
    """

    def __init__(
        self,
        desk: Desk,
        parking: Parking,
        trials: EntityTrials,
        reads: Reads,
        limits: Limits,
        *,
        random: Random,
    ) -> None:
        self.residents: dict[str, EntityResident] = {}
        self.current: str | None = None
        """Whose messages are being dealt with."""
        self._desk = desk
        self._clock = desk.clock
        self._random = random
        self._token = ""
        self._operations = 0
        self._limits = limits
        self._reads = reads
        self._parking = parking
        self._trials = trials
        self._keeping = EntityKeeping(desk, self._code)
        self._stage = self._keeping.stage
        trials.wake = self._wake
        self._ready: dict[str, EntityResident] = {}
        self._wanted: dict[str, list[Delivery]] = {}
        self._reading: dict[str, list[Delivery]] = {}
        self._ended: list[tuple[EntityResident, Delivery, asyncio.Task[OperationOutcome]]] = []
        self._pumps = 0
        self._under_way: set[str] = set()
        self._crowd: Crowd[EntityResident] = Crowd(
            self.residents,
            limits.resident,
            limits.partitions,
            stays=lambda resident: resident.idle_since == self._pumps or not resident.idle,
            drop=lambda _: None,
        )
        self._closed = False

    # --- what the partition calls ------------------------------------------------------------------------------------

    def take(self, delivery: Delivery) -> None:
        """Take a message; `work` deals with it."""
        target = delivery.target
        resident = self.residents.get(target)
        if resident is not None:
            resident.queue.append(delivery)
            self._ready[target] = resident
            return
        reading = self._reading.get(target)
        if reading is None:
            reading = self._wanted.setdefault(target, [])
        reading.append(delivery)

    def work(self, now: int) -> None:
        """Deal with what has come, as far as the batch has room for it; then read entities that are not in memory."""
        self._pumps += 1
        ended, self._ended = self._ended, []
        for resident, delivery, task in ended:
            self._end(resident, delivery, task, now)
        ready, self._ready = self._ready, {}
        for instance_id, resident in ready.items():
            self.current = instance_id
            resident.idle_since = self._pumps
            if not self._work_on(resident, now):
                self._ready[instance_id] = resident
        self.current = None
        if self._wanted:
            self._read_wanted()
        self._crowd.thin_out()

    @property
    def is_late(self) -> bool:
        """True when the batch was too full for all that has come."""
        return bool(self._ready or self._ended)

    @property
    def quiet(self) -> bool:
        """True when nothing is asked for, under way, or being read; what waits for a lock may wait on."""
        return not (self._ready or self._wanted or self._reading or self._ended or self._under_way)

    def close(self) -> None:
        """Stop at once. What operations under way would have done never happened."""
        self._closed = True
        self._trials.close()
        for resident in self.residents.values():
            if resident.busy is not None:
                _cancel(resident.busy)
        self.residents.clear()
        self._ready.clear()

    # --- suspects ----------------------------------------------------------------------------------------------------

    async def suspects(self) -> list[tuple[str, EntityRow | None]]:
        """Read the entities whose operations were running when the process before died."""
        ids = self._trials.suspected_entities()
        return list(zip(ids, await self._reads.entities(ids), strict=True)) if ids else []

    def count_suspects(
        self, suspects: Sequence[tuple[str, EntityRow | None]], inbox: Sequence[InboxRow], now: int
    ) -> bool:
        """Count what was running; True when anything has to become durable.

        Args:
            suspects: What `suspects` has read. Nothing may have been dealt with since.
            inbox: All messages of the partition, which wait in the mailbox.
            now: The clock.
        """
        by_id = {row.message_id: row for row in inbox} if suspects else {}
        counted = False
        for instance_id, row in suspects:
            resident = self._settle_in(instance_id, row)
            if self._trials.count(resident, by_id, now):
                self._stage(resident, now)
                counted = True
        return counted

    def _wake(self, resident: EntityResident) -> None:
        resident.look_again()
        self._ready[resident.instance_id] = resident
        self._desk.around.mailbox.arm()

    # --- entities that are not in memory -----------------------------------------------------------------------------

    def _read_wanted(self) -> None:
        wanted, self._wanted = self._wanted, {}
        self._reading.update(wanted)
        ids = list(wanted)

        async def read() -> None:
            rows = await self._reads.entities(ids)
            if not self._closed:
                for instance_id, row in zip(ids, rows, strict=True):
                    self._settle_in(instance_id, row)
                self._desk.around.mailbox.arm()

        self._reads.begin(read)

    def _settle_in(self, instance_id: str, row: EntityRow | None) -> EntityResident:
        resident = self.residents[instance_id] = EntityResident(instance_id, row)
        resident.corrupt = resident.corrupt or self._desk.around.condemned.get(instance_id)
        resident.queue.extend(self._reading.pop(instance_id, ()))
        self._ready[instance_id] = resident
        return resident

    # --- one entity --------------------------------------------------------------------------------------------------

    def _work_on(self, resident: EntityResident, now: int) -> bool:
        """Look at each message that has come; False when the batch is full before the end."""
        queue = resident.queue
        while queue:
            gathering = self._desk.committer.gathering
            full = gathering.operations >= self._limits.operations_per_batch
            if full or gathering.size >= self._limits.batch_bytes:
                return False
            delivery = queue.popleft()
            if isinstance(delivery.body, ChildDone):
                delivery.body = child_ended(delivery.body)
            body = delivery.body
            if resident.corrupt is not None and not isinstance(body, Redrive | Discard):
                self._refuse(delivery, EntityCorruptError(resident.corrupt))
            elif isinstance(body, CallEntity):
                self._call(resident, delivery, body, now)
            elif isinstance(body, LockEntity):
                self._lock(resident, delivery, body, now)
            elif isinstance(body, ReleaseEntity):
                self._release(resident, delivery, body)
            elif isinstance(body, TimerDue):
                self._keeping.ring(resident, body, now)
            elif isinstance(body, Redrive | Discard) and body.message_id is not None:
                self._parking.message(delivery, body)
            else:
                self._desk.consumed(delivery, InstanceNotFoundError(resident.instance_id))
        return True

    def _call(self, resident: EntityResident, delivery: Delivery, call: CallEntity, now: int) -> None:
        if delivery.reply is not None and delivery.reply.done():  # its caller has gone
            self._desk.consumed(delivery)
            return
        if call.due_at is not None and call.due_at > now:
            self._keeping.delay(resident, delivery, call, call.due_at)
            return
        try:
            code = self._code(resident)
        except UnknownFunctionError as error:
            if self._desk.unknown_wait:
                self._wait(resident, delivery)
            else:
                if self._trials.over(resident, delivery, call, now):
                    self._stage(resident, now)
                self._refuse(delivery, error)
            return
        trials = self._trials
        reads = not resident.may_run(call)
        runs = trials.is_safe(resident, delivery, call) and (
            not reads or (code.reads_only(call.operation) and resident.may_read(call))
        )
        if runs and trials.admits(resident, delivery, call):
            self._perform(resident, code, delivery, call, now, reads=reads)
        else:
            self._wait(resident, delivery)

    def _code(self, resident: EntityResident) -> EntityCode:
        if resident.code is None:
            entity_id = EntityId.parse(resident.instance_id)
            executor = self._desk.executor
            if entity_id.name == SCHEDULE:  # each host has it, whatever its functions are
                resident.code = ScheduleCode(entity_id)
                return resident.code
            if not executor.serves("entity", entity_id.name):
                known = ", ".join(executor.names("entity")) or "(none)"
                raise UnknownFunctionError(
                    f"Entity '{entity_id.name}' is not registered in this host: expected one of {known}; register it with "
                    "@app.entity"
                )
            resident.code = executor.entity(entity_id)
            resident.elsewhere = executor.elsewhere("entity", entity_id.name)
        return resident.code

    def _wait(self, resident: EntityResident, delivery: Delivery) -> None:
        """Let a message wait for its turn, durably; who only wants to know that it arrived is told so."""
        resident.waiting.append(delivery)
        body = delivery.body
        if isinstance(body, CallEntity) and body.wanted and not delivery.stored and delivery.row is None:
            return  # its caller holds it, and asks again where it has to
        self._desk.around.keep(delivery)
        if not (isinstance(body, CallEntity) and body.wanted):
            self._desk.answer(delivery)

    # --- operations --------------------------------------------------------------------------------------------------

    def _perform(
        self,
        resident: EntityResident,
        code: EntityCode,
        delivery: Delivery,
        call: CallEntity,
        now: int,
        *,
        reads: bool = False,
    ) -> None:
        self._token = self._token or self._random.token()
        self._operations += 1
        self._desk.committer.gathering.operations += 1
        caller = call.sender
        watched = self._trials.watched(resident, delivery, call)
        token = f"{self._token}:{self._operations}"
        begun = partial(self._under_way.add, token) if resident.elsewhere else None
        operation = Operation(call.operation, call.input, caller, now, token, watched, begun)
        state = resident.state
        outcome = code.operate(state.state, state.version, operation)
        if isinstance(outcome, OperationOutcome):
            self._finish(resident, delivery, call, outcome, now)
            return
        loop = asyncio.get_running_loop()
        task: asyncio.Task[OperationOutcome] = asyncio.Task(outcome, loop=loop, **_EAGER)
        if task.done() and not task.cancelled():
            self._finish(resident, delivery, call, task.result(), now)
            return
        if not call.wanted:
            self._desk.around.keep(delivery)
            self._desk.answer(delivery)
        if not reads:
            resident.busy = task
        if (
            not resident.elsewhere
        ):  # else it may wait for a worker: nobody has to wait for that when the host stops
            self._under_way.add(token)
        task.add_done_callback(lambda _: self._task_done(resident, delivery, task, token))

    def _task_done(
        self,
        resident: EntityResident,
        delivery: Delivery,
        task: asyncio.Task[OperationOutcome],
        token: str,
    ) -> None:
        if not self._closed:
            self._under_way.discard(token)
            self._ended.append((resident, delivery, task))
            self._desk.around.mailbox.arm()

    def _end(
        self,
        resident: EntityResident,
        delivery: Delivery,
        task: asyncio.Task[OperationOutcome],
        now: int,
    ) -> None:
        """An operation that took its time has ended."""
        call = delivery.body
        if not isinstance(call, CallEntity):
            return
        if resident.busy is task:
            resident.busy = None
        error = (
            asyncio.CancelledError("the operation cancelled itself") if task.cancelled() else task.exception()
        )
        if error is None:
            outcome = task.result()
        else:
            state = resident.state
            failure = FailureDetails.of(error)
            outcome = OperationOutcome(state.state, state.version, None, failure, [])
        self._finish(resident, delivery, call, outcome, now)
        if resident.busy is None:
            resident.look_again()
        self._ready[resident.instance_id] = resident

    def _finish(
        self,
        resident: EntityResident,
        delivery: Delivery,
        call: CallEntity,
        outcome: OperationOutcome,
        now: int,
    ) -> None:
        desk, gathering = self._desk, self._desk.committer.gathering
        state = resident.state
        if outcome.failure is None:
            reads = resident.code is not None and resident.code.reads_only(call.operation)
            if not reads:
                self._change(resident, outcome, now)
            for target, body in outcome.messages:
                desk.around.send(target, body)
        elif call.caller is None and not call.wanted:
            _log.error(
                "signal '%s' to entity '%s' failed, and its state is as it was: %s: %s",
                call.operation,
                state.instance_id,
                outcome.failure.type,
                outcome.failure.message,
            )
        if outcome.alarm != KEEP_ALARM:
            self._keeping.set_alarm(resident, outcome.alarm, now)
        if self._trials.over(resident, delivery, call, now):
            self._stage(resident, now)
        if outcome.result is not None:
            gathering.size += len(outcome.result)
        self._tell(delivery, call, outcome.result, outcome.failure)

    def _change(self, resident: EntityResident, outcome: OperationOutcome, now: int) -> None:
        state = resident.state
        if outcome.state is state.state and outcome.version == state.version and state.state is None:
            return  # it did not exist, and does not
        state.state, state.version = outcome.state, outcome.version
        state.updated_at = max(now, state.updated_at)
        if outcome.state is not None:
            self._desk.committer.gathering.size += len(outcome.state)
        self._stage(resident, now)
        ttl = None if resident.code is None else resident.code.idle_ttl_us
        if ttl is not None and state.state is not None and state.idle_timer is None:
            self._keeping.set_idle_timer(resident, state.updated_at + ttl)

    def _tell(
        self, delivery: Delivery, call: CallEntity, result: bytes | None, failure: FailureDetails | None
    ) -> None:
        """The operation had its effect, or has failed: whoever waits for it is told with this commit."""
        desk = self._desk
        if call.caller is not None:
            done = EntityDone(call.caller.execution_id, call.caller.seq, result, failure)
            desk.around.send(call.caller.instance_id, done)
        error = None
        if call.wanted and failure is not None:
            error = EntityOperationFailedError(failure, delivery.target, call.operation)
        desk.consumed(delivery, error, result if call.wanted else None)

    def _refuse(self, delivery: Delivery, error: Exception) -> None:
        """Nothing can be done: whoever asked is told; a signal that nobody waits for is set aside."""
        call = delivery.body
        if not isinstance(call, CallEntity | LockEntity):
            self._desk.consumed(delivery)
        elif isinstance(call, CallEntity) and call.sender is None:
            self._desk.consumed(delivery, error)
        elif isinstance(call, CallEntity) and call.caller is not None:
            done = EntityDone(call.caller.execution_id, call.caller.seq, None, FailureDetails.of(error))
            self._desk.around.send(call.caller.instance_id, done)
            self._desk.consumed(delivery)
        else:
            around, now = self._desk.around, self._clock.now()
            row = InboxRow(delivery.row or around.inbox.new_id(), delivery.target, now, encode_body(call))
            self._parking.set_aside(row, str(error), now)
            self._desk.consumed(delivery)

    # --- locks -------------------------------------------------------------------------------------------------------

    def _lock(self, resident: EntityResident, delivery: Delivery, request: LockEntity, now: int) -> None:
        state = resident.state
        if state.holder is not None and state.holder.section == request.section:
            self._desk.consumed(delivery)
            return
        if state.holder is not None or resident.busy is not None or resident.waiting:
            self._wait(resident, delivery)
            return
        holder = request.holder
        state.holder = Holder(request.section, holder.instance_id, now)
        self._stage(resident, now)
        granted = EntityLocked(holder.execution_id, holder.seq, resident.instance_id)
        self._desk.around.send(holder.instance_id, granted)
        self._desk.consumed(delivery)

    def _release(self, resident: EntityResident, delivery: Delivery, release: ReleaseEntity) -> None:
        state = resident.state
        for request in resident.give_up(release):
            self._desk.consumed(request)
        if resident.busy is not None and state.holder is not None and state.holder.section == release.section:
            self._wait(resident, delivery)  # after a crash, what is under way would find others before it
            return
        if state.holder is not None and state.holder.section == release.section:
            state.holder = None
            self._stage(resident, state.updated_at)
            resident.look_again()
        self._desk.consumed(delivery)


def _cancel(task: asyncio.Task[OperationOutcome]) -> None:
    """Cancel an operation; where Python could not begin it at once, behind its beginning: nothing is left unawaited."""
    if _EAGER:
        task.cancel()
    else:
        task.get_loop().call_soon(task.cancel)
