"""What leaves a partition once its batch is durable: activities start and stop, timers arm, callers are answered."""

from __future__ import annotations

from durably.core.commit import TimerRow
from durably.core.messages import ActivityDone
from durably.core.orchestration import Commit
from durably.core.status import Outcome
from durably.engine.activities import ActivityPool
from durably.engine.committer import Gathering, Staged
from durably.engine.spread import Spread
from durably.engine.timer_window import TimerWindow
from durably.engine.waiters import Waiters


class Effects:
    """Performs what commits asked for."""

    def __init__(
        self, pool: ActivityPool, waiters: Waiters, timers: TimerWindow, spread: Spread | None = None
    ) -> None:
        self._pool = pool
        self._spread = spread
        self._waiters = waiters
        self._timers = timers
        self.leaving = False
        """The partition goes to another host, which starts what is not running yet."""

    def release(self, staged: Staged) -> None:
        """Perform the effects of one commit."""
        resident, commit = staged.resident, staged.commit
        started = commit.state.started
        if not staged.dropped:
            resident.batches -= 1
        if started is not None:
            if commit.activities and not staged.dropped:
                still_open = commit.state.open
                for scheduled, attempt in commit.activities:
                    # Else it was cancelled meanwhile, in a batch that is on its way.
                    if scheduled.seq in still_open and not self.leaving:
                        self._pool.start(resident.instance_id, started.execution_id, scheduled, attempt)
            for seq in commit.aborted:
                self._pool.abort(started.execution_id, seq)
        if commit.timers:
            self._move_timers(staged)
        if commit.ended:
            resident.over = True
            self._tell_waiters(commit)
        self._waiters.changed(resident.instance_id)

    def removed(self, gathering: Gathering) -> None:
        """Whoever watches an instance that is gone learns it."""
        for instance_id in gathering.vanishing:
            self._waiters.changed(instance_id)

    def release_entities(self, gathering: Gathering) -> None:
        """Perform the effects of what entities did."""
        for resident in gathering.entities:
            resident.batches -= 1
        for key, row in gathering.entity_timers.items():
            if row is None:
                self._timers.disarm(*key)
            else:
                self._timers.arm(row)

    def settle(self, gathering: Gathering) -> None:
        """The results that a batch made durable need not be kept any more."""
        for key, attempt in gathering.settled:
            self._pool.settle(key, attempt)
        if self._spread is not None:
            self._spread.landed(gathering)
        for delivery in gathering.kept:
            body = delivery.body
            if isinstance(body, ActivityDone):
                self._pool.settle((body.execution_id, body.seq), body.attempt)

    @staticmethod
    def answer(gathering: Gathering) -> None:
        """Answer those who asked for what a batch made durable."""
        for reply, error, result in gathering.replies:
            if not reply.done():
                if error is None:
                    reply.set_result(result)
                else:
                    reply.set_exception(error)

    def tell(self, gathering: Gathering) -> None:
        """Only tell people: the partition object is gone, and its successor starts what has to be started."""
        for staged in gathering.staged:
            if staged.commit.ended:
                self._tell_waiters(staged.commit)
            self._waiters.changed(staged.resident.instance_id)
        self.removed(gathering)
        self.settle(gathering)
        self.answer(gathering)

    def _tell_waiters(self, commit: Commit) -> None:
        state = commit.state
        self._waiters.ended(state.instance_id, Outcome(state.status, state.output, state.failure))

    def _move_timers(self, staged: Staged) -> None:
        instance_id = staged.resident.instance_id
        for (seq, kind), due_at in staged.commit.timers.items():
            if due_at is None or staged.dropped:
                self._timers.disarm(staged.execution, seq, kind)
            else:
                self._timers.arm(TimerRow(staged.execution, seq, kind, due_at, instance_id))
