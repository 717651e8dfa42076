"""Attempts of activities in the queue that all hosts of a hub share: their ids, and what their rows say."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from durably.core.commit import TaskRow, Unreadable
from durably.core.events import Payload, TaskScheduled

_RESULT: Final = "~task."
"""Beginning of the ids of messages with results. The first character says that no sender ever repeats them."""


class SharedCall(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a host needs to run an attempt, beside what its row shows. FORMAT: as of `durably.core.events`.

    Attributes:
        execution_id: The execution that made the call.
        seq: The call.
        attempt: The first attempt is 1.
        input: Of the activity.
        tags: Set by the caller of the activity.
        deliveries: How often the attempt was handed to a host before it came into the queue.
        detail: See `TaskScheduled.detail`.
    """

    execution_id: str
    seq: int
    attempt: int
    input: Payload
    tags: dict[str, str] | None = None
    deliveries: int = 0
    detail: bytes | None = None


class TaskInfo(NamedTuple):
    """An attempt in the queue, for people.

    Attributes:
        task_id: See `TaskRow`.
        name: The activity.
        at: When it was offered.
        host_id: The host that has claimed it; None when it waits for one.
    """

    task_id: str
    name: str
    at: int
    host_id: str | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(SharedCall).decode


def task_id(execution_id: str, seq: int, attempt: int) -> str:
    """The id of an attempt in the queue."""
    return f"{execution_id}:{seq:x}:{attempt}"


def seq_of(task: str) -> int:
    """The call that an attempt in the queue belongs to."""
    return int(task.split(":")[-2], 16)


def result_id(task: str) -> str:
    """The id of the message that tells the outcome of an attempt."""
    return _RESULT + task


def task_row(
    instance_id: str,
    execution_id: str,
    scheduled: TaskScheduled,
    attempt: int,
    *,
    now: int,
    deliveries: int = 0,
) -> TaskRow:
    """An attempt as a row of the queue.

    Args:
        instance_id: Whose call it is.
        execution_id: The execution that made it.
        scheduled: The call.
        attempt: The first one is 1.
        now: The clock.
        deliveries: See `SharedCall`.
    """
    seq = scheduled.seq
    call = SharedCall(
        execution_id, seq, attempt, scheduled.input, scheduled.tags, deliveries, scheduled.detail
    )
    return TaskRow(task_id(execution_id, seq, attempt), instance_id, scheduled.name, now, _encode(call))


def call_in(row: TaskRow) -> SharedCall:
    """What the row of an attempt says.

    Raises:
        msgspec.MsgspecError: It is damaged, encrypted with a key that is missing, or of a newer version.
    """
    if type(row.body) is Unreadable:
        raise msgspec.DecodeError(row.body.why)
    return _decode(row.body)
