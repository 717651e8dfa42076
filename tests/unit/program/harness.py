"""Drives the run of one orchestrator by hand, and replays its history after each event."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from durably.codec.convert import JsonConverter
from durably.core.events import (
    OUTCOMES,
    Action,
    Arrival,
    EventAwaited,
    EventRaised,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStarted,
    HistoryEvent,
    ParentRef,
    Rewound,
    TaskCompleted,
    TaskFailed,
    TimerCreated,
    TimerFired,
    TurnStarted,
)
from durably.core.rewind import plan_rewind
from durably.errors import FailureDetails
from durably.program.registry import Registry
from durably.program.replay import replay
from durably.program.run import ProgramOptions, Run

T0 = 1_700_000_000_000_000
"""Orchestration time of the first turn, microseconds."""

PYTHON = "{}.{}".format(*sys.version_info)

converter = JsonConverter()
encode = converter.encode


def failure(type_: str = "ValueError", message: str = "no") -> FailureDetails:
    return FailureDetails(type_, message, bases=(f"builtins.{type_}", "builtins.Exception"))


live: list[Play] = []
"""All plays of a test; its teardown closes them, as an engine closes its runs."""


class Play:
    """One execution, live. Each event is also given to a run that was brought there by a replay: they must agree."""

    def __init__(
        self,
        fn: Callable[..., Any],
        input: Any = None,
        *,
        activities: Sequence[Callable[..., Any]] = (),
        registry: Registry | None = None,
        options: ProgramOptions | None = None,
        shadow: bool = True,
        execution_id: str = "0f" * 16,
        instance_id: str = "play",
        ordinal: int = 0,
        parent: ParentRef | None = None,
        tags: dict[str, str] | None = None,
        version: str | None = None,
    ) -> None:
        self.registry = registry or Registry()
        for activity in activities:
            self.registry.add_activity(activity)
        known = self.registry.orchestrator(fn)
        self.function = known or self.registry.add_orchestrator(fn, name=fn.__name__.strip("<>"))
        self.options = options or ProgramOptions()
        self.shadow = shadow
        self.started = ExecutionStarted(
            instance_id,
            self.function.name,
            None if input is None else encode(input),
            execution_id,
            ordinal,
            T0,
            PYTHON,
            version=version,
            parent=parent,
            tags=tags,
        )
        self.now = T0
        self.history: list[HistoryEvent] = [TurnStarted(T0)]
        self.run = self.fresh()
        self.made: list[Action] = []
        live.append(self)
        self.send(self.started, at=T0)

    def fresh(self) -> Run:
        return Run(self.function, self.started, self.registry, converter, self.options)

    def replayed(self, history: Sequence[HistoryEvent] | None = None) -> Run:
        run = self.fresh()
        replay(run, self.started, self.history if history is None else history)
        return run

    def send(self, event: Arrival, *, at: int | None = None) -> list[Action]:
        """Deliver an event in a turn of its own, one second later unless told otherwise; returns what was decided."""
        if at is None:
            at = self.now + 1_000_000
        self.now = at
        twin = self.replayed() if self.shadow else None
        made = list(self.run.advance(event, at))
        if twin is not None:
            again = list(twin.advance(event, at))
            assert _comparable(again) == _comparable(made)
            twin.close()
        if self.history[-1] != TurnStarted(at):
            self.history.append(TurnStarted(at))
        self.history += [event, *made]
        self.made = made
        if self.shadow:
            self.replayed().close()
        return made

    def rewind(self) -> None:
        """Let the failed execution go on as another one, as the engine does: its history is the new one from here on."""
        plan = plan_rewind(self.started.instance_id, self.history)
        before, self.now = self.started, max(self.now, plan.ended_at) + 60_000_000
        lineage = {**plan.lineage, before.execution_id: plan.next_seq}
        rewound = Rewound(
            1, "00", None, plan.failed, plan.dropped, plan.late_seqs, self.now - plan.failed_at, lineage
        )
        self.started = msgspec.structs.replace(before, execution_id="e1" * 16, seed=before.origin)
        kept = [self.started if event is before else event for event in plan.kept]
        self.history = [*kept, TurnStarted(self.now), rewound]
        self.run = self.replayed()
        for event in plan.late:
            self.send(event, at=self.now)

    def complete(self, seq: int, value: Any = None) -> list[Action]:
        return self.send(TaskCompleted(seq, None if value is None else encode(value)))

    def fail(self, seq: int, type_: str = "ValueError", message: str = "no") -> list[Action]:
        return self.send(TaskFailed(seq, failure(type_, message)))

    def fire(self, seq: int) -> list[Action]:
        due = next(
            event.fire_at
            for event in self.history
            if isinstance(event, TimerCreated | EventAwaited) and event.seq == seq
        )
        assert due is not None
        return self.send(TimerFired(seq), at=max(due, self.now))

    def event(self, name: str, value: Any = None) -> list[Action]:
        return self.send(EventRaised(name, None if value is None else encode(value)))

    def seq(self, name: str, place: int = -1) -> int:
        """The number of an action by the name of what it calls or waits for; the last one of the name by default."""
        return [
            event.seq
            for event in self.history
            if getattr(event, "name", None) == name and hasattr(event, "seq")
        ][place]

    def timer(self, delay_s: float) -> int:
        """The number of the open timer that fires this long after the current turn."""
        due = self.now + round(delay_s * 1_000_000)
        return next(
            e.seq
            for e in self.history
            if isinstance(e, TimerCreated) and e.fire_at == due and e.seq in self.open
        )

    @property
    def open(self) -> list[int]:
        """Numbers of the actions that something may still complete."""
        return list(self.run._decisions.open)

    @property
    def outcome(self) -> Action | None:
        return next((event for event in self.history if type(event) in OUTCOMES), None)

    @property
    def result(self) -> Any:
        outcome = self.outcome
        assert isinstance(outcome, ExecutionCompleted), outcome
        return None if outcome.result is None else converter.decode(outcome.result, Any)

    @property
    def failed(self) -> FailureDetails:
        outcome = self.outcome
        assert isinstance(outcome, ExecutionFailed), outcome
        return outcome.failure

    def close(self) -> None:
        self.run.close()


def _comparable(actions: list[Action]) -> list[Any]:
    """Stack traces name lines of the standard library, and a replay may take another way to the same failure."""
    return [
        (type(one), one.failure.type, one.failure.message) if isinstance(one, ExecutionFailed) else one
        for one in actions
    ]


def kinds(actions: Sequence[HistoryEvent]) -> list[str]:
    return [type(one).__name__ for one in actions]


def close_all() -> None:
    while live:
        live.pop().close()
