"""What an orchestrator sees: its identity, deterministic time and chance, and the durable calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Final

from durably.core.events import (
    ChildScheduled,
    ContinuedAsNew,
    CustomStatusSet,
    EventAwaited,
    EventSent,
    Payload,
    StartSent,
    TaskScheduled,
    TimerCreated,
)
from durably.core.ids import check_instance_id, check_tags, check_text
from durably.core.retry import RetrySpec
from durably.errors import PayloadError, UsageError
from durably.program.combinators import AsCompleted, FanOut, WhenAll, WhenAny, futures_of
from durably.program.durations import microseconds
from durably.program.futures import LoopFuture
from durably.program.identity import Identity
from durably.program.retry_policy import RetryPolicy
from durably.program.tasks import NO_DEFAULT, CallTask, EventTask, Predicate, TimerTask

CUSTOM_STATUS_BYTES_MAX: Final = 16 * 1024
"""As in Durable Functions: the status is read by every query, so it is kept small."""


class _Declared:
    __slots__ = ()

    def __repr__(self) -> str:
        return "as declared"


DECLARED: Final[Any] = _Declared()
"""Stands for the result type that the called function declares."""

Function = Callable[..., Any] | str


class OrchestrationContext(Identity):
    """The durable side of an orchestrator.

    Every method acts when it is called, not when its future is awaited. Futures may be awaited, passed to `asyncio`
    (`gather`, `wait_for`, `TaskGroup`, …), or cancelled, which gives the action up. An orchestrator must be deterministic:
    take time, chance and ids from here, and do I/O in activities.

    It has the attributes of `Identity`: `instance_id`, `name`, `tags` and so on.
    """

    __slots__ = ()

    # --- calls -------------------------------------------------------------------------------------------------------

    def call_activity(
        self,
        fn: Function,
        input: Any = None,
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
        returns: Any = DECLARED,
        tags: dict[str, str] | None = None,
    ) -> CallTask:
        """Run an activity.

        Args:
            fn: The activity, or its name.
            input: Its input, any value that becomes JSON.
            retry: When to try again; by default the first failure is final.
            timeout: Each attempt fails with `TaskTimeoutError` after this long (timedelta or seconds).
            returns: The type of the result; by default what the activity declares.
            tags: Shown with the call, and given to the activity.

        Returns:
            The future of its result. It fails with `TaskFailedError`.

        Raises:
            PayloadError: The input cannot become JSON.
            UsageError: A value is out of its range, or the execution has asked for too much.
        """
        # Spelled out: this is the hot path, and each call of a function costs a sixtieth of it.
        registry, loop, converter, decisions = self._registry, self._loop, self._converter, self._decisions
        try:
            function = registry.activity_of.get(fn) or registry.activity(fn)
        except TypeError:  # without a hash; it has no name either
            function = None
        if function is None:
            name, declared = registry.activity_name(fn), Any
        else:
            name, declared = function.name, function.result_type
        payload = None if input is None else converter.encode(input)
        spec, predicate = (None, None) if retry is None else _policy(retry)
        timeout_us = None if timeout is None else microseconds(timeout, "timeout", least=1)
        tags = check_tags(tags) if tags else None
        seq = decisions.upcoming
        if seq >= decisions.limit:
            decisions.refuse()
        decisions.upcoming = seq + 1
        task = CallTask(loop=loop)
        loop.number = task.number = loop.number + 1
        task.decisions = decisions
        task.seq = seq
        task.name = name
        task.type = declared if returns is DECLARED else returns
        task.converter = converter
        task.predicate = predicate
        decisions.made.append(TaskScheduled(seq, name, payload, spec, timeout_us, tags))
        decisions.open[seq] = task
        return task

    def call_sub_orchestrator(
        self,
        fn: Function,
        input: Any = None,
        *,
        instance_id: str | None = None,
        retry: RetryPolicy | None = None,
        version: str | None = None,
        returns: Any = DECLARED,
        tags: dict[str, str] | None = None,
    ) -> CallTask:
        """Run another orchestration as a child of this one.

        Args:
            fn: The orchestrator, or its name.
            input: Its input.
            instance_id: The id of the child; by default one made of the parent's id and the number of the call.
            retry: When to try again, each time as a fresh instance.
            version: The version of the child; it does not inherit that of the parent.
            returns: The type of the result; by default what the orchestrator declares.
            tags: Set on the child.

        Returns:
            The future of its result. It fails with `TaskFailedError`, also when the id is in use.

        Raises:
            PayloadError: The input cannot become JSON.
            InvalidIdError: The id is not usable, or that of this instance or its parent.
            UsageError: The execution has asked for too much.
        """
        registry, converter, decisions = self._registry, self._converter, self._decisions
        function = registry.orchestrator(fn, version) or registry.orchestrator(fn)
        name = registry.orchestrator_name(fn) if function is None else function.name
        if returns is DECLARED:
            returns = Any if function is None else function.result_type
        payload = None if input is None else converter.encode(input)
        spec, predicate = (None, None) if retry is None else _policy(retry)
        child = self._child_id() if instance_id is None else self._check_child(instance_id)
        check_text(version, "version")
        tags = check_tags(tags)
        seq = decisions.number()
        task = self._open(CallTask(loop=self._loop), seq)
        task.name = name
        task.type = returns
        task.converter = converter
        task.predicate = predicate
        decisions.made.append(ChildScheduled(seq, name, child, payload, version, spec, tags))
        return task

    def start_orchestration(
        self,
        fn: Function,
        input: Any = None,
        *,
        instance_id: str | None = None,
        version: str | None = None,
        tags: dict[str, str] | None = None,
        start_at: datetime | timedelta | float | None = None,
    ) -> LoopFuture:
        """Start another orchestration, and do not wait for it. It has no parent; its failure is not told.

        Args:
            fn: The orchestrator, or its name.
            input: Its input.
            instance_id: Its id; by default one made of this instance's id and the number of the call.
            version: Its version.
            tags: Set on it.
            start_at: Not before this instant (naive means UTC), or this long from now.

        Returns:
            The future of its id, already done.

        Raises:
            PayloadError: The input cannot become JSON.
            InvalidIdError: The id is not usable, or that of this instance or its parent.
            UsageError: The execution has asked for too much.
        """
        name = self._registry.orchestrator_name(fn)
        check_text(version, "version")
        payload = None if input is None else self._converter.encode(input)
        at = None if start_at is None else self._instant(start_at, "start_at")
        child = self._child_id() if instance_id is None else self._check_child(instance_id)
        tags = check_tags(tags)
        seq = self._decisions.number()
        self._decisions.made.append(StartSent(seq, name, child, payload, version, tags, at))
        return self._done(child)

    # --- events and timers -------------------------------------------------------------------------------------------

    def wait_for_external_event(
        self,
        name: str,
        type: Any = None,
        *,
        timeout: timedelta | float | None = None,
        default: Any = NO_DEFAULT,
    ) -> EventTask:
        """Wait for an event that somebody raises to this instance.

        Names are compared without case. An event that came before the wait was kept for it; the earliest event goes to
        the earliest wait. A wait that was cancelled or timed out takes none.

        Args:
            name: The event.
            type: The type of its payload; by default plain JSON data.
            timeout: Give up after this long (timedelta or seconds).
            default: The result after the time-out; without one, it fails with `TimeoutError`.

        Returns:
            The future of the payload.
        """
        _check_event_name(name)
        loop, decisions = self._loop, self._decisions
        fire_at = None if timeout is None else loop.now + microseconds(timeout, "timeout")
        seq = decisions.number()
        wanted = Any if type is None else type
        task = self._open(EventTask(loop=loop), seq)
        task.expect(name, wanted, self._converter, self._matcher, default)
        decisions.made.append(EventAwaited(seq, name, fire_at))
        event = self._matcher.awaited(seq, name)
        if event is not None:
            del decisions.open[seq]
            task.complete(event.input)
        return task

    def send_event(self, instance_id: str, name: str, data: Any = None) -> LoopFuture:
        """Raise an external event to another instance. One that is unknown or finished ignores it.

        Returns:
            A future that is already done.

        Raises:
            PayloadError: The data cannot become JSON.
            InvalidIdError: The id is not usable.
        """
        _check_event_name(name)
        payload: Payload = None if data is None else self._converter.encode(data)
        target = check_instance_id(instance_id)
        seq = self._decisions.number()
        self._decisions.made.append(EventSent(seq, target, name, payload))
        return self._done(None)

    def create_timer(self, at_or_delay: datetime | timedelta | float) -> TimerTask:
        """Set a durable timer.

        Args:
            at_or_delay: The instant (naive means UTC), or the delay (timedelta or seconds). One in the past fires at
                once, in a turn of its own.

        Returns:
            A future that is done when the timer fired, never early. Cancelling it removes the timer.
        """
        fire_at = self._instant(at_or_delay, "create_timer")
        decisions = self._decisions
        seq = decisions.number()
        decisions.made.append(TimerCreated(seq, fire_at))
        return self._open(TimerTask(loop=self._loop), seq)

    # --- many at once ------------------------------------------------------------------------------------------------

    def when_all(self, tasks: Iterable[Awaitable[Any]]) -> WhenAll:
        """Wait for every task, also after a failure.

        Returns:
            The future of all results in the order given. It fails as the first task failed, in history order.
        """
        return WhenAll(self._loop, futures_of(tasks))

    def when_any(self, tasks: Iterable[Awaitable[Any]]) -> WhenAny:
        """Wait for the first task to complete; the others go on and may be awaited later.

        Returns:
            The future of the winning task object, the first in history order.

        Raises:
            UsageError: There are no tasks.
        """
        return WhenAny(self._loop, futures_of(tasks))

    def as_completed(self, tasks: Iterable[Awaitable[Any]]) -> AsCompleted:
        """Iterate over tasks as they complete, in history order; see `AsCompleted`."""
        return AsCompleted(self._loop, futures_of(tasks))

    def map(
        self,
        fn: Function,
        items: Iterable[Any],
        *,
        max_in_flight: int = 100,
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
        returns: Any = DECLARED,
    ) -> FanOut:
        """Call an activity once per item, with a limit on how many calls are open.

        Args:
            fn: The activity, or its name.
            items: The inputs. An iterator is drawn from as calls end, so it must be deterministic.
            max_in_flight: Open calls at most.
            retry: For each call.
            timeout: For each attempt.
            returns: The type of each result.

        Returns:
            The future of the results, in the order of the items. After a failure no more calls are made, and it fails
            once those in flight are done.
        """

        def call(item: Any) -> CallTask:
            return self.call_activity(fn, item, retry=retry, timeout=timeout, returns=returns)

        return FanOut(self._loop, call, items, max_in_flight)

    # --- the instance ------------------------------------------------------------------------------------------------

    def continue_as_new(self, input: Any = None, *, preserve_events: bool = True) -> None:
        """Begin a new execution of this instance, with an empty history, when the orchestrator returns.

        What it returns is then ignored. The last call counts. If the code raises instead, the instance fails.

        Args:
            input: The input of the next execution.
            preserve_events: Events that nobody has taken move on to it.
        """
        self._decisions.check()
        payload = None if input is None else self._converter.encode(input)
        self.next_execution = ContinuedAsNew(payload, preserve_events)

    def set_custom_status(self, value: Any) -> None:
        """Show a status to those who look at the instance. It stays until it is set again, also over continue-as-new.

        Raises:
            PayloadError: The value cannot become JSON, or is larger than 16 KiB as JSON.
        """
        self._decisions.check()
        payload = None if value is None else self._converter.encode(value)
        if payload is not None and len(payload) > CUSTOM_STATUS_BYTES_MAX:
            raise PayloadError(
                f"Custom status of instance '{self.instance_id}' has {len(payload)} bytes as JSON: expected "
                f"{CUSTOM_STATUS_BYTES_MAX} at most; keep large data in results and activities"
            )
        self._decisions.record(CustomStatusSet(payload))


def _policy(retry: RetryPolicy) -> tuple[RetrySpec, Predicate | None]:
    if not isinstance(retry, RetryPolicy):  # pyright: ignore[reportUnnecessaryIsInstance] - of users without a type checker
        raise UsageError(f"retry is {retry!r}: expected a RetryPolicy")
    return retry.spec(), retry.handle


def _check_event_name(name: str) -> None:
    check_text(name, "event name")
    if not name:
        raise UsageError("The event name is empty: expected the name that the other side uses")
