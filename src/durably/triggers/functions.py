"""Registered functions of one kind of trigger."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Self, TypeVar

F = TypeVar("F")


class TriggerFunctions(Generic[F]):
    """Functions by what there may be one of: a queue, or a name."""

    def __init__(self) -> None:
        self._functions: dict[str, F] = {}

    def key_of(self, function: F) -> str:
        """What there may be one of."""
        raise NotImplementedError

    def refuse(self, function: F, taken: F) -> Exception:
        """The error for a function whose place is taken."""
        raise NotImplementedError

    def add(self, function: F) -> None:
        """Register a function.

        Raises:
            RegistrationError: Its place is taken.
        """
        taken = self._functions.get(self.key_of(function))
        if taken is not None:
            raise self.refuse(function, taken)
        self._functions[self.key_of(function)] = function

    def check_merge(self, other: Self) -> None:
        """Refuse what `merge` cannot take over.

        Raises:
            RegistrationError: Both have a function for one place.
        """
        for function in other:
            taken = self._functions.get(self.key_of(function))
            if taken is not None:
                raise self.refuse(function, taken)

    def merge(self, other: Self) -> None:
        """Take over all functions of another app."""
        for function in other:
            self.add(function)

    def of(self, key: str) -> F | None:
        """The function of a place, or None."""
        return self._functions.get(key)

    def __iter__(self) -> Iterator[F]:
        return iter(list(self._functions.values()))

    def __len__(self) -> int:
        return len(self._functions)
