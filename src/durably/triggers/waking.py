"""Tells messages that waited for a function that there is one now."""

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

_log = logging.getLogger("durably.queue")

_PAGE = 200


async def wake_bound(management: Management, queues: Iterable[str]) -> None:
    """Wake the messages of some queues that found no function. What comes later finds it by itself."""
    for queue in queues:
        try:
            await _wake(management, queue)
        except HubClosedError:
            return
        except OperationError as error:
            _log.warning("messages of queue '%s' that waited for a function still wait: %s", queue, error)


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
