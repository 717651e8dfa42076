"""What a host that starts does for its queues: messages that waited for a function are told that there is one now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import msgspec

from durably.core.query import FIRST, InstanceQuery, Place
from durably.core.queues import BOUND, QUEUE, prefix_of
from durably.core.status import RuntimeStatus
from durably.errors import HubClosedError, OperationError, UsageError
from durably.management import Management
from durably.triggers.forgetting import Forgetting

_log = logging.getLogger("durably.queue")

_PAGE = 200


async def look_after_queues(management: Management, queues: Iterable[str], forgetting: Forgetting) -> None:
    """Wake the messages of some queues that found no function, and delete old ones. What comes later finds its way."""
    try:
        for queue in queues:
            await _wake(management, queue)
        await forgetting.forget_old()
    except HubClosedError:
        return
    except OperationError as error:
        _log.warning("messages that waited for a function still wait, for the next host: %s", error)


async def _wake(management: Management, queue: str) -> None:
    query = InstanceQuery(
        name=QUEUE,
        statuses=(RuntimeStatus.Running.value,),
        instance_id_prefix=prefix_of(queue),
        payloads=False,
        page_size=_PAGE,
    )
    after: Place | None = FIRST
    while after is not None:
        rows, after = await management.query(msgspec.structs.replace(query, after=after))
        waiting = [row.instance_id for row in rows if row.custom_status is not None]
        await asyncio.gather(*(_tell(management, instance_id) for instance_id in waiting))


async def _tell(management: Management, instance_id: str) -> None:
    try:
        await management.raise_event(instance_id, BOUND, None)
    except UsageError:
        pass  # it was deleted meanwhile
