"""The part of an orchestrator's context that asks for other functions: activities, children, and what is only started."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from durably.core.events import ChildScheduled, StartSent, TaskScheduled
from durably.core.ids import check_tags, check_text
from durably.core.retry import RetrySpec
from durably.errors import LockingRulesViolationError, UsageError
from durably.program.durations import microseconds
from durably.program.futures import LoopFuture
from durably.program.identity import Identity
from durably.program.retry_policy import RetryPolicy
from durably.program.tasks import CallTask, Predicate


class _Declared:
    __slots__ = ()

    def __repr__(self) -> str:
        return "as declared"


DECLARED: Final[Any] = _Declared()
"""Stands for the result type that the called function declares."""

Function = Callable[..., Any] | str


class Calls(Identity):
    """Calls of registered functions. Each acts when it is made, not when its future is awaited."""

    __slots__ = ()

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
            version: The version of the child; it does not inherit that of the parent. By default that of `fn`, if its
                decorator says one, else what the host gives new instances.
            returns: The type of the result; by default what the orchestrator declares.
            tags: Set on the child.

        Returns:
            The future of its result. It fails with `TaskFailedError`, also when the id is in use.

        Raises:
            PayloadError: The input cannot become JSON.
            InvalidIdError: The id is not usable, or that of this instance or its parent.
            LockingRulesViolationError: The code is in a critical section.
            UsageError: The execution has asked for too much.
        """
        registry, converter, decisions = self._registry, self._converter, self._decisions
        if decisions.section is not None and decisions.section.entered:
            raise LockingRulesViolationError(
                f"Orchestration '{self.instance_id}' called a sub-orchestration in a critical section, which could wait for "
                "what it locks: call it before or behind the block, or start it with ctx.start_orchestration"
            )
        function = registry.orchestrator(fn, version) or registry.orchestrator(fn)
        name = registry.orchestrator_name(fn) if function is None else function.name
        if returns is DECLARED:
            returns = Any if function is None else function.result_type
        payload = None if input is None else converter.encode(input)
        spec, predicate = (None, None) if retry is None else _policy(retry)
        child = self._child_id() if instance_id is None else self._check_child(instance_id)
        check_text(version, "version")
        version = registry.asked_version(fn, version)
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
            version: Its version, as for `call_sub_orchestrator`.
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
        version = self._registry.asked_version(fn, version)
        payload = None if input is None else self._converter.encode(input)
        at = None if start_at is None else self._instant(start_at, "start_at")
        child = self._child_id() if instance_id is None else self._check_child(instance_id)
        tags = check_tags(tags)
        seq = self._decisions.number()
        self._decisions.made.append(StartSent(seq, name, child, payload, version, tags, at))
        return self._done(child)


def _policy(retry: RetryPolicy) -> tuple[RetrySpec, Predicate | None]:
    if not isinstance(retry, RetryPolicy):  # pyright: ignore[reportUnnecessaryIsInstance] - of users without a type checker
        raise UsageError(f"retry is {retry!r}: expected a RetryPolicy")
    return retry.spec(), retry.handle
