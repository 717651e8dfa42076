"""The stream by which a worker gets its work, and the calls by which it hands in what it did.

Follows the Durable Task protocol (`TaskHubSidecarService` of the PyPI package `durabletask`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from durably.executors.remote.broker import Kind, Worker
from durably.executors.remote.executor import RemoteExecutor
from durably.executors.remote.filters import Filters
from durably.executors.remote.wire import has, pb
from durably.grpc_server.served import Call

_PING_S: Final = 30.0
"""So often a worker without work is told that the stream stands; SDKs give one up after two minutes of silence."""

_PING: Final = pb.WorkItem(healthPing=pb.HealthPing()).SerializeToString()


class RemoteWork:
    """Implements `durably.grpc_server.service.WorkService` for the workers of one host.

    Args:
        executor: Has the work.
    """

    def __init__(self, executor: RemoteExecutor) -> None:
        self._executor = executor
        self._streams: set[asyncio.Queue[bytes | None]] = set()

    async def get_work_items(self, request: pb.GetWorkItemsRequest, call: Call) -> AsyncGenerator[bytes]:
        """See `WorkService.get_work_items`."""
        del call
        items: asyncio.Queue[bytes | None] = asyncio.Queue()
        worker = Worker(items.put_nowait, _limits(request), _filters(request))
        broker, loop = self._executor.broker, asyncio.get_running_loop()

        def ping() -> None:
            nonlocal pings
            if items.empty():
                items.put_nowait(_PING)
            pings = loop.call_later(_PING_S, ping)

        broker.connect(worker)
        self._streams.add(items)
        pings = loop.call_later(_PING_S, ping)
        try:
            while (item := await items.get()) is not None:
                yield item
        finally:
            pings.cancel()
            self._streams.discard(items)
            broker.leave(worker)

    async def complete_orchestrator_task(
        self, request: pb.OrchestratorResponse, call: Call
    ) -> pb.CompleteTaskResponse:
        """See `WorkService.complete_orchestrator_task`. What comes too late is ignored."""
        del call
        self._executor.orchestrated(request)
        return pb.CompleteTaskResponse()

    async def complete_activity_task(
        self, request: pb.ActivityResponse, call: Call
    ) -> pb.CompleteTaskResponse:
        """See `WorkService.complete_activity_task`. What comes too late is ignored."""
        del call
        self._executor.performed(request)
        return pb.CompleteTaskResponse()

    async def complete_entity_task(
        self, request: pb.EntityBatchResult, call: Call
    ) -> pb.CompleteTaskResponse:
        """See `WorkService.complete_entity_task`. What comes too late is ignored."""
        del call
        self._executor.operated(request)
        return pb.CompleteTaskResponse()

    async def abandon_orchestrator_task(
        self, request: pb.AbandonOrchestrationTaskRequest, call: Call
    ) -> pb.AbandonOrchestrationTaskResponse:
        """See `WorkService.abandon_orchestrator_task`."""
        self._give_back("orchestrator", request.completionToken, call)
        return pb.AbandonOrchestrationTaskResponse()

    async def abandon_activity_task(
        self, request: pb.AbandonActivityTaskRequest, call: Call
    ) -> pb.AbandonActivityTaskResponse:
        """See `WorkService.abandon_activity_task`."""
        self._give_back("activity", request.completionToken, call)
        return pb.AbandonActivityTaskResponse()

    async def abandon_entity_task(
        self, request: pb.AbandonEntityTaskRequest, call: Call
    ) -> pb.AbandonEntityTaskResponse:
        """See `WorkService.abandon_entity_task`."""
        self._give_back("entity", request.completionToken, call)
        return pb.AbandonEntityTaskResponse()

    def close(self) -> None:
        """See `WorkService.close`."""
        for items in self._streams:
            items.put_nowait(None)

    def _give_back(self, kind: Kind, token: str, call: Call) -> None:
        del call
        self._executor.broker.give_back(kind, token)


def _limits(request: pb.GetWorkItemsRequest) -> dict[Kind, int]:
    """0 says nothing."""
    stated: dict[Kind, int] = {
        "orchestrator": request.maxConcurrentOrchestrationWorkItems,
        "activity": request.maxConcurrentActivityWorkItems,
        "entity": request.maxConcurrentEntityWorkItems,
    }
    return {kind: limit for kind, limit in stated.items() if limit > 0}


def _filters(request: pb.GetWorkItemsRequest) -> Filters:
    if not has(request, "workItemFilters"):
        return Filters()
    wanted: dict[tuple[str, str], frozenset[str]] = {}
    stated = request.workItemFilters
    for one in stated.orchestrations:
        wanted["orchestrator", one.name] = frozenset(one.versions)
    for one in stated.activities:
        wanted["activity", one.name] = frozenset(one.versions)
    for one in stated.entities:
        wanted["entity", one.name.lower()] = frozenset()
    return Filters(wanted)
