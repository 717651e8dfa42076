"""A form reads one place of a declared type from parsed JSON, where msgspec alone cannot."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeGuard

import msgspec

from durably.codec.annotations import type_name

MISFITS_SHOWN_MAX = 5
"""A message names at most this many reasons; a union of thirty members would fill the screen."""

REASON_CHARS_MAX = 200
"""A reason within a reason is cut here: unions within unions would double it at each level."""

identity: Final[Callable[[Any], int]] = object.__hash__
"""Like `id`, which is an audited event: the guard of orchestrators hooks those, at 0.3 µs a call."""

_JSON_KINDS: Final[dict[type, str]] = {dict: "object", list: "array", type(None): "null"}
_AS_PARSED: Final = (str, int, float, bool)

UNFIT = 1 << 32
"""The surplus of data that cannot fit: more than any payload has keys, so that every other member is tried before."""


class Misfit(ValueError):
    """Data that does not fit the declared type. Internal: `convert` turns it into a `PayloadError`.

    A `ValueError`, because msgspec then adds its own path when one is raised below it.

    Attributes:
        reason: What is wrong.
        path: Where, relative to the form that raised it: ``""`` or, for example, ``".items[3]"``.
    """

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(f"{reason} - at `${path}`" if path else reason)
        self.reason = reason
        self.path = path

    def below(self, step: str) -> Misfit:
        """The same, seen from one level higher. A copy: a trial keeps the original for other paths."""
        return Misfit(self.reason, step + self.path)

    @classmethod
    def of(cls, error: Exception) -> Misfit:
        """Describe what msgspec, a constructor or a user's hook raised."""
        if isinstance(error, Misfit):
            return error
        if isinstance(error, msgspec.ValidationError):
            reason, path = str(error), ""
            # A misfit raised in our hook has its own path, before the one that msgspec adds.
            while " - at `$" in reason and reason.endswith("`"):
                reason, _, place = reason.removesuffix("`").rpartition(" - at `$")
                path += place
            return Misfit(reason, path)
        return Misfit(f"{type(error).__name__}: {error}")


class Trial:
    """What was found out while one payload is read: keeps unions within unions from being tried again and again.

    Keyed by the identities of union and place; both live as long as the trial does. Without it, ``Expr = Add | Mul`` on
    data nested *n* deep would take 2^n attempts.
    """

    __slots__ = ("outcomes", "surpluses")

    def __init__(self) -> None:
        self.outcomes: dict[tuple[int, int], tuple[Any, Misfit | None]] = {}
        self.surpluses: dict[tuple[int, int], int] = {}


class Form:
    """One place of a declared type.

    Attributes:
        annotation: The declared type of the place.
        native: Reads the place by msgspec alone, which is several times as fast; None where that would fail, or be wrong.
        rank: Members of a union are tried from low to high: 0 for what has a recognizable form, 1 for bytes (base64 text
            looks like many other texts), 2 for what takes any text, any number or any object.
        misread: msgspec takes the type, but would read this place wrongly.
        custom: msgspec hands the place to our hook, which comes back here.
    """

    rank: int = 0
    misread: bool = False
    custom: bool = False

    def __init__(self, annotation: Any) -> None:
        self.annotation: Final[Any] = annotation
        self.native: Callable[[Any], Any] | None = None

    @property
    def parts(self) -> Sequence[Form]:
        """The forms of the places within this one."""
        return ()

    def read(self, data: Any, trial: Trial) -> Any:
        """Make the declared value.

        Args:
            data: What `msgspec.json.decode` gives without a type.
            trial: Of this payload.

        Raises:
            Misfit: The data does not fit.
        """
        return self.walk(data, trial) if self.native is None else self.native(data)

    @abstractmethod
    def walk(self, data: Any, trial: Trial) -> Any:
        """`read`, without the short cut through msgspec."""
        raise NotImplementedError

    def surplus(self, data: Any, trial: Trial) -> int:
        """How many keys of the data, at any depth, the declared type does not know; `UNFIT` or more if it cannot fit."""
        return 0


class Scalar(Form):
    """A place that msgspec reads and unions need not look into: text, numbers, times, enums, ``Any``, a bare ``list``."""

    def __init__(self, annotation: Any, rank: int) -> None:
        super().__init__(annotation)
        self.rank = rank
        self._as_parsed: Any = annotation if annotation in _AS_PARSED else None

    def read(self, data: Any, trial: Trial) -> Any:
        # Most fields are these; asking msgspec takes ten times as long.
        if data.__class__ is self._as_parsed or self.annotation is Any:
            return data
        return super().read(data, trial)

    def walk(self, data: Any, trial: Trial) -> Any:
        raise Misfit(f"type '{type_name(self.annotation)}' cannot be read from JSON")

    def surplus(self, data: Any, trial: Trial) -> int:
        if not is_compound(data):
            return 0
        try:
            self.read(data, trial)
        except Misfit:
            return UNFIT
        return 0


class Choice(Form):
    """One of a few known values that msgspec does not read: a `Literal` of enum members, an enum of floats or tuples."""

    def __init__(self, annotation: Any, choices: Sequence[Any], encode: Callable[[Any], bytes]) -> None:
        super().__init__(annotation)
        self._encode = encode
        # By JSON text, not by value: 1, 1.0 and True are equal as values.
        self._by_text = {encode(choice): choice for choice in choices}

    def walk(self, data: Any, trial: Trial) -> Any:
        try:
            return self._by_text[self._encode(data)]
        except KeyError:
            known = ", ".join(text.decode() for text in self._by_text)
            raise Misfit(f"Invalid value {cut(repr(data))}, expected one of {cut(known)}") from None


class Alias(Form):
    """A ``type X = …`` alias. A form of its own, because it may mean itself: ``type Json = dict[str, Json] | str``."""

    target: Form

    @property
    def parts(self) -> Sequence[Form]:
        return (self.target,)

    def walk(self, data: Any, trial: Trial) -> Any:
        return self.target.read(data, trial)

    def surplus(self, data: Any, trial: Trial) -> int:
        return self.target.surplus(data, trial)


def is_object(data: Any) -> TypeGuard[dict[str, Any]]:
    """True for a parsed JSON object."""
    return isinstance(data, dict)


def is_array(data: Any) -> TypeGuard[list[Any]]:
    """True for a parsed JSON array."""
    return isinstance(data, list)


def is_compound(data: Any) -> TypeGuard[dict[str, Any] | list[Any]]:
    """True for parsed JSON that has parts."""
    return isinstance(data, dict | list)


def cut(text: str) -> str:
    """Keep the beginning of a reason that becomes part of another."""
    return text if len(text) <= REASON_CHARS_MAX else f"{text[:REASON_CHARS_MAX]}…"


def expected(what: str, data: Any) -> Misfit:
    """The misfit of data of the wrong kind, in the words of msgspec."""
    kind: Any = data.__class__
    return Misfit(f"Expected `{what}`, got `{_JSON_KINDS.get(kind, kind.__name__)}`")
