"""Which attempts of activities stay on this host, and which go to the queue that all hosts of the hub share.

What stays costs nothing but memory: no row, no claim. What is shared has a row, written by the commit that scheduled it,
until its result takes the row's place, or the owner withdraws it in a later commit.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

from durably.core.commit import TaskRow
from durably.core.events import TaskScheduled
from durably.core.notices import OWN
from durably.core.shared_tasks import result_id, task_id, task_row
from durably.engine.activities import ActivityPool
from durably.engine.committer import Gathering, Staged
from durably.engine.executor import Executor
from durably.engine.options import EngineOptions
from durably.storage.api import Survey

_log = logging.getLogger("durably.engine")

_NONE: Counter[str] = Counter()


class Room:
    """How much a host keeps for itself. Shared by its partitions.

    Args:
        executor: Says which activities there are.
        pool: What the host has to do already.
        options: Limits.

    Attributes:
        others: Hosts that take part, besides this one.
        leaves: This host takes no part: it stops, or was told to give everything away.
        offered: Attempts of instances of this host that are in the queue.
        known: Activities that this host has, as far as they have been called.
    """

    def __init__(self, executor: Executor, pool: ActivityPool, options: EngineOptions) -> None:
        self.others = 0
        self.leaves = False
        self.offered = 0
        self.known: set[str] = set()
        self._executor = executor
        self._pool = pool
        self._most = options.max_concurrent_activities + options.share_above
        self._backlog = options.share_above
        self._threads = options.activity_threads
        self._unknown_wait = options.unknown_functions == "wait"
        pool.counts_threads = True
        self._expected: Counter[str] = Counter()
        self._stays: dict[str, bool] = {}
        """By name: True: it is run here, whatever there is to do. False: it is not known here."""
        self._limits: dict[str, int | None] = {}

    def seen(self, survey: Survey) -> None:
        """Hosts may have come or gone."""
        there = [host for host in survey.hosts if not (host.report.draining or host.told_to_drain)]
        self.others = sum(not host.is_me for host in there)
        self.leaves = any(host.is_me and host.told_to_drain for host in survey.hosts)

    @property
    def held(self) -> int:
        """Attempts that are here, or will be when what is on its way is durable."""
        return len(self._pool) + self._expected.total()

    def keeps(self, name: str, kept: Counter[str]) -> bool:
        """Whether one more attempt of an activity stays here.

        Args:
            name: The activity.
            kept: Those of the same batch that stay, by name.
        """
        stays = self._stays.get(name)
        if stays is None and name not in self._limits:
            stays = self._look_at(name)
        if stays is not None or not self.others:
            return stays is not False
        if self.held + kept.total() >= self._most:
            return False
        limit = self._limits[name]
        if limit is None:
            return True
        held = self._pool.unfinished(name) + self._expected[name] + kept[name]
        return held < limit + min(limit, self._backlog)

    def knows(self, name: str) -> bool:
        """False for an activity that is not registered here and waits for a host that has it."""
        if name not in self._stays and name not in self._limits:
            self._look_at(name)
        return self._stays.get(name) is not False

    def expect(self, kept: Counter[str]) -> None:
        """A batch is on its way, and its attempts begin here when it is durable."""
        self._expected += kept

    def arrived(self, kept: Counter[str]) -> None:
        """They have begun, or never will."""
        self._expected -= kept

    def _look_at(self, name: str) -> bool | None:
        if self._executor.serves("activity", name):
            self.known.add(name)
            if name.startswith(OWN) or name not in self._executor.names("activity"):
                self._stays[name] = True  # part of the host itself
                return True
            limit = self._executor.concurrency(name)
            # One that computes in a thread waits for one, though it has a place.
            self._limits[name] = (
                self._threads if limit is None and not self._executor.on_loop(name) else limit
            )
            return None
        self._stays[name] = not self._unknown_wait
        if self._unknown_wait:
            _log.warning(
                "activity '%s' is not registered in this host: its calls wait for one that knows it", name
            )
        return self._stays[name]


class Spread:
    """What one partition object has in the queue.

    Args:
        room: Of the host.
        pool: Told when there is less to do.
    """

    def __init__(self, room: Room, pool: ActivityPool) -> None:
        self._room = room
        self._pool = pool
        self._shared: dict[tuple[str, int], int] = {}
        """By execution and call: the attempt that is in the queue."""
        self._found: set[str] = set()
        """What is in the queue and has not been recognised since the partition was loaded."""
        self._expected: list[Counter[str]] = []
        """What stays here of batches that are not durable yet."""

    # --- recovery ----------------------------------------------------------------------------------------------------

    def begin(self, task_ids: Iterable[str]) -> None:
        """The partition was loaded, and these are in the queue."""
        self._found = set(task_ids)

    def recognise(self, execution_id: str, seq: int, attempt: int) -> bool:
        """True when this attempt, which somebody has to run, is in the queue."""
        found = task_id(execution_id, seq, attempt)
        if found not in self._found:
            return False
        self._found.remove(found)
        self._note(execution_id, seq, attempt)
        return True

    def settle(self, gathering: Gathering) -> None:
        """Everybody has been looked at: what is left belongs to nobody."""
        gathering.withdrawn += sorted(self._found)
        self._found.clear()

    def recover(
        self,
        gathering: Gathering,
        instance_id: str,
        execution_id: str,
        scheduled: TaskScheduled,
        attempt: int,
        *,
        now: int,
    ) -> bool:
        """Offer an attempt that was in flight when the partition was loaded; False: it stays here."""
        if self._room.keeps(scheduled.name, _NONE):
            return False
        row = task_row(instance_id, execution_id, scheduled, attempt, now=now, deliveries=1)
        self._offer(gathering, row, (execution_id, scheduled.seq), attempt)
        return True

    def pass_on(
        self,
        gathering: Gathering,
        instance_id: str,
        execution_id: str,
        scheduled: TaskScheduled,
        attempt: int,
        *,
        deliveries: int,
        now: int,
    ) -> bool:
        """Offer a suspect that this host cannot try, as it does not know the activity; False: it can.

        Here it would keep its place in the company of suspects, and all others would wait for it.
        """
        if self._room.knows(scheduled.name):
            return False
        row = task_row(instance_id, execution_id, scheduled, attempt, now=now, deliveries=deliveries)
        self._offer(gathering, row, (execution_id, scheduled.seq), attempt)
        return True

    # --- commits -----------------------------------------------------------------------------------------------------

    def divide(self, gathering: Gathering, now: int) -> None:
        """A batch is sealed: decide where its attempts go, and withdraw those that nobody wants any more."""
        if not (self._shared or self._room.others) and self._stay(gathering):
            return
        if self._shared and gathering.settled:
            self._withdraw_settled(gathering)
        kept: Counter[str] = Counter()
        for staged in gathering.staged:
            commit = staged.commit
            if commit.aborted and self._shared:
                self._withdraw(gathering, staged)
            if commit.activities and not staged.dropped:
                self._divide(gathering, staged, kept, now)
        if kept:
            gathering.expected = kept
            self._expected.append(kept)
            self._room.expect(kept)

    def _stay(self, gathering: Gathering) -> bool:
        """The usual case of a host alone, and the hot path: all that it starts is known here."""
        known = self._room.known
        for staged in gathering.staged:
            for scheduled, _ in staged.commit.activities:
                if scheduled.name not in known:
                    return False
        return True

    def _divide(self, gathering: Gathering, staged: Staged, kept: Counter[str], now: int) -> None:
        commit, room = staged.commit, self._room
        started, still_open = commit.state.started, commit.state.open
        if started is None:
            return
        here: list[tuple[TaskScheduled, int]] = []
        for scheduled, attempt in commit.activities:
            if scheduled.seq not in still_open:
                continue  # it was cancelled in the same batch
            if room.keeps(scheduled.name, kept):
                here.append((scheduled, attempt))
                if room.others:
                    kept[scheduled.name] += 1
                continue
            execution_id = started.execution_id
            row = task_row(staged.resident.instance_id, execution_id, scheduled, attempt, now=now)
            self._offer(gathering, row, (execution_id, scheduled.seq), attempt)
        commit.activities = here

    def _offer(self, gathering: Gathering, row: TaskRow, key: tuple[str, int], attempt: int) -> None:
        gathering.offered.append(row)
        self._note(*key, attempt)

    def _note(self, execution_id: str, seq: int, attempt: int) -> None:
        if (execution_id, seq) not in self._shared:
            self._room.offered += 1
        self._shared[execution_id, seq] = attempt

    def _withdraw(self, gathering: Gathering, staged: Staged) -> None:
        started = staged.commit.state.started
        if started is None:
            return
        for seq in staged.commit.aborted:
            attempt = self._forget(started.execution_id, seq)
            if attempt is not None:
                gathering.withdrawn.append(task_id(started.execution_id, seq, attempt))

    def _withdraw_settled(self, gathering: Gathering) -> None:
        """A result that came another way than through the row of its attempt leaves that row to be claimed."""
        consumed = set(gathering.consumed)
        for key, attempt in gathering.settled:
            if self._shared.get(key) == attempt:
                row = task_id(*key, attempt)
                if result_id(row) not in consumed:
                    gathering.withdrawn.append(row)

    def _forget(self, execution_id: str, seq: int) -> int | None:
        attempt = self._shared.pop((execution_id, seq), None)
        if attempt is not None:
            self._room.offered -= 1
            self._pool.freed()
        return attempt

    def landed(self, gathering: Gathering) -> None:
        """A batch is durable, and its attempts have begun."""
        kept = gathering.expected
        if kept is not None and any(one is kept for one in self._expected):
            self._expected = [one for one in self._expected if one is not kept]
            self._room.arrived(kept)
        if self._shared:
            for key, attempt in gathering.settled:
                if self._shared.get(key) == attempt:  # its row went when its result came, or with this batch
                    self._forget(*key)

    def close(self) -> None:
        """The partition object is gone."""
        for kept in self._expected:
            self._room.arrived(kept)
        self._expected.clear()
        self._room.offered -= len(self._shared)
        self._shared.clear()
