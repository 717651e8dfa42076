"""Canned results in the place of functions, and a record of the calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import msgspec

from durably.codec.convert import Converter
from durably.core.events import Payload
from durably.core.ids import task_key
from durably.core.messages import ActivityDone
from durably.engine.executor import ActivityCall
from durably.errors import PayloadError, UsageError
from durably.program.activity_context import ActivityContext
from durably.program.durations import microseconds
from durably.program.failures import describe
from durably.program.registry import ActivityFunction, RegisteredFunction, Registry, name_of

Function = Callable[..., Any] | str


class RecordedCall(msgspec.Struct, frozen=True):
    """A call that a test can look at.

    Attributes:
        name: Of the activity, or of the sub-orchestration.
        input: Its input, of the declared type where that is known.
        instance_id: Whose call it was.
        task_id: The number of the call in its execution.
        attempt: The first one is 1.
        delivery: Above 1 when the same attempt runs again, after a crash.
        idempotency_key: The same for all attempts of a call.
    """

    name: str
    input: Any
    instance_id: str
    task_id: int
    attempt: int
    delivery: int
    idempotency_key: str

    @classmethod
    def of(cls, call: ActivityCall, type_: Any, converter: Converter) -> RecordedCall:
        """The record of an attempt. An input that does not fit its type is plain data: a test wants to see it."""
        try:
            input = decoded(call.input, type_, converter)
        except PayloadError:
            input = decoded(call.input, Any, converter)
        key = task_key(call.instance_id, call.execution_id, call.seq)
        return cls(call.name, input, call.instance_id, call.seq, call.attempt, call.delivery, key)


class _Nothing:
    __slots__ = ()

    def __repr__(self) -> str:
        return "nothing"


NOTHING: Final[Any] = _Nothing()
"""Stands for a result that was not given; None is one that was."""


class Stub:
    """What answers in the place of a function.

    Attributes:
        name: Of the function.
        calls: The calls it answered, in order.
        times: How many it answers, or None for all.
        delay_us: Virtual time that passes before the answer, in microseconds.
    """

    def __init__(
        self,
        name: str,
        real: RegisteredFunction | None,
        converter: Converter,
        *,
        returns: Any = NOTHING,
        raises: BaseException | type[BaseException] | None = None,
        runs: Callable[..., Any] | None = None,
        times: int | None = None,
        delay: timedelta | float = 0,
    ) -> None:
        given = [returns is not NOTHING, raises is not None, runs is not None]
        if sum(given) > 1:
            raise UsageError(
                f"The mock of '{name}' has several answers: expected one of returns, raises, runs"
            )
        if times is not None and times < 1:
            raise UsageError(
                f"times of the mock of '{name}' is {times!r}: expected 1 or more, or None for all"
            )
        self.name = name
        self.calls: list[RecordedCall] = []
        self.times = times
        self.delay_us = microseconds(delay, "delay")
        self._converter = converter
        self._input_type = Any if real is None else real.input_type
        self._returns: Payload = None if returns is NOTHING or returns is None else converter.encode(returns)
        self._raises = raises
        self._runs = None if runs is None else _callable(runs, name, self._input_type)
        self._taken = 0

    def __repr__(self) -> str:
        return f"<mock of {self.name}: {len(self.calls)} calls>"

    @property
    def is_used_up(self) -> bool:
        """True when it has answered as often as it was meant to."""
        return self.times is not None and self._taken >= self.times

    def take(self) -> Stub:
        """Use it up by one."""
        self._taken += 1
        return self

    async def perform(self, call: ActivityCall) -> ActivityDone:
        """Answer a call. The delay is the business of who asks."""
        result: Payload = self._returns
        self.calls.append(RecordedCall.of(call, self._input_type, self._converter))
        try:
            if self._raises is not None:
                raise self._raises
            if self._runs is not None:
                value = self._runs.call(self._runs.arguments(call.input, self._converter), _context(call))
                if inspect.isawaitable(value):
                    value = await value
                result = None if value is None else self._converter.encode(value)
        except Exception as error:  # noqa: BLE001 - what the function would have raised
            return ActivityDone(call.execution_id, call.seq, call.attempt, None, describe(error))
        return ActivityDone(call.execution_id, call.seq, call.attempt, result)


class Stubs:
    """All stubs of one kind of function, by name. The first of a name that is not used up answers."""

    def __init__(self) -> None:
        self._by_name: dict[str, list[Stub]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def names(self) -> list[str]:
        """Of the functions that have one."""
        return list(self._by_name)

    def add(self, stub: Stub) -> Stub:
        """Put it behind those of the same name; one that would answer for ever makes room."""
        stubs = self._by_name.setdefault(stub.name, [])
        if stubs and stubs[-1].times is None:
            stubs.pop()
        stubs.append(stub)
        return stub

    def take(self, name: str) -> Stub | None:
        """The one that answers the next call, or None: the function itself does."""
        stub = next((one for one in self._by_name.get(name, ()) if not one.is_used_up), None)
        return None if stub is None else stub.take()


def name_in(registry: Registry, fn: Function) -> str:
    """The name of an activity, as orchestrators call it."""
    function = registry.activity(fn)
    return name_of(fn) if function is None else function.name


def decoded(payload: Payload, type_: Any, converter: Converter) -> Any:
    """A payload as a value; None without one."""
    return None if payload is None else converter.decode(payload, type_)


def _callable(runs: Callable[..., Any], name: str, input_type: Any) -> ActivityFunction:
    function = Registry().add_activity(runs, name=name)
    if function.input_type is Any:
        function.input_type = input_type  # a lambda gets what the function in its place would get
    return function


def _context(call: ActivityCall) -> ActivityContext:
    return ActivityContext(
        instance_id=call.instance_id,
        task_id=call.seq,
        attempt=call.attempt,
        delivery=call.delivery,
        idempotency_key=task_key(call.instance_id, call.execution_id, call.seq),
        tags=call.tags,
    )
