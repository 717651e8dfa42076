"""What becomes of suspects when a host takes over: counted durably, tried again in small company, parked in the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from durably.clock import Clock
from durably.core.entities import is_entity
from durably.core.events import AttemptInterrupted, TaskScheduled, TurnInterrupted
from durably.core.messages import TIMER_START, AttemptLost, TimerDue
from durably.core.orchestration import Commit
from durably.engine.activities import ActivityPool
from durably.engine.company import Company
from durably.engine.desk import Desk
from durably.engine.residents import Delivery, Resident
from durably.engine.spread import Spread
from durably.engine.suspicion import Suspicion
from durably.storage.api import Snapshot

_DIED = "its process died, or was ended because it hung"
_CURE = "Deploy a version that survives it and redrive the instance, or discard it"


class Trials:
    """The suspects of one partition object.

    Args:
        desk: What is shared with the other parts of a turn.
        pool: Runs attempts.
        company: Says when suspects may run.
        suspicion: Who is suspected.
        clock: Time.
        max_deliveries: Deaths after which a suspect is parked.
        run: Gives a resident a turn now; False when the partition object ended with it.
        spread: Knows which attempts are in the queue that all hosts share; None where there is none.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        pool: ActivityPool,
        company: Company,
        suspicion: Suspicion,
        clock: Clock,
        max_deliveries: int,
        run: Callable[[Resident, int], bool],
        spread: Spread | None = None,
    ) -> None:
        self._desk = desk
        self._pool = pool
        self._company = company
        self._suspicion = suspicion
        self._clock = clock
        self._max = max_deliveries
        self._is_resident = desk.around.is_resident  # false for all once the partition object is gone
        self._run = run
        self._spread = spread
        self._unborn: dict[str, int] = {}
        self._recorded = False
        self._ready = False
        self._knocked: list[Resident] = []
        self._applied: set[Resident] = set()
        self._trying: set[Resident] = set()
        self._deferred: list[tuple[Resident, TaskScheduled, int, int]] = []

    # --- recovery ----------------------------------------------------------------------------------------------------

    def suspected_instances(self) -> list[str]:
        """Whose turns are suspected: their instances have to be read, so that they are counted now."""
        return list(self._suspicion.turns)

    def begin(self, snapshot: Snapshot, now: int, missing: Sequence[str]) -> None:
        """A partition object was loaded.

        Args:
            snapshot: What was read.
            now: The clock.
            missing: Suspected instances that do not exist: their first turn did not end.
        """
        self._unborn = {instance_id: self._suspicion.turns[instance_id] for instance_id in missing}
        if self._spread is not None:
            self._spread.begin(snapshot.tasks)
        if self._suspicion.unattributed:
            self._suspicion.unattributed = False
            self._suspicion.recovered = {
                *(row.instance_id for row in snapshot.inbox),
                *(stored.row.instance_id for stored in snapshot.in_flight),
                *(timer.instance_id for timer in snapshot.timers if timer.due_at <= now),
            }
            self._suspicion.recovered_messages = {
                row.message_id for row in snapshot.inbox if is_entity(row.instance_id)
            }

    def look_at(self, resident: Resident) -> None:
        """An instance comes into memory: count against its turn what was left, and detain it if that has to be tried."""
        if resident.parked is not None or resident.over:
            return
        standing = resident.interrupted_turn
        deliveries = 0 if standing is None else standing.deliveries
        suspected = self._suspicion.turns.get(resident.instance_id, 0)
        if suspected > deliveries:
            deliveries = suspected
            self._count_turn(resident, deliveries)
        if deliveries and resident.parked is None:
            self._detain(resident, deliveries)

    def _detain(self, resident: Resident, deliveries: int) -> None:
        resident.detained = True
        self._suspicion.standing(resident.instance_id, deliveries)

    def _count_turn(self, resident: Resident, deliveries: int) -> None:
        now = self._clock.now()
        commit = self._desk.commit_of(resident)
        commit.turn(now)
        parked = deliveries >= self._max
        record_turn(resident, commit, TurnInterrupted(deliveries, parked))
        self._recorded = True
        if parked:
            self._park(resident, f"its code was running each of the {deliveries} times when {_DIED}", now)

    @property
    def knows_unborn(self) -> bool:
        """True when there is anybody of whom `is_unborn` is true."""
        return bool(self._unborn)

    def is_unborn(self, instance_id: str) -> bool:
        """True when the first turn of an instance that does not exist is suspected."""
        return instance_id in self._unborn

    def admit_unborn(self, resident: Resident) -> None:
        """Its start has come again: it exists from now on, without having run."""
        deliveries = self._unborn.pop(resident.instance_id)
        self._count_turn(resident, deliveries)
        if resident.parked is None:
            self._detain(resident, deliveries)

    def start_tasks(self, resident: Resident, finished: set[tuple[str, int, int]]) -> None:
        """Start the activities that were in flight.

        Args:
            resident: Whose.
            finished: Attempts whose results, or whose end without one, are in the inbox: execution id, seq and number.
        """
        state = resident.state
        if state.started is None:
            return
        execution_id = state.started.execution_id
        for scheduled, attempt in state.running_tasks():
            seq = scheduled.seq
            if (execution_id, seq, attempt) in finished or self._is_shared(execution_id, seq, attempt):
                continue
            deliveries = state.deliveries(seq, attempt)
            suspected = self._suspicion.attempts.get((execution_id, seq, attempt), 0)
            if suspected > deliveries:
                self._count_attempt(resident, scheduled, attempt, suspected)
                if suspected < self._max:
                    self._deferred.append((resident, scheduled, attempt, suspected))
            elif not deliveries:
                self._start(resident.instance_id, execution_id, scheduled, attempt)
            elif not any(poison is scheduled for poison, _ in state.poison()):
                self._start_suspect(resident.instance_id, execution_id, scheduled, attempt, deliveries)

    def _is_shared(self, execution_id: str, seq: int, attempt: int) -> bool:
        return self._spread is not None and self._spread.recognise(execution_id, seq, attempt)

    def _start(self, instance_id: str, execution_id: str, scheduled: TaskScheduled, attempt: int) -> None:
        """Start what nobody runs any more: here, or where there is room for it. What the pool holds stays there."""
        spread, gathering = self._spread, self._desk.committer.gathering
        call = (instance_id, execution_id, scheduled, attempt)
        is_held = self._pool.holds(execution_id, scheduled.seq, attempt)
        if is_held or spread is None or not spread.recover(gathering, *call, now=self._clock.now()):
            self._pool.start(*call, 2)

    def _start_suspect(
        self, instance_id: str, execution_id: str, scheduled: TaskScheduled, attempt: int, deliveries: int
    ) -> None:
        """Try it again in small company: here, or where somebody knows the activity."""
        spread, gathering = self._spread, self._desk.committer.gathering
        call = (instance_id, execution_id, scheduled, attempt)
        is_held, now = self._pool.holds(execution_id, scheduled.seq, attempt), self._clock.now()
        if is_held or spread is None or not spread.pass_on(gathering, *call, deliveries=deliveries, now=now):
            self._pool.start_suspect(*call, deliveries)
        else:
            self._desk.around.mailbox.arm()

    def lost(self, resident: Resident, lost: AttemptLost, now: int) -> None:
        """Hosts that ran an attempt of the queue that all share died, each time: it is parked."""
        state = resident.state
        scheduled = state.open.get(lost.seq)
        is_mine = state.started is not None and state.started.execution_id == lost.execution_id
        if (
            is_mine
            and type(scheduled) is TaskScheduled
            and (scheduled, lost.attempt) in state.running_tasks()
        ):
            commit = self._desk.commit_of(resident)
            commit.turn(now)
            self._park_attempt(resident, scheduled, lost.attempt, lost.deliveries, now)

    def _count_attempt(
        self, resident: Resident, scheduled: TaskScheduled, attempt: int, deliveries: int
    ) -> None:
        now = self._clock.now()
        commit = self._desk.commit_of(resident)
        commit.turn(now)
        self._recorded = True
        if deliveries >= self._max:
            self._park_attempt(resident, scheduled, attempt, deliveries, now)
        else:
            commit.record(AttemptInterrupted(scheduled.seq, attempt, deliveries))

    def _park_attempt(
        self, resident: Resident, scheduled: TaskScheduled, attempt: int, deliveries: int, now: int
    ) -> None:
        self._desk.commit_of(resident).record(
            AttemptInterrupted(scheduled.seq, attempt, deliveries, parked=True)
        )
        what = f"attempt {attempt} of its activity '{scheduled.name}' (#{scheduled.seq})"
        self._park(resident, f"{what} was running each of the {deliveries} times when {_DIED}", now)

    def _park(self, resident: Resident, cause: str, now: int) -> None:
        resident.detained = False
        if resident.parked is None:
            resident.parked = f"Parked: {cause}. {_CURE}"
        self._desk.touch(resident, now)

    def settle(self, *, counted: bool) -> None:
        """All who were in flight have been looked at: once that is durable, suspects may be tried again.

        Args:
            counted: Something was counted elsewhere, too.
        """
        if self._spread is not None:
            self._spread.settle(self._desk.committer.gathering)
        if self._recorded or counted:
            self._desk.once_durable(self._counted)
        else:
            self._counted()

    def _counted(self) -> None:
        self._suspicion.counted()
        self._ready = True
        knocked, self._knocked = self._knocked, []
        for resident in knocked:
            self.knock(resident)
        deferred, self._deferred = self._deferred, []
        for resident, scheduled, attempt, deliveries in deferred:
            started = resident.state.started
            if started is None or scheduled.seq not in resident.state.open or not self._is_resident(resident):
                continue
            self._start_suspect(resident.instance_id, started.execution_id, scheduled, attempt, deliveries)

    # --- trials of turns ---------------------------------------------------------------------------------------------

    def knock(self, resident: Resident) -> None:
        """A detained instance has something to do."""
        if not self._ready:
            self._knocked.append(resident)
            return
        standing = resident.interrupted_turn
        deliveries = 1 if standing is None else standing.deliveries
        self._applied.add(resident)
        self._company.apply(resident, deliveries, lambda: self._try(resident))

    def _try(self, resident: Resident) -> None:
        self._applied.discard(resident)
        self._trying.add(resident)
        if not (self._is_resident(resident) and resident.detained and self._give_turn(resident)):
            self._over(resident)

    def _over(self, resident: Resident) -> None:
        self._trying.discard(resident)
        self._company.leave(resident)

    def close(self) -> None:
        """The partition object is gone; whoever was being tried is looked at by the next one."""
        for resident in [*self._trying, *self._applied]:
            self._company.leave(resident)

    def _give_turn(self, resident: Resident) -> bool:
        """True when its code has run: the trial is over once that is durable."""
        now = self._clock.now()
        resident.detained = False
        self._desk.go_on(resident)
        resident.queue.extend(_due(resident, now))
        if not self._run(resident, now):
            return False
        if resident.run is None and not resident.state.ended and resident.blocked is None:
            resident.detained = True  # its code was not needed: it is as suspect as it was
            return False
        self._desk.once_durable(lambda: self._acquit(resident))
        return True

    def _acquit(self, resident: Resident) -> None:
        self._suspicion.cleared(resident.instance_id)
        self._over(resident)


def record_turn(resident: Resident, commit: Commit, event: TurnInterrupted) -> None:
    """Record it where a reload finds it, and where whoever asks before that does."""
    commit.record(event)
    resident.history = [*(resident.history or ()), event]


def _due(resident: Resident, now: int) -> list[Delivery]:
    """Timers that came due while it was detained: they may be what kills, so they belong to the trial."""
    found = [(seq, kind) for seq, kind, due_at in resident.state.timers() if due_at <= now]
    pending = resident.pending
    if pending is not None and pending.start_at is not None and pending.start_at <= now:
        found.append((-1, TIMER_START))
    return [Delivery(resident.instance_id, TimerDue(resident.execution, seq, kind)) for seq, kind in found]
