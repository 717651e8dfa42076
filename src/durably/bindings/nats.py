"""Queues in JetStream of NATS: a durable pull consumer of a stream hands messages out until they are acknowledged."""

from __future__ import annotations

import asyncio
import re
import ssl
from hashlib import blake2b
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from durably.bindings.nats_source import ID, OUR_ID, Connection, NatsSource
from durably.bindings.options import check_url, seconds, without_options
from durably.clock import Clock
from durably.errors import BrokerError, RegistrationError

CONSUMER: Final = "durably"

_ACK_WAIT_S: Final = 30.0
_OTHERS: Final = re.compile(r"[^A-Za-z0-9_-]")


def make(url: str, clock: Clock) -> NatsBroker:
    """See `durably.bindings.connections`. Nothing is connected yet.

    Raises:
        RegistrationError: An option of the URL is not usable.
    """
    return NatsBroker(url)


class _Place(NamedTuple):
    """Where a queue is.

    Attributes:
        stream: That keeps it.
        subject: Where messages to it go; None: the subjects of the stream are patterns.
        part: The subject, when the stream keeps more than this queue.
    """

    stream: str
    subject: str | None
    part: str | None

    @property
    def consumer(self) -> str:
        """Two parts of a stream have a consumer each."""
        return CONSUMER if self.part is None else f"{CONSUMER}-{_plain(self.part)}"


class NatsBroker:
    """A `Broker` of NATS.

    Args:
        url: ``nats://`` or ``tls://``, several with commas between them; ``ack_wait_s`` says after how many seconds a
            message that a process has taken without another sign of life is handed out again; ``cafile`` is a file with the
            certificates that vouch for the servers.
    """

    def __init__(self, url: str) -> None:
        for server in url.split(","):  # the others may be without scheme, but not with a password then
            check_url(server if "://" in server or "@" in server else f"nats://{server}", "NATS")
        url, options = without_options(url, "ack_wait_s", "cafile")
        others = [name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)]
        if others:
            raise RegistrationError(
                f"The connection to NATS has the options {others}: expected ack_wait_s, cafile or none"
            )
        self._servers = url.split(",")
        self._tls = _authority(options["cafile"]) if "cafile" in options else None
        self._ack_wait_s = seconds(options, "ack_wait_s", _ACK_WAIT_S, least=0.5)
        self._where = ", ".join(_where(server) for server in self._servers)
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._sources: set[NatsSource] = set()
        self._places: dict[str, _Place] = {}
        self._closed = False

    async def source(self, queue: str, prefetch: int) -> NatsSource:
        """See `Broker.source`."""
        connection = await self._connected()
        place = await connection.doing(self._place(connection, queue))
        info = await connection.doing(self._consumer(connection, place))
        _check_consumer(info, place, queue)
        source = NatsSource(
            connection, place.stream, place.consumer, prefetch, info.config.ack_wait or self._ack_wait_s
        )
        await connection.doing(source.begin())
        self._sources.add(source)
        source.when_closed = lambda: self._sources.discard(source)
        return source

    async def send(self, queue: str, body: bytes, *, message_id: str, delay_s: float = 0.0) -> None:
        """See `Broker.send`."""
        if delay_s > 0:
            raise BrokerError(
                f"NATS knows no delay, and a message to '{queue}' has one of {delay_s:g} s: expected none; "
                "a queue of the hub delays"
            )
        connection = await self._connected()
        place = self._places.get(queue) or await connection.doing(self._place(connection, queue))
        if place.subject is None:
            raise BrokerError(
                f"The stream '{queue}' of NATS at {self._where} takes subjects by patterns: expected one of its subjects "
                "as the name of the queue to send to"
            )
        try:
            await connection.doing(_publish(connection.jet, place, body, message_id))
        except BrokerError:
            self._places.pop(queue, None)  # maybe its stream was deleted
            raise

    async def close(self) -> None:
        """See `Broker.close`."""
        self._closed = True
        await asyncio.gather(*(source.close() for source in list(self._sources)))
        async with self._connecting:
            if self._connection is not None:
                await self._connection.close()

    async def _connected(self) -> Connection:
        async with self._connecting:
            if self._closed:
                raise BrokerError(f"The connection to NATS at {self._where} is closed")
            if self._connection is None or self._connection.lost.is_set():
                self._places.clear()
                self._connection = await Connection.open(self._servers, self._where, self._tls)
            return self._connection

    async def _place(self, connection: Connection, queue: str) -> _Place:
        """A stream of this name, else the one that keeps this subject, else a new one."""
        _check_subject(queue)
        place = await self._stream(connection, queue) or await self._subject(connection, queue)
        if place is None:
            name = _plain(queue)
            config = StreamConfig(
                name=name,
                subjects=[queue],
                retention=RetentionPolicy.WORK_QUEUE,
                storage=StorageType.FILE,
            )
            await connection.jet.add_stream(config)  # pyright: ignore[reportUnknownMemberType] - its **params
            place = _Place(name, queue, None)
        self._places[queue] = place
        return place

    async def _stream(self, connection: Connection, queue: str) -> _Place | None:
        if _OTHERS.search(queue):
            return None
        try:
            info = await connection.jet.stream_info(queue)
        except NotFoundError:
            return None
        subjects = info.config.subjects or []
        plain = [subject for subject in subjects if not set(subject.split(".")) & {"*", ">"}]
        return _Place(queue, queue if queue in plain else next(iter(plain), None), None)

    async def _subject(self, connection: Connection, queue: str) -> _Place | None:
        try:
            stream = await connection.jet.find_stream_name_by_subject(queue)
        except NotFoundError:
            return None
        info = await connection.jet.stream_info(stream)
        return _Place(stream, queue, None if info.config.subjects == [queue] else queue)

    async def _consumer(self, connection: Connection, place: _Place) -> ConsumerInfo:
        try:
            return await connection.jet.consumer_info(place.stream, place.consumer)
        except NotFoundError:
            config = ConsumerConfig(
                durable_name=place.consumer,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=self._ack_wait_s,
                max_ack_pending=-1,  # each source has a limit of its own
                filter_subject=place.part,
            )
            return await connection.jet.add_consumer(place.stream, config)  # pyright: ignore[reportUnknownMemberType] - its **params


