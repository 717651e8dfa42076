"""What goes into the code of an entity, and what comes out."""

from __future__ import annotations

from typing import NamedTuple

from durably.core.events import Payload
from durably.core.messages import MessageBody
from durably.errors import FailureDetails


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
    """

    name: str
    input: Payload
    caller: str | None
    now: int
    token: str
    watched: Watched | None = None


class OperationOutcome(NamedTuple):
    """What an operation did.

    Attributes:
        state: Of the entity now; as it was before when it failed. None: it does not exist.
        version: Of the form of the state.
        result: For the caller.
        failure: Why it failed, or None.
        messages: To send: target and body; empty when it failed.
    """

    state: Payload
    version: int
    result: Payload
    failure: FailureDetails | None
    messages: list[tuple[str, MessageBody]]
