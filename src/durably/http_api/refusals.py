"""Errors as status codes. A refusal says what, which id, what was expected and what to do, in the body of the answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from durably.core.status import TERMINAL
from durably.errors import (
    DurablyError,
    EntityOperationFailedError,
    FailureDetails,
    FunctionTimeoutError,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    InstanceStateError,
    OperationError,
    StoreRefusedError,
    UsageError,
)

_log = logging.getLogger("durably.http")

RETRY_AFTER_S = 1


class Refusal(DurablyError):
    """An answer that is not a success.

    Attributes:
        status: The status code.
        kind: What went wrong, for programs.
        headers: More of the answer.
        failure: Of the operation of an entity, for who may see payloads; or None.
    """

    def __init__(
        self,
        status: int,
        text: str,
        kind: str = "BadRequest",
        headers: Mapping[str, str] | None = None,
        failure: FailureDetails | None = None,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.kind = kind
        self.headers = dict(headers or {})
        self.failure = failure


def refusal_of(error: Exception) -> Refusal:
    """The refusal that stands for an error; one that is nobody's mistake but ours is logged and told as 500."""
    kind, text = type(error).__name__, str(error)
    if isinstance(error, Refusal):
        return error
    if isinstance(error, HTTPException):  # of an HTTP function: the usual way to say so
        return Refusal(error.status_code, str(error.detail), kind, error.headers)
    if isinstance(error, InstanceNotFoundError):
        return Refusal(404, text, kind)
    if isinstance(error, InstanceAlreadyExistsError):
        return Refusal(409, text, kind)
    if isinstance(error, InstanceStateError):
        return Refusal(410 if error.status in TERMINAL and error.operation != "restart" else 409, text, kind)
    if isinstance(error, EntityOperationFailedError):
        return Refusal(422, text, kind)
    if isinstance(error, UsageError | StoreRefusedError):
        return Refusal(400, text, kind)
    if isinstance(error, FunctionTimeoutError):
        return Refusal(504, text, kind)
    if isinstance(error, OperationError):
        return Refusal(503, text, kind, {"Retry-After": str(RETRY_AFTER_S)})
    _log.error("A request failed inside of the host", exc_info=error)
    return Refusal(
        500, f"The host failed ({kind}); its log says more. Try again, or report it", "InternalError"
    )


def answer_of(refusal: Refusal) -> Response:
    """The answer, with the fields that clients of Durable Functions look for."""
    text = str(refusal)
    body = {"Message": text, "ExceptionMessage": text, "ExceptionType": refusal.kind}
    return Response(
        msgspec.json.encode(body),
        refusal.status,
        refusal.headers,
        media_type="application/json; charset=utf-8",
    )
