"""What is watched in a simulated world: each run of an activity, each commit, and what hosts have in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from durably.app import App
from durably.core.commit import Batch, InstanceRow, TimerRow
from durably.core.entities import is_entity
from durably.core.events import HistoryEvent, Rewound, TaskScheduled
from durably.core.history import decode_rows
from durably.core.instance import InstanceState
from durably.core.invariants import check_instance
from durably.core.status import TERMINAL
from durably.engine.executor import Executor
from durably.engine.partition import Partition
from durably.engine.residents import decode_bases
from durably.errors import DurablyError, InvariantError
from durably.executors.native import NativeExecutor, NativeOptions
from durably.storage.memory_hub import Execution
from durably.testing.sim_entity_checks import check_entities, check_section
from durably.testing.sim_scene import Scene

RETRYING = ("unlucky", "mended", "saga")
RETRYING_THRICE = ("retried", "line", "overdue")
"""Beginnings of the ids of instances whose activities are tried so often."""


class Runs:
    """What activities do in a simulated world: they take a while, and are counted."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.by_key: dict[str, list[int]] = {}
        """The crash count at each run, by idempotency key."""

    async def run(self, key: str) -> None:
        """I3: an attempt runs only when its schedule is durable; and it takes a while."""
        instance_id, execution_id, seq = key.rsplit(":", 2)
        self.note(key)
        found = self._scene.hub.instances.get(instance_id)
        if found is not None and found[1].execution_id == execution_id:
            rows = self._scene.hub.history_of(found[1])
            events, _ = decode_rows(instance_id, execution_id, rows)
            if not any(isinstance(event, TaskScheduled) and event.seq == int(seq) for event in events):
                self._scene.give_up(
                    InvariantError("I3", instance_id, f"activity #{seq} runs before its schedule is durable")
                )
        await asyncio.sleep(self._scene.chance.choice((0.0, 0.01, 0.2, 1.0)))

    def note(self, key: str) -> None:
        """It runs now."""
        self.by_key.setdefault(key, []).append(self._scene.crashes)

    def judge(self) -> None:
        """C5: nothing ran more often than retries and crashes explain."""
        for key, crashes in self.by_key.items():
            self._scene.report.reruns += len(crashes) - 1
            retried = 3 if key.startswith(RETRYING_THRICE) else 2 if key.startswith(RETRYING) else 1
            spread = crashes[-1] - crashes[0]
            assert len(crashes) <= retried + spread, (
                f"{key} ran {len(crashes)} times with {spread} faults (C5)"
            )


class Checks:
    """All invariants of every instance that a commit touched.

    Args:
        scene: The world.
        app: Whose code runs.
        judge: Replays histories; the functions of the app by default.
    """

    def __init__(self, scene: Scene, app: App, judge: Executor | None = None) -> None:
        self._scene = scene
        self._judge = judge or NativeExecutor(app.registry, app.converter, NativeOptions(slow_turn_s=0))
        self._seen_terminal: dict[tuple[str, int], str] = {}

    def committed(self, batch: Batch) -> None:
        """Check every instance that a batch touched."""
        self._scene.report.commits += 1
        touched = {row.execution for row in batch.history}
        names = {row.instance_id for row in (*batch.instances, *batch.changes, *batch.inbox_put)}
        try:
            for instance_id, (_, row) in list(self._scene.hub.instances.items()):
                if row.execution in touched or instance_id in names:
                    self._check(instance_id)
            self._check_orphans()
            check_entities(self._scene.hub)
        except DurablyError as error:
            self._scene.give_up(error)

    def _check(self, instance_id: str) -> None:
        row = self._scene.hub.instances[instance_id][1]
        timers: list[TimerRow] = [
            timer for timer in self._scene.hub.timers.values() if timer.instance_id == instance_id
        ]
        inbox = [message for message in self._scene.hub.inbox.values() if message.instance_id == instance_id]
        rows = self._scene.hub.history_of(row)
        events = check_instance(row, rows, timers, inbox)
        if row.status in TERMINAL:
            before = self._seen_terminal.setdefault((instance_id, row.execution), row.status)
            if before != row.status:
                raise InvariantError("C12", instance_id, f"it was {before} and is {row.status} now")
        elif events and row.parked is None and row.blocked is None:
            self._judge.replay(events).close()  # I10: the same code decides the same
            check_section(self._scene.hub, instance_id, events)

        self._check_bases(row, events)

    def _check_bases(self, row: InstanceRow, events: Sequence[HistoryEvent]) -> None:
        """What an instance was rewound from is still there as it was."""
        bases = decode_bases(row.bases) if row.bases is not None else ()
        for event in events:
            if isinstance(event, Rewound):
                if event.base_execution not in bases:
                    raise InvariantError("I1", row.instance_id, f"it does not know {event.base_execution}")
                base = self._scene.hub.execution_of(row.instance_id, event.base_execution)
                newest = self._scene.hub.history[base][-1]
                if newest.checksum.hex() != event.base_checksum:
                    raise InvariantError(
                        "I1", row.instance_id, f"its base {event.base_execution} was rewritten"
                    )

    def _check_orphans(self) -> None:
        hub = self._scene.hub
        executions: set[Execution] = set()
        for _, row in hub.instances.values():
            bases = decode_bases(row.bases) if row.bases is not None else ()
            executions.update(hub.execution_of(row.instance_id, one) for one in (row.execution, *bases))
        for execution, rows in hub.history.items():
            if execution not in executions and rows:
                raise InvariantError("C11", "?", f"{execution} has a history and no instance")
        for (place, _), timer in hub.timers.items():
            if Execution(place, timer.execution) not in executions and not is_entity(timer.instance_id):
                raise InvariantError("C11", timer.instance_id, "it has a timer and no row")

    def check_residents(self, partitions: Sequence[Partition]) -> None:
        """What is in memory is what the rows fold to, for every instance with nothing under way."""
        for resident in (one for partition in partitions for one in partition.residents.values()):
            if resident.commit is None and not resident.batches and resident.state.started is not None:
                row = self._scene.hub.instances[resident.instance_id][1]
                events, _ = decode_rows(
                    resident.instance_id, row.execution_id, self._scene.hub.history_of(row)
                )
                folded = InstanceState.fold(resident.instance_id, events)
                if (folded.status, folded.open, folded.now) != (
                    resident.state.status,
                    resident.state.open,
                    resident.state.now,
                ):
                    raise InvariantError("I2", resident.instance_id, "memory and rows disagree")
