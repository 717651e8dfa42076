"""Paths of blobs with parts that have names: ``container/{name}.{ext}``. Braces that are meant are doubled."""

from __future__ import annotations

import re
from typing import Final

from durably.bindings.blobs.names import check_container
from durably.errors import RegistrationError

_TOKEN: Final = re.compile(r"(\{\{|\}\})|\{([^{}]*)\}|([{}])|([^{}]+)")
_PART: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class BlobPattern:
    """Says which blobs are meant, and what the named parts of their names are.

    Each part is as long as can be, and at least one character; it may hold ``/``. Names are matched from their end, literal
    by literal, so that no name of anybody's choice takes long.

    Attributes:
        path: As it was given.
        container: The container.
        parts: Names of the parts, in their order.
        prefix: Names of blobs begin with it.

    Raises:
        RegistrationError: It is no such path.
    """

    def __init__(self, path: str, where: str) -> None:
        if type(path) is not str:
            raise RegistrationError(
                f"{where} has the path {path!r}: expected text such as 'container/{{name}}'"
            )
        self.path = path
        container, _, rest = path.partition("/")
        try:
            self.container = check_container(container)
        except ValueError as error:
            raise RegistrationError(f"{where} has the path {path!r}: {error}") from None
        self.parts: list[str] = []
        # Literals before, between and behind the parts.
        self._literals: list[str] = [""]
        for token in _TOKEN.finditer(rest):
            doubled, part, stray, text = token.groups()
            if stray is not None:
                raise RegistrationError(
                    f"{where} has the path {path!r} with a single {stray!r}: expected a part such as {{name}}, or the brace doubled"
                )
            if part is None:
                self._literals[-1] += text or doubled[0]
                continue
            self._add(part, where)
        if not rest:
            self._literals = ["", ""]
            self.parts = [""]
        self.prefix = self._literals[0]

    def _add(self, part: str, where: str) -> None:
        if not _PART.fullmatch(part) or part in self.parts:
            raise RegistrationError(
                f"{where} has the path {self.path!r} with the part {{{part}}}: expected each once, of letters, digits and '_'"
            )
        if self.parts and not self._literals[-1]:
            raise RegistrationError(
                f"{where} has the path {self.path!r} with nothing between {{{self.parts[-1]}}} and {{{part}}}: expected "
                "something that says where the one ends"
            )
        self.parts.append(part)
        self._literals.append("")

    def match(self, name: str) -> dict[str, str] | None:
        """The parts of a name; None for a blob that is not meant."""
        first, last = self._literals[0], self._literals[-1]
        if not self.parts:
            return {} if name == first else None
        if not name.startswith(first) or not name.endswith(last):
            return None
        end = len(name) - len(last)
        found: dict[str, str] = {}
        for part, before in zip(reversed(self.parts[1:]), reversed(self._literals[1:-1]), strict=True):
            at = name.rfind(before, len(first), end - 1)
            if at < 0:
                return None
            found[part] = name[at + len(before) : end]
            end = at
        if end <= len(first):
            return None
        found[self.parts[0]] = name[len(first) : end]
        return {part: found[part] for part in self.parts if part}
