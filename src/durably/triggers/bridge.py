"""From a queue of a broker to the hub: a message is received, becomes one of the hub, and is settled when that is durable.

A host that dies in between gets it again, under the id that the hub knows. Whatever comes after that (tries, delays, poison,
long runs) is the same as for queues of the hub.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from durably.bindings.broker import Broker, BrokerMessage, Source
from durably.client.posting import NotYetError, post_message
from durably.clock import Clock, Random
from durably.codec.convert import Converter
from durably.core.queues import POISON, QueueItem, message_instance
from durably.errors import BrokerError, HubClosedError, OperationError, UsageError
from durably.management import Management
from durably.triggers.bodies import kept
from durably.triggers.bound_queue import BoundQueue
from durably.triggers.outage import Outage, log, pause
from durably.triggers.window import Window

_AHEAD: Final = 2
"""So many times what may be in the function at once is taken over: the next ones are there when the first are done."""

_STOP_S: Final = 5.0
"""What is being taken over when a host stops may become durable within this time; else the broker delivers it again."""


class Bridge:
    """Takes over the messages of one queue.

    Args:
        bound: The queue.
        broker: That has it.
        converter: Of what the orchestrator of a message passes on.
    """

    _management: Management
    _clock: Clock
    _random: Random

    def __init__(self, bound: BoundQueue, broker: Broker, converter: Converter) -> None:
        self._bound = bound
        self._broker = broker
        self._converter = converter
        self._window = Window(_AHEAD * bound.function.max_concurrent)
        self._running: asyncio.Task[None] | None = None
        self._held: set[asyncio.Task[None]] = set()
        self._taking_over = False
        self._stopping = False

    def connect(self, management: Management, clock: Clock, random: Random) -> None:
        """Say which hub it is, before it starts."""
        self._management, self._clock, self._random = management, clock, random

    def tried(self, instance_id: str) -> None:
        """A message has been handed out."""
        self._window.leave(instance_id)

    def start(self) -> None:
        """Begin to take over, as soon as the broker is there."""
        self._running = asyncio.create_task(self._run(), name=f"durably-bridge-{self._bound.hub_queue}")

    async def stop(self) -> None:
        """Receive no more; settle what is durable; leave. Idempotent."""
        self._stopping = True
        running, self._running = self._running, None
        if running is None:
            return
        if self._taking_over:
            await asyncio.wait({running}, timeout=_STOP_S)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def _run(self) -> None:
        outage = Outage(str(self._bound))
        while not self._stopping:
            try:
                await self._serve(outage)
            except HubClosedError:
                return
            except OperationError as error:
                outage.began(error)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                outage.began(BrokerError("its client gave up when its connection was lost"))
            except Exception as error:  # noqa: BLE001 - of a client library; the queue must not stand still for good
                outage.began(error, unexpected=True)
            if not self._stopping:
                await pause(self._clock, outage.next_s())

    async def _serve(self, outage: Outage) -> None:
        source = await self._broker.source(self._bound.name, self._window.limit)
        try:
            outage.ended()
            while not self._stopping:
                room = await self._window.room(self._management, self._clock)
                messages = await source.receive(room)
                self._taking_over = True
                await self._take_over(source, messages)
                self._taking_over = False
                outage.forgotten()
        finally:
            self._taking_over = False
            await self._drop_held()
            await source.close()

    async def _take_over(self, source: Source, messages: Sequence[BrokerMessage]) -> None:
        """Settle those that are durable, also when others are not. One that must wait keeps no other one waiting."""
        posted = await asyncio.gather(*(self._post(message) for message in messages), return_exceptions=True)
        await source.settle([message for message, done in zip(messages, posted, strict=True) if done is True])
        for message, error in zip(messages, posted, strict=True):
            if isinstance(error, NotYetError):
                self._hold(source, message, error)
            elif isinstance(error, BaseException):
                raise error

    def _hold(self, source: Source, message: BrokerMessage, error: NotYetError) -> None:
        log.warning("message '%s' of %s is taken over later: %s", message.id, self._bound, error)
        holding = asyncio.create_task(self._later(source, message))
        self._held.add(holding)
        holding.add_done_callback(self._held.discard)

    async def _later(self, source: Source, message: BrokerMessage) -> None:
        """Try it again, ever more rarely, until the source is closed."""
        pauses = Outage(str(self._bound))
        while True:
            await pause(self._clock, pauses.next_s())
            try:
                if await self._post(message):
                    await source.settle([message])
                return
            except HubClosedError:
                return
            except OperationError:
                continue
            except Exception as error:  # noqa: BLE001 - of a client library; the broker delivers it again
                log.warning("message '%s' of %s stays there: %s", message.id, self._bound, error)
                return

    async def _drop_held(self) -> None:
        """The broker delivers them again."""
        held = list(self._held)
        for holding in held:
            holding.cancel()
        await asyncio.gather(*held, return_exceptions=True)

    async def _post(self, message: BrokerMessage) -> bool:
        """Make it one of the hub; True when it may be settled."""
        item = self._item(message)
        instance_id = message_instance(item.queue, item.id)
        self._window.enter(instance_id)  # before: its first try may be over before the start returns
        try:
            self._converter.encode({"item": msgspec.to_builtins(item), "count": 1_000_000})
            is_new = await post_message(
                self._management,
                self._converter,
                item,
                self._random.token(),
                fresh=not message.id,
            )
        except UsageError as error:
            self._window.leave(instance_id)
            return await self._refuse(item, message.body, error)
        except BaseException:
            self._window.leave(instance_id)
            raise
        if not is_new:
            self._window.leave(instance_id)  # the broker has delivered it again, or it was sent twice
        return True

    def _item(self, message: BrokerMessage) -> QueueItem:
        body, form = kept(message.body)
        sent_at = self._clock.now() if message.inserted_at is None else message.inserted_at
        message_id = message.id or self._random.token()
        return QueueItem(self._bound.hub_queue, message_id, body, sent_at, form=form)

    async def _refuse(self, item: QueueItem, body: bytes, error: UsageError) -> bool:
        """What the hub cannot hold is put aside; what is in a poison queue already stays where it is."""
        if self._bound.is_poison:
            log.error(
                "message '%s' of %s cannot be taken over and stays there: %s", item.id, self._bound, error
            )
            return False
        try:
            await self._broker.send(self._bound.name + POISON, body, message_id=item.id)
        except BrokerError as refusal:
            raise NotYetError(f"{error}; and it cannot be put aside: {refusal}") from refusal
        log.error("message '%s' of %s cannot be taken over and is put aside: %s", item.id, self._bound, error)
        return True
