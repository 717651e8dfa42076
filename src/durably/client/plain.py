"""Payloads as plain data, for callers without types."""

from __future__ import annotations

from typing import Any

import msgspec

from durably.core.commit import Unreadable

_decode = msgspec.json.Decoder().decode


def plain_data(payload: bytes | None) -> Any:
    """A payload as plain JSON data. One that cannot be read says so in its place: a list shows all others nevertheless."""
    if type(payload) is Unreadable:
        return f"(cannot be read: {payload.why})"
    return None if payload is None else _decode(payload)
