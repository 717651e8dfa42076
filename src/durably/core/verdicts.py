"""What the sender of a message is told, as bytes: accepted, or the error that the owner of the instance answers with.

FORMAT: a msgpack array of the name of the error and its arguments, which are text. No code is looked up by a stored name:
names stand for errors of `durably.errors` and nothing else.
"""

from __future__ import annotations

import msgspec

from durably import errors
from durably.core.events import Payload
from durably.errors import DurablyError, FailureDetails

ACCEPTED = b""
"""The verdict on a message that had its effect, or will have it."""

_KNOWN: dict[str, type[DurablyError]] = {
    kind.__name__: kind
    for kind in (
        errors.EntityCorruptError,
        errors.HistoryCorruptError,
        errors.InstanceAlreadyExistsError,
        errors.InstanceNotFoundError,
        errors.InstanceStateError,
        errors.NonDeterminismError,
        errors.StoreRefusedError,
        errors.UnknownFunctionError,
        errors.VersionMismatchError,
        errors.UsageError,
    )
}

_RESULT = "="
"""In the place of the name of an error: the operation succeeded, and this is its result as JSON text."""

_OPERATION_FAILED = "EntityOperationFailedError"
"""Its first argument is the failure as JSON text."""

_decoder = msgspec.msgpack.Decoder(tuple[str, list[str]])


def encode_verdict(error: Exception | None, result: Payload = None) -> bytes:
    """The verdict as bytes; an error of an unknown kind travels as a `UsageError` with its text."""
    if error is None:
        return ACCEPTED if result is None else msgspec.msgpack.encode((_RESULT, [result.decode()]))
    if isinstance(error, errors.EntityOperationFailedError):
        details = msgspec.json.encode(error.details).decode()
        return msgspec.msgpack.encode((_OPERATION_FAILED, [details, error.entity_id, error.operation]))
    kind = type(error).__name__
    if _KNOWN.get(kind) is not type(error):
        return msgspec.msgpack.encode(("UsageError", [f"{kind}: {error}"]))
    arguments = error.__reduce__()[1]
    return msgspec.msgpack.encode((kind, [str(argument) for argument in arguments]))


def result_of(verdict: bytes) -> Payload:
    """The result of an operation that a verdict carries; None without one."""
    if verdict == ACCEPTED:
        return None
    kind, arguments = _decoder.decode(verdict)
    return arguments[0].encode() if kind == _RESULT else None


def decode_verdict(verdict: bytes) -> DurablyError | None:
    """The error of a verdict, or None when it says that the message was accepted."""
    if verdict == ACCEPTED:
        return None
    try:
        kind, arguments = _decoder.decode(verdict)
        if kind == _RESULT:
            return None
        if kind == _OPERATION_FAILED:
            details = msgspec.json.decode(arguments[0], type=FailureDetails)
            return errors.EntityOperationFailedError(details, arguments[1], arguments[2])
        return _KNOWN[kind](*arguments)
    except (msgspec.MsgspecError, KeyError, TypeError, IndexError):
        return errors.UsageError(
            "The hub refused it with a verdict that this version of durably cannot read; update it"
        )
