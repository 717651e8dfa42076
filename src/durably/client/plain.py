"""Payloads as plain data, for callers without types."""

from __future__ import annotations

from typing import Any

import msgspec

from durably.core.commit import Unreadable

_decode = msgspec.json.Decoder().decode


def plain_data(payload: bytes | None) -> Any:
    """A payload as plain JSON data. One that cannot be read says so in its place: a list shows all others nevertheless.

    Functions in other languages may have payloads that are no JSON, such as where a payload store has them: those are texts.
    """
    if type(payload) is Unreadable:
        return f"(cannot be read: {payload.why})"
    if payload is None:
        return None
    try:
        return _decode(payload)
    except msgspec.DecodeError:
        return payload.decode(errors="replace")
