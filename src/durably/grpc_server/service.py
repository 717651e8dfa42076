"""The service ``TaskHubSidecarService``: a table of its calls, and what is done around each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Protocol

import grpc
from google.protobuf.empty_pb2 import Empty

from durably.executors.remote.wire import Message, pb
from durably.grpc_server.auditing import CHANGES, Auditor
from durably.grpc_server.entities import Entities
from durably.grpc_server.gate import Asked, Gate
from durably.grpc_server.histories import Histories
from durably.grpc_server.instances import Instances
from durably.grpc_server.purging import Purging
from durably.grpc_server.refusals import Code, Refusal, refusal_of
from durably.grpc_server.searching import Searching
from durably.grpc_server.served import Call, Rpc, Rpcs, Served
from durably.security.roles import ANYBODY

SERVICE: Final = "TaskHubSidecarService"

WORK: Final = "admin"
"""The permission of workers: whoever is one sees all inputs, and says what became of each."""


Handlers = dict[str, "grpc.RpcMethodHandler[Any, Any]"]
"""By the name of the method."""


def handler_of(rpc: Rpc, call: Callable[[Any, Any], Any]) -> grpc.RpcMethodHandler[Any, Any]:
    """For a server: how the call is answered, from bytes to bytes."""
    make: Any = grpc.unary_stream_rpc_method_handler if rpc.streams else grpc.unary_unary_rpc_method_handler
    return make(call, request_deserializer=rpc.takes.FromString, response_serializer=_serialize)


def _serialize(message: Message | bytes) -> bytes:
    """The bytes of an answer; work comes as bytes already."""
    return message if isinstance(message, bytes) else message.SerializeToString()


class WorkService(Protocol):
    """The side of the workers, which is put beside the calls of clients.

    `Refusal` and errors of ours become codes; whatever a call needs to know of its stream is in `Call.context`.
    """

    def get_work_items(self, request: pb.GetWorkItemsRequest, call: Call) -> AsyncIterator[bytes]:
        """Work, each piece as the bytes of a `WorkItem`, for as long as the worker listens."""
        ...

    async def complete_orchestrator_task(
        self, request: pb.OrchestratorResponse, call: Call
    ) -> pb.CompleteTaskResponse:
        """A turn was done. It is asked for again unless it becomes durable, as with those below."""
        ...

    async def complete_activity_task(
        self, request: pb.ActivityResponse, call: Call
    ) -> pb.CompleteTaskResponse:
        """An activity has ended."""
        ...

    async def complete_entity_task(
        self, request: pb.EntityBatchResult, call: Call
    ) -> pb.CompleteTaskResponse:
        """A batch of operations was performed."""
        ...

    async def abandon_orchestrator_task(
        self, request: pb.AbandonOrchestrationTaskRequest, call: Call
    ) -> pb.AbandonOrchestrationTaskResponse:
        """The worker gives a turn back, as with those below."""
        ...

    async def abandon_activity_task(
        self, request: pb.AbandonActivityTaskRequest, call: Call
    ) -> pb.AbandonActivityTaskResponse:
        """An activity."""
        ...

    async def abandon_entity_task(
        self, request: pb.AbandonEntityTaskRequest, call: Call
    ) -> pb.AbandonEntityTaskResponse:
        """A batch of operations."""
        ...

    def close(self) -> None:
        """End the streams: workers connect again, and get to whoever serves the hub then."""
        ...


class TaskHubService:
    """Answers the calls of one hub.

    Args:
        served: The hub.
        gate: Who is let in.
        audit: Records who changes what.
        work: The side of the workers; None: there is none, and its calls are answered with UNIMPLEMENTED.

    Attributes:
        rpcs: What it answers, by the name of the method.
        calls: Answers each, given the request and the context of gRPC: with a message, or an iterator of them.
    """

    def __init__(self, served: Served, gate: Gate, audit: Auditor, work: WorkService | None = None) -> None:
        self._gate = gate
        self._audit = audit
        self._work = work
        self.rpcs: Rpcs = {
            "Hello": Rpc(Empty, "", _hello),
            "CreateTaskHub": Rpc(pb.CreateTaskHubRequest, "admin", _create_hub),
            "DeleteTaskHub": Rpc(
                pb.DeleteTaskHubRequest,
                "admin",
                _missing("deletes the hub that it serves: stop it, and drop its file or schema"),
            ),
            **Instances(served).rpcs,
            **Searching(served).rpcs,
            **Purging(served).rpcs,
            **Entities(served).rpcs,
            **Histories(served).rpcs,
            **_work_rpcs(work),
        }
        self.calls: dict[str, Callable[[Any, Any], Any]] = {
            name: self._streaming(rpc) if rpc.streams else self._answering(name, rpc)
            for name, rpc in self.rpcs.items()
        }

    def handlers(self) -> Handlers:
        """For a server, by the name of the method."""
        return {name: handler_of(rpc, self.calls[name]) for name, rpc in self.rpcs.items()}

    @property
    def way_in(self) -> str:
        """How to get in, for whoever starts the host."""
        return self._gate.way_in

    async def close(self) -> None:
        """End the streams of workers, and finish the audit log. Idempotent."""
        if self._work is not None:
            self._work.close()
        await self._audit.close()

    def _answering(self, name: str, rpc: Rpc) -> Callable[[Any, Any], Awaitable[Message]]:
        is_recorded = rpc.needs in CHANGES

        async def answered(request: Message, context: Any) -> Message:
            asked, who = Asked(context), ANYBODY
            answer: Message | Refusal
            try:
                if rpc.needs:
                    who = await self._gate.principal(asked)
                    self._admit(asked, rpc, who)
                if is_recorded:
                    await self._audit.check()
                answer = await rpc.act(request, Call(who, context))
            except Exception as error:  # noqa: BLE001 - whatever it is, there is an answer
                answer = self._gate.noted(asked, refusal_of(error))
            if is_recorded:
                try:
                    await self._audit.record(
                        name, rpc.needs, asked=asked, who=who, request=request, answer=answer
                    )
                except Exception as error:  # noqa: BLE001 - as above
                    answer = refusal_of(error)
            if isinstance(answer, Refusal):
                await context.abort(answer.code, str(answer))
                raise answer
            return answer

        return answered

    def _streaming(self, rpc: Rpc) -> Callable[[Any, Any], AsyncIterator[Message]]:
        async def streamed(request: Message, context: Any) -> AsyncIterator[Message]:
            asked = Asked(context)
            try:
                who = await self._gate.principal(asked)
                self._admit(asked, rpc, who)
                async for message in rpc.act(request, Call(who, context)):
                    yield message
            except Exception as error:  # noqa: BLE001 - as above
                refusal = self._gate.noted(asked, refusal_of(error))
                await context.abort(refusal.code, str(refusal))

        return streamed

    def _admit(self, asked: Asked, rpc: Rpc, who: Any) -> None:
        self._gate.check(who, rpc.needs)
        self._gate.check_hub(asked)


def _work_rpcs(work: WorkService | None) -> Rpcs:
    lost = "of this version hands work to workers over gRPC"
    if work is None:
        get_items: Any = _missing_stream(lost)
        acts: list[Any] = [_missing(lost)] * 6
    else:
        get_items = work.get_work_items
        acts = [
            work.complete_orchestrator_task,
            work.complete_activity_task,
            work.complete_entity_task,
            work.abandon_orchestrator_task,
            work.abandon_activity_task,
            work.abandon_entity_task,
        ]
    names = (
        ("CompleteOrchestratorTask", pb.OrchestratorResponse),
        ("CompleteActivityTask", pb.ActivityResponse),
        ("CompleteEntityTask", pb.EntityBatchResult),
        ("AbandonTaskOrchestratorWorkItem", pb.AbandonOrchestrationTaskRequest),
        ("AbandonTaskActivityWorkItem", pb.AbandonActivityTaskRequest),
        ("AbandonTaskEntityWorkItem", pb.AbandonEntityTaskRequest),
    )
    return {
        "GetWorkItems": Rpc(pb.GetWorkItemsRequest, WORK, get_items, streams=True),
        **{name: Rpc(takes, WORK, act) for (name, takes), act in zip(names, acts, strict=True)},
    }


async def _hello(request: Empty, call: Call) -> Empty:
    """At once, also for those who have no credential: it says nothing but that somebody is here."""
    return Empty()


async def _create_hub(request: pb.CreateTaskHubRequest, call: Call) -> pb.CreateTaskHubResponse:
    """The hub is there already. To make it anew would delete it."""
    if request.recreateIfExists:
        raise _unimplemented("makes the hub anew that it serves")
    return pb.CreateTaskHubResponse()


def _missing(what: str) -> Callable[[Any, Call], Awaitable[Message]]:
    async def refuse(request: Message, call: Call) -> Message:
        raise _unimplemented(what)

    return refuse


def _missing_stream(what: str) -> Callable[[Any, Call], AsyncIterator[Message]]:
    async def refuse(request: Message, call: Call) -> AsyncIterator[Message]:
        raise _unimplemented(what)
        yield

    return refuse


def _unimplemented(what: str) -> Refusal:
    return Refusal(Code.UNIMPLEMENTED, f"No host {what}")
