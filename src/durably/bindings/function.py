"""A function of an app that something else than an orchestrator calls: what fills its parameters, and the call itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Generic, NamedTuple, TypeVar

from durably.bindings.outlets import Outlets
from durably.bindings.outputs import Output, output_of
from durably.bindings.placeholders import Occasion
from durably.client import Client
from durably.errors import RegistrationError
from durably.executors.time_limit import in_thread
from durably.program.registry import name_of
from durably.program.signatures import Signature

C = TypeVar("C")

ABSENT: Final = object()
"""The value of a parameter that is left to its default."""


class Parameter(NamedTuple):
    """A parameter that wants to be filled.

    Attributes:
        name: Its name.
        kind: The type that it is annotated with; `Any` when there is none.
        place: How many come before it that are no outputs.
    """

    name: str
    kind: Any
    place: int


@dataclass(frozen=True)  # no slots: with both, Python 3.11 cannot make a `Source[Ringing](…)`
class Source(Generic[C]):
    """Something that fills parameters.

    Attributes:
        takes: Whether a parameter is for this source.
        value: What a parameter gets in one call, plain or to be awaited; or `ABSENT`.
        once: It fills one parameter only.
    """

    takes: Callable[[Parameter], bool]
    value: Callable[[C, Parameter], Any]
    once: bool = False


def is_client(parameter: Parameter) -> bool:
    """True when it is annotated with `Client`, or what is made of it."""
    return inspect.isclass(parameter.kind) and issubclass(parameter.kind, Client)


def is_any(_parameter: Parameter) -> bool:
    """True: of a source that fills what no other one does."""
    return True


@dataclass(frozen=True)  # no slots, as above
class _Plan(Generic[C]):
    """What fills which parameter."""

    inputs: list[tuple[Parameter, Source[C]]]
    outputs: list[tuple[Parameter, Output]]


class UserFunction(Generic[C]):
    """A function, and what its parameters are filled from: ``C`` is what one call is about, of which sources take values.

    Attributes:
        fn: The function.
        name: Its name.

    Args:
        fn: The function.
        name: Its own by default.
        what: What such a function is called, as it begins a sentence: ``"Queue function"``.
        act: What is done with it, for one that is none: ``"bind {} to a queue"``.
        sources: What fills its parameters; the first one that takes a parameter does.
        expected: The same for people.

    Raises:
        RegistrationError: It is no function.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str | None,
        *,
        what: str,
        act: str,
        sources: Sequence[Source[C]],
        expected: str,
    ) -> None:
        if not callable(fn) or inspect.isclass(fn):
            raise RegistrationError(f"Cannot {act.format(repr(fn))}: expected a function")
        self.fn = fn
        self.name = name_of(fn) if name is None else name
        self.title = f"{what} '{self.name}'"
        self._sources = sources
        self._expected = expected
        self._signature = Signature(fn, self.name)

    @property
    def bare(self) -> int:
        """How many parameters have no annotation: outputs have one."""
        return sum(one.annotation is one.empty for one in self._signature.parameters)

    def check(self, outlets: Outlets, known: Collection[str] | None) -> None:
        """Find out at the start of a host what would fail in the first call.

        Args:
            outlets: Where its outputs go.
            known: The names that paths of outputs may have; None when only a call shows them.

        Raises:
            RegistrationError: A parameter that nothing would fill, or an output that could never be written.
        """
        for parameter, output in self._plan.outputs:
            outlets.check(output, self._titled(parameter), known)

    async def call(self, about: C, outlets: Outlets, occasion: Occasion) -> Any:
        """Call it, a plain ``def`` in a thread, and return what it returns, once its outputs are written.

        Args:
            about: What the call is about.
            outlets: Where its outputs go.
            occasion: What their names are filled from.
        """
        opened = {
            parameter.name: outlets.open(output, self._titled(parameter), occasion)
            for parameter, output in self._plan.outputs
        }
        arguments: dict[str, Any] = {name: one.out for name, one in opened.items()}
        for parameter, source in self._plan.inputs:
            value = source.value(about, parameter)
            if inspect.isawaitable(value):
                value = await value
            if value is not ABSENT:
                arguments[parameter.name] = value
        returned = await self._called(arguments)
        if opened:
            await outlets.write(list(opened.values()), occasion.origin)
        return returned

    async def _called(self, arguments: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(self.fn):
            return await self.fn(**arguments)
        returned = await in_thread(self.fn, **arguments)
        return await returned if inspect.isawaitable(returned) else returned

    @cached_property
    def _plan(self) -> _Plan[C]:
        """What fills each parameter: at first use, since annotations may name what is defined further down."""
        plan = _Plan[C]([], [])
        for one in self._signature.parameters:
            if one.kind in {one.VAR_POSITIONAL, one.VAR_KEYWORD}:
                continue
            parameter = Parameter(one.name, self._signature.type_of(one.name), len(plan.inputs))
            output = output_of(parameter.kind, self.title, parameter.name)
            if output is not None:
                plan.outputs.append((parameter, output))
            else:
                source = self._source_of(parameter, [source for _, source in plan.inputs])
                plan.inputs.append((parameter, source))
        return plan

    def _titled(self, parameter: Parameter) -> str:
        return f"{self.title}, output '{parameter.name}',"

    def _source_of(self, parameter: Parameter, used: list[Source[C]]) -> Source[C]:
        for source in self._sources:
            if source.takes(parameter) and not (source.once and source in used):
                return source
        raise RegistrationError(
            f"{self.title} has the parameter '{parameter.name}', which nothing would fill: expected {self._expected}"
        )
