"""The single-writer loop of one partition: drain all messages, one turn per instance, commit, then the effects."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from durably.clock import Clock, Random
from durably.core.commit import InboxRow, TimerRow
from durably.core.history import encode_body
from durably.core.messages import (
    TIMER_START,
    ActivityDone,
    ChildDone,
    Discard,
    MessageBody,
    Redrive,
    Rewind,
    StartInstance,
    TimerDue,
)
from durably.engine.activities import ActivityPool
from durably.engine.committer import Committer, Gathering, Staged
from durably.engine.company import Company
from durably.engine.desk import Desk
from durably.engine.effects import Effects
from durably.engine.executor import Executor
from durably.engine.inbox import Inbox
from durably.engine.lives import Lives
from durably.engine.options import EngineOptions
from durably.engine.parking import Parking
from durably.engine.residents import Delivery, Resident
from durably.engine.suspicion import Suspicion
from durably.engine.timer_window import TimerWindow
from durably.engine.trials import Trials
from durably.engine.turns import Turns
from durably.engine.waiters import Waiters
from durably.errors import (
    FailureDetails,
    InstanceNotFoundError,
    InvariantError,
    StoreRefusedError,
    StoreUnavailableError,
)
from durably.storage.api import Lease, Snapshot, Store, StoredInstance

_log = logging.getLogger("durably.engine")


class Share(NamedTuple):
    """What the partitions of a host share; it outlives each of them."""

    store: Store
    executor: Executor
    pool: ActivityPool
    waiters: Waiters
    clock: Clock
    random: Random
    options: EngineOptions
    company: Company
    suspicion: Suspicion


class Partition:
    """One partition in memory. Thrown away whole when an invariant breaks or the lease is lost; rows are the truth.

    Args:
        share: What it has of its host: store, executor, pool, waiters, clock, random ids, limits.
        lease: The right to own it.
        condemned: Instances to park, with the cause.
        cautious: Commit one instance at a time, to find the one whose data the store refuses.
        lost: Takes the error that ended this object, and the instance that caused it, if one did.
    """

    def __init__(
        self,
        share: Share,
        lease: Lease,
        *,
        condemned: dict[str, str],
        cautious: bool,
        lost: Callable[[Exception, str | None], None],
    ) -> None:
        self.residents: dict[str, Resident] = {}
        self.closed = False
        self._store = share.store
        self._lease = lease
        self._pool = share.pool
        self._waiters = share.waiters
        clock = self._clock = share.clock
        options = self._options = share.options
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._mailbox: deque[Delivery] = deque()
        self._armed = False
        self._pumps = 0
        self._late: dict[str, Resident] = {}  # had all the turns that this batch grants them
        self._loading: dict[str, list[Delivery]] = {}
        self._reading: set[asyncio.Task[None]] = set()
        # Removed in memory, not yet on disk: nobody may read their old rows.
        self._vanishing: dict[str, int] = {}
        # Ended and to be read anew, as soon as nothing of theirs is on its way to the disk.
        self._unsettled: dict[str, Resident] = {}
        self._inbox = Inbox(share.random.token(), self._unreadable)
        self._execution = 0
        self._evict_above = options.max_resident_instances
        self._timers = TimerWindow(
            clock,
            int(options.timer_horizon_s * 1_000_000),
            lambda after, until: share.store.read_timers(lease, after, until),
            self._fire,
            self._read_with_patience,
        )
        self._effects = Effects(share.pool, share.waiters, self._timers)
        self._condemned = condemned
        self._cautious = cautious
        self._quiet: asyncio.Future[None] | None = None
        self._loaded_at = 0
        self.committer = Committer(
            share.store,
            lease,
            clock,
            options,
            released=self._released,
            lost=self._commit_lost,
            keep=self._inbox.seal,
        )
        self._desk = Desk(
            share.executor, self.committer, clock, self, unknown_wait=options.unknown_functions == "wait"
        )
        self._lives = Lives(self._desk)
        self._trials = self._trials_with(share)
        self._parking = Parking(self._desk, self._lives, condemned, self._look_into_inbox)
        self._turns = Turns(
            self._desk, self._lives, self._parking, options.turns_per_batch, knock=self._trials.knock
        )

    def _trials_with(self, share: Share) -> Trials:
        return Trials(
            self._desk,
            pool=share.pool,
            company=share.company,
            suspicion=share.suspicion,
            clock=share.clock,
            max_deliveries=share.options.max_deliveries,
            is_resident=lambda resident: self.residents.get(resident.instance_id) is resident,
            run=self._try,
        )

    async def load(self) -> None:
        """Read what is in flight and go on with it. Call it once, before anything is delivered."""
        snapshot = await self._store.load(self._lease, self._timers.until)
        self._execution = snapshot.execution
        self.committer.number = self._loaded_at = snapshot.batch
        suspects = self._trials.suspected_instances()
        found = await self._store.read_instances(self._lease, suspects) if suspects else []
        missing = [suspect for suspect, stored in zip(suspects, found, strict=True) if stored is None]
        self._trials.begin(snapshot, self._clock.now(), missing)
        self._recover(snapshot, [stored for stored in found if stored is not None])

    def deliver(self, delivery: Delivery) -> None:
        """Take a message. It is dealt with in the next pump, together with all others that come until then."""
        self._mailbox.append(delivery)
        if not self._armed:
            self._armed = True
            self._loop.call_soon(self._pump)

    def knows(self, instance_id: str) -> bool:
        """True when the end of the instance, if it comes, will be told to the waiters by this object."""
        resident = self.residents.get(instance_id)
        return resident is not None and not resident.over

    def close(self) -> None:
        """Stop at once and tear all live code down; what is not committed never happened."""
        if self.closed:
            return
        self.closed = True
        self._timers.close()
        self._trials.close()
        self.committer.close()
        self._tell_if_quiet()
        for task in self._reading:
            task.cancel()
        for resident in self.residents.values():
            resident.close()
        self.residents.clear()

    @property
    def progressed(self) -> bool:
        """True when it has committed anything since it was loaded."""
        return self.committer.number > self._loaded_at

    @property
    def quiet(self) -> bool:
        """True when nothing waits, gathers or is on its way."""
        return self.closed or not (self._mailbox or self._loading or self._late or self.committer.busy)

    async def becomes_quiet(self) -> None:
        """Return when nothing waits, gathers or is on its way."""
        while not self.quiet:
            self._quiet = self._loop.create_future()
            await self._quiet

    def _tell_if_quiet(self) -> None:
        if self._quiet is not None and not self._quiet.done() and self.quiet:
            self._quiet.set_result(None)

    # --- the pump ----------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        self._armed = False
        if self.closed:
            return
        self._pumps += 1
        now = self._clock.now()
        ready = list(self._late.values())
        self._late = {}
        culprit: str | None = None
        try:
            while self._mailbox:
                delivery = self._mailbox.popleft()
                culprit = delivery.target
                resident = self.residents.get(culprit)
                if resident is None:
                    resident = self._absent(delivery, now)
                    if resident is None:
                        continue
                else:
                    resident.queue.append(delivery)
                if resident.idle_since != self._pumps:
                    resident.idle_since = self._pumps
                    ready.append(resident)
            for resident in ready:
                culprit = resident.instance_id
                if resident.queue:
                    self._turn(resident, now)
        except InvariantError as error:
            self.fail(error, culprit)
            return
        except Exception as error:  # noqa: BLE001 - a bug of ours has the consequence of a broken invariant
            _log.exception("turn of instance '%s' failed inside the engine", culprit)
            self.fail(InvariantError("I11", culprit or "?", f"{type(error).__name__}: {error}"), culprit)
            return
        self._read_absent()
        if self.committer.flush() and self._late:
            self._arm()  # a new batch gathers: those that had their share of the old one go on
        self._tell_if_quiet()
        if len(self.residents) > self._evict_above:
            self._evict()

    def _turn(self, resident: Resident, now: int) -> None:
        committer, options = self.committer, self._options
        if (
            resident.turns >= options.turns_per_batch
            or committer.gathering.size >= options.batch_bytes
            or (self._cautious and committer.busy)
        ):
            self._late[resident.instance_id] = resident
            return
        self._turns.run(resident, now)
        if resident.queue:
            self._late[resident.instance_id] = resident

    def _try(self, resident: Resident, now: int) -> bool:
        """Give one resident a turn now, outside of the pump; False when that ended this object."""
        try:
            self._turns.run(resident, now)
        except Exception as error:  # noqa: BLE001 - as in the pump
            if not isinstance(error, InvariantError):
                _log.exception("turn of instance '%s' failed inside the engine", resident.instance_id)
                error = InvariantError("I11", resident.instance_id, f"{type(error).__name__}: {error}")
            self.fail(error, resident.instance_id)
            return False
        if resident.queue:
            self._late[resident.instance_id] = resident
        self._arm()
        return True

    def fail(self, error: Exception, culprit: str | None) -> None:
        """End this object: something is wrong with it, with its store, or with its right to be."""
        if self.closed:
            return
        self.close()
        self._lost(error, culprit)

    def _commit_lost(self, error: Exception, staged: list[Staged]) -> None:
        culprit = staged[0].resident.instance_id if staged and (self._cautious or len(staged) == 1) else None
        self.fail(error, culprit)

    async def landed(self) -> None:
        """After `close`: return when no batch is on its way, and tell those whom one that was applied concerns."""
        gathering = await self.committer.landed()
        if gathering is not None:
            self._effects.tell(gathering)

    # --- instances that are not in memory ----------------------------------------------------------------------------

    def _absent(self, delivery: Delivery, now: int) -> Resident | None:
        target, body = delivery.target, delivery.body
        waiting = self._loading.get(target)
        if waiting is not None:
            waiting.append(delivery)
            return None
        if target in self._vanishing or (type(body) is StartInstance and body.fresh):
            return self._nobody(delivery, now)
        self._loading[target] = [delivery]
        return None

    def _nobody(self, delivery: Delivery, now: int) -> Resident | None:
        """The target does not exist: a start creates it, anything else is refused."""
        body = delivery.body
        if isinstance(body, Rewind) and body.start is not None:  # of a child that is gone: it is started anew
            self._desk.consumed(delivery)
            body = body.start
            delivery = Delivery(delivery.target, body)
            self.keep(delivery)
        if isinstance(body, StartInstance):
            if delivery.target in self._condemned:
                self._refuse_condemned(delivery, body)
                return None
            resident = self._lives.create(delivery, body, now)
            if self._trials.is_unborn(delivery.target):
                self._trials.admit_unborn(resident)
            return resident
        if isinstance(body, Redrive | Discard) and body.message_id is not None:
            self._parking.message(delivery, body)
            return None
        self._desk.consumed(delivery, InstanceNotFoundError(delivery.target))
        return None

    def _refuse_condemned(self, delivery: Delivery, start: StartInstance) -> None:
        """A start that cannot be stored: its caller or its parent is told; without either it is set aside."""
        error = StoreRefusedError(self._condemned.pop(delivery.target))  # the next start may be another one
        parent = start.parent
        if parent is not None:
            failure = FailureDetails.of(error)
            done = ChildDone(parent.execution_id, parent.seq, parent.attempt, None, failure)
            self.send(parent.instance_id, done)
        elif delivery.reply is None:
            message_id, now = delivery.row or self._inbox.new_id(), self._clock.now()
            row = InboxRow(message_id, delivery.target, now, encode_body(start))
            self._parking.set_aside(row, str(error), now)
        self._desk.consumed(delivery, error)

    def _unreadable(self, row: InboxRow, why: str) -> None:
        self._parking.unreadable(row, why, self._clock.now())
        self._arm()

    def _read_absent(self) -> None:
        """Read all instances that somebody asked for, in one round trip; reads overlap with each other and commits."""
        wanted = [
            target
            for target, waiting in self._loading.items()
            if waiting and waiting[0] is not _ON_ITS_WAY and target not in self._unsettled
        ]
        if wanted:
            for target in wanted:
                self._loading[target].insert(0, _ON_ITS_WAY)
            self._read_with_patience(lambda: self._read(wanted))

    def _read_with_patience(self, read: Callable[[], Awaitable[None]]) -> None:
        task = self._loop.create_task(self._patiently(read))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _patiently(self, read: Callable[[], Awaitable[None]]) -> None:
        """Read until the store answers."""
        delay_us = int(self._options.commit_retry_s * 1_000_000)
        while not self.closed:
            try:
                await read()
            except StoreUnavailableError as error:
                _log.warning("%s could not be read, trying again: %s", self._store.url, error)
                again = asyncio.Event()
                self._clock.call_later(delay_us, again.set)
                await again.wait()
                delay_us = min(2 * delay_us, _READ_DELAY_MAX_US)
            except Exception as error:  # noqa: BLE001 - a store that cannot read cannot be served: the host decides
                if not self.closed:
                    self.fail(error, None)
                return
            else:
                return

    async def _read(self, wanted: list[str]) -> None:
        with self._inbox.reading():
            found = await self._store.read_instances(self._lease, wanted)
            if self.closed:
                return
            for stored in found:
                if stored is not None:
                    self._settle_in(stored)
        now = self._clock.now()
        for target in wanted:
            waiting = self._loading.pop(target)[1:]
            for delivery in waiting:
                resident = self.residents.get(target)
                if resident is None:
                    resident = self._nobody(delivery, now)
                else:
                    resident.queue.append(delivery)
                if resident is not None:
                    self._late[target] = resident
        self._arm()

    def _settle_in(self, stored: StoredInstance) -> Resident:
        resident = Resident.of(stored)
        self.residents[resident.instance_id] = resident
        resident.idle_since = self._pumps
        self._deliver_all(self._inbox.found(stored.inbox))
        cause = self._condemned.get(resident.instance_id)
        if cause is not None and not resident.state.ended:
            resident.parked = cause
        if resident.parked != stored.row.parked:
            self._desk.touch(resident, self._clock.now())
        self._trials.look_at(resident)
        return resident

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            self._loop.call_soon(self._pump)

    def _evict(self) -> None:
        """Drop the longest idle residents: dict order is the order of their arrival, and a touched one moves back."""
        excess = len(self.residents) - self._options.max_resident_instances * 9 // 10
        for instance_id in list(self.residents):
            if excess <= 0:
                self._evict_above = self._options.max_resident_instances
                return
            resident = self.residents[instance_id]
            if resident.idle_since == self._pumps or not resident.idle or instance_id in self._late:
                self.residents[instance_id] = self.residents.pop(instance_id)
                continue
            resident.close()
            del self.residents[instance_id]
            excess -= 1
        # All are busy: looking again before there are a tenth more would cost more than they do.
        self._evict_above = len(self.residents) * 11 // 10

    # --- recovery, inbox, timers -------------------------------------------------------------------------------------

    def _recover(self, snapshot: Snapshot, suspects: list[StoredInstance]) -> None:
        self._deliver_all(self._inbox.read(snapshot.inbox))
        finished = {
            (body.execution_id, body.seq)
            for delivery in self._mailbox
            if isinstance(body := delivery.body, ActivityDone)
        }
        inbox: dict[str, list[InboxRow]] = {}
        for row in snapshot.inbox:
            inbox.setdefault(row.instance_id, []).append(row)
        for stored in snapshot.in_flight:
            resident = self._settle_in(stored._replace(inbox=inbox.get(stored.row.instance_id, [])))
            if resident.state.started is None:
                continue
            self._trials.start_tasks(resident, finished)
            if resident.blocked is not None and not (
                resident.parked is not None or resident.pending is not None or resident.detained
            ):
                self._turns.retry_blocked(resident, self._clock.now())
                if resident.queue:
                    self._late[resident.instance_id] = resident
        for stored in suspects:
            if stored.row.instance_id not in self.residents:
                self._settle_in(stored)
        self._admit_unborn()
        self._trials.settle()
        self._timers.start(snapshot.timers)
        self._arm()

    def _admit_unborn(self) -> None:
        """Suspects whose start is in the inbox are counted before anybody else has a turn, and may kill."""
        for delivery in list(self._mailbox) if self._trials.knows_unborn else ():
            target = delivery.target
            if self._trials.is_unborn(target) and isinstance(delivery.body, StartInstance):
                self._mailbox.remove(delivery)
                resident = self._nobody(delivery, self._clock.now())
                if resident is not None:
                    self._late[target] = resident

    def _deliver_all(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            self.deliver(delivery)

    async def read_inbox(self, *, everything: bool) -> None:
        """Fetch messages that others posted: those behind the newest one seen, or all that are not held."""
        with self._inbox.reading():
            rows = await self._store.read_inbox(self._lease, 0 if everything else self._inbox.after)
            if not self.closed:
                self._deliver_all(self._inbox.read(rows))

    def _look_into_inbox(self) -> None:
        if not self.closed:
            self._read_with_patience(lambda: self.read_inbox(everything=False))

    def _fire(self, due: list[TimerRow]) -> None:
        for row in due:
            self.deliver(Delivery(row.instance_id, TimerDue(row.execution, row.seq, row.kind)))

    # --- what a turn needs (see desk.Surroundings) ------------------------------------------------------------------

    def send(self, target: str, body: MessageBody) -> None:
        """See `desk.Surroundings.send`."""
        delivery = Delivery(target, body)
        self.keep(delivery)
        self.deliver(delivery)

    def keep(self, delivery: Delivery) -> None:
        """See `desk.Surroundings.keep`."""
        self._inbox.keep(delivery)

    def forget(self, delivery: Delivery) -> None:
        """See `desk.Surroundings.forget`."""
        self._inbox.forget(delivery)

    def new_execution(self) -> int:
        """See `desk.Surroundings.new_execution`."""
        self._execution += 1
        return self._execution

    def replace(self, resident: Resident) -> None:
        """See `desk.Surroundings.replace`."""
        self.residents[resident.instance_id] = resident

    def drop(self, resident: Resident) -> None:
        """See `desk.Surroundings.drop`."""
        if self.residents.get(resident.instance_id) is resident:
            del self.residents[resident.instance_id]
        self._condemned.pop(resident.instance_id, None)  # who comes after it has done nothing yet
        self._vanishing[resident.instance_id] = self._vanishing.get(resident.instance_id, 0) + 1
        self.committer.gathering.vanishing.append(resident.instance_id)

    def redirect(self, delivery: Delivery) -> None:
        """See `desk.Surroundings.redirect`."""
        self._mailbox.appendleft(delivery)
        self._arm()

    def reread(self, resident: Resident, delivery: Delivery) -> None:
        """See `desk.Surroundings.reread`."""
        target = resident.instance_id
        del self.residents[target]
        self._loading[target] = [delivery, *resident.queue]
        resident.queue.clear()
        self._unsettled[target] = resident

    def rearm(self, resident: Resident) -> None:
        """See `desk.Surroundings.rearm`."""
        pending = resident.pending
        if pending is not None and pending.start_at is not None:
            start_at = pending.start_at
            self._timers.arm(TimerRow(resident.execution, -1, TIMER_START, start_at, resident.instance_id))
        for seq, kind, due_at in resident.state.timers():
            self._timers.arm(TimerRow(resident.execution, seq, kind, due_at, resident.instance_id))

    # --- after the commit --------------------------------------------------------------------------------------------

    def _released(self, gathering: Gathering) -> None:
        """The batch is durable: now, and only now, its effects leave."""
        for staged in gathering.staged:
            self._effects.release(staged)
            resident = staged.resident
            if resident.over and not (resident.batches or resident.commit is not None or resident.queue):
                resident.close()
                if self.residents.get(resident.instance_id) is resident:
                    del self.residents[resident.instance_id]
        if self._unsettled:
            self._settle()
        self._effects.settle(gathering)
        self._inbox.gone(gathering.consumed)
        for instance_id in gathering.vanishing:
            self._vanishing[instance_id] -= 1
            if not self._vanishing[instance_id]:
                del self._vanishing[instance_id]
        self._effects.answer(gathering)
        if self._late:
            self._arm()
        self._tell_if_quiet()

    def _settle(self) -> None:
        for target, resident in list(self._unsettled.items()):
            if not (resident.batches or resident.commit is not None):
                del self._unsettled[target]
                self._arm()


_READ_DELAY_MAX_US = 2_000_000
"""A store that does not answer is asked every two seconds."""

_ON_ITS_WAY = Delivery("", TimerDue(0, 0, 0))
"""First in the list of an instance that is being read."""
