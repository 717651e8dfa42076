"""A history as bytes: events to rows and back, each row chained by checksum to the one before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from durably.core.commit import HistoryRow, Unreadable
from durably.core.events import ExecutionStarted, HistoryEvent
from durably.core.messages import CallEntity, LockEntity, MessageBody, ReleaseEntity
from durably.errors import FailureDetails, HistoryCorruptError

CHECKSUM_BYTES = 8
"""Detects rot and misplaced rows; it is no defence against somebody who can rewrite the whole chain."""

_encoder = msgspec.msgpack.Encoder()
_events = msgspec.msgpack.Decoder(list[HistoryEvent])
_body = msgspec.msgpack.Decoder(MessageBody)
_failure = msgspec.msgpack.Decoder(FailureDetails)

encode_events = _encoder.encode
"""Events of one row, as a list, to bytes."""


def chain(previous: bytes, data: bytes) -> bytes:
    """The checksum of a row: covers its data and, by way of `previous`, all rows before it."""
    return hashlib.blake2b(data, digest_size=CHECKSUM_BYTES, key=previous).digest()


def chain_start(execution_id: str) -> bytes:
    """What stands for the row before the first one: a history cannot be passed off as that of another execution."""
    return hashlib.blake2b(execution_id.encode(), digest_size=CHECKSUM_BYTES).digest()


def decode_rows(
    instance_id: str, execution_id: str, rows: Iterable[HistoryRow]
) -> tuple[list[HistoryEvent], bytes]:
    """The events of an execution and the checksum of its newest row.

    Raises:
        HistoryCorruptError: A row is missing, out of place, or its bytes are not the ones that were written.
    """
    events: list[HistoryEvent] = []
    checksum = chain_start(execution_id)
    for seq, row in enumerate(rows):
        if row.seq != seq:
            raise HistoryCorruptError(
                f"History of instance '{instance_id}' has row {row.seq} where row {seq} was expected: restore a backup"
            )
        if type(row.data) is Unreadable:
            raise HistoryCorruptError(f"History of instance '{instance_id}', row {seq}: {row.data.why}")
        checksum = chain(checksum, row.data)
        if checksum != row.checksum:
            raise HistoryCorruptError(
                f"History of instance '{instance_id}', row {seq}: the checksum does not match the bytes, "
                "so the file was damaged or changed; expected the row as it was written: restore a backup"
            )
        try:
            events.extend(_events.decode(row.data))
        except msgspec.MsgspecError as error:
            raise HistoryCorruptError(
                f"History of instance '{instance_id}', row {seq}, cannot be read ({error}): "
                "it was written by a newer version of durably, or damaged"
            ) from None
    _check_owner(instance_id, events)
    return events, checksum


def _check_owner(instance_id: str, events: list[HistoryEvent]) -> None:
    """Whoever can write rows could put a whole execution under the id of another instance."""
    for event in events[:2]:
        if type(event) is ExecutionStarted and event.instance_id != instance_id:
            raise HistoryCorruptError(
                f"History of instance '{instance_id}' is that of '{event.instance_id}', so the file was changed: "
                "restore a backup"
            )


def readable(instance_id: str, what: str, payload: bytes | None) -> bytes | None:
    """A payload of an instance row, if it could be read.

    Raises:
        HistoryCorruptError: It could not; says why.
    """
    if type(payload) is Unreadable:
        raise HistoryCorruptError(f"The {what} of instance '{instance_id}' cannot be read: {payload.why}")
    return payload


def encode_body(body: MessageBody) -> bytes:
    """A message body to the bytes of an inbox row."""
    return _encoder.encode(body)


def is_release(data: bytes | None) -> bool:
    """True when a stored message gives a lock back."""
    return data is not None and isinstance(_body_in(data), ReleaseEntity)


def lock_asked_in(data: bytes) -> str | None:
    """The orchestration that asks for a lock with a stored message; None when it asks for none, or cannot be read."""
    body = _body_in(data)
    return body.holder.instance_id if isinstance(body, LockEntity) else None


def call_in(data: bytes | None) -> CallEntity | None:
    """The operation that a stored message asks for; None when it asks for none, or cannot be read."""
    body = None if data is None else _body_in(data)
    return body if isinstance(body, CallEntity) else None


def _body_in(data: bytes) -> MessageBody | None:
    try:
        return decode_body(data)
    except (msgspec.MsgspecError, UnicodeError):
        return None


def decode_body(data: bytes) -> MessageBody:
    """The reverse of `encode_body`.

    Raises:
        msgspec.MsgspecError: The bytes are no body that this version knows.
    """
    if type(data) is Unreadable:
        raise msgspec.DecodeError(data.why)
    return _body.decode(data)


def encode_failure(failure: FailureDetails | None) -> bytes | None:
    """Failure details to the bytes of an instance row."""
    return None if failure is None else _encoder.encode(failure)


def decode_failure(data: bytes | None) -> FailureDetails | None:
    """The reverse of `encode_failure`."""
    if type(data) is Unreadable:
        return FailureDetails(HistoryCorruptError.__name__, data.why)
    return None if data is None else _failure.decode(data)
