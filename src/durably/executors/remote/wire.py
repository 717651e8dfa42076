"""The messages of the Durable Task protocol, and what they are made of, to and from ours.

The stubs are those of the PyPI package `durabletask`: protobuf registers each file once in a process, so copies of our own
would clash with an app that imports the SDK (``duplicate symbol``). Nobody else imports them. Known are 1.9 to 1.12; a field
that an older one lacks reads as absent, see `has`.

Payloads are opaque texts here: nothing parses, trims or formats them anew.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple, cast

import durabletask.internal.orchestrator_service_pb2 as pb
from durabletask.internal import orchestrator_service_pb2_grpc
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue

from durably.core.events import Payload, TraceContext
from durably.errors import FailureDetails

pb_grpc: Final[Any] = cast("Any", orchestrator_service_pb2_grpc)
"""Generated, without types: the servicer, the stub, and what registers a servicer."""

__all__ = [
    "FieldHeader",
    "Message",
    "failure_message",
    "failure_of",
    "field_header",
    "has",
    "instant_of",
    "microseconds_of",
    "payload_of",
    "payload_value",
    "pb",
    "pb_grpc",
    "text_of",
    "text_value",
    "timestamp",
    "trace_message",
    "trace_of",
]

_SECOND_US: Final = 1_000_000


def has(message: Message, field: str) -> bool:
    """True when a field that may be left out is there; False also where this version of the stubs does not know it."""
    return field in message.DESCRIPTOR.fields_by_name and message.HasField(field)


def text_of(message: Message, field: str) -> str | None:
    """The text in a field of the type StringValue, or None: it is absent. Present and empty is ""."""
    if not has(message, field):
        return None
    value: StringValue = getattr(message, field)
    return value.value


def payload_of(message: Message, field: str) -> Payload:
    """The same as a payload, byte for byte."""
    text = text_of(message, field)
    return None if text is None else text.encode()


def text_value(text: str | None) -> StringValue | None:
    """A text for a field that may be left out; None leaves it out."""
    return None if text is None else StringValue(value=text)


def payload_value(payload: Payload) -> StringValue | None:
    """The same of a payload."""
    return None if payload is None else StringValue(value=payload.decode())


def instant_of(message: Message, field: str) -> int | None:
    """An instant in microseconds since 1970 UTC, or None: it is absent. What is finer than that is cut off."""
    if not has(message, field):
        return None
    value: Timestamp = getattr(message, field)
    return microseconds_of(value.seconds, value.nanos)


def microseconds_of(seconds: int, nanos: int) -> int:
    """What the two fields of a Timestamp or Duration stand for."""
    return seconds * _SECOND_US + nanos // 1_000


def timestamp(instant: int | None) -> Timestamp | None:
    """An instant as a message; None leaves it out."""
    if instant is None:
        return None
    seconds, micros = divmod(instant, _SECOND_US)
    return Timestamp(seconds=seconds, nanos=micros * 1_000)


def trace_of(message: Message, field: str) -> TraceContext | None:
    """The trace context in a field that may be left out, or None."""
    if not has(message, field):
        return None
    trace: pb.TraceContext = getattr(message, field)
    return TraceContext(trace.traceParent, text_of(trace, "traceState")) if trace.traceParent else None


def trace_message(trace: TraceContext) -> pb.TraceContext:
    """The same the other way. Older workers look for the id of the span in a field of its own."""
    span = trace.parent.split("-")[2] if trace.parent.count("-") >= 3 else ""
    return pb.TraceContext(traceParent=trace.parent, spanID=span, traceState=text_value(trace.state))


def failure_of(message: pb.TaskFailureDetails) -> FailureDetails:
    """A failure with all its causes."""
    chain = [message]
    while has(chain[-1], "innerFailure"):
        chain.append(chain[-1].innerFailure)
    inner: FailureDetails | None = None
    for one in reversed(chain):
        inner = FailureDetails(
            type=one.errorType,
            message=one.errorMessage,
            stack_trace=text_of(one, "stackTrace"),
            inner=inner,
            non_retryable=one.isNonRetriable,
            properties=_properties_of(one),
        )
    return cast("FailureDetails", inner)


def failure_message(failure: FailureDetails) -> pb.TaskFailureDetails:
    """The same the other way."""
    message = pb.TaskFailureDetails()
    cause, place = cast("FailureDetails | None", failure), message
    while cause is not None:
        place.errorType, place.errorMessage = cause.type, cause.message
        place.isNonRetriable = cause.non_retryable
        if cause.properties is not None and "properties" in place.DESCRIPTOR.fields_by_name:
            ParseDict({"properties": json.loads(cause.properties)}, place)
        if cause.stack_trace is not None:
            place.stackTrace.value = cause.stack_trace
        cause = cause.inner
        if cause is not None:
            place.innerFailure.SetInParent()
            place = place.innerFailure
    return message


def _properties_of(message: pb.TaskFailureDetails) -> str | None:
    if "properties" not in message.DESCRIPTOR.fields_by_name or not message.properties:
        return None
    found = pb.TaskFailureDetails(properties=message.properties)
    return json.dumps(MessageToDict(found)["properties"], sort_keys=True)


class FieldHeader(NamedTuple):
    """How a field of the type message begins in the bytes of the message that has it.

    Attributes:
        tag: Its number and wire type, encoded.
    """

    tag: bytes

    def of(self, message: bytes) -> bytes:
        """The field with this message in it; several of them in a row are a repeated field."""
        return self.tag + _varint(len(message)) + message


def field_header(message: type[Message], field: str) -> FieldHeader:
    """Of a field of the type message."""
    number = message.DESCRIPTOR.fields_by_name[field].number
    return FieldHeader(_varint(number << 3 | 2))


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
