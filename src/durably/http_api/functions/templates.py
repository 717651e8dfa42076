"""Route templates, as Azure Functions writes them: ``orders/{id:int}/{part?}``, ``files/{*path}``."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from durably.errors import RegistrationError

_CONSTRAINTS: Final = {
    "int": r"-?\d{1,18}",
    "long": r"-?\d{1,18}",
    "guid": r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}",
    "alpha": r"[A-Za-z]+",
    "bool": r"(?i:true|false)",
    "decimal": r"-?\d{1,18}(?:\.\d{1,18})?",
}

_PART: Final = re.compile(r"\{(\*{0,2})([A-Za-z_]\w*)(?::([A-Za-z]+))?(\?)?\}")


class RouteTemplate:
    """A compiled template. Literal parts match without regard to case, as in the original.

    Attributes:
        text: As it was written, without slashes at the ends.
        parameters: Names, in order.
    """

    def __init__(self, text: str, function: str) -> None:
        self.text = text.strip("/")
        self.parameters: list[str] = []
        self._pattern = re.compile(self._compile(function))

    def match(self, path: str) -> dict[str, str] | None:
        """The parameters in a path that came percent-encoded and without its prefix; None when it does not match."""
        found = self._pattern.fullmatch(path.strip("/"))
        if found is None:
            return None
        return {name: unquote(value) for name, value in found.groupdict().items() if value is not None}

    @property
    def specificity(self) -> tuple[int, ...]:
        """Orders templates: of two that match, the one that says more wins."""
        kinds = [_kind(segment) for segment in self.text.split("/")]
        return tuple(kinds)

    def _compile(self, function: str) -> str:
        segments = self.text.split("/") if self.text else []
        out = ""
        for place, segment in enumerate(segments):
            is_last = place == len(segments) - 1
            pattern, optional = self._segment(segment, function, is_last=is_last)
            slash = "/" if out else ""
            out += f"(?:{slash}{pattern})?" if optional else f"{slash}{pattern}"
        return out

    def _segment(self, segment: str, function: str, *, is_last: bool) -> tuple[str, bool]:
        pieces: list[str] = []
        optional, end = False, 0
        for part in _PART.finditer(segment):
            pieces.append(_literal(segment[end : part.start()], function, self.text))
            pattern, is_optional = self._part(part, segment, function, is_last=is_last)
            pieces.append(pattern)
            optional |= is_optional
            end = part.end()
        pieces.append(_literal(segment[end:], function, self.text))
        return "".join(pieces), optional

    def _part(self, part: re.Match[str], segment: str, function: str, *, is_last: bool) -> tuple[str, bool]:
        stars, name, constraint, mark = part.groups()
        where = f"Route '{self.text}' of function '{function}'"
        if name in self.parameters:
            raise RegistrationError(f"{where} names '{name}' twice: expected each parameter once")
        if constraint is not None and constraint not in _CONSTRAINTS:
            raise RegistrationError(
                f"{where} has the constraint '{constraint}': expected one of {', '.join(_CONSTRAINTS)}"
            )
        if (stars or mark) and not (is_last and part.group() == segment):
            raise RegistrationError(
                f"{where} has '{part.group()}' in the middle: expected it as the last segment"
            )
        self.parameters.append(name)
        pattern = ".*" if stars else _CONSTRAINTS.get(constraint or "", "[^/]+")
        return f"(?P<{name}>{pattern})", bool(stars or mark)


def _literal(text: str, function: str, route: str) -> str:
    if "{" in text or "}" in text:
        raise RegistrationError(
            f"Route '{route}' of function '{function}' has braces that are no parameter: expected {{name}}, {{name:int}}, "
            "{name?} or {*name}"
        )
    return f"(?i:{re.escape(text)})" if text else ""


def _kind(segment: str) -> int:
    part = _PART.search(segment)
    if part is None:
        return 0
    return 3 if part.group(1) else 2 if part.group(3) is None else 1
