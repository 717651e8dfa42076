"""The triggers of a host: what is built into it, and what it does for them when it starts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

import msgspec

from durably.client import Client
from durably.clock import Clock
from durably.codec.convert import Converter
from durably.core.query import FIRST, InstanceQuery, Place
from durably.core.queues import BOUND, QUEUE, prefix_of
from durably.core.status import RuntimeStatus
from durably.errors import DurablyError, HubClosedError, UsageError
from durably.management import Management
from durably.triggers.forgetting import Forgetting
from durably.triggers.queue_activity import QueueActivity
from durably.triggers.queue_function import QueueFunctions
from durably.triggers.queue_orchestrator import DELIVERING
from durably.triggers.timer_function import TIMER, TimerFunctions
from durably.triggers.timer_runs import RINGING, TimerActivity

_log = logging.getLogger("durably.triggers")

_PAGE = 200


class TriggerHost:
    """The queues and timers of a host.

    Attributes:
        builtins: What the executor of the host has to have, whatever the app.

    Args:
        queues: Functions of the app.
        timers: Functions of the app.
        converter: Of bodies.
    """

    _client: Client
    _management: Management

    def __init__(self, queues: QueueFunctions, timers: TimerFunctions, converter: Converter) -> None:
        self._queues = queues
        self._timers = timers
        self._handing = [QueueActivity(function, converter) for function in queues]
        self._ringing = TimerActivity(timers)
        activities = (self._ringing.registered(), *(one.registered() for one in self._handing))
        self.builtins = (DELIVERING, RINGING, *activities)
        self._forgetting: list[Forgetting] = []
        self._looking: asyncio.Task[None] | None = None

    def connect(self, client: Client, management: Management, clock: Clock, keep_s: float) -> None:
        """Say which hub it is, before anything runs.

        Args:
            client: What functions get.
            management: Of the hub.
            clock: Of the host.
            keep_s: See `EngineOptions.queue_keep_s`.
        """
        self._client, self._management = client, management
        keep_us = int(keep_s * 1_000_000)
        messages, runs = (Forgetting(management, clock, keep_us, name) for name in (QUEUE, TIMER))
        for activity in self._handing:
            activity.connect(client, messages)
        self._ringing.connect(client, runs)
        self._forgetting = [messages] * bool(len(self._queues)) + [runs] * bool(len(self._timers))

    def check(self) -> None:
        """Find out at the start of a host what would fail at the first message.

        Raises:
            RegistrationError: A function has a parameter that nothing would fill.
        """
        for function in (*self._queues, *self._timers):
            function.check()

    def start(self) -> None:
        """Wake messages that found no function, run timers that run at the start, delete old runs; beside all else."""
        if self._forgetting:
            self._looking = asyncio.create_task(self._look_after(), name="durably-triggers")

    async def stop(self) -> None:
        """Leave off. Idempotent."""
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _look_after(self) -> None:
        for function in self._queues:
            await _tried(
                _wake(self._management, function.queue), f"waking messages of queue '{function.queue}'"
            )
        for timer in self._timers:
            if timer.run_on_startup:
                run = self._client.schedules.trigger(timer.schedule_id)
                await _tried(run, f"running timer '{timer.name}' at the start")
        for forgetting in self._forgetting:
            await _tried(forgetting.forget_old(), "deleting what was dealt with")


async def _tried(work: Awaitable[object], what: str) -> None:
    """Do one thing; that it fails keeps none of the others from being done."""
    try:
        await work
    except HubClosedError:
        return
    except DurablyError as error:
        _log.warning("%s is left to the next host: %s", what, error)


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
