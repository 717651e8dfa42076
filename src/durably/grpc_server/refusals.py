"""Errors as gRPC codes, in one place.

UNAVAILABLE is kept for a host that stops or cannot reach its store: clients take it for a broken connection, send the call
again, and after five in a row connect anew. Whatever an application has asked wrongly has a code of its own.
"""

from __future__ import annotations

import logging
from typing import Final

import grpc

from durably.errors import (
    AccessDeniedError,
    DurablyError,
    EntityCorruptError,
    HistoryCorruptError,
    HubClosedError,
    HubSilentError,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    InstanceStateError,
    LeaseLostError,
    NotServedHereError,
    OperationError,
    StoreFailedError,
    StoreRefusedError,
    StoreUnavailableError,
    UsageError,
)

Code = grpc.StatusCode

_log = logging.getLogger("durably.grpc")

_TEXT_CHARS_MAX: Final = 2_000
"""The text travels in a header, of which clients take 8 KiB in all; a byte beyond ASCII takes three characters."""

_CODES: Final[tuple[tuple[type[Exception], Code], ...]] = (
    (InstanceNotFoundError, Code.NOT_FOUND),
    (InstanceAlreadyExistsError, Code.ALREADY_EXISTS),
    (InstanceStateError, Code.FAILED_PRECONDITION),
    (UsageError, Code.INVALID_ARGUMENT),
    (StoreRefusedError, Code.INVALID_ARGUMENT),
    (AccessDeniedError, Code.PERMISSION_DENIED),
    (HistoryCorruptError, Code.DATA_LOSS),
    (EntityCorruptError, Code.DATA_LOSS),
    (HubSilentError, Code.DEADLINE_EXCEEDED),  # durable, and will be dealt with: nobody should send it again
    (HubClosedError, Code.UNAVAILABLE),
    (StoreUnavailableError, Code.UNAVAILABLE),
    (StoreFailedError, Code.UNAVAILABLE),
    (NotServedHereError, Code.UNAVAILABLE),
    (LeaseLostError, Code.UNAVAILABLE),
    (TimeoutError, Code.DEADLINE_EXCEEDED),
    (OperationError, Code.INTERNAL),
)
"""The first that fits holds."""

AS_HTTP: Final = {
    Code.OK: 200,
    Code.INVALID_ARGUMENT: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.FAILED_PRECONDITION: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}
"""The status with which the HTTP API would have answered: one scale for the audit log."""


class Refusal(DurablyError):
    """An answer that is not OK.

    Attributes:
        code: The status code.
        kind: What went wrong, for the audit log.
    """

    def __init__(self, code: Code, text: str, kind: str = "") -> None:
        super().__init__(text[:_TEXT_CHARS_MAX])
        self.code = code
        self.kind = kind or code.name


def refusal_of(error: Exception) -> Refusal:
    """The refusal that stands for an error; one that is nobody's mistake but ours is logged and told as INTERNAL."""
    if isinstance(error, Refusal):
        return error
    kind = type(error).__name__
    for base, code in _CODES:
        if isinstance(error, base):
            return Refusal(code, str(error), kind)
    _log.error("A call failed inside of the host", exc_info=error)
    return Refusal(
        Code.INTERNAL, f"The host failed ({kind}); its log says more. Try again, or report it", kind
    )
