"""Durable futures: one for each kind of action that something from outside completes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from durably.codec.convert import Converter
from durably.core.events import Payload, RetryDeclined
from durably.core.external_events import EventMatcher
from durably.errors import FailureDetails, PayloadError, TaskFailedError, TaskTimeoutError
from durably.program.decisions import Decisions
from durably.program.futures import LoopFuture

Predicate = Callable[[FailureDetails], bool]


class _NoDefault:
    __slots__ = ()

    def __repr__(self) -> str:
        return "no default"


NO_DEFAULT: Final[Any] = _NoDefault()
"""Stands for a default that was not given; None is one that was."""


class DurableTask(LoopFuture):
    """A future that an event of the history completes. Await it, or pass it to asyncio and to `when_all` and the like.

    Attributes:
        decisions: The journal of the execution.
        seq: The number of the action in its execution.
        order: Its place among the completions of the execution; not set while it is open.
    """

    __slots__ = ("decisions", "order", "seq")

    decisions: Decisions
    seq: int
    order: int

    def cancel(self, msg: Any | None = None) -> bool:
        """Give the action up, and record that; False when it has completed already.

        An activity that runs is told, a child goes on, a timer is removed, a wait takes no event any more. What arrives
        later is ignored.
        """
        if self.done() or self.decisions.closed:
            return False
        self.decisions.cancel(self.seq)
        return super().cancel(msg)

    def settle(self, value: object) -> None:
        """Complete with a value."""
        self.order = self.decisions.completed = self.decisions.completed + 1
        self.set_result(value)

    def settle_error(self, error: BaseException) -> None:
        """Complete with an error."""
        self.order = self.decisions.completed = self.decisions.completed + 1
        self.decisions.errors.append(error)
        self.set_exception(error)
        # The history has the failure. "Never retrieved" would come from the garbage collector, at a random time.
        self._log_traceback = False

    def complete(self, payload: Payload) -> None:
        """See `durably.program.decisions.Open`."""
        raise NotImplementedError

    def fail(self, failure: FailureDetails) -> None:
        """See `durably.program.decisions.Open`."""
        raise NotImplementedError

    def decline(self, failure: FailureDetails) -> bool:
        """See `durably.program.decisions.Open`."""
        return False

    def fire(self) -> None:
        """See `durably.program.decisions.Open`."""
        raise NotImplementedError


class CallTask(DurableTask):
    """The result of an activity or a sub-orchestration.

    Attributes:
        name: What was called.
        type: The type of the result.
        converter: Reads the result.
        predicate: Asked about each failure that could be retried, or None.
    """

    __slots__ = ("converter", "name", "predicate", "type")

    name: str
    type: Any
    converter: Converter
    predicate: Predicate | None

    def complete(self, payload: Payload) -> None:
        if payload is None:
            self.settle(None)
            return
        try:
            value = self.converter.decode(payload, self.type)
        except PayloadError as error:
            self.settle_error(PayloadError(f"Result of '{self.name}' (#{self.seq}): {error}"))
            return
        decisions = self.decisions
        self.order = decisions.completed = decisions.completed + 1
        self.set_result(value)

    def fail(self, failure: FailureDetails) -> None:
        kind = TaskTimeoutError if failure.type == TaskTimeoutError.__name__ else TaskFailedError
        self.settle_error(kind(failure, self.name, self.seq))

    def decline(self, failure: FailureDetails) -> bool:
        """Ask the predicate of the policy. One that raises has declined; the failure of the attempt stands."""
        if self.predicate is None:
            return False
        try:
            again = bool(self.predicate(failure))
        except BaseException:  # noqa: BLE001 - user code; its failure must not hide the one it was asked about
            again = False
        if again:
            return False
        self.decisions.made.append(RetryDeclined(self.seq))
        return True


class TimerTask(DurableTask):
    """A durable timer; its result is None."""

    __slots__ = ()

    def fire(self) -> None:
        self.settle(None)


class EventTask(DurableTask):
    """The payload of an external event."""

    __slots__ = ("_converter", "_default", "_matcher", "_name", "_type")

    def expect(
        self, name: str, type_: Any, converter: Converter, matcher: EventMatcher, default: Any
    ) -> None:
        """Set what is waited for, right after the creation."""
        self._name = name
        self._type = type_
        self._converter = converter
        self._matcher = matcher
        self._default = default

    def cancel(self, msg: Any | None = None) -> bool:
        """See `DurableTask.cancel`. The next event of the name goes to the next wait."""
        if not super().cancel(msg):
            return False
        self._matcher.abandoned(self.seq)
        return True

    def complete(self, payload: Payload) -> None:
        if payload is None:
            self.settle(None)
            return
        try:
            self.settle(self._converter.decode(payload, self._type))
        except PayloadError as error:
            self.settle_error(PayloadError(f"External event '{self._name}' (#{self.seq}): {error}"))

    def fire(self) -> None:
        """The patience of the wait is at its end."""
        self._matcher.abandoned(self.seq)
        if self._default is NO_DEFAULT:
            self.settle_error(TimeoutError(f"No external event '{self._name}' arrived in time (#{self.seq})"))
        else:
            self.settle(self._default)
