"""All HTTP functions of an app, and the one that a request is for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from durably.errors import RegistrationError
from durably.http_api.functions.function import HttpFunction


class FunctionFound(NamedTuple):
    """The function of a request, and the parameters in its path."""

    function: HttpFunction
    parameters: dict[str, str]


class HttpFunctions:
    """Registered HTTP functions, by name."""

    def __init__(self) -> None:
        self._functions: dict[str, HttpFunction] = {}
        self._ordered: list[HttpFunction] = []

    def add(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None,
        route: str | None,
        methods: Iterable[str] | None,
        auth_level: str,
    ) -> None:
        """Register a function.

        Raises:
            RegistrationError: Its name, its route with one of its methods, or what it says of itself cannot be.
        """
        function = HttpFunction(fn, name=name, route=route, methods=methods, auth_level=auth_level)
        self._check_clash(function)
        self._put(function)

    def _put(self, function: HttpFunction) -> None:
        self._functions[function.name] = function
        self._ordered = sorted(self._functions.values(), key=lambda one: one.template.specificity)

    def _check_clash(self, new: HttpFunction) -> None:
        for old in self._functions.values():
            if old.name == new.name:
                raise RegistrationError(
                    f"HTTP function '{new.name}' is registered already: give one of them name=…"
                )
            same = old.template.text.lower() == new.template.text.lower()
            if same and (not old.methods or not new.methods or old.methods & new.methods):
                raise RegistrationError(
                    f"HTTP functions '{old.name}' and '{new.name}' have the same route '{new.template.text}' and a method in "
                    "common: expected one function for a request"
                )

    def merge(self, other: HttpFunctions) -> None:
        """Take over all functions of another app.

        Raises:
            RegistrationError: Both have the same name or route; nothing is taken over then.
        """
        for function in other:
            self._check_clash(function)
        for function in other:
            self._put(function)

    def find(self, method: str, path: str) -> FunctionFound | None:
        """The function of a request, by its path without the prefix: of several that match, the most specific one."""
        for function in self._ordered:
            if function.methods and method not in function.methods:
                continue
            parameters = function.template.match(path)
            if parameters is not None:
                return FunctionFound(function, parameters)
        return None

    def __iter__(self) -> Iterator[HttpFunction]:
        return iter(list(self._functions.values()))

    def __len__(self) -> int:
        return len(self._functions)
