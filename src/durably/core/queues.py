"""Queues on the hub itself: a message is an instance of an orchestrator that every host has.

So a message has what an instance has: it is durable when it was sent, its attempts and delays are recorded, it can be looked
at, and one that was sent twice under one id is there once.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from durably.core.ids import INSTANCE_ID_CHARS_MAX, check_instance_id
from durably.errors import InvalidIdError, InvalidTextError

QUEUE: Final = "durably:queue"
"""The orchestrator of a message."""

BOUND: Final = "durably:bound"
"""The event that tells a message of a queue without function that there is one now."""

POISON: Final = "-poison"
"""Behind the name of a queue: where its messages go that failed too often."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9]|-(?=[a-z0-9])){2,62}")


class QueueItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message as its instance has it for input.

    Attributes:
        queue: The queue.
        id: Unique in the queue.
        body: What was sent, as plain JSON data.
        inserted_at: When it was sent, in microseconds since 1970 UTC.
        failure: Of a message in a poison queue: why it is there.
        tries: How often it was handed out before its instance continued as new.
    """

    queue: str
    id: str
    body: Any
    inserted_at: int
    failure: str | None = None
    tries: int = 0


def check_queue(name: str) -> str:
    """The name of a queue, which is as Azure Storage has them.

    Raises:
        InvalidTextError: It is not usable.
    """
    if type(name) is not str or not _NAME.fullmatch(name):
        raise InvalidTextError(
            f"Queue name {name!r} is not usable: expected 3 to 63 lower-case letters, digits and single hyphens inside"
        )
    return name


def activity_of(queue: str) -> str:
    """The activity that hands messages to the function of a queue; a host has it if it has such a function."""
    return f"{QUEUE}:{queue}"


def prefix_of(queue: str) -> str:
    """How the ids of the instances of a queue begin."""
    return f"queue:{queue}:"


def message_instance(queue: str, message_id: str) -> str:
    """The id of the instance that is a message.

    Raises:
        InvalidIdError: The id of the message is not usable.
    """
    instance_id = prefix_of(queue) + message_id
    if not message_id or len(instance_id) > INSTANCE_ID_CHARS_MAX:
        most = INSTANCE_ID_CHARS_MAX - len(prefix_of(queue))
        raise InvalidIdError(
            f"Message id {message_id[:40]!r} has {len(message_id)} characters: expected 1 to {most} in queue '{queue}'"
        )
    return check_instance_id(instance_id)
