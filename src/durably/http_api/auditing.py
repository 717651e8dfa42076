"""Records who changed what: one record for each request to a route that changes something, whatever its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from durably.clock import Random
from durably.core.timeline import instant
from durably.errors import OperationError
from durably.http_api.access import TOO_MANY_FAILURES, offered
from durably.http_api.refusals import answer_of, refusal_of
from durably.http_api.routing import Found
from durably.security.audit_chain import AuditRecord, shortened
from durably.security.audit_log import AuditLog
from durably.security.roles import ANYBODY

_READS: Final = frozenset(("read", "payloads"))
"""What needs no more than these changes nothing, whatever its method."""

_NOT_RECORDED: Final = frozenset(("code", "sig", "taskhub", "connection", "reason"))

_TARGETS_MAX: Final = 10
_NAME_CHARS_MAX: Final = 100

CUT_OFF: Final = 499
"""In the place of a status: the host stopped before there was an answer."""


class Auditor:
    """Writes to the audit log of a host.

    Args:
        log: Or None: nothing is recorded.
        hub: The name of the hub.
        now: The time in microseconds since 1970 UTC.
        random: Draws ids of requests.
    """

    def __init__(self, log: AuditLog | None, hub: str, now: Callable[[], int], random: Random) -> None:
        self._log = log
        self._hub = hub
        self._now = now
        self._random = random

    async def check(self, found: Found) -> None:
        """Refuse a change that could not be recorded.

        Raises:
            OperationError: The log cannot be written.
        """
        if self._log is not None and _changes(found):
            await self._log.check()

    async def recorded(self, request: Request, answer: Response) -> Response:
        """The answer, once the record is on the disk; another one when that cannot be."""
        found = _found(request)
        if self._log is None or found is None or getattr(request.state, "refused", None) == TOO_MANY_FAILURES:
            return answer  # else anybody could fill the disk
        record = self._record(request, found, answer.status_code)
        try:
            await self._log.append(record)
        except OperationError as error:
            answer = answer_of(refusal_of(error))
        answer.headers["X-Request-Id"] = record.request
        return answer

    def cut_off(self, request: Request) -> None:
        """Record a request that gets no answer."""
        found = _found(request)
        if self._log is not None and found is not None:
            self._log.note(self._record(request, found, CUT_OFF))

    async def close(self) -> None:
        """Write what is left. Idempotent."""
        if self._log is not None:
            await self._log.close()

    def _record(self, request: Request, found: Found, status: int) -> AuditRecord:
        state, reason = request.state, request.query_params.get("reason")
        return AuditRecord(
            at=instant(self._now()).isoformat(timespec="microseconds"),
            who=getattr(state, "principal", ANYBODY).name,
            via=offered(request, found.parameters.get("grant")),
            origin=request.client.host if request.client else "",
            hub=self._hub,
            action=f"{found.route.method} {found.route.path}",
            target=_target(request, found),
            made=getattr(state, "made", None),
            reason=None if reason is None else shortened(reason),
            status=status,
            error=getattr(state, "refused", None),
            request=self._random.token(),
        )


def _found(request: Request) -> Found | None:
    """The route of a request, when it changes something."""
    found: Found | None = getattr(request.state, "found", None)
    return found if found is not None and _changes(found) else None


def _changes(found: Found) -> bool:
    return found.route.method != "GET" and found.route.needs not in _READS


def _target(request: Request, found: Found) -> dict[str, str]:
    path = [(name, value) for name, value in found.parameters.items() if name != "grant"]
    query = [one for one in request.query_params.multi_items() if one[0].lower() not in _NOT_RECORDED]
    return {name[:_NAME_CHARS_MAX]: shortened(value) for name, value in (path + query)[:_TARGETS_MAX]}
