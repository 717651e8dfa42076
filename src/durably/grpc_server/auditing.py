"""Records who changed what: one record for each call that changes something, whatever its answer."""

from __future__ import annotations

from typing import Final

from durably.clock import Clock, Random
from durably.core.timeline import second
from durably.executors.remote.wire import Message, text_of
from durably.grpc_server.gate import Asked
from durably.grpc_server.refusals import AS_HTTP, Code, Refusal
from durably.security.audit_chain import AuditRecord, shortened
from durably.security.audit_log import AuditLog
from durably.security.roles import Principal

CHANGES: Final = frozenset(("control", "start", "purge"))
"""Permissions that change something. What workers do is no order of a person, and is in the histories."""

_TURNED_AWAY: Final = frozenset(("TooManyFailures", "TooManyStarts"))
"""Else whoever asks often could fill the disk."""

_TARGETS: Final = ("instanceId", "name", "recursive", "restartWithNewInstanceId")


class Auditor:
    """Writes to the audit log of a host.

    Args:
        log: Or None: nothing is recorded.
        hub: The name of the hub.
        clock: Of the host.
        random: Draws ids of calls.
    """

    def __init__(self, log: AuditLog | None, hub: str, clock: Clock, random: Random) -> None:
        self._log = log
        self._hub = hub
        self._clock = clock
        self._random = random

    async def check(self) -> None:
        """Refuse a change that could not be recorded.

        Raises:
            OperationError: The log cannot be written.
        """
        if self._log is not None:
            await self._log.check()

    async def record(
        self,
        method: str,
        needs: str,
        *,
        asked: Asked,
        who: Principal,
        request: Message,
        answer: Message | Refusal,
    ) -> None:
        """Write the record of a call that changes something, before its answer leaves.

        Raises:
            OperationError: It could not be written.
        """
        if self._log is None:
            return
        refused = answer if isinstance(answer, Refusal) else None
        if refused is not None and refused.kind in _TURNED_AWAY:
            return
        at = self._clock.now()
        reason = text_of(request, "reason") or text_of(request, "output")
        made: str | None = getattr(answer, "instanceId", None) if needs == "start" else None
        await self._log.append(
            AuditRecord(
                at=f"{second(at // 1_000_000)}.{at % 1_000_000:06}+00:00",
                who=who.name,
                via=asked.offered,
                origin=asked.address,
                hub=self._hub,
                action=f"gRPC {method}",
                target=_target(request),
                made=made,
                reason=None if reason is None else shortened(reason),
                status=AS_HTTP.get(Code.OK if refused is None else refused.code, 500),
                error=None if refused is None else refused.kind,
                request=self._random.token(),
            )
        )

    async def close(self) -> None:
        """Write what is left. Idempotent."""
        if self._log is not None:
            await self._log.close()


def _target(request: Message) -> dict[str, str]:
    fields = request.DESCRIPTOR.fields_by_name
    found = {name: getattr(request, name) for name in _TARGETS if name in fields}
    return {name: shortened(str(value)) for name, value in found.items() if value}
