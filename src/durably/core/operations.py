"""What goes into the code of an entity, and what comes out."""

from __future__ import annotations

from typing import NamedTuple

from durably.core.events import Payload
from durably.core.messages import MessageBody
from durably.errors import FailureDetails


class Operation(NamedTuple):
    """One operation of an entity.

    Attributes:
        name: The operation.
        input: Its input.
        caller: The orchestration or entity that asks, or None for a client.
        now: The clock.
        token: Source of the random ids that the code asks for.
    """

    name: str
    input: Payload
    caller: str | None
    now: int
    token: str


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
