"""Token sources: functions of the user that are asked for credentials right before a request."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from durably.errors import NonRetryableError, PayloadError, RegistrationError
from durably.program.http import TokenSource, header_problem

TokenHook = Callable[[str | None], Awaitable[str | Mapping[str, str]]]
"""Gets the resource; gives a bearer token, or the headers that are the credentials."""


class TokenSources:
    """The registered token sources of an app, by name."""

    def __init__(self) -> None:
        self._hooks: dict[str, TokenHook] = {}

    def check_name(self, name: object) -> None:
        """Raise the `RegistrationError` of a name that is none; a function, when the parentheses were forgotten."""
        if not isinstance(name, str) or not name.strip():
            raise RegistrationError(
                f"Cannot register token source {name!r}: expected a name, as in @app.token_source('vault')"
            )

    def add(self, name: str, hook: TokenHook) -> None:
        """Register one.

        Raises:
            RegistrationError: The name is taken, or it is no coroutine function.
        """
        if not inspect.iscoroutinefunction(hook):
            raise RegistrationError(
                f"Token source '{name}' is {hook!r}: expected async def of the resource, since it runs on the event loop"
            )
        if self._hooks.setdefault(name, hook) is not hook:
            raise RegistrationError(
                f"Token source '{name}' is registered twice: expected one function for a name"
            )

    def check_merge(self, other: TokenSources) -> None:
        """Raise the `RegistrationError` that `merge` would."""
        for name, hook in other._hooks.items():
            if self._hooks.get(name, hook) is not hook:
                raise RegistrationError(
                    f"Token source '{name}' is registered in both apps: expected one function for a name; rename one of them"
                )

    def merge(self, other: TokenSources) -> None:
        """Take over those of another app."""
        self._hooks = other._hooks | self._hooks

    async def headers(self, source: TokenSource) -> dict[str, str]:
        """The headers that a source gives for its resource.

        Raises:
            NonRetryableError: It is not registered.
            PayloadError: It gave nothing that can be sent.
        """
        hook = self._hooks.get(source.name)
        if hook is None:
            raise NonRetryableError(
                f"Token source '{source.name}' is not registered in this host: expected one of "
                f"{', '.join(sorted(self._hooks)) or '(none)'}; register it with @app.token_source('{source.name}')"
            )
        given: Any = await hook(source.resource)
        if isinstance(given, str):
            given = {"authorization": f"Bearer {given}"}
        if isinstance(given, Mapping):
            found = {str(name).lower(): value for name, value in cast("Mapping[Any, Any]", given).items()}
            problems = (header_problem(name, value) for name, value in found.items())
            problem = next((one for one in problems if one is not None), None)
            if problem is None:
                return found
            raise PayloadError(f"Token source '{source.name}': {problem}")
        raise PayloadError(
            f"Token source '{source.name}' gave a value of type {type(given).__name__}: expected a token as text, or headers"
        )
