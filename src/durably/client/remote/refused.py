"""Refusals of a host, as the errors that they were there."""

from __future__ import annotations

import json
from typing import Any, NoReturn, cast

from durably import errors
from durably.client.remote.answer import Answer
from durably.errors import (
    AccessDeniedError,
    DurablyError,
    EntityOperationFailedError,
    FailureDetails,
    OperationError,
    UsageError,
)

PROBLEM = "urn:durably:problem:"
"""Begins the type of a problem that ``/api/v1`` tells of."""

_OF_PARTS = (
    errors.InstanceNotFoundError
    | errors.InstanceStateError
    | errors.InstanceAlreadyExistsError
    | errors.ScheduleNotFoundError
    | errors.HostNotFoundError
    | errors.ScheduleAlreadyExistsError
)
_PARTS = {
    "instance_id": "",
    "schedule_id": "",
    "host_id": "",
    "shared": True,
    "status": "",
    "name": None,
    "operation": "",
    "expected": "",
}


def cannot(what: str) -> NoReturn:
    """Refuse what an API has no words for.

    Raises:
        UsageError: Always.
    """
    raise UsageError(
        f"{what} cannot be asked for over HTTP: the API of this host has no words for it. Use the URL of the hub itself, "
        "such as --hub sqlite:///hub.db or postgresql://host/database?hub=name"
    )


def error_of(answer: Answer, **about: str) -> DurablyError:
    """The error that an answer stands for: of the kind that it was in the host, with its text.

    Args:
        answer: The answer.
        about: What the request was about, by the names of the attributes of errors.
    """
    body = _fields(answer.body)
    kind = str(body.get("ExceptionType") or body.get("kind") or "")
    if str(body.get("type") or "").startswith(PROBLEM):
        kind = body["type"].removeprefix(PROBLEM)
    said = body.get("Message") or body.get("detail")
    return told(answer.status, kind, None if said is None else str(said), body.get("failure"), **about)


def told(status: int, kind: str, said: str | None, failure: Any = None, **about: str) -> DurablyError:
    """The same, in parts: status code, name of the error, its text, and the failure of an operation."""
    text = said or f"The host answered with status {status}"
    if status in {401, 403}:
        return AccessDeniedError(
            f"{text}. Give a key that opens it with --key or DURABLY_KEY, or a token likewise"
        )
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, DurablyError):
        return _as_told(found, text, failure, about)
    if status in {404, 405} and not kind:
        return OperationError(f"What answers is no host of durably (status {status}): check the URL")
    return UsageError(text) if 400 <= status < 429 else OperationError(text)


def _fields(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _as_told(kind: type[DurablyError], text: str, failure: Any, about: dict[str, str]) -> DurablyError:
    """An error with the text of the host; those that are made of parts get the parts that are known here."""
    if issubclass(kind, EntityOperationFailedError):
        details = failure_of(failure) or FailureDetails(kind.__name__, text)
        return EntityOperationFailedError(details, about.get("entity_id", ""), about.get("operation", ""))
    error = kind.__new__(kind)
    Exception.__init__(error, text)
    if issubclass(kind, _OF_PARTS):
        error.__dict__.update(_PARTS | about)
    return error


def failure_of(said: Any) -> FailureDetails | None:
    """A failure as ``/api/v1`` tells it."""
    if not isinstance(said, dict):
        return None
    one = cast("dict[str, Any]", said)
    return FailureDetails(
        str(one.get("type", "")),
        str(one.get("message", "")),
        one.get("stackTrace"),
        failure_of(one.get("inner")),
        tuple(one.get("bases", ())),
        bool(one.get("nonRetryable")),
    )
