"""What happens to the functions of an app on their way: stubs answer, faults strike, replays are compared."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

import msgspec

from durably.core.entities import EntityId
from durably.core.events import ExecutionStarted, HistoryEvent
from durably.core.messages import ActivityDone
from durably.core.operations import Operation
from durably.engine.executor import ActivityCall, EntityCode, Executor, FunctionKind, Run
from durably.errors import NonDeterminismError
from durably.executors.checked import CheckedRun
from durably.executors.http.policy import HttpPolicy
from durably.program.http import HTTP_ACTIVITY
from durably.testing.clock import VirtualClock
from durably.testing.faults import Faults
from durably.testing.mock_entity import EntityMocks
from durably.testing.mock_http import HttpMocks
from durably.testing.stage_entities import StagedCode
from durably.testing.stubs import Stubs


class Plot:
    """What a test has arranged, and what came of it. Outlives the hosts.

    Attributes:
        seed: Decides what chance decides.
        stubs: Answer in the place of activities.
        faults: What will go wrong.
        entities: Answer in the place of operations of entities.
        http: Answer in the place of HTTP services.
        http_policy: Of the app.
        calls: Attempts of activities that began, of stubs too.
        operations: Operations of entities that began, mocked ones too.
        check_replay: Each turn is replayed, to see whether the code is deterministic.
    """

    def __init__(self, seed: int, *, check_replay: bool) -> None:
        self.seed = seed
        self.stubs = Stubs()
        self.entities = EntityMocks()
        self.http = HttpMocks()
        self.http_policy = HttpPolicy()
        self.faults = Faults()
        self.calls: list[ActivityCall] = []
        self.operations: list[tuple[EntityId, Operation]] = []
        self.check_replay = check_replay


class StagedExecutor:
    """An `Executor` before the real one. Each host has its own.

    Attributes:
        busy: Attempts that run now. Those for which only the clock has to move are not counted.
        frozen: The process is dying: no more user code runs in it.

    Args:
        executor: Runs the functions of the app.
        plot: What was arranged.
        clock: Delays answers.
        die: Ends the host as it stands.
        redeliver: Delivers a result once more.
        mismatch: Told when code and history differ.
    """

    def __init__(
        self,
        executor: Executor,
        plot: Plot,
        clock: VirtualClock,
        *,
        die: Callable[[], None],
        redeliver: Callable[[str, ActivityDone], None],
        mismatch: Callable[[NonDeterminismError], None],
    ) -> None:
        self.busy = 0
        self.frozen = False
        self._executor = executor
        self._plot = plot
        self._clock = clock
        self._die = die
        self._redeliver = redeliver
        self._mismatch = mismatch

    # --- orchestrators -----------------------------------------------------------------------------------------------

    def serves(self, kind: FunctionKind, name: str) -> bool:
        """See `Executor.serves`."""
        plot = self._plot
        if kind == "activity" and (name in plot.stubs or name == HTTP_ACTIVITY):
            return True
        return (kind == "entity" and name in plot.entities) or self._executor.serves(kind, name)

    def names(self, kind: FunctionKind) -> Sequence[str]:
        """See `Executor.names`."""
        known, plot = self._executor.names(kind), self._plot
        mocked = {"activity": plot.stubs.names(), "entity": plot.entities.names()}
        return sorted({*known, *mocked.get(kind, ())})

    def runs(self, name: str, version: str | None) -> bool:
        """See `Executor.runs`."""
        return self._executor.runs(name, version)

    def elsewhere(self, kind: FunctionKind, name: str) -> bool:
        """See `Executor.elsewhere`."""
        return self._executor.elsewhere(kind, name)

    def version_of_new(self, name: str) -> str | None:
        """See `Executor.version_of_new`."""
        return self._executor.version_of_new(name)

    def versions(self, name: str) -> str:
        """See `Executor.versions`."""
        return self._executor.versions(name)

    def begin(self, started: ExecutionStarted) -> Run:
        """See `Executor.begin`."""
        return self._checked(self._executor.begin(started), [])

    def replay(self, history: Sequence[HistoryEvent]) -> Run:
        """See `Executor.replay`."""
        return self._checked(self._executor.replay(history), history)

    def _checked(self, run: Run, history: Sequence[HistoryEvent]) -> Run:
        if not self._plot.check_replay:
            return run
        return CheckedRun(run, list(history), self._executor, self._mismatch)

    # --- activities --------------------------------------------------------------------------------------------------

    def entity(self, entity_id: EntityId) -> EntityCode:
        """See `Executor.entity`."""
        plot = self._plot
        known = self._executor.serves("entity", entity_id.name)
        return StagedCode(
            entity_id,
            self._executor.entity(entity_id) if known else None,
            plot.entities,
            plot.faults,
            began=lambda entity, operation: plot.operations.append((entity, operation)),
            frozen=lambda: self.frozen,
        )

    def concurrency(self, name: str) -> int | None:
        """See `Executor.concurrency`."""
        return self._executor.concurrency(name)

    def on_loop(self, name: str) -> bool:
        """See `Executor.on_loop`."""
        return name in self._plot.stubs or name == HTTP_ACTIVITY or self._executor.on_loop(name)

    async def perform(self, call: ActivityCall) -> ActivityDone:
        """See `Executor.perform`."""
        if self.frozen:
            await _for_ever()
        faults = self._plot.faults
        self.busy += 1
        try:
            if faults.strikes("started", call.name):
                await self._dies_within(call)
            done = await self._answer(call)
            if self.frozen:
                await _for_ever()
            if faults.strikes("duplicate", call.name):
                again = await self._answer(msgspec.structs.replace(call, delivery=call.delivery + 1))
                _after_this(lambda: self._redeliver(call.instance_id, again))
            if faults.strikes("finished", call.name):
                self._die()
                await _for_ever()
            delay_us = faults.delay_us(call.name, self._chance(call))
            if delay_us:
                await self._pass(delay_us)
            return done
        finally:
            self.busy -= 1

    async def _answer(self, call: ActivityCall) -> ActivityDone:
        self._plot.calls.append(call)
        plot = self._plot
        stub = plot.stubs.take(call.name)
        if stub is None and call.name == HTTP_ACTIVITY:
            done, delay_us = await plot.http.perform(call, plot.http_policy, self._clock.now)
            if delay_us:
                await self._pass(delay_us)
            return done
        if stub is None:
            return await self._executor.perform(call)
        if stub.delay_us:
            await self._pass(stub.delay_us)
        return await stub.perform(call)

    async def _dies_within(self, call: ActivityCall) -> None:
        """Run the activity up to where it waits for the first time; what it would return is lost."""
        attempt = asyncio.get_running_loop().create_task(self._answer(call))
        try:
            await asyncio.sleep(0)
        finally:
            attempt.cancel()
            self._die()
            await asyncio.gather(attempt, return_exceptions=True)
        await _for_ever()

    async def _pass(self, delay_us: int) -> None:
        """Let virtual time pass. Nothing has to be done meanwhile, so it is skipped when somebody waits."""
        over = asyncio.Event()
        wakeup = self._clock.call_later(delay_us, over.set)
        self.busy -= 1
        try:
            await over.wait()
        finally:
            self.busy += 1
            wakeup.cancel()

    def _chance(self, call: ActivityCall) -> random.Random:
        """By attempt, so that it does not depend on the order in which threads happen to end."""
        return random.Random(f"{self._plot.seed}:{call.execution_id}:{call.seq}:{call.attempt}")  # noqa: S311 - repeats

    async def close(self) -> None:
        """See `Executor.close`."""
        await self._executor.close()


def _after_this(callback: Callable[[], None]) -> None:
    """Call back when the task that runs now has ended, and its result is where it belongs."""
    loop = asyncio.get_running_loop()
    loop.call_soon(lambda: loop.call_soon(callback))


def _for_ever() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()
