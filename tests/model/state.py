"""What the reference model knows of instances, their executions, and what those have asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.model.words import (
    Again,
    Call,
    CallEntity,
    Child,
    Code,
    Failure,
    Lock,
    Raise,
    Sleep,
    Start,
    Wait,
)

ENDED = ("Completed", "Failed", "Canceled", "Terminated")

KINDS = {
    Call: "Task",
    Child: "SubOrchestrationInstance",
    Sleep: "Timer",
    Wait: "Task",
    CallEntity: "EntityOperation",
    Lock: "Task",
}
"""What the entries of a history begin with."""


@dataclass(eq=False)
class Action:
    seq: int
    op: Any
    done: int = 0  # 1 for what was done first in its execution, then 2, 3, …
    value: Any = None
    failure: Failure | None = None
    attempt: int = 1


@dataclass(eq=False)
class Entry:
    """Something that an execution was told: what, when, and which event of its history says so."""

    place: int
    now: float
    message: Any


@dataclass(eq=False)
class Section:
    """A critical section: which lock began it, what it locks in this order, and how many of them are locked."""

    seq: int
    entities: tuple[str, ...]
    granted: int = 0

    @property
    def complete(self) -> bool:
        return self.granted == len(self.entities)


@dataclass(eq=False)
class Execution:
    """One run of the code. `timers` holds when which action is due, `events` what came and was not waited for.

    `log` holds what the code was told, `cause` the action whose failure ended it, `former` the executions that it goes on
    for: up to which number their actions are the same. `sent` holds calls of entities that were not answered, `held_back`
    those that wait until the locks of a rewound section are back.
    """

    number: int
    code: Code
    open: dict[int, Action] = field(default_factory=dict)
    timers: dict[int, float] = field(default_factory=dict)
    events: list[Raise] = field(default_factory=list)
    history: list[tuple[str, int | None]] = field(default_factory=list)
    seq: int = 0
    completions: int = 0
    awaiting: tuple[str, list[Action]] | None = None
    again: Again | None = None
    begun: float = 0.0
    log: list[Entry] = field(default_factory=list)
    cause: int | None = None
    former: dict[Execution, int] = field(default_factory=dict)
    section: Section | None = None
    sent: set[int] = field(default_factory=set)
    held_back: list[Action] = field(default_factory=list)


@dataclass(eq=False)
class Instance:
    instance_id: str
    serial: int
    start: Start
    input: Any
    created: float
    updated: float
    ordinal: int
    start_at: float | None
    execution: Execution | None = None
    status: str = "Pending"
    output: Any = None
    custom_status: Any = None
    failure: Failure | None = None
    reason: str | None = None
    held: list[Any] = field(default_factory=list)
    carried: list[Raise] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.status in ENDED


def running(instance: Instance) -> Execution:
    assert instance.execution is not None
    return instance.execution


def is_child_of(instance: Instance, execution: Execution) -> bool:
    parent = instance.start.parent
    return parent is not None and (parent[1] is execution or parent[2] < execution.former.get(parent[1], 0))


def child_id(instance: Instance, action: Action) -> str:
    return action.op.instance_id or f"{instance.instance_id}:{instance.ordinal}:{action.seq:04x}"
