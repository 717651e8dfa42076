"""Payloads within the JSON of answers."""

from __future__ import annotations

from typing import Final

import msgspec

from durably.core.commit import Unreadable

NULL: Final = msgspec.Raw(b"null")

_checked = msgspec.json.Decoder(msgspec.Raw).decode


def raw(payload: bytes | str | None) -> msgspec.Raw:
    """A payload as it is; one that cannot be read says so in its place.

    Functions in other languages may have payloads that are no JSON, such as where a payload store has them: those are texts.
    """
    if payload is None:
        return NULL
    if type(payload) is Unreadable:
        return msgspec.Raw(msgspec.json.encode(f"(cannot be read: {payload.why})"))
    given = payload.encode() if isinstance(payload, str) else payload
    try:
        return _checked(given)
    except msgspec.DecodeError:
        return msgspec.Raw(msgspec.json.encode(given.decode(errors="replace")))
