"""The queues of a host: what is built into it, and what it does for them when it starts."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from durably.client import Client
from durably.clock import Clock
from durably.codec.convert import Converter
from durably.core.query import FIRST, InstanceQuery, Place
from durably.core.queues import BOUND, QUEUE, prefix_of
from durably.core.status import RuntimeStatus
from durably.errors import HubClosedError, OperationError, UsageError
from durably.management import Management
from durably.triggers.forgetting import Forgetting
from durably.triggers.queue_activity import QueueActivity
from durably.triggers.queue_function import QueueFunctions
from durably.triggers.queue_orchestrator import DELIVERING

_log = logging.getLogger("durably.queue")

_PAGE = 200


class QueueHost:
    """The queues of a host.

    Attributes:
        builtins: What the executor of the host has to have, whatever the app.

    Args:
        functions: Of the app.
        converter: Of bodies.
    """

    def __init__(self, functions: QueueFunctions, converter: Converter) -> None:
        self._functions = functions
        self._activity = QueueActivity(functions, converter)
        self.builtins = (self._activity.registered(), DELIVERING)
        self._management: Management | None = None
        self._forgetting: Forgetting | None = None
        self._looking: asyncio.Task[None] | None = None

    def connect(self, client: Client, management: Management, clock: Clock, keep_s: float) -> None:
        """Say which hub it is, before anything runs.

        Args:
            client: What functions get.
            management: Of the hub.
            clock: Of the host.
            keep_s: See `EngineOptions.queue_keep_s`.
        """
        self._management = management
        self._forgetting = Forgetting(management, clock, int(keep_s * 1_000_000))
        self._activity.connect(client, self._forgetting)

    def check(self) -> None:
        """Find out at the start of a host what would fail at the first message.

        Raises:
            RegistrationError: A function has a parameter that nothing would fill.
        """
        for function in self._functions:
            function.check()

    def start(self) -> None:
        """Wake the messages that found no function, and delete old ones, beside everything else."""
        if len(self._functions):
            self._looking = asyncio.create_task(self._look_after(), name="durably-queues")

    async def stop(self) -> None:
        """Leave off. Idempotent."""
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _look_after(self) -> None:
        if self._management is None or self._forgetting is None:
            return
        try:
            for function in self._functions:
                await _wake(self._management, function.queue)
            await self._forgetting.forget_old()
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
