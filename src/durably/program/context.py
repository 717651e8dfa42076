"""What an orchestrator sees: its identity, deterministic time and chance, and the durable calls."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from durably.core.events import (
    ContinuedAsNew,
    CustomStatusSet,
    EventAwaited,
    EventSent,
    PatchApplied,
    Payload,
    TimerCreated,
)
from durably.core.ids import check_instance_id, check_text
from durably.errors import PayloadError, UsageError
from durably.program.calls import DECLARED, Function
from durably.program.combinators import AsCompleted, FanOut, WhenAll, WhenAny, futures_of
from durably.program.durations import microseconds
from durably.program.entity_calls import EntityCalls
from durably.program.futures import LoopFuture
from durably.program.http import HTTP_ACTIVITY, TokenSource
from durably.program.http_call import HttpCall, http_request
from durably.program.retry_policy import RetryPolicy
from durably.program.saga import Saga
from durably.program.tasks import NO_DEFAULT, CallTask, EventTask, TimerTask

CUSTOM_STATUS_BYTES_MAX: Final = 16 * 1024
"""As in Durable Functions: the status is read by every query, so it is kept small."""


class OrchestrationContext(EntityCalls):
    """The durable side of an orchestrator.

    Every method acts when it is called, not when its future is awaited. Futures may be awaited, passed to `asyncio`
    (`gather`, `wait_for`, `TaskGroup`, …), or cancelled, which gives the action up. An orchestrator must be deterministic:
    take time, chance and ids from here, and do I/O in activities.

    It has the attributes of `Identity` (`instance_id`, `name`, `tags` and so on), and the methods of `Calls` and
    `EntityCalls`.
    """

    __slots__ = ()

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

    # --- services ----------------------------------------------------------------------------------------------------

    def call_http(
        self,
        method: str,
        uri: str,
        content: Any = None,
        headers: Mapping[str, str] | None = None,
        token_source: TokenSource | str | None = None,
        *,
        retry: RetryPolicy | None = None,
        retry_status_codes: Collection[int] = (),
        timeout: timedelta | float | None = 100.0,
        asynchronous_pattern_enabled: bool = True,
        poll_interval: timedelta | float | None = None,
    ) -> HttpCall:
        """Call an HTTP service. Needs the extra ``durably[http]`` on the host.

        A 202 with a ``Location`` is polled with GET until another status comes: after ``Retry-After``, else after
        `poll_interval`. The waits are durable timers and occupy nothing. Each request, redirects included, is subject to the
        `HttpPolicy` of the app, and credentials never go to another origin than that of `uri`.

        Like all activities, a request is made at least once: send an ``Idempotency-Key`` (``str(ctx.new_uuid())`` stays the
        same over all attempts) with what must not happen twice.

        Args:
            method: Such as ``"POST"``.
            uri: Absolute, http or https. It is in the history, as are the headers: leave secrets to a token source.
            content: Text or bytes as they are; anything else is sent as JSON.
            headers: By name.
            token_source: A `TokenSource`, or its name: gives the credentials at the time of the request.
            retry: For each single request: when to try again after no response, a time-out, or one of the statuses below.
            retry_status_codes: Statuses that are failures: tried again by `retry`, and raised in the end.
            timeout: Each single request fails with `TaskTimeoutError` after this long (timedelta or seconds), time in a
                queue included; None means never. To bound the polling as a whole, use ``asyncio.timeout``.
            asynchronous_pattern_enabled: False returns a 202 as it is.
            poll_interval: Timedelta or seconds; by default what the `HttpPolicy` says, 30 seconds.

        Returns:
            The future of the `DurableHttpResponse`, whatever its status. It fails with `TaskFailedError` when there is no
            response (`HttpRequestError`), when the policy refuses (`HttpRefusedError`, never tried again), and for a
            status of `retry_status_codes` (`HttpStatusError`).

        Raises:
            UsageError: A value cannot be sent.
            PayloadError: The content cannot become JSON.
        """
        request = http_request(
            method,
            uri,
            content,
            headers,
            token_source,
            polls=asynchronous_pattern_enabled,
            poll_interval_us=None if poll_interval is None else microseconds(poll_interval, "poll_interval"),
            retry_status_codes=retry_status_codes,
        )

        def perform(data: Any) -> CallTask:
            return self.call_activity(HTTP_ACTIVITY, data, retry=retry, timeout=timeout, returns=Any)

        return HttpCall(self._loop, request, perform, self.create_timer)

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

    def patched(self, change_id: str) -> bool:
        """Ask whether a change of the code applies to this execution, so that old and new code stand side by side.

        True in an execution that asks for the first time, and recorded: it stays True whatever happens. False in one that
        had come past this place before it could ask. One execution gets one answer for a change, however often it asks;
        after a continue-as-new the change applies.

        Once no execution is left that took the old way, delete that way and the question: histories with and without it
        replay alike.

        Args:
            change_id: The name of the change; never use one again for another change.

        Raises:
            UsageError: The name is empty or no text.
        """
        decisions = self._decisions
        decisions.check()
        check_text(change_id, "change id")
        if not change_id:
            raise UsageError("The change id is empty: expected a name for the change of the code")
        applies = decisions.patches.get(change_id)
        if applies is None:
            applies = not self._loop.is_replaying
            if applies:
                decisions.record(PatchApplied(change_id))
            decisions.patches[change_id] = applies
        return applies

    def saga(self) -> Saga:
        """A block whose steps are undone when it ends with an error: ``async with ctx.saga() as saga``; see `Saga`."""
        self._decisions.check()
        return Saga(self._loop, self._registry, self._converter)

    def continue_as_new(
        self, input: Any = None, *, preserve_events: bool = True, version: str | None = None
    ) -> None:
        """Begin a new execution of this instance, with an empty history, when the orchestrator returns.

        What it returns is then ignored. The last call counts. If the code raises instead, the instance fails.

        Args:
            input: The input of the next execution.
            preserve_events: Events that nobody has taken move on to it.
            version: The version of the instance from then on; by default it keeps the one that it has. "" takes it away.
        """
        self._decisions.check()
        check_text(version, "version")
        payload = None if input is None else self._converter.encode(input)
        self.next_execution = ContinuedAsNew(payload, preserve_events, version)

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


def _check_event_name(name: str) -> None:
    check_text(name, "event name")
    if not name:
        raise UsageError("The event name is empty: expected the name that the other side uses")
