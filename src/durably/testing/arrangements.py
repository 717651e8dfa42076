"""What a test arranges for a hub: who answers in the place of activities, entities and services, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal

from durably.app import App
from durably.codec.convert import Converter
from durably.errors import UsageError
from durably.program.durations import microseconds
from durably.program.registry import Registry
from durably.testing.faults import ANYTHING, Fault
from durably.testing.mock_entity import Entity, RecordedOperation, entity_name_in
from durably.testing.mocking import Mocking
from durably.testing.stage import Plot
from durably.testing.stage_entities import names_of
from durably.testing.stubs import NOTHING, Function, RecordedCall, Stub, name_in


class Arrangements(Mocking):
    """The verbs of `durably.testing.DurableEnvironment` that need no hub yet; all may be used before it is open."""

    def __init__(self, app: App, plot: Plot) -> None:
        self._app = app
        self._plot = plot
        super().__init__(plot.entities, plot.http)
        if app.http is not None:
            plot.http_policy = app.http

    @property
    def functions(self) -> tuple[Registry, Converter]:
        """See `Mocking.functions`."""
        return self._app.registry, self._app.converter

    # --- stubs -------------------------------------------------------------------------------------------------------

    def mock_activity(
        self,
        fn: Function,
        *,
        returns: Any = NOTHING,
        raises: BaseException | type[BaseException] | None = None,
        runs: Callable[..., Any] | None = None,
        times: int | None = None,
        delay: timedelta | float = 0,
    ) -> Stub:
        """Let something else answer in the place of an activity.

        Several mocks of one activity answer one after the other, each as often as `times` says; behind them the activity
        itself runs again. A mock without `times` answers for ever, and a later one takes its place.

        Args:
            fn: The activity, or its name; it need not be registered.
            returns: The result; None when nothing else is given.
            raises: The exception that each attempt fails with.
            runs: Called in its place, in the same ways as an activity; plain functions run on the event loop.
            times: How many attempts it answers; all by default.
            delay: Virtual time (timedelta or seconds) that passes before it answers.

        Returns:
            The mock; its `calls` are those that it answered.

        Raises:
            UsageError: Several answers, or a value out of its range.
            PayloadError: The result cannot become JSON.
        """
        name = name_in(self._app.registry, fn)
        stub = Stub(
            name,
            self._app.registry.activity(name),
            self._app.converter,
            returns=returns,
            raises=raises,
            runs=runs,
            times=times,
            delay=delay,
        )
        return self._plot.stubs.add(stub)

    def operations(
        self, entity: Entity | None = None, operation: str | None = None
    ) -> list[RecordedOperation]:
        """The operations of entities that have begun so far, mocked ones too.

        Args:
            entity: Of the entities of this name; all by default.
            operation: Which one; each by default.
        """
        registry, converter = self._app.registry, self._app.converter
        wanted = None if entity is None else entity_name_in(registry, entity)
        return [
            RecordedOperation.of(entity_id, one, converter)
            for entity_id, one in self._plot.operations
            if wanted in {None, entity_id.name} and operation in {None, one.name}
        ]

    def calls(self, fn: Function | None = None) -> list[RecordedCall]:
        """The attempts of an activity, or of all of them, that have begun so far, mocked ones too."""
        registry, converter = self._app.registry, self._app.converter
        wanted = None if fn is None else name_in(registry, fn)
        found: list[RecordedCall] = []
        for call in self._plot.calls:
            if wanted is None or call.name == wanted:
                function = registry.activity(call.name)
                type_ = Any if function is None else function.input_type
                found.append(RecordedCall.of(call, type_, converter))
        return found

    # --- faults ------------------------------------------------------------------------------------------------------

    def kill_after(
        self,
        step: int | Function,
        *,
        when: Literal["started", "finished"] = "finished",
        times: int | None = 1,
    ) -> Fault:
        """Let the host die after a step; the next one starts by itself, and whoever waits goes on waiting.

        Args:
            step: A number n: after the n-th commit from now, before any of its effects. Or an activity (``"*"`` for any):
                its result is lost, and it runs again.
            when: Of an activity: ``"started"`` ends it where it waits for the first time, ``"finished"`` when it has
                returned.
            times: How often: after the next n commits, the next call and so on; None for always.

        Returns:
            The fault; `happened` says whether it came to that.
        """
        if isinstance(step, int):
            if isinstance(step, bool) or step < 1:
                raise UsageError(
                    f"kill_after got {step!r}: expected the number of a commit from 1, or an activity"
                )
            if step == 1 and times is None:
                raise UsageError(
                    "kill_after(1, times=None) kills every host at its first commit, in which it notes that the one before "
                    "died: expected 2 or more, or a number of times"
                )
            return self._plot.faults.add(Fault("commit", every=step, times=times))
        if when not in ("started", "finished"):
            raise UsageError(f"when is {when!r}: expected 'started' or 'finished'")
        return self._plot.faults.add(Fault(when, self._named(step), times=times))

    def duplicate(
        self, fn: Function = ANYTHING, *, operation: str | None = None, times: int | None = 1
    ) -> Fault:
        """Let an activity, or an operation of an entity, be delivered twice, as after a crash.

        An activity runs again under the same idempotency key, and its completion arrives twice. An operation, called or
        signalled, is performed again on the state as it was: what it did before never happened, but for what it did
        outside.

        Args:
            fn: The activity; any by default. With `operation`: the entity.
            operation: The operation, or ``"*"`` for each of the entity.
            times: How often; None for always.
        """
        if operation is not None:
            name = (
                ANYTHING if fn == ANYTHING else names_of(entity_name_in(self._app.registry, fn), operation)[0]
            )
            return self._plot.faults.add(Fault("operation", name, times=times))
        return self._plot.faults.add(Fault("duplicate", self._named(fn), times=times))

    def delay(self, fn: Function = ANYTHING, *, by: timedelta | float, times: int | None = None) -> Fault:
        """Let results of an activity come later, in virtual time.

        Args:
            fn: The activity; any by default.
            by: How much later (timedelta or seconds).
            times: How often; always by default.
        """
        delay_us = microseconds(by, "by", least=1)
        return self._plot.faults.add(Fault("delay", self._named(fn), times=times, delay_us=delay_us))

    def reorder(self, fn: Function = ANYTHING, *, within: timedelta | float = 1.0) -> Fault:
        """Let results of activities that are open at once come in another order, which the seed decides.

        Args:
            fn: The activity; any by default.
            within: Each comes up to so much later, in virtual time (timedelta or seconds).
        """
        delay_us = microseconds(within, "within", least=2)
        return self._plot.faults.add(Fault("reorder", self._named(fn), times=None, delay_us=delay_us))

    def _named(self, fn: Function) -> str:
        return ANYTHING if fn == ANYTHING else name_in(self._app.registry, fn)
