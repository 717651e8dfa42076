"""RabbitMQ: durable queues over AMQP 0-9-1.

A queue is taken as it is. One that is not there yet is made durable, of the type that the operator has set for new ones: a
producer that declares it the usual way agrees with that, while a type that we name would refuse one of the two. RabbitMQ has
no delays of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import aiormq
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from aiormq.exceptions import AMQPError, ChannelInvalidStateError, ChannelNotFoundEntity, PublishError
from pamqp.commands import Basic
from pamqp.exceptions import PAMQPException
from yarl import URL

from durably.bindings.broker import BrokerMessage
from durably.bindings.options import check_url
from durably.clock import Clock
from durably.core.timeline import instant
from durably.errors import BrokerError, RegistrationError

_PATIENCE_S: Final = 10.0
"""A server that does not answer for so long is not there: it may also have stopped reading, when its disk is full."""

_HEARTBEAT_S: Final = "10"
"""A connection that is dead without having been closed is noticed after three of these; the URL may say otherwise."""

_ERRORS: Final = (AMQPError, ChannelInvalidStateError, PAMQPException, OSError, ValueError)
"""What the library raises: also for what was lost meanwhile, and for a name that it cannot send."""

# It tells of each attempt to connect as an error. Whoever uses a broker says once that it is away.
if logging.getLogger("aiormq").level == logging.NOTSET:
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)


def make(url: str, clock: Clock) -> RabbitBroker:
    """The broker at a URL such as ``amqps://user:password@host/vhost?cafile=/etc/ca.pem``; nothing is connected yet.

    Raises:
        RegistrationError: It is no URL.
    """
    check_url(url, "RabbitMQ")
    try:
        parsed = URL(url)
        port = parsed.port
    except ValueError:
        parsed = port = None
    if parsed is None or not parsed.host:  # the value is not shown: it may hold a password
        raise RegistrationError(
            "The URL of RabbitMQ is not usable: expected amqp://user:password@host:5672/vhost, with special characters of "
            "the password as %XX"
        )
    if "heartbeat" not in parsed.query:
        parsed = parsed.update_query(heartbeat=_HEARTBEAT_S)
    return RabbitBroker(
        parsed, f"{parsed.host}:{port or (5671 if parsed.scheme == 'amqps' else 5672)}", clock
    )


class RabbitBroker:
    """See `Broker`. One connection, made when it is first needed and again when it was lost.

    Args:
        url: With credentials.
        address: Without.
        clock: Says when a message was sent.
    """

    def __init__(self, url: URL, address: str, clock: Clock) -> None:
        self._url = url
        self._address = address
        self._clock = clock
        self._closed = False
        self._opening = asyncio.Lock()
        self._connection: AbstractConnection | None = None
        self._sending: AbstractChannel | None = None
        self._known: set[str] = set()
        """Queues that were there since it was connected."""

    async def source(self, queue: str, prefetch: int) -> _RabbitSource:
        """See `Broker.source`."""
        with _told(self._address, f"queue '{queue}'"):
            async with asyncio.timeout(_PATIENCE_S):
                connection = await self._connected()
                await _make_sure(connection, queue)
                channel = await connection.channel(publisher_confirms=False)
                source = _RabbitSource(channel, self._address, queue)
                await channel.basic_qos(prefetch_count=prefetch)
                await channel.basic_consume(queue, source.arrived)
                return source

    async def send(self, queue: str, body: bytes, *, message_id: str, delay_s: float = 0.0) -> None:
        """See `Broker.send`. It has delays only where a plug-in was added to it, so they are refused."""
        if delay_s > 0:
            raise BrokerError(
                f"Message '{message_id}' has a delay, which RabbitMQ does not know: expected delay_s=0"
            )
        with _told(self._address, f"queue '{queue}'"):
            try:
                await self._publish(queue, body, message_id)
            except PublishError:  # it came back: the queue was deleted since
                self._known.discard(queue)
                await self._publish(queue, body, message_id)

    async def close(self) -> None:
        """See `Broker.close`."""
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                async with asyncio.timeout(_PATIENCE_S):
                    await connection.close()

    async def _publish(self, queue: str, body: bytes, message_id: str) -> None:
        properties = Basic.Properties(
            delivery_mode=2,
            message_id=message_id,
            timestamp=instant(self._clock.now()).replace(microsecond=0),
        )
        async with asyncio.timeout(_PATIENCE_S):
            channel = await self._channel_for(queue)
            # Mandatory: what no queue takes comes back instead of being confirmed and dropped.
            await channel.basic_publish(body, routing_key=queue, properties=properties, mandatory=True)

    async def _channel_for(self, queue: str) -> AbstractChannel:
        connection = await self._connected()
        async with self._opening:
            if queue not in self._known:
                await _make_sure(connection, queue)
                self._known.add(queue)
            if self._sending is None or self._sending.is_closed:
                self._sending = await connection.channel(publisher_confirms=True)
            return self._sending

    async def _connected(self) -> AbstractConnection:
        async with self._opening:
            if self._closed:
                raise BrokerError(f"The connection to RabbitMQ at {self._address} was closed by this host")
            if self._connection is None or self._connection.is_closed:
                self._known.clear()
                self._sending = None
                self._connection = await aiormq.connect(self._url)
            return self._connection


@contextmanager
def _told(address: str, what: str) -> Generator[None]:
    """Errors of the library become ours."""
    try:
        yield
    except BrokerError:
        raise
    except TimeoutError as error:
        raise BrokerError(f"RabbitMQ at {address} has not answered for {_PATIENCE_S:g} s ({what})") from error
    except _ERRORS as error:
        raise BrokerError(f"RabbitMQ at {address}: {_reason(error)} ({what})") from error
    except asyncio.CancelledError:
        # The library cancels what waits on a connection that goes away.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise BrokerError(f"The connection to RabbitMQ at {address} was lost ({what})") from None


class _RabbitSource:
    """See `Source`. A channel of its own: closing it gives back what was not settled."""

    def __init__(self, channel: AbstractChannel, address: str, queue: str) -> None:
        self._channel = channel
        self._address = address
        self._queue = queue
        self._messages: deque[BrokerMessage] = deque()
        self._taken: set[int] = set()
        self._woken = asyncio.Event()
        self._over = ""
        closing: asyncio.Future[Any] = channel.closing  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        closing.add_done_callback(self._ended)
        channel.on_consumer_cancel_callbacks.add(self._cancelled)

    async def arrived(self, delivered: DeliveredMessage) -> None:
        """The library has a message."""
        self._messages.append(_message(delivered))
        self._woken.set()

    def _ended(self, closing: asyncio.Future[Any]) -> None:
        error = None if closing.cancelled() else closing.exception()
        self._end("the connection was lost" if error is None else _reason(error))

    def _cancelled(self, frame: Any) -> None:
        self._end("the queue was deleted")

    def _end(self, reason: str) -> None:
        self._over = self._over or reason
        self._woken.set()

    async def receive(self, limit: int) -> list[BrokerMessage]:
        """See `Source.receive`."""
        while self._over or not self._messages:
            if self._over:
                raise BrokerError(f"RabbitMQ at {self._address}: {self._over}")
            self._woken.clear()
            await self._woken.wait()
        taken = [self._messages.popleft() for _ in range(min(limit, len(self._messages)))]
        self._taken.update(message.receipt for message in taken)
        return taken

    async def settle(self, messages: Sequence[BrokerMessage]) -> None:
        """See `Source.settle`."""
        tags = sorted(message.receipt for message in messages)
        self._taken.difference_update(tags)
        if not tags:
            return
        multiple = all(tag > tags[-1] for tag in self._taken)
        if multiple:
            tags = tags[-1:]  # it stands for all before it
        with _told(self._address, f"queue '{self._queue}'"):
            for tag in tags:
                await self._channel.basic_ack(tag, multiple=multiple, wait=tag == tags[-1])

    async def close(self) -> None:
        """See `Source.close`."""
        self._end("it was closed by this host")
        with suppress(Exception):
            async with asyncio.timeout(_PATIENCE_S):
                await self._channel.close()


async def _make_sure(connection: AbstractConnection, queue: str) -> None:
    """Make a queue that is not there; take one that is, however it was made."""
    asking = await connection.channel(publisher_confirms=False)
    try:
        await asking.queue_declare(queue, passive=True)
    except ChannelNotFoundEntity:  # which closes the channel
        making = await connection.channel(publisher_confirms=False)
        await making.queue_declare(queue, durable=True)
        await making.close()
        return
    await asking.close()


def _message(delivered: DeliveredMessage) -> BrokerMessage:
    properties = delivered.header.properties
    # Quorum queues count. Of the others it is known that it was delivered before, not how often.
    count: Any = (properties.headers or {}).get("x-delivery-count")
    again = 2 if delivered.redelivered else 1
    sent = properties.timestamp
    return BrokerMessage(
        properties.message_id or "",
        delivered.body,
        max(count + 1, again) if isinstance(count, int) else again,
        None if sent is None else int(sent.timestamp() * 1_000_000),
        delivered.delivery_tag,
    )


def _reason(error: BaseException) -> str:
    return " ".join(str(part) for part in error.args if part) or type(error).__name__
