"""An executor for development: it checks and tells at once what in production shows later, or only to who asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from durably.core.entities import EntityId
from durably.core.events import Action, Arrival, ExecutionFailed, ExecutionStarted, HistoryEvent
from durably.core.messages import ActivityDone, WorkerAnswered
from durably.core.query import InstanceQuery
from durably.core.status import RuntimeStatus
from durably.engine.executor import ActivityCall, EntityCode, Executor, FunctionKind, Run
from durably.errors import DurablyError, FailureDetails, NonDeterminismError
from durably.executors.checked import CheckedRun
from durably.management import Management

_LIVE_MAX = 200
_EVENTS_MAX = 5_000
"""A longer history would hold up the loop for too long."""


class Audience(Protocol):
    """Who is told, on the event loop of the host."""

    def mismatch(self, started: ExecutionStarted, error: NonDeterminismError, *, rehearsed: bool) -> None:
        """Code and history of an execution differ.

        Args:
            started: Of the execution.
            error: The difference.
            rehearsed: True: the code did otherwise when its turn was replayed at once; the instance goes on. False: it does
                otherwise than an earlier version of it did; the instance is blocked.
        """
        ...

    def failed(self, started: ExecutionStarted, failure: FailureDetails) -> None:
        """An orchestrator raised."""
        ...

    def attempt_failed(self, call: ActivityCall, failure: FailureDetails) -> None:
        """An attempt of an activity failed."""
        ...


class RehearsedExecutor:
    """An `Executor` around the real one. Each turn is replayed, and what fails is told.

    Args:
        executor: Runs the functions.
        audience: Who is told.
    """

    def __init__(self, executor: Executor, audience: Audience) -> None:
        self._executor = executor
        self._audience = audience

    def serves(self, kind: FunctionKind, name: str) -> bool:
        """See `Executor.serves`."""
        return self._executor.serves(kind, name)

    def names(self, kind: FunctionKind) -> Sequence[str]:
        """See `Executor.names`."""
        return self._executor.names(kind)

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
        return _RehearsedRun(self._executor.begin(started), started, [], self._executor, self._audience)

    def replay(self, history: Sequence[HistoryEvent]) -> Run:
        """See `Executor.replay`."""
        started = next((event for event in history if isinstance(event, ExecutionStarted)), None)
        try:
            run = self._executor.replay(history)
        except NonDeterminismError as error:
            if started is not None:
                self._audience.mismatch(started, error, rehearsed=False)
            raise
        if started is None:
            return run
        return _RehearsedRun(run, started, list(history), self._executor, self._audience)

    def entity(self, entity_id: EntityId) -> EntityCode:
        """See `Executor.entity`."""
        return self._executor.entity(entity_id)

    def concurrency(self, name: str) -> int | None:
        """See `Executor.concurrency`."""
        return self._executor.concurrency(name)

    def on_loop(self, name: str) -> bool:
        """See `Executor.on_loop`."""
        return self._executor.on_loop(name)

    async def perform(self, call: ActivityCall) -> ActivityDone:
        """See `Executor.perform`."""
        done = await self._executor.perform(call)
        if done.failure is not None:
            self._audience.attempt_failed(call, done.failure)
        return done

    async def close(self) -> None:
        """See `Executor.close`."""
        await self._executor.close()


async def rehearse_live(executor: Executor, management: Management) -> None:
    """Replay what is under way with the code of now; the audience is told what differs. Changes nothing.

    Of many instances the oldest, and none with a very long history: those are checked when they get a turn.

    Args:
        executor: A `RehearsedExecutor`.
        management: Of its host.
    """
    live = (RuntimeStatus.Running.value, RuntimeStatus.Suspended.value)
    found = await management.query(InstanceQuery(statuses=live, payloads=False, page_size=_LIVE_MAX))
    for row in found.rows:
        if not executor.runs(row.name, row.version):
            continue
        try:
            events = await management.history(row.instance_id)
            if len(events) <= _EVENTS_MAX:
                executor.replay(events).close()
        except DurablyError:  # it was told; or the instance is gone, or cannot be read
            continue


class _RehearsedRun:
    """A run that is checked until it differs once: what it does after that differs too, and says nothing new."""

    def __init__(
        self,
        run: Run,
        started: ExecutionStarted,
        history: list[HistoryEvent],
        executor: Executor,
        audience: Audience,
    ) -> None:
        self._bare = run
        self._started = started
        self._audience = audience
        self._run: Run = CheckedRun(run, history, executor, self._differs)

    def _differs(self, error: NonDeterminismError) -> None:
        self._run = self._bare
        self._audience.mismatch(self._started, error, rehearsed=True)

    def advance(self, event: Arrival, now: int) -> Sequence[Action]:
        """See `Run.advance`."""
        made = self._run.advance(event, now)
        if made and isinstance(made[-1], ExecutionFailed):
            self._audience.failed(self._started, made[-1].failure)
        return made

    def answered(self, body: WorkerAnswered) -> WorkerAnswered | None:
        """See `Run.answered`."""
        return self._run.answered(body)

    def close(self) -> None:
        """See `Run.close`."""
        self._bare.close()
