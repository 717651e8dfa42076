"""Functions of the app run here, all others in workers."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

from durably.core.entities import EntityId
from durably.core.events import ExecutionStarted, HistoryEvent
from durably.core.messages import ActivityDone
from durably.engine.executor import ActivityCall, EntityCode, Executor, FunctionKind, Run
from durably.errors import NonDeterminismError


class RouterExecutor:
    """An `Executor` of two. Where the code of an execution runs is settled when it begins.

    Args:
        here: Has the functions of the app.
        workers: Has all others, or waits for who has them.
    """

    def __init__(self, here: Executor, workers: Executor) -> None:
        self._here = here
        self._workers = workers

    def _of(self, kind: FunctionKind, name: str) -> Executor:
        return self._here if self._here.serves(kind, name) else self._workers

    def serves(self, kind: FunctionKind, name: str) -> bool:
        """See `Executor.serves`."""
        return self._of(kind, name).serves(kind, name)

    def names(self, kind: FunctionKind) -> Sequence[str]:
        """See `Executor.names`."""
        return sorted({*self._here.names(kind), *self._workers.names(kind)})

    def runs(self, name: str, version: str | None) -> bool:
        """See `Executor.runs`."""
        return self._of("orchestrator", name).runs(name, version)

    def elsewhere(self, kind: FunctionKind, name: str) -> bool:
        """See `Executor.elsewhere`."""
        return self._of(kind, name).elsewhere(kind, name)

    def version_of_new(self, name: str) -> str | None:
        """See `Executor.version_of_new`."""
        return self._of("orchestrator", name).version_of_new(name)

    def versions(self, name: str) -> str:
        """See `Executor.versions`."""
        return self._of("orchestrator", name).versions(name)

    def begin(self, started: ExecutionStarted) -> Run:
        """See `Executor.begin`."""
        return (self._workers if started.remote else self._here).begin(started)

    def replay(self, history: Sequence[HistoryEvent]) -> Run:
        """See `Executor.replay`.

        Raises:
            NonDeterminismError: Its code ran here, and this host does not have it any more.
        """
        started = next((event for event in history if isinstance(event, ExecutionStarted)), None)
        if started is not None and started.remote:
            return self._workers.replay(history)
        if started is not None and not self._here.serves("orchestrator", started.name):
            raise NonDeterminismError(
                started.instance_id,
                f"Its code ran in a host, and this one has no orchestrator '{started.name}'. Serve the hub with a host that "
                "has it: a worker cannot go on with a history that is not its own",
            )
        return self._here.replay(history)

    def entity(self, entity_id: EntityId) -> EntityCode:
        """See `Executor.entity`."""
        return self._of("entity", entity_id.name).entity(entity_id)

    def concurrency(self, name: str) -> int | None:
        """See `Executor.concurrency`."""
        return self._of("activity", name).concurrency(name)

    def on_loop(self, name: str) -> bool:
        """See `Executor.on_loop`."""
        return self._of("activity", name).on_loop(name)

    def perform(self, call: ActivityCall) -> Coroutine[Any, Any, ActivityDone]:
        """See `Executor.perform`."""
        return self._of("activity", call.name).perform(call)

    async def close(self) -> None:
        """See `Executor.close`."""
        await self._here.close()
        await self._workers.close()
