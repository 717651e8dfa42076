"""Instances: start them, look at one, wait for one, tell it what to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import msgspec

from durably.core.commit import InstanceRow
from durably.core.events import Payload
from durably.core.history import readable
from durably.core.ids import check_text
from durably.core.messages import Restart, Rewind, StartInstance
from durably.core.notices import checked_tags
from durably.core.status import TERMINAL
from durably.errors import InstanceAlreadyExistsError, InstanceNotFoundError, InstanceStateError
from durably.executors.remote.wire import has, instant_of, payload_of, pb, text_of, trace_of
from durably.grpc_server.refusals import Code, Refusal
from durably.grpc_server.served import (
    Call,
    Rpc,
    Rpcs,
    Served,
    check_length,
    check_orchestrator,
    existing,
)
from durably.grpc_server.shown import state_of, status_of

_LIVE: Final = frozenset(
    (
        pb.ORCHESTRATION_STATUS_PENDING,
        pb.ORCHESTRATION_STATUS_RUNNING,
        pb.ORCHESTRATION_STATUS_SUSPENDED,
    )
)

_tags = msgspec.json.Decoder(dict[str, str]).decode


class Instances:
    """The calls of one instance."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._management = served.management

    @property
    def rpcs(self) -> Rpcs:
        """Their rows."""
        return {
            "StartInstance": Rpc(pb.CreateInstanceRequest, "start", self._start),
            "GetInstance": Rpc(pb.GetInstanceRequest, "read", self._get),
            "WaitForInstanceStart": Rpc(pb.GetInstanceRequest, "read", self._wait_for_start),
            "WaitForInstanceCompletion": Rpc(pb.GetInstanceRequest, "read", self._wait_for_end),
            "RaiseEvent": Rpc(pb.RaiseEventRequest, "control", self._raise_event),
            "TerminateInstance": Rpc(pb.TerminateRequest, "control", self._terminate),
            "SuspendInstance": Rpc(pb.SuspendRequest, "control", self._suspend),
            "ResumeInstance": Rpc(pb.ResumeRequest, "control", self._resume),
            "RewindInstance": Rpc(pb.RewindInstanceRequest, "control", self._rewind),
            "RestartInstance": Rpc(pb.RestartInstanceRequest, "start", self._restart),
        }

    # --- start -------------------------------------------------------------------------------------------------------

    async def _start(self, request: pb.CreateInstanceRequest, call: Call) -> pb.CreateInstanceResponse:
        check_orchestrator(request.name)
        check_length(request.instanceId)
        self._served.take_start(call.principal)
        fresh = not request.instanceId
        target = self._management.new_instance_id() if fresh else request.instanceId
        start = StartInstance(
            request.name,
            payload_of(request, "input") or None,  # clients of JavaScript send an empty text for no input
            text_of(request, "executionId") or self._served.random.token(),
            text_of(request, "version"),
            tags=checked_tags(dict(request.tags)),
            start_at=await self._start_at(request),
            on_existing="fail" if fresh else await self._on_existing(request),
            fresh=fresh,
            trace=trace_of(request, "parentTraceContext"),
        )
        await self._management.start(target, start)
        return pb.CreateInstanceResponse(instanceId=target)

    async def _start_at(self, request: pb.CreateInstanceRequest) -> int | None:
        """When to start. Clients of JavaScript always say it: 1970 when they mean now."""
        at = instant_of(request, "scheduledStartTimestamp")
        return at if at is not None and at > await self._management.now() else None

    async def _on_existing(self, request: pb.CreateInstanceRequest) -> str:
        """What to do when the id is taken, as far as the policies of the engine can say it.

        Raises:
            InstanceAlreadyExistsError: It is, and the policy of the request does not let go of that instance.
            Refusal: INVALID_ARGUMENT, the policy makes no sense.
        """
        if not has(request, "orchestrationIdReusePolicy"):
            return "fail"
        replaceable = frozenset(request.orchestrationIdReusePolicy.replaceableStatus)
        if replaceable & _LIVE and pb.ORCHESTRATION_STATUS_TERMINATED not in replaceable:
            raise Refusal(
                Code.INVALID_ARGUMENT,
                "Invalid reusable statuses: cannot exclude 'Terminated' while also allowing reuse of running instances",
            )
        row = await self._management.get(request.instanceId, payloads=False)
        if row is None:
            return "fail"
        if status_of(row, self._served) not in replaceable:
            raise InstanceAlreadyExistsError(request.instanceId, row.status)
        # One that ends in this moment is replaced all the same; one that begins in it is not, when only ended ones may be.
        return "replace_finished" if row.status in TERMINAL else "replace"

    # --- look, and wait ----------------------------------------------------------------------------------------------

    async def _get(self, request: pb.GetInstanceRequest, call: Call) -> pb.GetInstanceResponse:
        wanted = request.getInputsAndOutputs
        return self._answer(await self._management.get(request.instanceId, payloads=wanted), request, call)

    def _answer(
        self, row: InstanceRow | None, request: pb.GetInstanceRequest, call: Call
    ) -> pb.GetInstanceResponse:
        if row is None:
            return pb.GetInstanceResponse(exists=False)
        shown = state_of(row, self._served, payloads=request.getInputsAndOutputs, details=call.sees_payloads)
        return pb.GetInstanceResponse(exists=True, orchestrationState=shown)

    async def _wait_for_start(self, request: pb.GetInstanceRequest, call: Call) -> pb.GetInstanceResponse:
        """Whoever hangs up, or whose deadline is over, ends the wait: gRPC cancels it."""
        wanted = request.getInputsAndOutputs
        with self._management.watch(request.instanceId) as watch:
            while True:
                row = await self._management.get(request.instanceId, payloads=wanted)
                if row is None or status_of(row, self._served) != pb.ORCHESTRATION_STATUS_PENDING:
                    return self._answer(row, request, call)
                await watch.changed()

    async def _wait_for_end(self, request: pb.GetInstanceRequest, call: Call) -> pb.GetInstanceResponse:
        row: InstanceRow | None = None
        with suppress(InstanceNotFoundError):  # never there, or purged meanwhile
            row = await self._management.wait(existing(request.instanceId), None)
        return self._answer(row, request, call)

    # --- events and orders -------------------------------------------------------------------------------------------

    async def _raise_event(self, request: pb.RaiseEventRequest, call: Call) -> pb.RaiseEventResponse:
        if not request.name:
            raise Refusal(
                Code.INVALID_ARGUMENT,
                "The name of an external event is empty: expected the name that the instance waits for",
            )
        data = payload_of(request, "input") or None
        await _unless_ended(self._management.raise_event(existing(request.instanceId), request.name, data))
        return pb.RaiseEventResponse()

    async def _terminate(self, request: pb.TerminateRequest, call: Call) -> pb.TerminateResponse:
        reason, output = _told(text_of(request, "output"))
        with suppress(InstanceNotFoundError):
            target = existing(request.instanceId)
            order = self._management.terminate(target, reason, recursive=request.recursive, output=output)
            await _unless_ended(order)
        return pb.TerminateResponse()

    async def _suspend(self, request: pb.SuspendRequest, call: Call) -> pb.SuspendResponse:
        await self._order(self._management.suspend, request)
        return pb.SuspendResponse()

    async def _resume(self, request: pb.ResumeRequest, call: Call) -> pb.ResumeResponse:
        await self._order(self._management.resume, request)
        return pb.ResumeResponse()

    async def _order(
        self,
        give: Callable[[str, str | None], Awaitable[None]],
        request: pb.SuspendRequest | pb.ResumeRequest,
    ) -> None:
        await _unless_ended(give(existing(request.instanceId), text_of(request, "reason")))

    async def _rewind(self, request: pb.RewindInstanceRequest, call: Call) -> pb.RewindInstanceResponse:
        rewind = Rewind(text_of(request, "reason"), self._served.random.token())
        await self._management.rewind(existing(request.instanceId), rewind)
        return pb.RewindInstanceResponse()

    async def _restart(self, request: pb.RestartInstanceRequest, call: Call) -> pb.RestartInstanceResponse:
        """Under a new id also one that runs: that one goes on."""
        self._served.take_start(call.principal)
        anew = request.restartWithNewInstanceId
        row = await self._management.get(existing(request.instanceId), payloads=anew)
        if row is None:
            raise InstanceNotFoundError(request.instanceId)
        if not call.principal.may("admin"):
            check_orchestrator(row.name)
        execution_id = self._served.random.token()
        if not anew:
            await self._management.restart(request.instanceId, Restart(execution_id))
            return pb.RestartInstanceResponse(instanceId=request.instanceId)
        target = self._management.new_instance_id()
        start = StartInstance(
            row.name,
            readable(row.instance_id, "input", row.input),
            execution_id,
            row.version or "",  # as it was, also where new instances get one
            tags=_tags(row.tags) if row.tags else None,
            fresh=True,
        )
        await self._management.start(target, start)
        return pb.RestartInstanceResponse(instanceId=target)


async def _unless_ended(order: Awaitable[None]) -> None:
    """What is asked of an instance that has ended is done with: it changes nothing, and is no error."""
    with suppress(InstanceStateError):
        await order


def _told(output: str | None) -> tuple[str | None, Payload]:
    """The output that a terminated instance is to have: as a reason for people, if it is a text, and as it is."""
    if not output:
        return None, None
    try:
        value = msgspec.json.decode(output)
    except (msgspec.DecodeError, RecursionError):
        value = output  # such as where a payload store has it
    check_text(output, "output")
    return value if isinstance(value, str) else None, output.encode()
