"""Values of ``host.json`` as texts of our variables: spans of time, numbers, switches, choices."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

Section: TypeAlias = Mapping[str, Any]
"""The values beside the one that is converted, and itself, by their keys."""

Conversion: TypeAlias = Callable[[Any, Section], str]
"""Makes the text of a variable of a value; raises `ValueError` with what was expected."""

_SPAN: Final = re.compile(r"(?:(\d{1,5})\.)?(\d{1,2}):(\d{1,2})(?::(\d{1,2}(?:\.\d{1,7})?))?")


def beside(section: Section, key: str, default: Any) -> Any:
    """The value of a key in a section; keys are compared without case."""
    return next((value for name, value in section.items() if name.lower() == key.lower()), default)


def whole(value: Any, section: Section) -> str:
    """A whole number above 0."""
    number = _number(value)
    if number is None or number < 1 or number != int(number):
        raise ValueError("a whole number above 0")
    return str(int(number))


def unbounded(value: Any, section: Section) -> str:
    """A whole number above 0, or -1 for no limit, which becomes 0."""
    return "0" if _number(value) == -1 else whole(value, section)


def milliseconds(value: Any, section: Section) -> str:
    """A number of milliseconds, in seconds."""
    number = _number(value)
    if number is None or number <= 0:
        raise ValueError("a number of milliseconds above 0")
    return f"{number / 1_000:g}"


def span(value: Any, section: Section) -> str:
    """A span of time ``{days}.{hours}:{minutes}:{seconds}``, in seconds."""
    match = _SPAN.fullmatch(value.strip()) if type(value) is str else None
    if match is None:
        raise ValueError("a span of time such as 00:05:00")
    days, hours, minutes = (int(part or 0) for part in match.groups()[:3])
    seconds = ((days * 24 + hours) * 60 + minutes) * 60 + float(match.group(4) or 0)
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def limit(value: Any, section: Section) -> str:
    """A span of time above 0; -1 is no limit, which becomes 0."""
    if str(value).strip() in {"-1", "-00:00:01"}:
        return "0"
    text = span(value, section)
    if text == "0":
        raise ValueError("a span of time such as 00:05:00, or -1 for no limit")
    return text


def text(value: Any, section: Section) -> str:
    """Any text."""
    if type(value) is not str:
        raise ValueError("text")
    return value


def choice(**choices: str) -> Conversion:
    """One of some words, compared without case; each stands for one of ours."""

    def convert(value: Any, section: Section) -> str:
        for word, ours in choices.items():
            if str(value).lower() == word.lower():
                return ours
        raise ValueError(" or ".join(repr(word) for word in choices))

    return convert


def texts(*known: str) -> Conversion:
    """A list of some words, compared without case: in lower case, with commas."""

    def convert(value: Any, section: Section) -> str:
        words: list[Any] = value if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownVariableType]
        lower = [str(word).lower() for word in words]
        if not set(lower) <= {word.lower() for word in known}:
            raise ValueError(f"a list of some of {', '.join(known)}")
        return ",".join(lower)

    return convert


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
