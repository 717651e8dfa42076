"""Errors of ``/api/v1``: problem details (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from msgspec import UNSET
from starlette.responses import Response

from durably.errors import (
    HostNotFoundError,
    ScheduleAlreadyExistsError,
    ScheduleNotFoundError,
    UnknownFunctionError,
)
from durably.http_api.refusals import Refusal
from durably.http_api.v1.bodies import Failure, Hidden
from durably.http_api.v1.shown import failure_of

MEDIA_TYPE = "application/problem+json"


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was refused.

    Attributes:
        type: A URN that stands for the kind of the problem.
        title: What the status code says.
        status: The status code.
        detail: What is wrong, with which id, what was expected and what to do.
        instance: The path that was asked for.
        failure: Of the operation of an entity, for who may see payloads.
    """

    type: str
    title: str
    status: int
    detail: str
    instance: str
    failure: Hidden[Failure] = UNSET


def problem_answer(error: Exception, refusal: Refusal, path: str) -> Response:
    """The answer that stands for an error, given what the management API makes of it."""
    refusal = refusal_of_v1(error, refusal)
    problem = Problem(
        type=f"urn:durably:problem:{refusal.kind}",
        title=HTTPStatus(refusal.status).phrase,
        status=refusal.status,
        detail=str(refusal),
        instance=path,
        failure=UNSET if refusal.failure is None else failure_of(refusal.failure),
    )
    return Response(msgspec.json.encode(problem), refusal.status, refusal.headers, media_type=MEDIA_TYPE)


def refusal_of_v1(error: Exception, refusal: Refusal) -> Refusal:
    """What this API makes of an error, given what the management API makes of it."""
    if isinstance(error, ScheduleAlreadyExistsError):
        return Refusal(409, str(error), type(error).__name__)
    if isinstance(error, UnknownFunctionError | ScheduleNotFoundError | HostNotFoundError):
        return Refusal(404, str(error), type(error).__name__)
    if refusal.status == 410:  # the original says so of what has ended; it is there, and in the wrong state
        return Refusal(409, str(refusal), refusal.kind, refusal.headers)
    return refusal
