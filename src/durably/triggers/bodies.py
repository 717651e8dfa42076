"""Bodies of messages: as they were sent, as plain data, and as the parameter of a function wants them."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from durably.codec.convert import Converter
from durably.core.queues import Form, QueueItem
from durably.errors import PayloadError


def kept(body: bytes) -> tuple[str, Form]:
    """What a broker delivered, exactly, as something that JSON can hold."""
    try:
        return body.decode(), "text"
    except UnicodeDecodeError:
        return binascii.b2a_base64(body, newline=False).decode(), "base64"


def sent(item: QueueItem) -> bytes:
    """The body of a message of a broker, as it was sent."""
    return base64.b64decode(item.body) if item.form == "base64" else item.body.encode()


def plain(item: QueueItem) -> Any:
    """The body as plain data: what its JSON says; if it is none, its text; if it is none either, its base64."""
    if item.form != "text":
        return item.body
    try:
        return msgspec.json.decode(item.body)
    except (msgspec.DecodeError, RecursionError):
        return item.body


def as_type(item: QueueItem, kind: Any, converter: Converter) -> Any:
    """The body as a parameter of this type wants it.

    Raises:
        PayloadError: It cannot be that.
    """
    if not item.form:
        return item.body if kind is Any else converter.decode(msgspec.json.encode(item.body), kind)
    if kind is Any:
        return plain(item)
    if kind is bytes:
        return sent(item)
    if kind is str and item.form == "text":
        return item.body
    try:
        return converter.decode(sent(item), kind)
    except PayloadError as error:
        raise PayloadError(
            f"The body of message '{item.id}' is not what its function takes: {error}; a parameter that is annotated with "
            "bytes gets any body, one with str any text, exactly as it was sent"
        ) from error
