"""What the code of one execution has asked for: the actions of this turn, and which of all are still open."""

from __future__ import annotations

from typing import NoReturn, Protocol

from durably.core.events import Action, ActionCanceled, Payload
from durably.errors import FailureDetails, InstanceEvicted, UsageError


class Open(Protocol):
    """An action that something from outside will end."""

    def complete(self, payload: Payload) -> None:
        """It succeeded."""
        ...

    def fail(self, failure: FailureDetails) -> None:
        """It failed for good."""
        ...

    def decline(self, failure: FailureDetails) -> bool:
        """An attempt of it failed; True when the code refuses another one."""
        ...

    def fire(self) -> None:
        """Its time came."""
        ...


class CriticalSection:
    """Which entities the code has locked.

    Attributes:
        entities: By id as text.
        calls: The number of the call that is under way, by entity.
        entered: All of them are locked.
    """

    __slots__ = ("calls", "entered", "entities")

    def __init__(self, entities: frozenset[str]) -> None:
        self.entities = entities
        self.calls: dict[str, int] = {}
        self.entered = False


class Decisions:
    """The journal of one execution, shared by its loop, its context and its tasks.

    Attributes:
        limit: How many numbers there are; -1 when closed, so that the common case is one comparison.
        upcoming: The sequence number that the next action will get.
        made: Actions since the last event, in the order in which they were asked for.
        open: Actions that have not ended, by sequence number; a dict, and so in call order.
        error: A failure that user code may not catch, such as too many actions; ends the execution after the turn.
        completed: How many durable tasks have completed.
        errors: What open actions failed with. Their tracebacks hold frames, which hold the tasks, which hold the errors:
            a circle that the teardown breaks.
        section: The critical section that the code is in, or waits for: what may be done is up to it.
        closed: The code is being torn down, or was: nothing is recorded any more.
        sagas: How many there have been.
        undos: How many undos of sagas have been recorded.
        failed_undos: Those that failed, as sentences.
        patches: What the code was told when it asked for a change, by change.
    """

    __slots__ = (
        "_unnumbered",
        "closed",
        "completed",
        "error",
        "errors",
        "failed_undos",
        "limit",
        "made",
        "open",
        "patches",
        "sagas",
        "section",
        "undos",
        "upcoming",
    )

    def __init__(self, actions_max: int) -> None:
        self.made: list[Action] = []
        self.open: dict[int, Open] = {}
        self.error: BaseException | None = None
        self.closed = False
        self.completed = 0
        self.errors: list[BaseException] = []
        self.sagas = 0
        self.undos = 0
        self.failed_undos: list[str] = []
        self.patches: dict[str, bool] = {}
        self.section: CriticalSection | None = None
        self.upcoming = 0
        self._unnumbered = 0
        self.limit = actions_max

    def number(self) -> int:
        """The sequence number of the next action: 0, 1, 2, … in call order.

        Raises:
            InstanceEvicted: The code is being torn down.
            UsageError: The execution has asked for too much. The execution fails even if the code catches it.
        """
        seq = self.upcoming
        if seq >= self.limit:
            self.refuse()
        self.upcoming = seq + 1
        return seq

    def record(self, action: Action) -> None:
        """Take an action without a sequence number; there may be as many of them as of the others."""
        if self._unnumbered >= self.limit:
            self.refuse()
        self._unnumbered += 1
        self.made.append(action)

    def cancel(self, seq: int) -> bool:
        """Give an open action up, and say so once; False when it is not open."""
        if self.open.pop(seq, None) is None or self.closed:
            return False
        self.made.append(ActionCanceled(seq))
        return True

    def check(self) -> None:
        """Raise `InstanceEvicted` when the code is being torn down."""
        if self.closed:
            raise evicted()

    def close(self) -> None:
        """Record nothing from now on, and let go of everything."""
        self.closed = True
        self.limit = -1
        self.made = []
        self.open = {}

    def refuse(self) -> NoReturn:
        """Raise what `number` raises."""
        if self.closed:
            raise evicted()
        if self.error is None:
            self.error = UsageError(
                f"The orchestrator asked for more than {self.limit} actions in one execution; expected fewer: "
                "go on with ctx.continue_as_new, split the work into sub-orchestrations, or raise actions_max"
            )
        raise self.error


def evicted() -> InstanceEvicted:
    """The error that every use of a context or loop gets after the teardown began."""
    return InstanceEvicted("The instance is being taken out of memory; let this exception pass")
