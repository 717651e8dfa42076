"""What the signature of a registered function says: where its input and context go, and the types of both ends."""

from __future__ import annotations

import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Final

from durably.errors import RegistrationError
from durably.program.activity_context import ActivityContext

_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

_OPTIONAL_KINDS: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def inner_function(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function that runs in the end: behind decorators, partials and callable objects."""
    inner: Any = inspect.unwrap(fn)
    while isinstance(inner, functools.partial):
        inner = inspect.unwrap(inner.func)
    return inner if inspect.isroutine(inner) else type(inner).__call__


class Signature:
    """The parameters of a function, and their types once somebody asks.

    Types are resolved at first use, because an annotation may name a class that is defined further down. One that
    cannot be resolved counts as `Any`.

    Attributes:
        parameters: In order.
    """

    __slots__ = ("_annotations", "_globals", "_locals", "_result", "parameters")

    def __init__(self, fn: Callable[..., Any], name: str) -> None:
        try:
            signature = inspect.signature(fn)
        except (TypeError, ValueError) as error:
            raise RegistrationError(
                f"Function '{name}' has no readable signature ({error}): wrap it in a def"
            ) from error
        self.parameters = list(signature.parameters.values())
        inner = inner_function(fn)
        self._annotations = {one.name: one.annotation for one in self.parameters}
        self._result: Any = signature.return_annotation
        self._globals: dict[str, Any] = getattr(inner, "__globals__", {})
        text = " ".join(one for one in (self._result, *self._annotations.values()) if isinstance(one, str))
        self._locals = _locals_around(inner, self._globals, set(re.findall(r"\w+", text))) if text else {}

    def type_of(self, parameter: str) -> Any:
        """The declared type of a parameter; `Any` when there is none or it cannot be resolved."""
        annotation = self._annotations[parameter]
        return Any if annotation is inspect.Parameter.empty else self._resolve(annotation)

    def result_type(self) -> Any:
        """The declared type of what the function returns in the end.

        `Any` also for ``-> None``: nothing is gained by refusing a value that the function returns nevertheless.
        """
        if self._result is inspect.Signature.empty:
            return Any
        result = self._resolve(self._result)
        origin = typing.get_origin(result)
        if origin in {Generator, AsyncGenerator}:
            args = typing.get_args(result)
            result = args[2] if len(args) == 3 else Any
        return Any if result is type(None) or result in _NEVER else result

    def _resolve(self, annotation: Any) -> Any:
        holder = types.SimpleNamespace(__annotations__={"it": annotation})
        try:
            resolved = typing.get_type_hints(holder, self._globals, self._locals, include_extras=True)["it"]
        except Exception:  # noqa: BLE001 - evaluating text can raise anything
            return Any
        return Any if isinstance(resolved, typing.TypeVar | str) else resolved

    def is_context(self, parameter: inspect.Parameter, kind: type) -> bool:
        """True when the parameter is annotated as a context of a kind."""
        annotation = parameter.annotation
        if annotation is inspect.Parameter.empty:
            return False
        resolved = self._resolve(annotation)
        if resolved is kind or kind in typing.get_args(resolved):
            return True
        # Its import may be for type checkers only, in which case nothing can be resolved.
        named = isinstance(annotation, str) and resolved is Any
        return named and re.search(rf"\b{kind.__name__}\b", annotation) is not None


_NEVER: Final = (typing.NoReturn, typing.Never)


def _locals_around(fn: Any, space: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The local names of the function in which `fn` is being defined; empty for a function of a module.

    Annotations that are text may name them, and they are gone later. Only those that are named are kept.
    """
    if "<locals>" not in getattr(fn, "__qualname__", ""):
        return {}
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        if frame.f_globals is space and frame.f_code.co_name != "<module>":
            return {name: value for name, value in frame.f_locals.items() if name in names}
        frame = frame.f_back
    return {}


def activity_plan(
    signature: Signature, name: str, kind: type = ActivityContext
) -> tuple[str | None, str | None, bool, bool]:
    """Where an activity, or an operation of an entity, takes its input and its context.

    Args:
        signature: Without ``self``.
        name: For people.
        kind: The class of the context.

    Returns:
        Name of the parameter for the input or None; that of the context or None; whether the context comes first;
        whether the context is keyword-only.

    Raises:
        RegistrationError: A parameter that nobody would fill.
    """
    context: inspect.Parameter | None = None
    inputs: list[inspect.Parameter] = []
    context_first = False
    for one in signature.parameters:
        if context is None and one.kind not in _OPTIONAL_KINDS and signature.is_context(one, kind):
            context, context_first = one, not inputs
        elif one.kind in _POSITIONAL and (not inputs or one.default is one.empty):
            inputs.append(one)
        elif one.kind not in _OPTIONAL_KINDS and one.default is one.empty:
            raise RegistrationError(
                f"{_WHAT[kind is ActivityContext]} '{name}' has the parameter '{one.name}', which nothing would fill: "
                f"expected (input), (input, ctx: {kind.__name__}) or (); pass more values as one dataclass or dict"
            )
    if len(inputs) > 1:
        raise RegistrationError(
            f"{_WHAT[kind is ActivityContext]} '{name}' has the parameters {', '.join(repr(one.name) for one in inputs)}: expected one input at most, "
            f"and a context that is annotated with {kind.__name__}; pass more values as one dataclass or dict"
        )
    return (
        inputs[0].name if inputs else None,
        context.name if context else None,
        context_first,
        context is not None and context.kind not in _POSITIONAL,
    )


_WHAT: Final = {True: "Activity", False: "Operation"}


def function_input(signature: Signature, what: str, context: str) -> str | None:
    """The name of the parameter that takes the input, of a function whose first one takes the context; or None.

    Args:
        signature: Of the function.
        what: The function, for people.
        context: The class of the context, for people.

    Raises:
        RegistrationError: No parameter for the context, or one that nothing would fill.
    """
    positional = [one for one in signature.parameters if one.kind in _POSITIONAL]
    if not positional and not any(one.kind is one.VAR_POSITIONAL for one in signature.parameters):
        raise RegistrationError(
            f"{what} takes no context: expected (ctx) or (ctx, input); add 'ctx: {context}' first"
        )
    unfilled = [
        one.name
        for place, one in enumerate(signature.parameters)
        if one.default is one.empty
        and one.kind not in _OPTIONAL_KINDS
        and not (place < 2 and one.kind in _POSITIONAL)
    ]
    if unfilled:
        raise RegistrationError(
            f"{what} has the parameter '{unfilled[0]}', which nothing would fill: "
            "expected (ctx) or (ctx, input); pass more values as one dataclass or dict"
        )
    return positional[1].name if len(positional) > 1 else None
