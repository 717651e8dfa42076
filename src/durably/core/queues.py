"""Queues on the hub itself: a message is an instance of an orchestrator that every host has.

So a message has what an instance has: it is durable when it was sent, its attempts and delays are recorded, it can be looked
at, and one that was sent twice under one id is there once.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final, Literal

import msgspec

from durably.core.ids import INSTANCE_ID_CHARS_MAX, check_instance_id, check_storage_name
from durably.errors import InvalidIdError

QUEUE: Final = "durably:queue"
"""The orchestrator of a message."""

BOUND: Final = "durably:bound"
"""The event that tells a message of a queue without function that there is one now."""

PUT_ASIDE: Final = "poison"
"""What the instance of a message returns that failed too often."""

ASIDE_SOON: Final = "is being put aside"
"""The custom status of one whose copy may be in the poison queue of a broker already."""

POISON: Final = "-poison"
"""Behind the name of a queue: where its messages go that failed too often."""

_BROKER_NAME_CHARS_MAX: Final = 80
"""A longer name of a queue becomes a digest where it is part of an id, so that there is room for ids of messages."""

_DIGEST = re.compile(r"~[0-9a-f]{32}")
"""What a text becomes that is too long; so one that looks like this becomes one, too."""

_LIKE_A_NUMBER = re.compile(r"(?::|%(?:25)*3A)(?=[0-9]+$)")

_ESCAPED = re.compile(r"[%:/\\#?\x00-\x1f\x7f-\x9f\ud800-\udfff]")

Form = Literal["", "text", "base64"]
"""How a body is kept: as plain JSON data; what a broker delivered, exactly, as text or as base64 of its bytes."""


class QueueItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message as its instance has it for input.

    Attributes:
        queue: The queue.
        id: Unique in the queue.
        body: What was sent, as plain JSON data.
        inserted_at: When it was sent, in microseconds since 1970 UTC.
        failure: Of a message in a poison queue: why it is there. Of one of a broker: why it is to be put there.
        tries: How often it was handed out before its instance continued as new.
        form: How the body is kept.
    """

    queue: str
    id: str
    body: Any
    inserted_at: int
    failure: str | None = None
    tries: int = 0
    form: Form = ""


def check_queue(name: str) -> str:
    """The name of a queue, which is as Azure Storage has them.

    Raises:
        InvalidTextError: It is not usable.
    """
    return check_storage_name(name, "Queue name")


def activity_of(queue: str) -> str:
    """The activity that hands messages to the function of a queue; a host has it if it has such a function."""
    return f"{QUEUE}:{queue}"


def prefix_of(queue: str) -> str:
    """How the ids of the instances of a queue begin."""
    return f"queue:{queue}:"


def broker_queue(connection: str, queue: str) -> str:
    """What a queue of a broker is called on the hub. No queue of the hub itself has a dot."""
    return f"{connection}.{_in_an_id(queue, _BROKER_NAME_CHARS_MAX)}"


def is_aside_soon(item: QueueItem) -> bool:
    """Whether the poison queue of its broker is to get it, or has it already: its function is done with it."""
    return item.failure is not None and not item.queue.endswith(POISON)


def is_of_broker(instance_id: str) -> bool:
    """Whether the instance of a message is one of a broker's queue."""
    return "." in instance_id.split(":", 2)[1]


def start_id(queue: str, message_id: str) -> str:
    """The id of what the function of a message starts first.

    Behind it comes ``:2`` for the second one. So an id that ends like that has its colon written as ``%3A``, and one that
    ends like this gets ``%25`` for its per cent: two starts never have one id. Those of brokers have no colon anyway.
    """
    stem = message_instance(queue, message_id)[len("queue:") :]
    if "." in queue:
        return stem
    return f"{queue}:" + _LIKE_A_NUMBER.sub(
        lambda found: "%3A" if found[0] == ":" else f"%25{found[0][1:]}", stem[len(queue) + 1 :]
    )


def _in_an_id(text: str, chars_max: int) -> str:
    """Any text, so that an id may hold it: two texts never become one."""
    escaped = _ESCAPED.sub(lambda found: f"%{ord(found.group()):02X}", text)
    if len(escaped) <= chars_max and not _DIGEST.fullmatch(escaped):
        return escaped
    return "~" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def message_instance(queue: str, message_id: str) -> str:
    """The id of the instance that is a message. A message of a broker has one whatever its own id is.

    Raises:
        InvalidIdError: The id of the message is not usable.
    """
    if "." in queue:
        return prefix_of(queue) + _in_an_id(message_id, INSTANCE_ID_CHARS_MAX - len(prefix_of(queue)))
    instance_id = prefix_of(queue) + message_id
    room_to_move = 0 if queue.endswith(POISON) else len(POISON)
    most = INSTANCE_ID_CHARS_MAX - len(prefix_of(queue)) - room_to_move
    if not message_id or len(message_id) > most:
        raise InvalidIdError(
            f"Message id {message_id[:40]!r} has {len(message_id)} characters: expected 1 to {most} in queue '{queue}'"
        )
    return check_instance_id(instance_id)
