"""JSON with comments, as the files of Functions have it, with the line of each value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from durably.errors import UsageError

_TOKEN: Final = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/)
    |(?P<sign>[{}\[\]:,])
    |(?P<plain>"(?:[^"\\\n]|\\.)*"|[-+.\w]+)""",
    re.DOTALL | re.VERBOSE,
)
_DEPTH_MAX: Final = 50


class Leaf(NamedTuple):
    """A value that is no object, and where it is.

    Attributes:
        path: The keys that lead to it.
        value: Text, number, bool, None, or a list; an object that is empty.
        line: The first is 1.
    """

    path: tuple[str, ...]
    value: Any
    line: int

    @property
    def key(self) -> str:
        """The path as it is written in texts."""
        return ".".join(self.path)


class _Token(NamedTuple):
    text: str
    line: int


def read_leaves(path: Path) -> list[Leaf] | None:
    """All values of a file, in order; None when there is no such file.

    Raises:
        UsageError: It cannot be read, is not JSON, or is no object; the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error}): expected a JSON file in UTF-8") from None
    return leaves_of(text, str(path))


def leaves_of(text: str, name: str) -> list[Leaf]:
    """All values of a JSON text, in order. Of a key that is there twice, the last one counts.

    Args:
        text: The text; comments and commas behind the last item are ignored.
        name: What it is called in errors.

    Raises:
        UsageError: It is not JSON, or is no object; the message names the line.
    """
    reader = _Reader(text, name)
    if reader.next.text != "{":
        raise reader.expected("'{'")
    found = {tuple(part.lower() for part in leaf.path): leaf for leaf in reader.object(())}
    if reader.next.text:
        raise reader.expected("the end of the file")
    return list(found.values())


class _Reader:
    """Goes through the tokens of a text."""

    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self._tokens = self._all(text)
        self._depth = 0
        self.next = next(self._tokens)

    def _all(self, text: str) -> Iterator[_Token]:
        at, line = 0, 1
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                self.next = _Token(text[at], line)
                raise self.expected("JSON")
            if match.lastgroup != "space":
                yield _Token(match.group(), line)
            line += match.group().count("\n")
            at = match.end()
        while True:
            yield _Token("", line)

    def expected(self, what: str) -> UsageError:
        """The error for what comes next."""
        found = f"found {self.next.text[:40]!r}" if self.next.text else "the file ends"
        return UsageError(f"{self._name}, line {self.next.line}: expected {what}, {found}")

    def _take(self, *signs: str) -> _Token:
        taken = self.next
        if signs and taken.text not in signs:
            raise self.expected(" or ".join(repr(sign) for sign in signs))
        self.next = next(self._tokens)
        return taken

    def _is_over(self, closing: str) -> bool:
        """True behind the last item. Called behind an item."""
        if self.next.text == ",":
            self._take()
        elif self.next.text != closing:
            raise self.expected(f"',' or {closing!r}")
        return self.next.text == closing

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise self.expected(f"{_DEPTH_MAX} levels at most")

    def object(self, path: tuple[str, ...]) -> Iterator[Leaf]:
        """The values of the object that comes next."""
        self._enter()
        line = self._take("{").line
        over = empty = self.next.text == "}"
        while not over:
            if self.next.text[:1] != '"':
                raise self.expected("a key in quotes")
            key: str = self._plain()
            self._take(":")
            yield from self._leaves((*path, key))
            over = self._is_over("}")
        self._take("}")
        self._depth -= 1
        if empty and path:
            yield Leaf(path, {}, line)

    def _leaves(self, path: tuple[str, ...]) -> Iterator[Leaf]:
        if self.next.text == "{":
            yield from self.object(path)
        else:
            line = self.next.line
            yield Leaf(path, self._value(), line)

    def _value(self) -> Any:
        if self.next.text == "{":  # within a list: nothing of ours is there
            return {leaf.key: leaf.value for leaf in self.object(())}
        return self._list() if self.next.text == "[" else self._plain()

    def _list(self) -> list[Any]:
        self._enter()
        self._take("[")
        items: list[Any] = []
        over = self.next.text == "]"
        while not over:
            items.append(self._value())
            over = self._is_over("]")
        self._take("]")
        self._depth -= 1
        return items

    def _plain(self) -> Any:
        try:
            value = json.loads(self.next.text)
        except ValueError:
            raise self.expected("a value") from None
        self._take()
        return value
