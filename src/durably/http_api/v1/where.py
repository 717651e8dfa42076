"""Conditions on what is inside of payloads: ``input.customer.id=42``. A path, an operator, a value, and nothing else."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, cast

import msgspec

from durably.http_api.refusals import Refusal

ROOTS: Final = ("input", "output", "customStatus")

CHARS_MAX: Final = 500
CONDITIONS_MAX: Final = 10

_ROOT = re.compile("|".join(ROOTS))
_STEP = re.compile(r'\.([^.\[\]=!<>"]+)|\[([0-9]{1,9})\]|\["((?:[^"\\]|\\.)*)"\]')
_OPERATOR = re.compile(r"!=|<=|>=|=|<|>")

_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ORDERS: Final = frozenset(("<", "<=", ">", ">="))

_MISSING: Final = object()


class Condition(NamedTuple):
    """One of them.

    Attributes:
        root: Which payload: one of `ROOTS`.
        steps: Keys of objects and indexes of arrays.
        operator: One of ``= != < <= > >=``.
        value: A JSON value that is no object and no array.
    """

    root: str
    steps: tuple[str | int, ...]
    operator: str
    value: Any

    def holds(self, payload: Any) -> bool:
        """True when the value is there, is of the same kind, and compares."""
        found = payload
        for step in self.steps:
            found = _step(found, step)
            if found is _MISSING:
                return False
        if self.operator in _ORDERS and _kind(self.value) not in {"number", "text"}:
            return False
        if _kind(found) != _kind(self.value):
            return self.operator == "!="
        return _COMPARE[self.operator](found, self.value)


def _step(found: Any, step: str | int) -> Any:
    if isinstance(step, str) and isinstance(found, dict):
        return cast("dict[str, Any]", found).get(step, _MISSING)
    if isinstance(step, int) and isinstance(found, list):
        items = cast("list[Any]", found)
        return items[step] if step < len(items) else _MISSING
    return _MISSING


def _kind(value: Any) -> str:
    """True is not 1 here."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "flag"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "other"


def parse_conditions(texts: Iterable[str]) -> list[Condition]:
    """The conditions of a query; all of them have to hold.

    Raises:
        Refusal: 400, one is none, or there are too many.
    """
    found = [_parse(text) for text in texts]
    if len(found) > CONDITIONS_MAX:
        raise Refusal(
            400, f"There are {len(found)} conditions: expected {CONDITIONS_MAX} at most", "InvalidCondition"
        )
    return found


def _parse(text: str) -> Condition:
    if len(text) > CHARS_MAX:
        raise _invalid(text, f"{CHARS_MAX} characters at most")
    root = _ROOT.match(text)
    if root is None:
        raise _invalid(text, f"a path that begins with one of {', '.join(ROOTS)}")
    steps: list[str | int] = []
    at = root.end()
    while (step := _STEP.match(text, at)) is not None:
        steps.append(_key(text, step))
        at = step.end()
    sign = _OPERATOR.match(text, at)
    if sign is None:
        raise _invalid(text, f"'.key', '[0]', '[\"key\"]' or one of = != < <= > >= at {text[at : at + 20]!r}")
    return Condition(root.group(), tuple(steps), sign.group(), _literal(text[sign.end() :]))


def _key(text: str, step: re.Match[str]) -> str | int:
    name, index, quoted = step.groups()
    if quoted is None:
        return name if index is None else int(index)
    try:
        return msgspec.json.decode(f'"{quoted}"', type=str)
    except msgspec.DecodeError:
        raise _invalid(text, f"a JSON string instead of {quoted[:40]!r}") from None


def _literal(text: str) -> Any:
    """JSON, or text as it is."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return text
    return text if isinstance(value, dict | list) else value


def _invalid(text: str, expected: str) -> Refusal:
    return Refusal(
        400,
        f"Condition {text[:100]!r} cannot be read: expected {expected}, as in input.customer.id=42",
        "InvalidCondition",
    )


def matches(conditions: Iterable[Condition], payloads: Mapping[str, Any]) -> bool:
    """True when all hold; a payload that is not there has nothing in it."""
    return all(one.root in payloads and one.holds(payloads[one.root]) for one in conditions)
