"""Records who changed what: one record for each request to a route that changes something, whatever its answer.

So for the APIs. HTTP functions of the app that ask for a key are recorded like these, and also when a GET of one changes
something through its client. Those that anybody may call are not: there is nobody to name, and anybody could fill the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.responses import Response

from durably.clock import Random
from durably.core.timeline import second
from durably.errors import OperationError
from durably.http_api.access import TOO_MANY_FAILURES, offered
from durably.http_api.incoming import Incoming
from durably.http_api.reading import query_of
from durably.http_api.refusals import answer_of, refusal_of
from durably.http_api.routing import Found
from durably.http_api.starting import TOO_MANY_STARTS
from durably.security.audit_chain import AuditRecord, shortened
from durably.security.audit_log import AuditLog

_SAFE: Final = frozenset(("GET", "HEAD", "OPTIONS"))

_READS: Final = frozenset(("read", "payloads"))
"""What needs no more than these changes nothing, whatever its method."""

_NOT_RECORDED: Final = frozenset(("code", "sig", "taskhub", "connection", "reason"))

_TURNED_AWAY: Final = frozenset((TOO_MANY_FAILURES, TOO_MANY_STARTS))
"""Else whoever asks often could fill the disk."""

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

    async def check(self, request: Incoming) -> None:
        """Refuse a change that could not be recorded.

        Raises:
            OperationError: The log cannot be written.
        """
        if self._log is not None and _found(request) is not None:
            await self._log.check()

    async def recorded(self, request: Incoming, answer: Response) -> Response:
        """The answer, once the record is on the disk; another one when that cannot be."""
        found = _found(request)
        if self._log is None or found is None or request.refused in _TURNED_AWAY:
            return answer
        record = self._record(request, found, answer.status_code)
        try:
            await self._log.append(record)
        except OperationError as error:
            answer = answer_of(refusal_of(error))
        answer.raw_headers.append((b"x-request-id", record.request.encode()))
        return answer

    def cut_off(self, request: Incoming) -> None:
        """Record a request that gets no answer."""
        found = _found(request)
        if self._log is not None and found is not None:
            self._log.note(self._record(request, found, CUT_OFF))

    async def close(self) -> None:
        """Write what is left. Idempotent."""
        if self._log is not None:
            await self._log.close()

    def _record(self, request: Incoming, found: Found, status: int) -> AuditRecord:
        at, call, reason = self._now(), request.call, query_of(request).get("reason")
        return AuditRecord(
            at=f"{second(at // 1_000_000)}.{at % 1_000_000:06}+00:00",
            who=request.principal.name,
            via=offered(request, found.parameters.get("grant"), links=call is None),
            origin=request.client.host if request.client else "",
            hub=self._hub,
            action=f"{found.route.method} {found.route.path}",
            target=_parameters(found) if call else _target(request, found),
            function=call.function if call else None,
            did=call.did.told if call else (),
            made=request.made,
            reason=None if reason is None else shortened(reason),
            status=status,
            error=request.refused,
            request=self._random.token(),
        )


def _found(request: Incoming) -> Found | None:
    """The route of a request, when it changes something."""
    found, call = request.found, request.call
    if found is None or (call is not None and call.did):
        return found
    changes = found.route.method not in _SAFE and found.route.needs not in _READS
    return found if changes else None


def _target(request: Incoming, found: Found) -> dict[str, str]:
    path = [(name, value) for name, value in found.parameters.items() if name != "grant"]
    if request.scope["query_string"]:
        path += [one for one in request.query_params.multi_items() if one[0].lower() not in _NOT_RECORDED]
    return _recorded(path)


def _parameters(found: Found) -> dict[str, str]:
    """Of an HTTP function those of its route: what else is in the query of an app may be a secret."""
    return _recorded([*found.parameters.items()])


def _recorded(given: list[tuple[str, str]]) -> dict[str, str]:
    return {name[:_NAME_CHARS_MAX]: shortened(value) for name, value in given[:_TARGETS_MAX]}
