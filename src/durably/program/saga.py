"""Sagas: steps, and what undoes them when a later one fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from durably.codec.convert import Converter
from durably.core.events import CompensationStarted, Payload, SagaEnded, TaskScheduled, UndoAdded, UndoEnded
from durably.core.retry import RetrySpec
from durably.errors import DurablyError, PayloadError, UsageError
from durably.program.decisions import Decisions
from durably.program.failures import describe
from durably.program.loop import ProgramLoop
from durably.program.registry import Registry
from durably.program.retry_policy import RetryPolicy
from durably.program.tasks import CallTask, Predicate

Function = Callable[..., Any] | str
Policy = tuple[RetrySpec | None, Predicate | None]


class _InputOfStep:
    __slots__ = ()

    def __repr__(self) -> str:
        return "the input of the step"


INPUT_OF_STEP: Final[Any] = _InputOfStep()
"""Stands for the input of an undo that was given none: that of its step."""


class StepTask(CallTask):
    """The result of a step. What undoes it is recorded with the result, whether anybody awaits it or not.

    Attributes:
        add_undo: Records the undo, given its input as a payload.
        given: That payload, unless it comes of the result.
        of_result: Makes the payload of the result, or None. What it raises is what the step fails with.
    """

    __slots__ = ("add_undo", "given", "of_result")

    add_undo: Callable[[Payload], None]
    given: Payload
    of_result: Callable[[Any], Payload] | None

    def complete(self, payload: Payload) -> None:
        if self.of_result is None:
            self.add_undo(self.given)
            super().complete(payload)
            return
        try:
            result = None if payload is None else self.converter.decode(payload, self.type)
        except PayloadError:
            super().complete(payload)  # says so
            return
        try:
            self.add_undo(self.of_result(result))
        except Exception as error:  # noqa: BLE001 - user code
            self.settle_error(error)
            return
        self.settle(result)


class Saga:
    """Steps that are undone, the newest first, when the block ends with an error. Made by `ctx.saga()`.

    Undone is what has completed: after a failure, a time-out and a cancellation alike. A step that failed, or was given
    up while it ran, is not: its activity leaves nothing behind, or tidies up. Undos run one after the other, and
    a cancellation does not stop them. One that fails for good does not keep the others from running; it is a note on the
    error, and named in the `failure` of the instance. Then the error of the block is raised again.

    Undos are recorded, so they are not lost with the instance: those of one that is terminated run as a child,
    ``{id}:undo``. An undo runs at least once, as all activities do.

    Attributes:
        failed: What undos failed with, in the order in which they ran.
    """

    def __init__(self, loop: ProgramLoop, registry: Registry, converter: Converter) -> None:
        self.failed: list[DurablyError] = []
        self._loop = loop
        self._decisions: Decisions = loop.decisions
        self._registry = registry
        self._converter = converter
        self._number: int | None = None
        self._is_open = False
        self._steps: list[CallTask] = []
        self._undos: list[tuple[UndoAdded, Predicate | None]] = []

    def step(
        self,
        fn: Function,
        input: Any = None,
        *,
        undo: Function | None = None,
        undo_input: Callable[[Any], Any] | object = INPUT_OF_STEP,
        retry: RetryPolicy | None = None,
        undo_retry: RetryPolicy | None = None,
    ) -> CallTask:
        """Run an activity, and note what undoes it once it has completed.

        Args:
            fn: The activity, or its name.
            input: Its input.
            undo: The activity that undoes it, or its name. None: there is nothing to undo.
            undo_input: Its input: a value, or a function of the result of the step. By default the input of the step.
            retry: When to try the step again; by default one attempt.
            undo_retry: When to try its undo again; by default as the step.

        Returns:
            The future of its result. It fails with `TaskFailedError`.

        Raises:
            PayloadError: An input cannot become JSON.
            UsageError: The saga is not open, a value is out of its range, or the execution has asked for too much.
        """
        self._decisions.check()
        if not self._is_open:
            raise UsageError(
                "A step was asked of a saga that is not open: expected it inside of async with ctx.saga() as saga"
            )
        payload = self._payload(input)
        policy = _policy(retry, "retry")
        undo_policy = policy if undo_retry is None else _policy(undo_retry, "undo_retry")
        task: CallTask
        if undo is None:
            task = CallTask(loop=self._loop)
        else:
            task = StepTask(loop=self._loop)
            task.add_undo = partial(self._add, self._registry.activity_name(undo), undo_policy)
            task.of_result = None
            if undo_input is INPUT_OF_STEP:
                task.given = payload
            elif callable(undo_input):
                task.of_result = partial(self._made, undo_input)
            else:
                task.given = self._payload(undo_input)
        function = self._registry.activity(fn)
        task.type = Any if function is None else function.result_type
        self._call(task, self._registry.activity_name(fn), payload, policy)
        self._steps.append(task)
        return task

    def adopt(self, name: str, input: Any, retry: RetrySpec | None) -> None:
        """Note what undoes something that another instance has done. For the engine."""
        self._add(name, (retry, None), self._payload(input))

    # --- the block ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._number is not None:
            raise UsageError("A saga was entered twice: expected a new ctx.saga() for each block")
        self._number = self._decisions.sagas = self._decisions.sagas + 1
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._decisions.closed or isinstance(error, GeneratorExit):
            return
        self._is_open = False
        cause = error
        try:
            await self._steps_end(error)
        except BaseException as late:
            if self._decisions.closed:
                raise
            cause = late
        if self._undos:
            if cause is not None:
                cause = await self._compensate(cause)
            self._decisions.record(SagaEnded(self._saga))
        if cause is not None and cause is not error:
            raise cause

    async def _steps_end(self, error: BaseException | None) -> None:
        """Wait for steps that nobody awaited. A cancellation gives them up; their first failure is one of the block."""
        steps, self._steps = [step for step in self._steps if not step.done()], []
        if isinstance(error, asyncio.CancelledError):
            for step in steps:
                step.cancel()
            return
        try:
            for step in steps:
                try:
                    await step
                except DurablyError:
                    if error is None:
                        raise
        finally:
            for step in steps:
                step.cancel()

    # --- undoing -----------------------------------------------------------------------------------------------------

    async def _compensate(self, cause: BaseException) -> BaseException:
        """Run the undos in a task of their own; returns what to raise: the cause, or a cancellation that came meanwhile."""
        failure = msgspec.structs.replace(describe(cause), stack_trace=None, inner=None)  # its end has them
        self._decisions.record(CompensationStarted(self._saga, failure))
        undoing = self._loop.create_task(self._undo_all(cause))
        canceled: asyncio.CancelledError | None = None
        while not undoing.done():
            try:
                await asyncio.shield(undoing)
            except asyncio.CancelledError as error:
                canceled = error
        if canceled is None or isinstance(cause, asyncio.CancelledError):
            return cause
        canceled.__cause__ = cause
        return canceled

    async def _undo_all(self, cause: BaseException) -> None:
        for undo, predicate in reversed(self._undos):
            task = CallTask(loop=self._loop)
            task.type = Any
            self._call(task, undo.name, undo.input, (undo.retry, predicate))
            try:
                await task
            except DurablyError as error:
                self.failed.append(error)
                note = f"undo '{undo.name}' failed: {error}"
                cause.add_note(note)
                self._decisions.failed_undos.append(note)
            self._decisions.record(UndoEnded(undo.number))

    # --- records -----------------------------------------------------------------------------------------------------

    @property
    def _saga(self) -> int:
        return self._number or 0

    def _payload(self, value: Any) -> Payload:
        return None if value is None else self._converter.encode(value)

    def _made(self, undo_input: Callable[[Any], Any], result: Any) -> Payload:
        return self._payload(undo_input(result))

    def _add(self, name: str, policy: Policy, payload: Payload) -> None:
        decisions, (spec, predicate) = self._decisions, policy
        decisions.undos += 1
        undo = UndoAdded(decisions.undos, self._saga, name, payload, spec)
        decisions.record(undo)
        self._undos.append((undo, predicate))

    def _call(self, task: CallTask, name: str, payload: Payload, policy: Policy) -> None:
        """What `call_activity` does with an input that is a payload already."""
        loop, decisions, (spec, predicate) = self._loop, self._decisions, policy
        seq = decisions.number()
        loop.number = task.number = loop.number + 1
        task.decisions = decisions
        task.seq = seq
        task.name = name
        task.converter = self._converter
        task.predicate = predicate
        decisions.made.append(TaskScheduled(seq, name, payload, spec))
        decisions.open[seq] = task


def _policy(retry: RetryPolicy | None, what: str) -> Policy:
    if retry is None:
        return None, None
    if not isinstance(retry, RetryPolicy):  # pyright: ignore[reportUnnecessaryIsInstance] - of users without a type checker
        raise UsageError(f"{what} is {retry!r}: expected a RetryPolicy")
    return retry.spec(), retry.handle
