"""Why a value cannot be written: finds the place within it and says what to do. Runs only when writing has failed."""

from __future__ import annotations

import dataclasses
import enum
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import msgspec

from durably.codec.foreign import KNOWN_TYPES, UnknownTypeError, to_plain
from durably.codec.form import cut
from durably.errors import PayloadError

DEPTH_MAX = 2_000
"""The path to a culprit has at most so many steps; msgspec gives up on deeper values long before."""

_pack: Final = msgspec.msgpack.Encoder(enc_hook=to_plain).encode

# MessagePack keeps NaN and infinity, JSON makes them null. A float is 0xcb and eight bytes; these exponents are theirs.
_find_non_finite: Final = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]").search


def has_non_finite(value: Any) -> bool:
    """Whether a value contains NaN or an infinity, which would silently become null.

    Asked when there is a null in the JSON text, which is common (`None`): hence the detour through MessagePack, at the speed
    of C, before Python looks at each place.
    """
    try:
        if not _find_non_finite(_pack(value)):
            return False
    except (OverflowError, ValueError, TypeError, RecursionError):
        pass  # MessagePack has no ints beyond 64 bits
    return any(isinstance(leaf, float) and not math.isfinite(leaf) for leaf in _leaves(value))


def refusal(value: Any, write: Callable[[Any], object]) -> PayloadError:
    """Say why a value cannot be written, and where.

    Args:
        value: The whole value.
        write: Tries to write a part of it; raises if it cannot.
    """
    error = _failure(value, write)
    if isinstance(error, RecursionError):
        return PayloadError(
            f"Cannot serialize value of type '{type(value).__name__}': it nests too deeply or contains itself; "
            "expected a tree of moderate depth; flatten it, or refer to parts by id"
        )
    path, culprit = _culprit(value, write)
    if isinstance(culprit, dict):
        key = _bad_key(cast("dict[Any, Any]", culprit), write)
        if not isinstance(key, str):
            return PayloadError(
                f"Cannot serialize dict key of type '{type(key).__name__}' at {path}: expected str, int, float, enum, "
                "date, datetime, Decimal or UUID keys; use one of these, or a list of pairs"
            )
        culprit = key
    return PayloadError(_reason(path, culprit, _failure(culprit, write)))


def _reason(path: str, culprit: Any, error: Exception | None) -> str:
    cls = culprit.__class__
    if isinstance(error, UnicodeEncodeError):
        return (
            f"Cannot serialize text with a lone surrogate at {path} (position {error.start}): expected text that UTF-8 can "
            "hold; clean it, for example with text.encode('utf-8', 'replace').decode()"
        )
    if isinstance(culprit, float):
        return f"Cannot serialize {float(culprit)} at {path}: expected a finite float, for JSON has no other; use None or text"
    start = f"Cannot serialize value of type '{cls.__name__}' at {path}"
    if hasattr(cls, "__await__"):
        return f"{start}: expected its result; await it first"
    if isinstance(culprit, BaseException):
        return f"{start}: expected data, and exceptions are not; raise it, or return its text"
    if isinstance(error, UnknownTypeError) or error is None:
        return f"{start}: expected {KNOWN_TYPES}; convert it first"
    return f"{start}: {type(error).__name__}: {error}; expected a value that can be written; convert it first"


def _culprit(value: Any, write: Callable[[Any], object]) -> tuple[str, Any]:
    """The innermost value that cannot be written, and the path to it. Looks in the order of writing: the first is found."""
    path = "$"
    for _ in range(DEPTH_MAX):
        for step, child in _children(value):
            if _failure(child, write) is not None:
                path, value = path + step, child
                break
        else:
            break
    return path, value


def _failure(value: Any, write: Callable[[Any], object]) -> Exception | None:
    try:
        write(value)
    except Exception as error:  # noqa: BLE001 - of `to_json` and the like: they may raise anything
        return error
    return None


def _bad_key(entries: dict[Any, Any], write: Callable[[Any], object]) -> Any:
    return next((key for key in entries if _failure({key: 0}, write) is not None), "")


def _leaves(value: Any) -> Iterator[Any]:
    waiting = [value]
    while waiting:
        value = waiting.pop()
        children = _children(value)
        if children:
            waiting.extend(child for _, child in children)
        else:
            yield value


def _children(value: Any) -> list[tuple[str, Any]]:
    """The parts of a value, each with its step of the path, as msgspec goes through them."""
    if value is None or isinstance(value, str | int | float | bytes | bytearray | memoryview):
        return []
    if isinstance(value, dict):
        entries = cast("dict[Any, Any]", value)
        return [
            (f".{cut(key)}" if isinstance(key, str) else f"[{cut(repr(key))}]", part)
            for key, part in entries.items()
        ]
    if isinstance(value, list | tuple | set | frozenset):
        return [(f"[{index}]", part) for index, part in enumerate(cast("list[Any]", value))]
    if isinstance(value, enum.Enum):
        return [("", value.value)]
    if isinstance(value, msgspec.Struct):
        return [(f".{name}", getattr(value, name, None)) for name in value.__struct_fields__]
    if dataclasses.is_dataclass(value):
        return [(f".{field.name}", getattr(value, field.name, None)) for field in dataclasses.fields(value)]
    try:
        plain = to_plain(value)
    except Exception:  # noqa: BLE001 - it is the culprit itself
        return []
    # What msgspec knows by itself comes back as it is: a datetime.
    return [] if plain.__class__ is value.__class__ else [("", plain)]
