"""The two ends of an attempt, wherever it runs: payload to arguments, result to payload."""

from __future__ import annotations

from typing import Any

from durably.codec.convert import Converter
from durably.core.events import Payload
from durably.errors import PayloadError
from durably.program.registry import ActivityFunction


def arguments_of(function: ActivityFunction, payload: Payload, converter: Converter) -> tuple[Any, ...]:
    """The input as arguments.

    Raises:
        PayloadError: It does not fit the declared type.
    """
    try:
        return function.arguments(payload, converter)
    except PayloadError as error:
        raise PayloadError(f"Input of activity '{function.name}': {error}") from None


def payload_of(function: ActivityFunction, result: Any, converter: Converter) -> bytes:
    """The result as a payload.

    Raises:
        PayloadError: It cannot be written.
    """
    try:
        return converter.encode(result)
    except PayloadError as error:
        raise PayloadError(f"Result of activity '{function.name}': {error}") from None
