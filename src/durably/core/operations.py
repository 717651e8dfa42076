"""What goes into the code of an entity, and what comes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from durably.core.events import Payload
from durably.core.messages import CallEntity, ChildDone, MessageBody
from durably.errors import FailureDetails

ALARM: Final = "alarm"
"""The operation that an entity is asked for when its alarm rings."""

KEEP_ALARM: Final = -1
"""`OperationOutcome.alarm`: as it was."""

NO_ALARM: Final = 0
"""`OperationOutcome.alarm`: none."""

CHILD_ENDED: Final = "orchestration_ended"
"""The operation that an entity is asked for when an orchestration ends whose parent it is; its input is a `ChildEnded`."""


class ChildEnded(msgspec.Struct, frozen=True):
    """How an orchestration ended; its result is not told.

    Attributes:
        execution_id: Of the `ParentRef` that it was started with.
        seq: The same.
        child: See `ChildDone.child`.
        failure: Why it did not complete, or None.
    """

    execution_id: str
    seq: int
    child: str | None
    failure: FailureDetails | None


class Watched(NamedTuple):
    """How an operation is known while it is watched, and after it killed its process.

    Attributes:
        message: Id of its message; empty: of a client of this process, who would die with it.
        mark: See `durably.core.entities.mark`.
        delivery: How often it runs, this time included.
    """

    message: str
    mark: str
    delivery: int


class Operation(NamedTuple):
    """One operation of an entity.

    Attributes:
        name: The operation.
        input: Its input.
        caller: The orchestration or entity that asks, or None for a client.
        now: The clock.
        token: Source of the random ids that the code asks for.
        watched: Set while it is noted what runs.
        begun: To be called when its code begins, if that is not at once; or None.
    """

    name: str
    input: Payload
    caller: str | None
    now: int
    token: str
    watched: Watched | None = None
    begun: Callable[[], None] | None = None


class OperationOutcome(NamedTuple):
    """What an operation did.

    Attributes:
        state: Of the entity now; as it was before when it failed. None: it does not exist.
        version: Of the form of the state.
        result: For the caller.
        failure: Why it failed, or None.
        messages: To send: target and body; empty when it failed.
        alarm: When the entity is to be asked for `ALARM`: an instant, `NO_ALARM` or `KEEP_ALARM`. It has one at most. What a
            failed operation says of it counts too.
    """

    state: Payload
    version: int
    result: Payload
    failure: FailureDetails | None
    messages: list[tuple[str, MessageBody]]
    alarm: int = KEEP_ALARM


def child_ended(body: ChildDone) -> CallEntity:
    """The operation by which an entity learns of the end of an orchestration that it started as its parent."""
    told = ChildEnded(body.execution_id, body.seq, body.child, body.failure)
    return CallEntity(CHILD_ENDED, msgspec.json.encode(told))
