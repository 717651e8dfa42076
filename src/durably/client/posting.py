"""How a message gets into a queue of the hub: once under its id, whoever sends it, and however often."""

from __future__ import annotations

from typing import Final

import msgspec

from durably.codec.convert import Converter
from durably.core.commit import InstanceRow
from durably.core.messages import StartInstance
from durably.core.queues import ASIDE_SOON, PUT_ASIDE, QUEUE, QueueItem, message_instance
from durably.core.status import RuntimeStatus
from durably.errors import InstanceAlreadyExistsError, OperationError
from durably.management import Management

_TRIES: Final = 3
"""Somebody may delete what is in the way just when it was found."""


class NotYetError(OperationError):
    """Of one message: it can be sent a little later."""


async def post_message(
    management: Management,
    converter: Converter,
    item: QueueItem,
    execution_id: str,
    *,
    start_at: int | None = None,
    fresh: bool = False,
    may_be_again: bool = True,
) -> bool:
    """Make a message durable.

    Args:
        management: Of the hub.
        converter: Of the hub's orchestrators.
        item: The message.
        execution_id: A random one.
        start_at: Not before, in microseconds since 1970 UTC.
        fresh: Its id was drawn at random just now.
        may_be_again: One that was put aside was not dealt with: under its id it may be sent again.

    Returns:
        False when it was sent before.

    Raises:
        InstanceAlreadyExistsError: An instance that is no message has its id.
        NotYetError: It cannot be said yet whether it was dealt with; nothing was sent.
    """
    instance_id = message_instance(item.queue, item.id)
    data = msgspec.json.encode(item)
    start = StartInstance(QUEUE, data, execution_id, "", start_at=start_at, on_existing="fail", fresh=fresh)
    for _ in range(_TRIES):
        try:
            await management.start(instance_id, start)
        except InstanceAlreadyExistsError:
            row = await management.get(instance_id)
            again = row is not None and _is_over(row, converter, may_be_again=may_be_again)
            if row is not None and not again:
                return False
            start = msgspec.structs.replace(start, on_existing="replace_finished" if again else "fail")
        else:
            return True
    raise NotYetError(
        f"Message '{item.id}' cannot be sent to queue '{item.queue}' now, others send and delete it: try again"
    )


def _is_over(row: InstanceRow, converter: Converter, *, may_be_again: bool) -> bool:
    """Whether what has its id is a message that was put aside, which this one takes the place of."""
    if row.name != QUEUE:
        raise InstanceAlreadyExistsError(row.instance_id, row.status, row.name)
    if not may_be_again:
        return False
    if row.status == RuntimeStatus.Running.value and row.custom_status == converter.encode(ASIDE_SOON):
        raise NotYetError(
            f"Message '{row.instance_id}' is just being put aside, so it cannot be said yet whether this is one that comes "
            "back from there: try again"
        )
    return row.status == RuntimeStatus.Completed.value and row.output == converter.encode(PUT_ASIDE)
