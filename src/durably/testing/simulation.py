"""Deterministic simulation: the real engine and the real executor on virtual time, with faults by seed.

One seed is one history of the world: clients start and disturb instances, the store fails in every way it may, hosts
crash and come back, the clock jumps. After every commit all invariants of every instance it touched are checked. Then
the faults stop, and everything that was acknowledged must come to its foretold end.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from durably.app import App, AppHost
from durably.core.commit import Batch, InboxRow, InstanceRow, TimerRow
from durably.core.events import HistoryEvent, Rewound, TaskScheduled
from durably.core.history import decode_rows, encode_body
from durably.core.instance import InstanceState
from durably.core.invariants import check_instance
from durably.core.messages import RaiseEvent
from durably.core.status import TERMINAL
from durably.engine.options import EngineOptions
from durably.engine.residents import decode_bases
from durably.errors import (
    DurablyError,
    HubClosedError,
    InstanceNotFoundError,
    InstanceStateError,
    InvariantError,
    OperationError,
)
from durably.executors.native import NativeExecutor, NativeOptions
from durably.storage.memory import MemoryHub
from durably.testing.sim_loop import SimClock, SimLoop, SimRandom
from durably.testing.sim_programs import build_app, expected
from durably.testing.sim_store import FaultRates, SimStore

_PROGRAMS = (
    ("chain", 6),
    ("fan", 12),
    ("retried", 3),
    ("timed_out", 1),
    ("race", 1),
    ("collector", 5),
    ("ring", 7),
    ("patient", 3),
    ("parent", 4),
    ("unlucky_parent", 1),
    ("ping", 4),
    ("mended", 5),
    ("line", 2),
)
_BREAKABLE = frozenset(("mended", "line"))
_REPEATABLE = frozenset(("chain", "fan", "retried", "race"))
"""Programs that come to the same end however often they are restarted."""
_RETRYING = ("unlucky", "mended")
_FAULTS_MIN = 10
"""A storm goes on until this much has gone wrong."""

_END_S = 100_000.0
"""Virtual seconds after which a world that has not come to rest counts as stuck."""


@dataclass
class Report:
    """What a seed did.

    Attributes:
        seed: Of this world.
        faults: What went wrong, by name.
        commits: Batches applied.
        instances: Instances started and acknowledged.
        reruns: Attempts of activities that ran more than once.
        virtual_s: How long the world lasted.
        fingerprint: Equal for two runs of one seed.
    """

    seed: int
    faults: Counter[str] = field(default_factory=Counter[str])
    commits: int = 0
    instances: int = 0
    reruns: int = 0
    virtual_s: float = 0.0
    fingerprint: int = 0


class World:
    """One seed.

    Args:
        seed: Decides everything.
        loop: Its time.
        storm_s: How long things go wrong.
        options: Of the engine; by default limits so small that each of them is met.
    """

    def __init__(
        self, seed: int, loop: SimLoop, *, storm_s: float = 6.0, options: EngineOptions | None = None
    ) -> None:
        self.report = Report(seed)
        self._chance = random.Random(seed)  # noqa: S311 - the point is that it repeats
        self._loop = loop
        self._storm_s = storm_s
        self._clock = SimClock(loop)
        self._random = SimRandom(self._chance)
        self._hub = MemoryHub()
        self._rates = FaultRates()
        self._broken: set[str] = set()
        self._app: App = build_app(self._activity_runs, self._is_broken)
        self._judge = NativeExecutor(self._app.registry, self._app.converter, NativeOptions(slow_turn_s=0))
        self._options = options or EngineOptions(
            max_concurrent_activities=8,
            max_resident_instances=6,
            turns_per_batch=4,
            batch_bytes=2_000,
            timer_horizon_s=4.0,
            commit_retry_s=0.1,
            drain_timeout_s=1.0,
            slow_turn_s=0,
            max_deliveries=1_000_000,  # the storm kills hosts far more often than any work item does
        )
        self._host: AppHost | None = None
        self._crashes = 0
        self._runs: dict[str, list[int]] = {}  # idempotency key -> the crash count at each run
        self._acknowledged: dict[str, tuple[str, int]] = {}  # instance -> program and size
        self._raised: dict[str, int] = {}
        self._ordered_to_end: set[str] = set()
        self._suspended: set[str] = set()
        self._seen_terminal: dict[tuple[str, int], str] = {}
        self._purged: set[str] = set()
        self._storm = True
        self._calls: set[asyncio.Task[Any]] = set()
        self._trouble: BaseException | None = None

    async def run(self) -> Report:
        """Live through it.

        Raises:
            InvariantError: A rule of the engine is broken.
            AssertionError: Something acknowledged was lost, doubled, or did not end.
        """
        await self._boot()
        async with asyncio.TaskGroup() as group:
            clients = [group.create_task(self._client(f"{self.report.seed}-{n}")) for n in range(3)]
            weather = group.create_task(self._weather())
            await asyncio.sleep(self._storm_s)
            while self.report.faults.total() < _FAULTS_MIN:  # noqa: ASYNC110 - faults are counted in many places
                await asyncio.sleep(0.5)
            self._storm = False
            self._rates.stop()
            await weather
            await asyncio.gather(*clients)
        await self._boot_if_down()
        await self._settle()
        if self._host is not None:
            await self._host.stop()
        self._judge_results()
        self.report.virtual_s = self._loop.elapsed_s
        self.report.fingerprint = hash(
            tuple(sorted(self._hub.instances.items(), key=lambda item: item[1][0]))
        )
        return self.report

    # --- hosts -------------------------------------------------------------------------------------------------------

    async def _boot(self) -> None:
        while self._host is None:
            store = SimStore(self._hub, self._rates, self._chance, self.report.faults, self._committed)
            host = AppHost(self._app, store, self._options, self._clock, self._random)
            try:
                await host.start()
            except OperationError:
                store.abandon()
                await asyncio.sleep(0.5)
            else:
                self._host = host

    async def _boot_if_down(self) -> None:
        if self._host is not None and self._host.engine.failure is not None:
            self._crash()
        if self._host is None:
            await self._boot()

    def _crash(self) -> None:
        host, self._host = self._host, None
        if host is not None:
            self._crashes += 1
            host.engine.abandon()
            store = host.engine.store
            if isinstance(store, SimStore):
                store.abandon()

    async def _weather(self) -> None:
        """Crashes, restarts, graceful stops, jumps of the clock."""
        while self._storm:
            await asyncio.sleep(self._chance.uniform(0.1, 1.2))
            what = self._chance.random()
            if what < 0.45:
                self.report.faults["crash"] += 1
                self._crash()
                await asyncio.sleep(self._chance.uniform(0.0, 1.0))
                await self._boot_if_down()
            elif what < 0.55 and self._host is not None:
                self.report.faults["stop"] += 1
                host, self._host = self._host, None
                self._crashes += 1  # what it cut off at the end of its drain runs again
                await host.stop()
                await self._boot_if_down()
            elif what < 0.7:
                self.report.faults["clock"] += 1
                self._clock.jumped_us += self._chance.choice((-300, -5, 5, 120)) * 1_000_000
            elif what < 0.85 and self._host is not None and self._host.engine.partition is not None:
                self.report.faults["reload"] += 1
                self._crashes += 1
                self._host.engine.reload_partition("simulated")
            await self._boot_if_down()

    # --- clients -----------------------------------------------------------------------------------------------------

    async def _client(self, name: str) -> None:
        count = 0
        while self._storm:
            count += 1
            program, size = self._chance.choice(_PROGRAMS)
            instance_id = f"{program}-{name}-{count}"
            if program in _BREAKABLE and self._chance.random() < 0.8:
                self._broken.add(instance_id)
            if await self._started(instance_id, program, size):
                await self._disturb(instance_id, program, size)
            self._broken.discard(instance_id)
            await asyncio.sleep(self._chance.uniform(0.05, 1.0))
            if self._chance.random() < 0.15:
                await self._end_by_order(f"long-{name}-{count}")
            if self._chance.random() < 0.1:
                await self._end_dynasty(f"dynasty-{name}-{count}")

    async def _started(self, instance_id: str, program: str, size: int) -> bool:
        given: Any = {"n": size, "got": []} if program == "ring" else size
        delay = self._chance.choice((None, None, None, 2.0))
        for _ in range(50):
            host = self._host
            if host is not None and await self._answered(
                host.client.start(
                    program, given, instance_id=instance_id, start_at=delay, on_existing="attach"
                )
            ):
                self._acknowledged[instance_id] = (program, size)
                self.report.instances += 1
                return True
            await asyncio.sleep(self._chance.uniform(0.05, 1.0))
        return False

    async def _disturb(self, instance_id: str, program: str, size: int) -> None:
        if program in {"collector", "ring"}:
            for n in range(size):
                await self._insist(
                    lambda host, n=n: host.engine.store.post([self._event_row(instance_id, n)])
                )
                await asyncio.sleep(self._chance.choice((0.0, 0.0, 0.3)))
        if instance_id in self._broken:
            await self._mend(instance_id)
        elif program in _REPEATABLE and self._chance.random() < 0.3:
            await asyncio.sleep(self._chance.uniform(0.0, 4.0))
            await self._insist(lambda host: host.client.restart(instance_id, reason="again"))
        elif self._chance.random() < 0.2:  # refused, unless it has failed
            await self._insist(lambda host: host.client.rewind(instance_id, "nothing is broken"))
        if self._chance.random() < 0.25:
            await self._insist(lambda host: host.client.suspend(instance_id, "storm"))
            await asyncio.sleep(self._chance.uniform(0.0, 3.0))
            await self._insist(lambda host: host.client.resume(instance_id))

    async def _mend(self, instance_id: str) -> None:
        """Rewind something broken a few times, in vain or not; then mend it, and rewind it until that is accepted."""
        for _ in range(self._chance.randrange(4)):
            await asyncio.sleep(self._chance.uniform(0.0, 3.0))
            await self._insist(lambda host: host.client.rewind(instance_id, "in vain"))
        self._broken.discard(instance_id)
        while self._status(instance_id) != "Completed":
            if self._status(instance_id) == "Failed":
                await self._insist(lambda host: host.client.rewind(instance_id, "mended"))
            await asyncio.sleep(self._chance.uniform(0.1, 2.0))
            await self._boot_if_quiet()

    def _status(self, instance_id: str) -> str | None:
        found = self._hub.instances.get(instance_id)
        return None if found is None else found[1].status

    async def _boot_if_quiet(self) -> None:
        """Behind the storm nobody else looks after the host."""
        if not self._storm:
            await self._boot_if_down()

    def _is_broken(self, instance_id: str) -> bool:
        return instance_id.partition(":")[0].partition("~")[0] in self._broken

    async def _end_dynasty(self, instance_id: str) -> None:
        """Start generations and end them all; later on delete them all."""
        while not await self._started(instance_id, "dynasty", 2):
            pass
        del self._acknowledged[instance_id]
        await asyncio.sleep(self._chance.uniform(0.0, 1.5))
        await self._insist(lambda host: host.client.terminate(instance_id, "ordered", recursive=True))
        self._ordered_to_end.add(instance_id)
        if self._chance.random() < 0.6:
            while any(self._status(one) not in TERMINAL for one in self._family(instance_id)):
                await asyncio.sleep(0.5)
                await self._boot_if_quiet()
            await self._insist(lambda host: host.client.purge(instance_id, recursive=True))
            self._ordered_to_end.discard(instance_id)
            self._purged.add(instance_id)

    def _family(self, instance_id: str) -> list[str]:
        return [one for one in self._hub.instances if one.partition(":")[0] == instance_id]

    def _event_row(self, instance_id: str, n: int) -> InboxRow:
        """A message with an id: however often it is posted, it counts once."""
        body = encode_body(RaiseEvent("Item", str(n).encode()))
        return InboxRow(f"{instance_id}/{n}", instance_id, self._clock.now(), body)

    async def _end_by_order(self, instance_id: str) -> None:
        """Start something endless and end it; whatever else happens, it must end."""
        while not await self._started(instance_id, "long_wait", 0):
            pass  # perhaps it was started: what nobody orders to end never ends
        del self._acknowledged[instance_id]
        self._ordered_to_end.add(instance_id)
        if self._chance.random() < 0.5:
            await self._insist(lambda host: host.client.terminate(instance_id, "ordered"))
        else:
            await self._insist(lambda host: host.client.cancel(instance_id, "ordered"))

    async def _insist(self, call: Callable[[AppHost], Coroutine[Any, Any, Any]]) -> None:
        """Repeat a call until it is answered, as a client that must get through does."""
        while True:
            host = self._host
            if host is not None and await self._answered(call(host)):
                return
            await asyncio.sleep(self._chance.uniform(0.05, 0.5))

    async def _answered(self, call: Coroutine[Any, Any, Any]) -> bool:
        """True when the hub took it or refused it; False when nobody knows."""
        task = asyncio.ensure_future(call)
        self._calls.add(task)
        try:
            done, _ = await asyncio.wait({task}, timeout=5.0)
            if not done:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                return False
            task.result()
        except InstanceStateError:
            return True
        except (OperationError, HubClosedError, InstanceNotFoundError):
            return False
        finally:
            self._calls.discard(task)
        return True

    # --- what is watched ---------------------------------------------------------------------------------------------

    async def _activity_runs(self, key: str) -> None:
        """I3: an attempt runs only when its schedule is durable; and it takes a while."""
        instance_id, execution_id, seq = key.rsplit(":", 2)
        self._runs.setdefault(key, []).append(self._crashes)
        found = self._hub.instances.get(instance_id)
        if found is not None and found[1].execution_id == execution_id:
            rows = self._hub.history.get(found[1].execution, [])
            events, _ = decode_rows(instance_id, execution_id, rows)
            if not any(isinstance(event, TaskScheduled) and event.seq == int(seq) for event in events):
                self._give_up(
                    InvariantError("I3", instance_id, f"activity #{seq} runs before its schedule is durable")
                )
        await asyncio.sleep(self._chance.choice((0.0, 0.01, 0.2, 1.0)))

    def _committed(self, batch: Batch) -> None:
        """Check every instance that a batch touched."""
        self.report.commits += 1
        touched = {row.execution for row in batch.history}
        names = {row.instance_id for row in (*batch.instances, *batch.changes, *batch.inbox_put)}
        try:
            for instance_id, (_, row) in list(self._hub.instances.items()):
                if row.execution in touched or instance_id in names:
                    self._check(instance_id)
            self._check_orphans()
        except DurablyError as error:
            self._give_up(error)

    def _check(self, instance_id: str) -> None:
        row = self._hub.instances[instance_id][1]
        timers: list[TimerRow] = [
            timer for timer in self._hub.timers.values() if timer.instance_id == instance_id
        ]
        inbox = [message for message in self._hub.inbox.values() if message.instance_id == instance_id]
        rows = self._hub.history.get(row.execution, [])
        events = check_instance(row, rows, timers, inbox)
        if row.status in TERMINAL:
            before = self._seen_terminal.setdefault((instance_id, row.execution), row.status)
            if before != row.status:
                raise InvariantError("C12", instance_id, f"it was {before} and is {row.status} now")
        elif events and row.parked is None and row.blocked is None:
            self._judge.replay(events).close()  # I10: the same code decides the same

        self._check_bases(row, events)

    def _check_bases(self, row: InstanceRow, events: Sequence[HistoryEvent]) -> None:
        """What an instance was rewound from is still there as it was."""
        bases = decode_bases(row.bases) if row.bases is not None else ()
        for event in events:
            if isinstance(event, Rewound):
                if event.base_execution not in bases:
                    raise InvariantError("I1", row.instance_id, f"it does not know {event.base_execution}")
                newest = self._hub.history[event.base_execution][-1]
                if newest.checksum.hex() != event.base_checksum:
                    raise InvariantError(
                        "I1", row.instance_id, f"its base {event.base_execution} was rewritten"
                    )

    def _check_orphans(self) -> None:
        executions = {row.execution for _, row in self._hub.instances.values()}
        for _, row in self._hub.instances.values():
            executions.update(decode_bases(row.bases) if row.bases is not None else ())
        for execution in self._hub.history:
            if execution not in executions and self._hub.history[execution]:
                raise InvariantError("C11", "?", f"execution {execution} has a history and no instance")
        for timer in self._hub.timers.values():
            if timer.execution not in executions:
                raise InvariantError("C11", timer.instance_id, "it has a timer and no row")

    def check_residents(self) -> None:
        """What is in memory is what the rows fold to, for every instance with nothing under way."""
        host = self._host
        partition = None if host is None else host.engine.partition
        if partition is None:
            return
        for resident in partition.residents.values():
            if resident.commit is None and not resident.batches and resident.state.started is not None:
                row = self._hub.instances[resident.instance_id][1]
                events, _ = decode_rows(
                    resident.instance_id, row.execution_id, self._hub.history.get(row.execution, [])
                )
                folded = InstanceState.fold(resident.instance_id, events)
                if (folded.status, folded.open, folded.now) != (
                    resident.state.status,
                    resident.state.open,
                    resident.state.now,
                ):
                    raise InvariantError("I2", resident.instance_id, "memory and rows disagree")

    def _give_up(self, error: BaseException) -> None:
        if self._trouble is None:
            self._trouble = error

    # --- the end -----------------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """C10: without faults, everything ends by itself."""
        until = self._loop.elapsed_s + _END_S
        while self._loop.elapsed_s < until:
            if self._trouble is not None:
                raise self._trouble
            await self._boot_if_down()
            self.check_residents()
            alive = [i for i, (_, row) in self._hub.instances.items() if row.status not in TERMINAL]
            if not alive:
                return
            await asyncio.sleep(5.0)
        states = {i: row.status for i, (_, row) in self._hub.instances.items() if row.status not in TERMINAL}
        raise AssertionError(f"seed {self.report.seed}: not ended: {states}")

    def _judge_results(self) -> None:
        if self._trouble is not None:
            raise self._trouble
        for instance_id, (program, size) in self._acknowledged.items():
            found = self._hub.instances.get(instance_id)
            assert found is not None, f"{instance_id} was acknowledged and is lost (C1)"
            row = found[1]
            got = None if row.output is None else self._app.converter.decode(row.output, Any)
            want = expected(program, size)
            assert (row.status, got) == ("Completed", want), (
                f"seed {self.report.seed}: {instance_id} is {row.status} with {got}, expected {want}; {row.failure}"
            )
        for instance_id in self._ordered_to_end:
            status = self._hub.instances[instance_id][1].status
            assert status in {"Terminated", "Canceled"}, f"{instance_id} was ordered to end and is {status}"
        for instance_id in self._purged:
            assert not self._family(instance_id), f"{self._family(instance_id)} outlived the purge (C11)"
        for key, crashes in self._runs.items():
            self.report.reruns += len(crashes) - 1
            retried = 3 if key.startswith(("retried", "line")) else 2 if key.startswith(_RETRYING) else 1
            spread = crashes[-1] - crashes[0]
            assert len(crashes) <= retried + spread, (
                f"{key} ran {len(crashes)} times with {spread} faults (C5)"
            )
        assert not self._hub.inbox, f"messages are left: {list(self._hub.inbox)}"


def simulate(seed: int, *, storm_s: float = 6.0, options: EngineOptions | None = None) -> Report:
    """Run one seed from beginning to end.

    Raises:
        InvariantError, AssertionError: See `World.run`; run the same seed again to see the same failure again.
    """
    log = logging.getLogger("durably")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)  # what goes wrong is meant to
    loop = SimLoop()
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(World(seed, loop, storm_s=storm_s, options=options).run())
    finally:
        log.setLevel(level)
