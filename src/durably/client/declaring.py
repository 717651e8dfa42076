"""Schedules in code: what a host that starts makes of those that its app declares."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from durably.clock import Clock
from durably.core.entities import EntityId
from durably.core.messages import CallEntity
from durably.core.query import PAGE_SIZE_MAX, EntityQuery
from durably.errors import EntityCorruptError, OperationError, StoreUnavailableError
from durably.management import Management
from durably.schedules import orders
from durably.schedules.description import state_of
from durably.schedules.spec import SCHEDULE, Spec
from durably.schedules.state import ScheduleState

_RETRY_US = 5_000_000

_log = logging.getLogger("durably.schedules")


class Declarations:
    """The schedules of an app, on their way to the hub. A disk that is full does not keep a host from starting.

    Args:
        management: Of the hub.
        specs: By id of the schedule.
        clock: For the next attempt.
    """

    def __init__(self, management: Management, specs: Mapping[str, Spec], clock: Clock) -> None:
        self._management = management
        self._specs = specs
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    async def make(self) -> None:
        """Declare them, and see whether the app had others before; where the hub takes nothing now, go on trying."""
        if not await self._made():
            self._task = asyncio.get_running_loop().create_task(self._go_on())

    async def _go_on(self) -> None:
        while True:
            over = asyncio.Event()
            wakeup = self._clock.call_later(_RETRY_US, over.set)
            try:
                await over.wait()
            finally:
                wakeup.cancel()
            if await self._made():
                return

    async def _made(self) -> bool:
        """False when it has to be tried again."""
        try:
            await declare(self._management, self._specs)
        except StoreUnavailableError as error:
            _log.warning("the schedules of the app are not declared yet, trying again: %s", error)
            return False
        except (
            OperationError
        ) as error:  # the hub was let go of, or is lost to this host, which says so itself
            _log.warning("the schedules of the app are not declared: %s", error)
        return True

    async def close(self) -> None:
        """Give up what has not been taken yet; the next host declares it."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def declare(management: Management, specs: Mapping[str, Spec]) -> None:
    """Let the hub have the schedules of an app. Those that are as declared are left alone; idempotent.

    One that is new is created; one that is different becomes as declared, and keeps what it counted, and whether it is
    paused. One that code declared once, and does not any more, goes on and says so. Several hosts may do it at once.

    Args:
        management: Of the hub.
        specs: By id of the schedule.

    Raises:
        OperationError: The hub takes nothing now.
    """
    found = await _schedules(management)
    for schedule_id, spec in specs.items():
        state = found.get(schedule_id)
        if state is None or not state.declared or state.spec != spec:
            await _order(management, schedule_id, orders.DECLARE, orders.DeclareOrder(spec))
    for schedule_id, state in found.items():
        if state.declared and schedule_id not in specs:
            await _order(management, schedule_id, orders.UNDECLARE, orders.NoInput())


async def _schedules(management: Management) -> dict[str, ScheduleState]:
    found: dict[str, ScheduleState] = {}
    query = EntityQuery(name=SCHEDULE, prefix=f"@{SCHEDULE}@", page_size=PAGE_SIZE_MAX)
    while True:
        page = await management.query_entities(query)
        for row in page.rows:
            try:
                state = state_of(row)
            except EntityCorruptError:  # its order says so
                continue
            if state is not None:
                found[EntityId.parse(row.instance_id).key] = state
        if page.next_after is None:
            return found
        query = msgspec.structs.replace(query, after=page.next_after)


async def _order(management: Management, schedule_id: str, operation: str, order: Any) -> None:
    call = CallEntity(operation, msgspec.json.encode(order))
    await management.signal_entity(str(EntityId(SCHEDULE, schedule_id)), call)
