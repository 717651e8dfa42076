"""``{name}`` in the paths of blobs: filled from what a function was called with."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

from durably.core.ids import digest
from durably.core.timeline import instant
from durably.errors import PayloadError, RegistrationError

_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")

RANDOM: Final = "rand-guid"
TIME: Final = "datetime"


class Occasion(NamedTuple):
    """What a function is called for, as far as its outputs ask.

    Attributes:
        origin: Names it: the same for each try of one message, another one for any other message.
        at: When it came about, in microseconds since 1970 UTC.
        names: What it is called with, by name.
    """

    origin: str
    at: int
    names: Callable[[], Mapping[str, Any]]


def check_placeholders(text: str, what: str, known: Collection[str] | None) -> None:
    """Find out at the start of a host what could never be filled.

    Args:
        text: The text.
        what: Who has it, as it begins a sentence.
        known: The names that there are; None when only a call shows it.

    Raises:
        RegistrationError: Nothing would fill one, or a brace is no part of one.
    """
    if "{" in (rest := _PLACEHOLDER.sub("", text)) or "}" in rest:
        raise RegistrationError(f"{what} has braces that are no placeholder: expected {{name}}")
    there = {RANDOM, TIME, *(one.lower() for one in known or ())}
    for name in _PLACEHOLDER.findall(text):
        if not name or (known is not None and name.lower() not in there):
            expected = ", ".join(f"{{{one}}}" for one in ("rand-guid", "DateTime", *(known or ())))
            raise RegistrationError(f"{what} has {{{name}}}, which nothing would fill: expected {expected}")


def placed(text: str, what: str, occasion: Occasion) -> str:
    """The text with each placeholder filled. Names are compared without case; ``{a.b}`` is ``b`` in ``a``.

    ``{rand-guid}`` and ``{DateTime}`` are the same for each try, so that a later one writes over what an earlier one wrote.

    Raises:
        PayloadError: There is nothing of this name, or something that is no text, number or truth.
    """
    if "{" not in text:
        return text
    names = occasion.names()

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name.lower() == RANDOM:
            return str(UUID(digest(f"{occasion.origin}\n{text}"), version=4))
        if name.lower() == TIME:
            return f"{instant(occasion.at):%Y-%m-%dT%H-%M-%SZ}"
        return _text(_looked_up(names, name), name, what, names)

    return _PLACEHOLDER.sub(value, text)


def _looked_up(names: Any, name: str) -> Any:
    found: Any = names
    for part in name.split("."):
        if not isinstance(found, Mapping):
            return None
        items = cast("Mapping[Any, Any]", found)
        found = items.get(part)
        if found is None:
            found = next((value for key, value in items.items() if str(key).lower() == part.lower()), None)
    return found


def _text(value: Any, name: str, what: str, names: Mapping[str, Any]) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    there = ", ".join(sorted(map(str, names))[:20]) or "(nothing)"
    is_there = "is there, and no text or number" if value is not None else "is not there"
    raise PayloadError(
        f"{what} has {{{name}}}, which {is_there}: expected one of rand-guid, DateTime, {there[:300]}"
    )