async def _publish(jet: JetStreamContext, place: _Place, body: bytes, message_id: str) -> None:
    """Publish a message: it is in the stream on return, under this id.

    NATS drops what has an id that the stream has seen within its window, also when that was another subject's message, or
    one that is settled. So a subject of a stream has ids of its own, and what was dropped is published once more unless it
    is there.
    """
    subject = place.subject or ""
    if not message_id:
        await jet.publish(subject, body)
        return
    headers = {ID: message_id}
    if place.part is not None:
        headers = {ID: f"{place.part}:{message_id}", OUR_ID: message_id}
    ack = await jet.publish(subject, body, headers=headers)
    if ack.duplicate and not await _holds(jet, place.stream, ack.seq, subject):
        await jet.publish(subject, body, headers={OUR_ID: message_id})


async def _holds(jet: JetStreamContext, stream: str, sequence: int, subject: str) -> bool:
    try:
        return (await jet.get_msg(stream, sequence)).subject == subject
    except NotFoundError:
        return False


def _check_consumer(info: ConsumerInfo, place: _Place, queue: str) -> None:
    if info.config.deliver_subject or info.config.ack_policy != AckPolicy.EXPLICIT:
        raise BrokerError(
            f"The consumer '{place.consumer}' of the stream '{place.stream}' of NATS cannot serve the queue '{queue}': "
            "expected one that pulls and acknowledges each message (ack policy explicit); delete it, or make such a one"
        )


def _check_subject(queue: str) -> None:
    parts = queue.split(".")
    if not all(parts) or queue.startswith("$") or {"*", ">"} & set(parts) or re.search(r"\s", queue):
        raise BrokerError(
            f"NATS can have no queue {queue!r}: expected the name of a stream, or a subject without patterns and spaces"
        )


def _plain(queue: str) -> str:
    """A name that streams may have, different for different queues."""
    plain = _OTHERS.sub("-", queue)
    return plain if plain == queue else f"{plain}-{blake2b(queue.encode(), digest_size=4).hexdigest()}"


def _authority(file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=file)
    except OSError as error:
        raise RegistrationError(
            f"The connection to NATS has cafile={file!r}, which is not usable: {error}; expected certificates in PEM"
        ) from None


def _where(url: str) -> str:
    """The address without user and password."""
    return urlsplit(url).netloc.rpartition("@")[2]
