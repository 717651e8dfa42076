"""What orchestrators ask for, what arrives at instances, and what commands return: the words of the reference model."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

# --- what an orchestrator may ask for ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """An activity; after failure n the next attempt comes after 2^(n-1) seconds."""

    activity: str
    input: Any
    attempts: int = 1


@dataclass(frozen=True)
class Child:
    name: str
    input: Any
    instance_id: str | None = None


@dataclass(frozen=True)
class Sleep:
    seconds: float


@dataclass(frozen=True)
class Wait:
    event: str
    timeout_s: float | None = None
    default: Any = None


@dataclass(frozen=True)
class All:
    ops: list[Any]


@dataclass(frozen=True)
class FirstOf:
    """The index of the op that is done first; the others go on."""

    ops: list[Any]


@dataclass(frozen=True)
class Open:
    """Begin an op and do not wait for it."""

    op: Any


@dataclass(frozen=True)
class Join:
    """Wait for an op that was begun with `Open`, which answered with the action."""

    action: Any


@dataclass(frozen=True)
class SetStatus:
    value: Any


@dataclass(frozen=True)
class SendEvent:
    target: str
    event: str
    data: Any


@dataclass(frozen=True)
class StartOther:
    name: str
    input: Any


@dataclass(frozen=True)
class Again:
    """Continue as new, once the code returns."""

    input: Any
    keep_events: bool = True


@dataclass(frozen=True)
class CallEntity:
    entity: str
    operation: str
    input: Any = None


@dataclass(frozen=True)
class SignalEntity:
    entity: str
    operation: str
    input: Any
    delay_s: float | None = None


@dataclass(frozen=True)
class Lock:
    """Enter a critical section. Entities are in the order in which all lock them."""

    entities: tuple[str, ...]


@dataclass(frozen=True)
class Unlock:
    """Leave it."""


class Canceled(Exception):
    """Thrown into code that is asked to cancel itself."""


@dataclass(frozen=True)
class Failure:
    type: str
    message: str
    inner: Failure | None = None


class Failed(Exception):
    """Thrown into code when an action failed, `seq`; or raised by code that fails by itself."""

    def __init__(self, failure: Failure, seq: int | None = None) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.seq = seq


Code = Generator[Any, Any, Any]

# --- what arrives at an instance ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    name: str
    input: Any = None
    delay_s: float | None = None
    tags: tuple[tuple[str, str], ...] = ()
    on_existing: str = "replace_finished"
    parent: tuple[str, Any, int] | None = None


@dataclass(frozen=True)
class Raise:
    event: str
    data: Any


@dataclass(frozen=True)
class Order:
    """Verb: cancel, terminate, suspend, resume or rewind."""

    verb: str
    reason: str | None = None
    child_of: Any = None


@dataclass(frozen=True)
class Purge:
    pass


@dataclass(frozen=True)
class Restart:
    pass


@dataclass(frozen=True)
class WantedAgain:
    """A parent that was rewound wants its child: the call as it is now, and the executions in which it was the same."""

    start: Start
    former: tuple[Any, ...]


@dataclass(frozen=True)
class TaskDone:
    """An activity or a child ended."""

    execution: Any
    seq: int
    value: Any = None
    failure: Failure | None = None


@dataclass(frozen=True)
class Due:
    execution: Any
    seq: int


@dataclass(frozen=True)
class Answer:
    """An operation ended."""

    execution: Any
    seq: int
    value: Any = None
    failure: Failure | None = None


@dataclass(frozen=True)
class Granted:
    """One more entity of a critical section is locked."""

    execution: Any
    seq: int


# --- what arrives at an entity -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operate:
    """An operation: of whom to tell, if anybody; from which critical section; and not before when."""

    operation: str
    input: Any = None
    caller: tuple[str, Any, int] | None = None
    section: Any = None
    due_at: float | None = None


@dataclass(frozen=True)
class AskLock:
    section: tuple[Any, int]
    instance_id: str


@dataclass(frozen=True)
class GiveBack:
    section: tuple[Any, int]


@dataclass(frozen=True)
class Signal:
    """What a client sends."""

    operation: str
    input: Any = None
    delay_s: float | None = None


@dataclass(frozen=True)
class Ask:
    """What a client calls."""

    operation: str
    input: Any = None


Outcome = tuple[Any, ...]
"""What a command returns: ("ok",) or ("ok", value), or the name of an error and its fields."""

OK: Outcome = ("ok",)
