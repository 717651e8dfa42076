"""The triggers of a host: what is built into it, and what it does for them when it starts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping

import msgspec

from durably.bindings.connections import Connections
from durably.bindings.outlets import Outlets
from durably.client import Client
from durably.clock import Clock, Random
from durably.codec.convert import Converter
from durably.core.blobs import BLOB
from durably.core.blobs import prefix_of as blobs_of
from durably.core.query import FIRST, InstanceQuery, Place
from durably.core.queues import BOUND, QUEUE, prefix_of
from durably.core.status import RuntimeStatus
from durably.errors import DurablyError, HubClosedError, UsageError
from durably.management import Management
from durably.triggers.blob_function import BlobFunctions
from durably.triggers.blob_host import BlobTriggers
from durably.triggers.bound_queue import BoundQueue
from durably.triggers.bridge import Bridge
from durably.triggers.forgetting import Forgetting
from durably.triggers.options import BlobOptions, QueueOptions
from durably.triggers.queue_activity import QueueActivity
from durably.triggers.queue_orchestrator import DELIVERING
from durably.triggers.timer_function import TIMER
from durably.triggers.timer_runs import RINGING, TimerActivity
from durably.triggers.triggerable import Triggerable

_log = logging.getLogger("durably.triggers")

_PAGE = 200


class TriggerHost:
    """The queues, timers and blobs of a host.

    Attributes:
        builtins: What the executor of the host has to have, whatever the app.

    Args:
        functions: Of the app.
        converter: Of bodies.
        time_limit_s: See `EngineOptions.function_timeout_s`.
        settings: For what functions leave to them; the environment by default.
        connections: To brokers; None: none is asked, the functions of their queues wait for messages that come otherwise.
        looks: False: nobody looks at containers of blobs.

    Raises:
        UsageError: A setting is wrong or missing.
    """

    _client: Client
    _management: Management
    _clock: Clock
    _random: Random
    _outlets: Outlets

    def __init__(
        self,
        functions: Triggerable,
        converter: Converter,
        time_limit_s: float,
        settings: Mapping[str, str] | None,
        *,
        connections: Connections | None = None,
        looks: bool = True,
    ) -> None:
        queues = functions.queue_functions.resolved(QueueOptions.from_environment(settings), settings)
        self._queues = [BoundQueue(function, connections) for function in queues]
        self._converter = converter
        self._timers = functions.timer_functions
        blobs = functions.blob_functions if looks else BlobFunctions()
        self._blobs = blobs.resolved(BlobOptions.from_environment(settings), settings)
        self._blob_triggers = BlobTriggers(self._blobs, time_limit_s)
        self._handing = [QueueActivity(bound, converter, time_limit_s) for bound in self._queues]
        self._bridges: list[Bridge] = []
        self._ringing = TimerActivity(self._timers, time_limit_s)
        activities = (self._ringing.registered(), *(one.registered() for one in self._handing))
        self.builtins = (DELIVERING, RINGING, *activities, *self._blob_triggers.builtins)
        self._forgetting: list[Forgetting] = []
        self._looking: asyncio.Task[None] | None = None

    def connect(
        self,
        client: Client,
        management: Management,
        clock: Clock,
        random: Random,
        keep_s: float,
        *,
        outlets: Outlets,
    ) -> None:
        """Say which hub it is, before anything runs.

        Args:
            client: What functions get.
            management: Of the hub.
            clock: Of the host.
            random: Of the host.
            keep_s: See `EngineOptions.queue_keep_s`.
            outlets: Where outputs of functions go.

        Raises:
            RegistrationError: The connection of a blob function is no store.
        """
        self._client, self._management, self._outlets = client, management, outlets
        self._clock, self._random = clock, random
        keep_us = int(keep_s * 1_000_000)
        messages, runs, blobs = (
            Forgetting(management, clock, keep_us, name) for name in (QUEUE, TIMER, BLOB)
        )
        for activity in self._handing:
            activity.connect(client, outlets, messages)
        self._ringing.connect(client, outlets, runs)
        self._blob_triggers.connect(client, management, outlets, blobs)
        kinds = ((messages, self._queues), (runs, self._timers), (blobs, self._blobs))
        self._forgetting = [forgetting for forgetting, functions in kinds if len(functions)]

    def check(self) -> None:
        """Find out at the start of a host what would fail at the first message.

        Raises:
            RegistrationError: A function has a parameter that nothing would fill, or an output that cannot be written; a
                setting of a connection is missing or of no use.
        """
        for function in (*(bound.function for bound in self._queues), *self._timers, *self._blobs):
            function.check(self._outlets)
        self._bridges = []
        for activity in self._handing:
            broker = activity.bound.broker
            if broker is not None:
                bridge = Bridge(activity.bound, broker, self._converter)
                activity.tried = bridge.tried
                self._bridges.append(bridge)

    def start(self) -> None:
        """Wake messages that found no function, run timers that run at the start, delete old runs; beside all else.

        And take over what brokers have, once they can be reached.
        """
        for bridge in self._bridges:
            bridge.connect(self._management, self._clock, self._random)
            bridge.start()
        if self._forgetting:
            self._looking = asyncio.create_task(self._look_after(), name="durably-triggers")
        self._blob_triggers.start()

    async def stop(self) -> None:
        """Leave off: take over nothing more, before the host lets go of anything. Idempotent."""
        if self._bridges:  # else nothing is waited for: the host refuses new work from now on
            await asyncio.gather(*(bridge.stop() for bridge in self._bridges))
        await self._blob_triggers.stop()
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _look_after(self) -> None:
        for bound in self._queues:
            waking = _wake(self._management, QUEUE, prefix_of(bound.hub_queue))
            await _tried(waking, f"waking messages of {bound}")
        for blob in self._blobs:
            waking = _wake(self._management, BLOB, blobs_of(blob.name))
            await _tried(waking, f"waking blobs of '{blob.name}'")
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
    except Exception as error:  # noqa: BLE001 - of a store or a library
        _log.warning("%s is left to the next host: %s", what, error, exc_info=error)


async def _wake(management: Management, name: str, prefix: str) -> None:
    query = InstanceQuery(
        name=name,
        statuses=(RuntimeStatus.Running.value,),
        instance_id_prefix=prefix,
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
