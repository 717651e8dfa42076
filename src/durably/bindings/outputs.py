"""Outputs of functions: parameters that a function puts values into, which are written when it has returned."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from durably.bindings.connections import check_connection
from durably.errors import RegistrationError, UsageError

T = TypeVar("T")


class Out(Generic[T]):
    """What a function writes: into a queue or a blob, as the annotation of its parameter says.

    ``Annotated[Out[Order], QueueOutput("orders")]``. It is written when the function has returned, before its message or
    request counts as done; never when it raised. Tests make one by themselves, and look at `values`.

    Attributes:
        values: What was set, in order.

    Args:
        single: There can be no more than one.
    """

    __slots__ = ("_single", "values")

    def __init__(self, *, single: bool = False) -> None:
        self._single = single
        self.values: list[T] = []

    def set(self, value: T) -> None:
        """Write this one, in place of whatever was set before."""
        self.values = [value]

    def add(self, value: T) -> None:
        """Write this one as well: queues take several.

        Raises:
            UsageError: It is the output of a blob, which has one content.
        """
        if self._single:
            raise UsageError("A blob has one content: expected set() instead of add()")
        self.values.append(value)


@dataclass(frozen=True)
class QueueOutput:
    """Values become messages of a queue.

    Attributes:
        queue: The queue; ``%NAME%`` stands for a setting.
        connection: The setting that says which broker it is of; by default it is one of the hub.

    Raises:
        RegistrationError: The connection is no name of a setting.
    """

    queue: str
    connection: str | None = None

    def __post_init__(self) -> None:
        _check("queue", self.queue, self.connection)


@dataclass(frozen=True)
class BlobOutput:
    """A value becomes a blob: bytes as they are, text as UTF-8, anything else as JSON.

    Attributes:
        path: ``"container/name"``; ``%NAME%`` stands for a setting, ``{name}`` for what the function was called with.
        connection: The setting that says where its container is; by default it is beside the hub.

    Raises:
        RegistrationError: The connection is no name of a setting.
    """

    path: str
    connection: str | None = None

    def __post_init__(self) -> None:
        _check("path", self.path, self.connection)


Output = QueueOutput | BlobOutput


def _check(what: str, text: Any, connection: Any) -> None:
    if type(text) is not str or not text:
        raise RegistrationError(f"The {what} of an output is {text!r}: expected text")
    if connection is not None:
        check_connection(connection)


def output_of(kind: Any, title: str, parameter: str) -> Output | None:
    """The output that a parameter is annotated with; None for any other parameter.

    Raises:
        RegistrationError: It is an `Out` that does not say where to, or says so twice.
    """
    inner, said = kind, list[Any]()
    if typing.get_origin(kind) is typing.Annotated:
        inner, *said = typing.get_args(kind)
    is_out = inner is Out or typing.get_origin(inner) is Out
    outputs = [one for one in said if isinstance(one, QueueOutput | BlobOutput)]
    if is_out and len(outputs) == 1:
        return outputs[0]
    if is_out or outputs:
        raise RegistrationError(
            f"{title} has the parameter '{parameter}', which is an output that goes nowhere, or to several places: expected "
            'Annotated[Out[...], QueueOutput("...")] or Annotated[Out[...], BlobOutput("...")]'
        )
    return None
