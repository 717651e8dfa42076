"""A partition: the single writer of its instances, one object in memory, loaded once and thrown away whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from durably.clock import Clock, Random
from durably.core.commit import InboxRow, TimerRow
from durably.core.messages import TimerDue
from durably.engine.activities import ActivityPool
from durably.engine.admission import Admission
from durably.engine.committer import Committer, Gathering, Staged
from durably.engine.company import Company
from durably.engine.desk import Desk
from durably.engine.effects import Effects
from durably.engine.entities import Entities, Limits
from durably.engine.entity_residents import EntityResident
from durably.engine.entity_trials import EntityTrials
from durably.engine.executor import Executor
from durably.engine.inbox import Inbox
from durably.engine.lives import Lives
from durably.engine.mailbox import Mailbox
from durably.engine.options import EngineOptions
from durably.engine.parking import Parking
from durably.engine.pump import Pump
from durably.engine.reads import Reads
from durably.engine.recovery import Recovery
from durably.engine.residents import Delivery, Resident
from durably.engine.routes import Routes, Sent
from durably.engine.spread import Room, Spread
from durably.engine.surroundings import Surroundings
from durably.engine.suspicion import Suspicion
from durably.engine.timer_window import TimerWindow
from durably.engine.trials import Trials
from durably.engine.turns import Turns
from durably.engine.waiters import Waiters
from durably.storage.api import Lease, Store


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
    partitions: Callable[[], int]
    """How many of them the host has."""
    routes: Routes | None = None
    """None where the hub has one partition."""
    room: Room | None = None
    """None where there is no queue that hosts share."""


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
        store, clock, options = share.store, share.clock, share.options
        routes = self._routes = share.routes
        self.born = 0 if routes is None else routes.birth()
        """See `Receiver.born`."""
        self.complete = self.born  # it is loaded with its whole inbox
        """See `Receiver.complete`."""
        self.closed = False
        self._clock = clock
        self._cautious = cautious
        self._lost = lost
        self._quiet: asyncio.Future[None] | None = None
        self._looking = self._look_again = False
        self._loaded_at = 0
        self._reads = Reads(
            store, lease, clock, int(options.commit_retry_s * 1_000_000), lambda error: self.fail(error, None)
        )
        inbox = Inbox(share.random.token(), self._unreadable)
        timers = TimerWindow(
            clock,
            int(options.timer_horizon_s * 1_000_000),
            self._reads.timers,
            self._fire,
            self._reads.begin,
        )
        is_here = None if routes is None else partial(_is_in, routes, lease.partition)
        self._around = Surroundings(Mailbox(self._work), inbox, timers, condemned, is_here)
        self._spread = None if share.room is None else Spread(share.room, share.pool)
        self._effects = Effects(share.pool, share.waiters, timers, self._spread)
        self.committer = Committer(
            store,
            lease,
            clock,
            options,
            released=self._released,
            lost=self._commit_lost,
            keep=inbox.seal,
            leaving=self._leaving,
            divide=None if self._spread is None else self._spread.divide,
        )
        desk = Desk(
            share.executor,
            self.committer,
            clock,
            self._around,
            unknown_wait=options.unknown_functions == "wait",
            versions_wait=options.version_failure_strategy == "reject",
            notices=options.notices,
        )
        self._trials = Trials(
            desk,
            pool=share.pool,
            company=share.company,
            suspicion=share.suspicion,
            clock=clock,
            max_deliveries=options.max_deliveries,
            run=self._give_turn,
            spread=self._spread,
        )
        lives = Lives(desk)
        self._parking = Parking(desk, lives, self._reads, self._look_into_inbox)
        turns = Turns(desk, lives, self._parking, options.turns_per_batch, trials=self._trials)
        admission = Admission(desk, lives, self._trials, self._parking, self._reads)
        entity_trials = EntityTrials(
            desk, self._parking, share.company, share.suspicion, options.max_deliveries
        )
        self._entities = Entities(
            desk,
            self._parking,
            entity_trials,
            self._reads,
            Limits.of(options, share.partitions),
            random=share.random,
        )
        self._pump = Pump(
            desk,
            turns,
            admission,
            self._entities,
            options,
            cautious=cautious,
            partitions=share.partitions,
            failed=self.fail,
        )
        self._recovery = Recovery(
            desk, turns, admission, trials=self._trials, entities=self._entities, reads=self._reads
        )

    # --- life --------------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read what is in flight and go on with it. Call it once, before anything is delivered."""
        snapshot = await self._reads.snapshot(self._around.timers.until)
        self.committer.number = self._loaded_at = snapshot.batch
        await self._recovery.run(snapshot)

    def fail(self, error: Exception, culprit: str | None) -> None:
        """End this object: something is wrong with it, with its store, or with its right to be."""
        if self.closed:
            return
        self.close()
        self._lost(error, culprit)

    def _commit_lost(self, error: Exception, staged: list[Staged]) -> None:
        culprit = staged[0].resident.instance_id if staged and (self._cautious or len(staged) == 1) else None
        self.fail(error, culprit)

    def leave(self) -> None:
        """It goes to another host soon: start no activity any more."""
        self._effects.leaving = True

    def close(self) -> None:
        """Stop at once and tear all live code down; what is not committed never happened."""
        if self.closed:
            return
        self.closed = True
        self._around.timers.close()
        self._trials.close()
        self.committer.close()
        if self._spread is not None:
            self._spread.close()
        self._tell_if_quiet()
        self._reads.close()
        self._around.close()
        self._entities.close()

    async def landed(self) -> None:
        """After `close`: return when no batch is on its way, and tell those whom one that was applied concerns."""
        gathering = await self.committer.landed()
        if gathering is not None:
            self._effects.tell(gathering)
            self._hand_over(gathering)

    # --- what it is asked --------------------------------------------------------------------------------------------

    @property
    def residents(self) -> dict[str, Resident]:
        """Who is in memory, by id."""
        return self._around.residents

    @property
    def entities(self) -> dict[str, EntityResident]:
        """Which entities are in memory, by id."""
        return self._entities.residents

    @property
    def progressed(self) -> bool:
        """True when it has committed anything since it was loaded."""
        return self.committer.number > self._loaded_at

    @property
    def waiting(self) -> int:
        """Messages that wait for a turn."""
        return len(self._around.mailbox.deliveries) + len(self._around.mailbox.late)

    @property
    def quiet(self) -> bool:
        """True when nothing waits, gathers or is on its way."""
        around = self._around
        waits = around.mailbox.deliveries or around.mailbox.late or around.absent.waited_for
        return self.closed or not (waits or self.committer.busy or not self._entities.quiet)

    @property
    def still(self) -> bool:
        """True when it is quiet, and will not look for work by itself either: no read is under way, no pump is due."""
        return self.quiet and not (self._around.mailbox.armed or self._reads.busy)

    async def becomes_quiet(self) -> None:
        """Return when nothing waits, gathers or is on its way."""
        while not self.quiet:
            self._quiet = asyncio.get_running_loop().create_future()
            await self._quiet

    def knows(self, instance_id: str) -> bool:
        """True when the end of the instance, if it comes, will be told to the waiters by this object."""
        resident = self.residents.get(instance_id)
        return resident is not None and not resident.over

    def _tell_if_quiet(self) -> None:
        if self._quiet is not None and not self._quiet.done() and self.quiet:
            self._quiet.set_result(None)

    # --- what comes in -----------------------------------------------------------------------------------------------

    def deliver(self, delivery: Delivery) -> None:
        """Take a message. It is dealt with in the next pump, together with all others that come until then."""
        self._around.mailbox.put(delivery)

    def hand_in(self, delivery: Delivery) -> None:
        """See `Receiver.hand_in`."""
        if self._looking:
            self._look_again = True  # what has to be looked up may have been sent before it
        elif not self.closed:
            self._around.hand_in(delivery)

    def look(self) -> None:
        """See `Receiver.look`."""
        self._look_again = True
        if not (self.closed or self._looking):
            self._looking = True
            self._reads.begin(self._look)

    async def _look(self) -> None:
        while self._look_again:
            self._look_again = False
            try:
                await self.read_inbox(everything=True)
            except BaseException:
                self._look_again = True
                raise
        self._looking = False

    async def read_inbox(self, *, everything: bool) -> None:
        """Fetch messages that others posted: those behind the newest one seen, or all that are not held."""
        inbox, began = self._around.inbox, self.complete if self._routes is None else self._routes.moment
        with inbox.reading():
            rows = await self._reads.inbox(0 if everything else inbox.after)
            if not self.closed:
                self._around.take_in(rows)
                if everything:
                    self.complete = max(self.complete, began)

    def _look_into_inbox(self) -> None:
        if not self.closed:
            self._reads.begin(lambda: self.read_inbox(everything=False))

    def _unreadable(self, row: InboxRow, why: str) -> None:
        self._parking.unreadable(row, why, self._clock.now())
        self._around.mailbox.arm()

    def _fire(self, due: list[TimerRow]) -> None:
        for row in due:
            self.deliver(Delivery(row.instance_id, TimerDue(row.execution, row.seq, row.kind)))

    def _work(self) -> None:
        if not self.closed:
            self._pump.run()
            self._tell_if_quiet()

    def _give_turn(self, resident: Resident, now: int) -> bool:
        return self._pump.give_turn(resident, now)

    # --- after the commit --------------------------------------------------------------------------------------------

    def _leaving(self) -> Sent | None:
        routes = self._routes
        deliveries = None if routes is None else self._around.inbox.take_leaving()
        return Sent(deliveries, routes.moment, self.born) if deliveries and routes is not None else None

    def _hand_over(self, gathering: Gathering) -> None:
        if gathering.sent is not None and self._routes is not None:
            self._routes.hand_over(gathering.sent, doubtful=gathering.doubtful)

    def _released(self, gathering: Gathering) -> None:
        """The batch is durable: now, and only now, its effects leave."""
        around = self._around
        self._hand_over(gathering)
        for staged in gathering.staged:
            self._effects.release(staged)
            resident = staged.resident
            if resident.over and not (resident.batches or resident.commit is not None or resident.queue):
                resident.close()
                around.leave(resident)
        if gathering.entities:
            self._effects.release_entities(gathering)
        if around.absent.settle():
            around.mailbox.arm()
        self._effects.settle(gathering)
        around.inbox.gone(gathering.consumed)
        around.absent.vanished(gathering.vanishing)
        self._effects.removed(gathering)
        self._effects.answer(gathering)
        if around.mailbox.late or self._entities.is_late:
            around.mailbox.arm()
        self._tell_if_quiet()


def _is_in(routes: Routes, partition: int, instance_id: str) -> bool:
    return routes.partition_of(instance_id) == partition
